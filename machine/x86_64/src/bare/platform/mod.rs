//! The PC around the CPUs, as the hypervisor drives it and as it plays it for domains.

/// The machine's own devices.
pub struct Host {}

impl Host {
    /// Nanoseconds since reset.
    #[must_use]
    pub fn now(&self) -> u64 {
        0
    }

    /// Seconds since 1970 when [`now`](Self::now) was 0.
    #[must_use]
    pub fn wall_clock(&self) -> Option<u64> {
        None
    }

    /// Switches the machine off.
    pub fn power_off(&self) {}

    /// Resets the machine.
    pub fn reset(&self) {}
}

/// The devices that the hypervisor plays for a domain.
pub struct Devices {}

impl Devices {
    /// Machine addresses and bytes of the registers that the hypervisor answers.
    #[must_use]
    pub fn trapped(&self) -> alloc::vec::Vec<(u64, u64)> {
        alloc::vec::Vec::new()
    }

    /// Puts all of them into the state of reset.
    pub fn reset(&self) {}

    /// Chooses how upcalls reach the domain; whether that way is there.
    #[must_use]
    pub fn set_callback(&self, _via: u64) -> bool {
        false
    }
}

/// The local APIC of a vCPU.
pub struct VirtualApic {}

impl VirtualApic {
    /// Chooses the vector of the upcall; whether it is one that a device may have.
    #[must_use]
    pub fn set_upcall_vector(&self, _vector: u32) -> bool {
        false
    }
}

/// Makes the CPU of a vCPU leave the guest.
pub fn kick(_apic: &VirtualApic) {}

/// Makes a CPU leave the guest, by its APIC ID.
pub fn send_kick(_apic_id: u32) {}

/// Delivers the event-channel upcall.
pub fn raise_upcall(_apic: &VirtualApic) {}

//! What local APICs, IO-APICs and message-signalled interrupts have in common: vectors, delivery modes, destinations,
//! and the check that every interrupt of a device passes before hardware is told of it.
//!
//! Intel SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)": local vector table, interrupt command
//! register, determining the interrupt destination, message signalled interrupts. AMD APM vol. 2, chapter 16.

use core::fmt;

/// The lowest vector that a device may have: those below are the exceptions of the hypervisor's own interrupt table.
pub const FIRST_DEVICE_VECTOR: u8 = 0x20;
/// The first of the hypervisor's own vectors, up to 0xff. A device interrupt with one of them is refused.
pub const FIRST_HYPERVISOR_VECTOR: u8 = 0xf0;

/// How an interrupt is delivered: bits 10:8 of interrupt command register, redirection entry and message data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To all CPUs that the destination names.
    Fixed,
    /// To one of them. Here: the first.
    LowestPriority,
    /// System management.
    Smi,
    /// Non-maskable; the vector counts for nothing.
    Nmi,
    /// Reset to the wait for a start-up message.
    Init,
    /// Start at the page that the vector names.
    StartUp,
    /// The vector comes from an 8259A. No domain has one.
    ExtInt,
    /// A pattern that means nothing (3).
    Reserved,
}

impl Delivery {
    /// The mode in bits 10:8 of a register's low word.
    #[must_use]
    pub const fn of(low: u32) -> Self {
        match low >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }
}

/// Whom an interrupt is for, as a guest says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Every CPU.
    Everyone,
    /// The CPU with this APIC ID.
    Physical(u32),
    /// CPUs by their logical destination registers.
    Logical(u32),
}

impl Destination {
    /// From the eight bits of an xAPIC, an IO-APIC or a message address.
    #[must_use]
    pub const fn narrow(destination: u8, logical: bool) -> Self {
        match (destination, logical) {
            (destination, true) => Self::Logical(destination as u32),
            (0xff, false) => Self::Everyone,
            (destination, false) => Self::Physical(destination as u32),
        }
    }

    /// From the 32 bits of an x2APIC's interrupt command register.
    #[must_use]
    pub const fn wide(destination: u32, logical: bool) -> Self {
        match (destination, logical) {
            (u32::MAX, _) => Self::Everyone,
            (destination, true) => Self::Logical(destination),
            (destination, false) => Self::Physical(destination),
        }
    }
}

/// One vCPU that a destination names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The vCPU's number in its domain.
    pub vcpu: usize,
    /// Its APIC ID, which is that of the CPU it is pinned to.
    pub apic_id: u32,
}

/// Who knows the APICs of a domain.
pub trait Directory {
    /// The first vCPU of the domain that the destination names, `None` if it names none.
    fn first(&self, destination: Destination) -> Option<Target>;
}

/// A device interrupt that hardware may be told of: fixed delivery to one of the domain's own CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInterrupt {
    /// The vector, the same for hardware and guest.
    pub vector: u8,
    /// Where it goes. [`DeviceInterrupt::check`] sees to it that the APIC ID has eight bits.
    pub target: Target,
}

/// Why a device interrupt isn't given to the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The vector is an exception's or the hypervisor's.
    Vector(u8),
    /// Only fixed and lowest-priority delivery are for devices.
    Delivery(Delivery),
    /// No CPU of the domain.
    Destination(Destination),
    /// A message address that isn't a local APIC's.
    Address(u64),
    /// A message that is level-triggered: nobody would end it.
    Level,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(vector) => write!(
                f,
                "vector {vector:#x} is not between {FIRST_DEVICE_VECTOR:#x} and {:#x}",
                FIRST_HYPERVISOR_VECTOR - 1
            ),
            Self::Delivery(Delivery::Nmi) => f.write_str("devices raise no NMI"),
            Self::Delivery(Delivery::Smi) => f.write_str("devices raise no SMI"),
            Self::Delivery(_) => f.write_str("delivery is neither fixed nor lowest priority"),
            Self::Destination(Destination::Everyone) => f.write_str("no vCPU is there to take it"),
            Self::Destination(Destination::Physical(id)) => {
                write!(f, "APIC ID {id:#x} is no vCPU of the domain")
            }
            Self::Destination(Destination::Logical(mask)) => {
                write!(
                    f,
                    "logical destination {mask:#x} names no vCPU of the domain"
                )
            }
            Self::Address(address) => write!(f, "{address:#x} is no message address"),
            Self::Level => f.write_str("a message must be edge-triggered"),
        }
    }
}

impl DeviceInterrupt {
    /// Checks what a guest wants of a device. A destination with several CPUs becomes its first one.
    ///
    /// # Errors
    /// The first reason against it, see [`Refusal`].
    pub fn check(
        vector: u8,
        delivery: Delivery,
        destination: Destination,
        directory: &impl Directory,
    ) -> Result<Self, Refusal> {
        if !matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) {
            return Err(Refusal::Delivery(delivery));
        }
        if !(FIRST_DEVICE_VECTOR..FIRST_HYPERVISOR_VECTOR).contains(&vector) {
            return Err(Refusal::Vector(vector));
        }
        match directory.first(destination) {
            // 0xff is the broadcast of the eight bits that IO-APIC and message address have.
            Some(target) if target.apic_id < 0xff => Ok(Self { vector, target }),
            _ => Err(Refusal::Destination(destination)),
        }
    }
}

//! What makes a guest exit, and how an exit says why. APM volume 2, tables B-1 and C-1.

use super::vmcb::Control;

/// The vector at offset 0ch.
pub mod first {
    /// A physical interrupt.
    pub const INTR: u32 = 1 << 0;
    /// A physical NMI.
    pub const NMI: u32 = 1 << 1;
    /// RDPMC.
    pub const RDPMC: u32 = 1 << 15;
    /// CPUID.
    pub const CPUID: u32 = 1 << 18;
    /// IRET.
    pub const IRET: u32 = 1 << 20;
    /// INVD.
    pub const INVD: u32 = 1 << 22;
    /// HLT.
    pub const HLT: u32 = 1 << 24;
    /// INVLPGA.
    pub const INVLPGA: u32 = 1 << 26;
    /// Ports, by the map.
    pub const PORT: u32 = 1 << 27;
    /// MSRs, by the map.
    pub const MSR: u32 = 1 << 28;
    /// FERR# freezing the CPU.
    pub const FREEZE: u32 = 1 << 30;
    /// Shutdown: a fault within a double fault.
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// The vector at offset 10h.
pub mod second {
    /// VMRUN; the CPU demands it.
    pub const VMRUN: u32 = 1 << 0;
    /// VMMCALL.
    pub const VMMCALL: u32 = 1 << 1;
    /// VMLOAD.
    pub const VMLOAD: u32 = 1 << 2;
    /// VMSAVE.
    pub const VMSAVE: u32 = 1 << 3;
    /// STGI.
    pub const STGI: u32 = 1 << 4;
    /// CLGI.
    pub const CLGI: u32 = 1 << 5;
    /// SKINIT.
    pub const SKINIT: u32 = 1 << 6;
    /// MONITOR.
    pub const MONITOR: u32 = 1 << 10;
    /// MWAIT.
    pub const MWAIT: u32 = 1 << 11;
    /// XSETBV.
    pub const XSETBV: u32 = 1 << 13;
    /// RDPRU.
    pub const RDPRU: u32 = 1 << 14;
}

/// Why a guest was left. Exceptions are `EXCEPTION` plus the vector.
pub mod code {
    /// The first exception.
    pub const EXCEPTION: u64 = 0x40;
    /// The last exception.
    pub const LAST_EXCEPTION: u64 = 0x5f;
    /// A physical interrupt is pending.
    pub const INTR: u64 = 0x60;
    /// A physical NMI is pending.
    pub const NMI: u64 = 0x61;
    /// RDPMC.
    pub const RDPMC: u64 = 0x6f;
    /// CPUID.
    pub const CPUID: u64 = 0x72;
    /// IRET.
    pub const IRET: u64 = 0x74;
    /// INVD.
    pub const INVD: u64 = 0x76;
    /// HLT.
    pub const HLT: u64 = 0x78;
    /// INVLPGA.
    pub const INVLPGA: u64 = 0x7a;
    /// A port.
    pub const PORT: u64 = 0x7b;
    /// An MSR.
    pub const MSR: u64 = 0x7c;
    /// Shutdown.
    pub const SHUTDOWN: u64 = 0x7f;
    /// VMRUN.
    pub const VMRUN: u64 = 0x80;
    /// VMMCALL.
    pub const VMMCALL: u64 = 0x81;
    /// VMLOAD; VMSAVE, STGI, CLGI and SKINIT follow.
    pub const VMLOAD: u64 = 0x82;
    /// SKINIT.
    pub const SKINIT: u64 = 0x86;
    /// MONITOR.
    pub const MONITOR: u64 = 0x8a;
    /// MWAIT, armed or not.
    pub const MWAIT: u64 = 0x8b;
    /// MWAIT while armed.
    pub const MWAIT_ARMED: u64 = 0x8c;
    /// XSETBV.
    pub const XSETBV: u64 = 0x8d;
    /// RDPRU.
    pub const RDPRU: u64 = 0x8e;
    /// A nested page fault.
    pub const NESTED_FAULT: u64 = 0x400;
    /// VMRUN found the block invalid.
    pub const INVALID: u64 = u64::MAX;
    /// The same as QEMU's emulation has it. It also leaves a guest by it that moves reserved bits to CR3 or CR4, where a
    /// CPU raises #GP.
    pub const INVALID_32: u64 = 0xffff_ffff;
}

/// The error code of a nested page fault in EXITINFO1. APM volume 2, 15.25.6.
pub mod fault {
    /// The page was there; what was tried isn't allowed.
    pub const PRESENT: u64 = 1 << 0;
    /// It was a write.
    pub const WRITE: u64 = 1 << 1;
    /// It was an instruction fetch.
    pub const FETCH: u64 = 1 << 4;
    /// The CPU was walking the guest's own tables.
    pub const IN_WALK: u64 = 1 << 33;
}

/// #DB and #AC, which a guest could raise without end in the delivery of themselves; #MC, which is the machine's.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;

const FIRST: u32 = first::INTR
    | first::NMI
    | first::RDPMC
    | first::CPUID
    | first::INVD
    | first::HLT
    | first::INVLPGA
    | first::PORT
    | first::MSR
    | first::FREEZE
    | first::SHUTDOWN;

const SECOND: u32 = second::VMRUN
    | second::VMMCALL
    | second::VMLOAD
    | second::VMSAVE
    | second::STGI
    | second::CLGI
    | second::SKINIT
    | second::MONITOR
    | second::MWAIT
    | second::XSETBV
    | second::RDPRU;

/// Sets what every guest exits for. Control and debug registers are its own: nothing that they hold outlives VMEXIT, and
/// an exit for CR0 reads would come with every `mov %cr2` in QEMU.
pub fn set(control: &Control) {
    control.cr_intercepts.set(0);
    control.dr_intercepts.set(0);
    control.exception_intercepts.set(EXCEPTIONS);
    control.first_intercepts.set(FIRST);
    control.second_intercepts.set(SECOND);
}

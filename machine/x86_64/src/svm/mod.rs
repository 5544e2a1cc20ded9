//! SVM as far as it can be decided without the CPU: the control block, what is intercepted, the permission maps, events
//! and start states. AMD64 Architecture Programmer's Manual (APM) volume 2, chapter 15 and appendices B and C.

pub mod context;
pub mod event;
pub mod field;
pub mod hypercall_page;
pub mod intercept;
pub mod permission;
pub mod start;
pub mod vmcb;

/// EFER (APM volume 2, 3.1.7) and the bits of it that matter here.
pub mod efer {
    /// SYSCALL and SYSRET.
    pub const SCE: u64 = 1 << 0;
    /// Long mode is wanted.
    pub const LME: u64 = 1 << 8;
    /// Long mode is active: the CPU's own.
    pub const LMA: u64 = 1 << 10;
    /// No-execute.
    pub const NXE: u64 = 1 << 11;
    /// SVM is on. Set in hardware while a guest runs, hidden from it.
    pub const SVME: u64 = 1 << 12;
}

/// CR0 (APM volume 2, 3.1.1).
pub mod cr0 {
    /// Protected mode.
    pub const PE: u64 = 1 << 0;
    /// The x87 is a 387, always one.
    pub const ET: u64 = 1 << 4;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// RFLAGS (APM volume 2, 3.1.6).
pub mod rflags {
    /// Bit 1 reads as one.
    pub const ONE: u64 = 1 << 1;
    /// Single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts are taken.
    pub const IF: u64 = 1 << 9;
    /// String instructions go down.
    pub const DF: u64 = 1 << 10;
    /// Resume: no instruction breakpoint.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
}

/// The PAT as reset leaves it (APM volume 2, 7.8.2).
pub const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;

/// Whether a PAT may be written: each byte is one of the types 0, 1, 4, 5, 6 and 7.
#[must_use]
pub fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

/// Whether XCR0 may have a value on a CPU that has the components `supported` (APM volume 2, 11.5.2): x87 always, AVX with
/// SSE, the three of AVX-512 together and with AVX.
#[must_use]
pub const fn is_xcr0(value: u64, supported: u64) -> bool {
    const X87: u64 = 1 << 0;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 7 << 5;
    let wide = value & AVX512;
    value & !supported == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && (wide == 0 || wide == AVX512 && value & AVX != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_state() {
        const ALL: u64 = 0xe7;
        for good in [1, 3, 7, 0xe7] {
            assert!(is_xcr0(good, ALL), "{good:#x}");
        }
        for bad in [0, 2, 5, 9, 0x27, 0xe3, 0x107, 1 << 63 | 1] {
            assert!(!is_xcr0(bad, ALL), "{bad:#x}");
        }
        assert!(!is_xcr0(7, 3));
    }

    #[test]
    fn types_of_memory() {
        assert!(is_pat(PAT_AT_RESET));
        assert!(is_pat(0x0407_0106_0507_0001));
        assert!(!is_pat(0x0000_0002));
        assert!(!is_pat(0x0800_0000_0000_0000));
    }
}

//! The architecture's counter, readable by programs.

/// The counter now, in ticks: CNTVCT_EL0 on arm64, which counts from the machine's reset when the hypervisor leaves it
/// as it is.
#[cfg(target_arch = "aarch64")]
pub fn now() -> u64 {
    let value: u64;
    // SAFETY: reading the counter changes nothing; Linux lets programs read it.
    unsafe {
        std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack));
    }
    value
}

/// Ticks in a second, CNTFRQ_EL0.
#[cfg(target_arch = "aarch64")]
pub fn frequency() -> u64 {
    let value: u64;
    // SAFETY: as in `now`.
    unsafe {
        std::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack));
    }
    value
}

/// Workstations have no counter that the tests use.
#[cfg(not(target_arch = "aarch64"))]
pub fn now() -> u64 {
    0
}

/// Workstations have no counter that the tests use.
#[cfg(not(target_arch = "aarch64"))]
pub fn frequency() -> u64 {
    1
}

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

/// The counter now, in ticks: the TSC, which counts from the machine's reset when the hypervisor leaves it as it is.
#[cfg(target_arch = "x86_64")]
pub fn now() -> u64 {
    // SAFETY: reading the counter changes nothing; Linux lets programs read it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Ticks in a second. Under counted instructions QEMU's TSC ticks once each; nothing in user space tells what a real one
/// does.
#[cfg(target_arch = "x86_64")]
pub fn frequency() -> u64 {
    1_000_000_000
}

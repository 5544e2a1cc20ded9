//! The other CPUs.

use super::panic::halt;

/// The first Rust code of a CPU that PSCI started.
pub extern "C" fn start(_argument: u64) -> ! {
    halt()
}

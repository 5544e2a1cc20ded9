//! The end of the hypervisor by its own fault: say where, then stand still.

use core::fmt::Write;
use core::panic::PanicInfo;

use super::boot;

/// Stands still for good.
pub fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let Some(mut uart) = boot::uart() {
        // Straight to the UART: whoever holds the console's lock may be what failed.
        let _ = write!(uart, "\n(terrane) panic: {info}\n");
    }
    halt()
}

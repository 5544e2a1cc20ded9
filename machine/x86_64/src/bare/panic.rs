//! The end of the hypervisor by its own fault: say where, then stand still.

use core::panic::PanicInfo;

use super::{console, cpu};

/// Stands still for good.
pub fn halt() -> ! {
    loop {
        cpu::wait_with_interrupts_off();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::say_at_the_end(format_args!("panic: {info}"));
    halt()
}

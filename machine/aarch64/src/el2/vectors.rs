//! Exception vectors, the guest's register frame, and what happens on the hypervisor's own faults.

use core::arch::global_asm;

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, Readable, VBAR_EL2, Writeable};

use super::{firmware, trap};
use crate::smccc;

/// The guest's general registers, where a trap has saved them.
#[repr(C, align(16))]
pub struct Frame {
    /// X0 to X30.
    pub x: [u64; 31],
    padding: u64,
}

const _: () = assert!(size_of::<Frame>() == 256);

impl Frame {
    /// All registers zero.
    pub const fn new() -> Self {
        Self {
            x: [0; 31],
            padding: 0,
        }
    }

    /// A register by its number in an instruction; 31 is the zero register.
    pub fn get(&self, general: u8) -> u64 {
        self.x.get(usize::from(general)).copied().unwrap_or(0)
    }

    /// Sets a register by its number in an instruction; 31 is the zero register.
    pub fn set(&mut self, general: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(general)) {
            *register = value;
        }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

#[repr(C, align(4096))]
struct EmergencyStack([u8; 4096]);

/// The stack of a fatal exception; `vectors.s` is the only user of the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinit.stack")]
static mut emergency_stack: EmergencyStack = EmergencyStack([0; 4096]);

global_asm!(
    include_str!("vectors.s"),
    synchronous = sym trap::synchronous,
    interrupt = sym trap::interrupt,
    error = sym trap::error,
    own = sym own_exception,
    workaround_1 = const smccc::WORKAROUND_1,
    workaround_3 = const smccc::WORKAROUND_3,
);

unsafe extern "C" {
    static exception_vectors: u8;
    static exception_vectors_workaround_1: u8;
    static exception_vectors_workaround_3: u8;
    fn enter_guest(frame: &mut Frame) -> !;
}

/// Has this CPU's exceptions come here, with what the CPU needs against a guest's speculation.
pub fn install() {
    let table = match smccc::branch_workaround(firmware::feature) {
        Some(smccc::WORKAROUND_1) => &raw const exception_vectors_workaround_1,
        Some(smccc::WORKAROUND_3) => &raw const exception_vectors_workaround_3,
        _ => &raw const exception_vectors,
    };
    VBAR_EL2.set(table as u64);
    if firmware::feature(smccc::WORKAROUND_2) == smccc::SUCCESS {
        firmware::call(smccc::WORKAROUND_2, [1, 0, 0]);
    }
    super::cache::complete();
}

/// Leaves the hypervisor for the guest whose registers are in `frame` and in the system registers.
/// The stack above the frame is never used again.
///
/// # Safety
/// `frame` lies on this CPU's own stack, and ELR_EL2, SPSR_EL2 and the EL1 registers hold a guest's
/// state.
pub unsafe fn enter(frame: &mut Frame) -> ! {
    // SAFETY: the caller vouches for the frame and the registers.
    unsafe { enter_guest(frame) }
}

/// An exception of the hypervisor itself.
extern "C" fn own_exception(kind: u64) -> ! {
    const KINDS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
    panic!(
        "{} at EL2: ESR {:#x}, ELR {:#x}, FAR {:#x}",
        KINDS[usize::try_from(kind & 3).unwrap_or(0)],
        ESR_EL2.get(),
        ELR_EL2.get(),
        FAR_EL2.get()
    )
}

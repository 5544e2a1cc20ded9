//! Starting the other CPUs, by INIT and STARTUP or by hypercall. One at a time: they share the word that holds the next
//! stack.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::hvm_vcpu::{Context, MODE_64, Registers64};
use spin::Once;

use super::entry::STACK;
use crate::{apic, boot, cpu, exception, memory, pvh, xen};

/// CPUs that a guest can use, the boot CPU included; those after them in ACPI's list aren't started.
pub const MOST: usize = 16;

/// The page from which another CPU starts.
const TRAMPOLINE: u64 = 0x8000;

static MAIN: Once<fn(usize)> = Once::new();
static NEXT: AtomicU64 = AtomicU64::new(0);
static UP: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn terrane_guest_secondary();
    static terrane_guest_trampoline: u8;
    static terrane_guest_trampoline_data: u8;
    static terrane_guest_trampoline_end: u8;
    static terrane_guest_stacks: u8;
    static terrane_guest_gdt: u8;
    static terrane_guest_next_stack: AtomicU64;
}

/// The address of ring 0's code on another CPU.
fn secondary_address() -> u64 {
    terrane_guest_secondary as *const () as u64
}

/// Gives the CPU that is `number` in the list its stack, and says which number it is.
fn prepare(number: usize, main: fn(usize)) {
    MAIN.call_once(|| main);
    let stacks = (&raw const terrane_guest_stacks) as u64;
    NEXT.store(number as u64, Ordering::SeqCst);
    UP.store(0, Ordering::SeqCst);
    // SAFETY: the word is an atomic that only this function writes.
    let next = unsafe { &terrane_guest_next_stack };
    next.store(
        stacks + (number as u64 + 1) * STACK as u64,
        Ordering::SeqCst,
    );
}

fn came() -> bool {
    cpu::wait_for(2000, || UP.load(Ordering::SeqCst) == 1)
}

/// Starts the CPU that is `number` in the list, with local APIC number `id`, in `main` (the same for all: the first one
/// given counts) by INIT and STARTUP. Says whether it came within two seconds. There must be RAM at 0x8000.
pub fn start(number: usize, id: u32, main: fn(usize)) -> bool {
    let ram = |facts: &boot::Facts| facts.ram.iter().any(|bank| bank.contains(TRAMPOLINE));
    if number >= MOST || !boot::facts().is_some_and(ram) {
        return false;
    }
    prepare(number, main);
    place_trampoline();
    apic::send(id, apic::INIT);
    cpu::wait_for(1, || false);
    for _ in 0..2 {
        apic::send(
            id,
            apic::STARTUP | u32::try_from(TRAMPOLINE >> 12).unwrap_or(0),
        );
        if cpu::wait_for(10, || UP.load(Ordering::SeqCst) == 1) {
            return true;
        }
    }
    came()
}

/// The same by VCPUOP_initialise and VCPUOP_up.
///
/// # Errors
/// The hypervisor's.
pub fn start_by_hypercall(number: usize, main: fn(usize)) -> Result<bool, xen::Error> {
    const PROTECTED_PAGED: u64 = 0x8000_0011;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    prepare(number, main);
    let registers: [u64; 14] = zerocopy::transmute!(Registers64 {
        rip: secondary_address(),
        rflags: 2,
        cr0: PROTECTED_PAGED,
        cr3: memory::top(),
        cr4: PHYSICAL_ADDRESS_EXTENSION,
        efer: LONG_MODE,
        ..Registers64::default()
    });
    let mut all = [0; 15];
    for (place, register) in all.iter_mut().zip(registers) {
        *place = register;
    }
    let mut context = Context {
        mode: MODE_64,
        reserved: 0,
        registers: all,
    };
    pvh::initialise_vcpu(number, &mut context)?;
    pvh::vcpu_up(number)?;
    Ok(came())
}

/// Copies the code for real mode to its page and fills in tables, target and segments.
fn place_trampoline() {
    let start = (&raw const terrane_guest_trampoline) as u64;
    let end = (&raw const terrane_guest_trampoline_end) as u64;
    let data = (&raw const terrane_guest_trampoline_data) as u64 - start;
    for offset in (0..end - start).step_by(8) {
        cpu::write64(TRAMPOLINE + offset, cpu::read64(start + offset));
    }
    let narrow = |address: u64| u32::try_from(address).unwrap_or(0);
    let at = TRAMPOLINE + data;
    cpu::write32(at, narrow(memory::top()));
    cpu::write32(at + 4, narrow(secondary_address()));
    // Selector and limit, then the table's address.
    const CODE: u32 = 8;
    const LIMIT: u32 = 0x27;
    cpu::write32(at + 8, LIMIT << 16 | CODE);
    cpu::write32(at + 12, narrow((&raw const terrane_guest_gdt) as u64));
}

/// Where Rust begins on another CPU.
pub(crate) extern "C" fn secondary() -> ! {
    let number = usize::try_from(NEXT.load(Ordering::SeqCst)).unwrap_or(0);
    exception::begin(number);
    UP.store(1, Ordering::SeqCst);
    if let Some(main) = MAIN.get() {
        main(number);
    }
    cpu::stop()
}

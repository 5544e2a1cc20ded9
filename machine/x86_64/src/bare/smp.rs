//! The other CPUs: started by INIT and a start-up message, each with a stack and a place to begin.
//!
//! Not here: what a CPU does once it runs.

use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use alloc::vec;
use core::arch::global_asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use super::entry::{CODE_SELECTOR, DATA_SELECTOR, boot_root};
use super::{apic, exceptions, mmu, timer, tsc};
use crate::boot_info::{E820_RAM, Region};
use crate::time::Clock;

/// Bytes of a stack.
const STACK_BYTES: usize = 32 * 1024;
const PAGE: usize = 0x1000;

global_asm!(
    include_str!("trampoline.s"),
    code_selector = const CODE_SELECTOR,
    data_selector = const DATA_SELECTOR,
    begin = sym begin,
    options(att_syntax),
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_words: u8;
    static trampoline_end: u8;
    fn secondary();
}

/// What `trampoline.s` loads; the order is fixed there.
#[repr(C)]
struct Words {
    tables: u64,
    root: u64,
    stack: u64,
    entry: u64,
    argument: u64,
}

/// What a CPU does first.
struct Task {
    run: extern "C" fn(u64) -> !,
    argument: u64,
    started: AtomicBool,
}

/// Why a CPU doesn't run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// No page of RAM below 640 KiB.
    NoLowMemory,
    /// No memory for its stack.
    NoMemory,
    /// It didn't begin within a second.
    Silent,
}

/// Starts the CPU with this APIC ID: with interrupts off, its local APIC and its timer set up, it calls `run` with
/// `argument` on a stack of its own. A page of RAM below 640 KiB is used on the way, and put back. So this is called on the
/// boot CPU, before any guest runs.
///
/// # Errors
/// [`StartError`].
pub fn start_cpu(
    regions: &[Region],
    clock: &Clock,
    apic_id: u32,
    run: extern "C" fn(u64) -> !,
    argument: u64,
) -> Result<(), StartError> {
    let page = low_page(regions).ok_or(StartError::NoLowMemory)?;
    let layout = Layout::from_size_align(STACK_BYTES, 16).map_err(|_| StartError::NoMemory)?;
    // SAFETY: the layout has a size.
    let stack = unsafe { alloc(layout) } as u64;
    if stack == 0 {
        return Err(StartError::NoMemory);
    }
    // Both stay for good: a CPU that comes up late still uses them.
    let task: &'static Task = Box::leak(Box::new(Task {
        run,
        argument,
        started: AtomicBool::new(false),
    }));
    let words = Words {
        tables: boot_root(),
        root: mmu::root(),
        stack: stack + STACK_BYTES as u64,
        entry: secondary as *const () as u64,
        argument: &raw const *task as u64,
    };
    let place = (usize::from(page) * PAGE) as *mut u8;
    let mut saved = vec![0_u8; PAGE];
    // SAFETY: the page is RAM, which the hypervisor has mapped; no guest runs, so nobody else uses it.
    unsafe { place.copy_to_nonoverlapping(saved.as_mut_ptr(), PAGE) };
    // SAFETY: likewise; `write_trampoline` stays inside the page.
    unsafe { write_trampoline(place, words) };
    let result = send(clock, apic_id, page, &task.started);
    // SAFETY: as above. The CPU has left the page before it says that it has started; one that is silent may never come.
    unsafe { place.copy_from_nonoverlapping(saved.as_ptr(), PAGE) };
    result
}

/// Puts the code and its words into a page.
///
/// # Safety
/// `place` is a page that may be written.
unsafe fn write_trampoline(place: *mut u8, words: Words) {
    let start = &raw const trampoline;
    let bytes = &raw const trampoline_end as usize - start as usize;
    let words_at = &raw const trampoline_words as usize - start as usize;
    // SAFETY: the code lies in the image, and is much smaller than a page.
    unsafe { place.copy_from_nonoverlapping(start, bytes) };
    let target = place.wrapping_add(words_at).cast::<Words>();
    // SAFETY: they lie in the page, on a multiple of eight bytes from its start.
    unsafe { target.write(words) };
}

/// INIT, then start-up; once more if the CPU takes its time (Intel SDM vol. 3A, "MP Initialization"). CPUs of today need no
/// wait between the two.
fn send(clock: &Clock, apic_id: u32, page: u8, started: &AtomicBool) -> Result<(), StartError> {
    const MICROSECOND: u64 = 1000;
    apic::send_init(apic_id);
    wait(clock, 10 * MICROSECOND, || false);
    for patience in [200 * MICROSECOND, 1_000_000 * MICROSECOND] {
        apic::send_start_up(apic_id, page);
        if wait(clock, patience, || started.load(Ordering::Acquire)) {
            return Ok(());
        }
    }
    Err(StartError::Silent)
}

/// Waits for so many nanoseconds or until `done`; whether it was that.
fn wait(clock: &Clock, nanoseconds: u64, done: impl Fn() -> bool) -> bool {
    let begin = clock.nanoseconds(tsc::now());
    loop {
        if done() {
            return true;
        }
        if clock.nanoseconds(tsc::now()) - begin > nanoseconds {
            return false;
        }
        spin_loop();
    }
}

/// A page of RAM that a start-up message can name. The first one is left alone, as it has the BIOS's data.
fn low_page(regions: &[Region]) -> Option<u8> {
    const FIRST: u64 = 1;
    const END: u64 = 0x9f;
    let page = PAGE as u64;
    (FIRST..END)
        .find(|number| {
            let (start, end) = (number * page, (number + 1) * page);
            regions.iter().any(|region| {
                region.kind == E820_RAM
                    && region.start <= start
                    && end <= region.start.saturating_add(region.bytes)
            })
        })
        .and_then(|number| u8::try_from(number).ok())
}

/// The first Rust code of another CPU.
extern "C" fn begin(argument: u64) -> ! {
    // SAFETY: `start_cpu` leaked a task and passed its address.
    let task = unsafe { &*(argument as *const Task) };
    exceptions::load();
    apic::start_cpu();
    timer::start_cpu();
    task.started.store(true, Ordering::Release);
    (task.run)(task.argument)
}

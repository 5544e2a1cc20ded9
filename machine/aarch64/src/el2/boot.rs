//! The first Rust instructions: the console, the MMU, the heap.

use core::fmt::{self, Write};

use dtoolkit::fdt::Fdt;
use hypervisor::console::Console;
use machine_paging::PAGE_SIZE;
use spin::Once;

use super::entry::Image;
use super::panic::halt;
use super::uart::Uart;
use super::{entry, heap, launch, mmu, vectors};
use crate::stage1::Kind;

/// The UART of the host's `stdout-path`, for what goes wrong before the system's tree is read.
static EARLY_UART: Once<Uart> = Once::new();
/// The UART that the plan leaves to the hypervisor, if any.
static UART: Once<Option<Uart>> = Once::new();
static CONSOLE: Once<Console> = Once::new();

/// The console's line discipline.
pub fn console() -> &'static Console {
    CONSOLE.call_once(Console::new)
}

/// Sets the hypervisor's UART for good: the one at `path` of the host's tree. Any other belongs to a
/// domain from now on.
pub fn choose_uart(tree: &[u8], path: Option<&str>) {
    let chosen = path.and_then(|path| Uart::of_path(&Fdt::new(tree).ok()?, path));
    if let Some(uart) = chosen {
        // A range that can't be mapped is answered by the first access, on the early UART.
        if mmu::map(uart.base(), uart.base() + 1, Kind::Device).is_ok() {
            uart.enable();
        }
    }
    if path.is_some() && chosen.is_none() {
        say(format_args!("warning: no driver for the console's UART"));
    }
    UART.call_once(|| chosen);
}

/// A line of the hypervisor on its console.
pub fn say(text: fmt::Arguments<'_>) {
    let Some(uart) = uart() else {
        return;
    };
    let output = |bytes: &[u8]| bytes.iter().for_each(|&byte| uart.send(byte));
    console().line(&output, text);
}

/// The hypervisor's UART, once it is known.
pub fn uart() -> Option<Uart> {
    match UART.get() {
        Some(chosen) => *chosen,
        None => EARLY_UART.get().copied(),
    }
}

/// A tree of this size or more is taken for garbage. Linux's limit is 2 MiB as well.
const TREE_LIMIT: u32 = 2 << 20;
const TREE_MAGIC: u32 = 0xd00d_feed;

/// The host tree as it lies in memory; `None` if there is none.
fn host_tree(address: u64) -> Option<&'static [u8]> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    let header = address as *const u32;
    // SAFETY: the boot protocol has the physical address of the tree in x0; reading the magic number
    // tells whether it was obeyed.
    let magic = u32::from_be(unsafe { header.read_volatile() });
    // SAFETY: the second word of the same header.
    let bytes = u32::from_be(unsafe { header.wrapping_add(1).read_volatile() });
    if magic != TREE_MAGIC || bytes >= TREE_LIMIT {
        return None;
    }
    // SAFETY: the tree's own length; nobody writes to it until the hypervisor has copied it.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, bytes as usize) })
}

/// Called by `entry.s` with the MMU off: no atomics, no heap, no lock until [`mmu::enable`].
///
/// `loaded` is zero, or where the boot loader had put the image before it moved itself. `failure` is
/// what `prepare_el2` says.
pub extern "C" fn start(tree: u64, image: u64, loaded: u64, failure: u64) -> ! {
    entry::save_data();
    let bytes = host_tree(tree);
    let uart = bytes
        .and_then(|bytes| Fdt::new(bytes).ok())
        .and_then(|tree| Uart::of_tree(&tree));
    if let Some(uart) = uart {
        uart.enable();
    }
    let early = |text: &str| {
        if let Some(mut uart) = uart {
            let _ = uart.write_str(text);
        }
    };
    match failure {
        0 => {}
        1 => {
            early("(terrane) error[not-at-el2]: entered at EL1; the firmware must enter at EL2\n");
            halt()
        }
        _ => {
            early("(terrane) error[vhe-only]: this CPU can't clear HCR_EL2.E2H\n");
            halt()
        }
    }
    // Without a tree there is no console either.
    let Some(bytes) = bytes else { halt() };
    let layout = Image::find(image);
    let tree_range = (tree, tree + bytes.len() as u64, Kind::Ram);
    let enabled = match uart {
        Some(uart) => {
            let registers = (uart.base(), uart.base() + 1, Kind::Device);
            mmu::enable(&layout, &[tree_range, registers])
        }
        None => mmu::enable(&layout, &[tree_range]),
    };
    if enabled.is_err() {
        early("(terrane) error[beyond-reach]: image, tree or UART lie above 48 bits\n");
        halt()
    }
    if let Some(uart) = uart {
        EARLY_UART.call_once(|| uart);
    }
    vectors::install();
    heap::start();
    // The page is mapped as one, so this takes no table and can't fail.
    let guard = entry::stack_guard();
    let _ = mmu::unmap(guard, guard + PAGE_SIZE);
    launch::launch(tree, bytes, &layout, loaded)
}

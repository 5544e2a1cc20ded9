//! The first Rust instructions: the console, the checks, what the boot loader says.

use super::console::say;
use super::entry::{self, Handover, Image};
use super::instructions::{ThisCpu, read_msr};
use super::panic::halt;
use super::{console, exceptions, heap, launch, mmu};
use crate::boot_info::{self, BootInfo, Physical, Protocol};
use crate::features::Features;

/// VM_CR (APM volume 2, 15.30.1): the firmware may have switched SVM off.
const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVM_DISABLED: u64 = 1 << 4;

/// Memory below 4 GiB, which `entry.s` has mapped and where boot structures lie.
struct Low;

impl Physical for Low {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let end = address.checked_add(bytes.len() as u64)?;
        if address == 0 || end > 1 << 32 {
            return None;
        }
        for (offset, byte) in bytes.iter_mut().enumerate() {
            let source = (address as *const u8).wrapping_add(offset);
            // SAFETY: the range is mapped; what isn't RAM there reads as ones.
            *byte = unsafe { source.read_volatile() };
        }
        Some(())
    }
}

/// What the boot loader says, from its structure at `address`.
fn boot_info(protocol: u32, address: u64) -> BootInfo {
    let protocol = match protocol {
        1 => Protocol::Multiboot1,
        2 => Protocol::Pvh,
        _ => Protocol::Multiboot2,
    };
    match boot_info::read(&Low, protocol, address) {
        Ok(info) => info,
        Err(malformed) => {
            say(format_args!("error[boot-info]: {}", malformed.text()));
            halt()
        }
    }
}

/// Called by `entry.s`. `protocol` is 1 for multiboot1, 2 for PVH and 3 for multiboot2; `address` is
/// the structure that the boot loader passed, `machine` where the image lies. `left` is null, or what an
/// image that has moved itself here leaves; then it counts and the first two don't.
///
/// # Safety
/// The boot CPU calls it once, with what a boot loader or [`continue_in_copy`](entry::continue_in_copy)
/// passed.
pub unsafe extern "C" fn start(
    protocol: u32,
    address: u64,
    machine: u64,
    left: *const Handover,
) -> ! {
    entry::save_data();
    console::start();
    exceptions::start();
    let features = match Features::read(&ThisCpu) {
        Ok(features) => features,
        Err(missing) => {
            let (code, text) = missing.text();
            say(format_args!("error[{code}]: {text}"));
            halt()
        }
    };
    // SAFETY: a CPU with SVM has this register.
    if unsafe { read_msr(VM_CR) } & VM_CR_SVM_DISABLED != 0 {
        say(format_args!(
            "error[no-svm]: the firmware has switched SVM off"
        ));
        halt()
    }
    heap::start();
    // SAFETY: `continue_in_copy` leaves a whole one below 4 GiB, which `entry.s` has mapped, and nobody
    // changes it.
    let left = unsafe { left.as_ref() };
    let left = match left {
        Some(left) => left.clone(),
        None => Handover {
            info: boot_info(protocol, address),
            loaded: machine,
        },
    };
    let info = &left.info;
    let image = Image::find(machine);
    if let Err(error) = mmu::enable(&image, &info.regions, &features) {
        say(format_args!("error[own-map]: {error:?}"));
        halt()
    }
    launch::launch(&left, features, &image)
}

//! From the host's tree to a plan, and to the place in memory where the plan wants the hypervisor.
//!
//! No decision is made here: the planner is the one that the `terrane` command calls, from the same
//! facts.

use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange, Outcome, Reservation};
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::report::Report;
use manifest::tree::blob::{self, Cells, Tree};
use manifest::tree::host::{self, BootFacts, Host};
use manifest::tree::system::{self, Contents, Modules};

use super::boot::{choose_uart, say};
use super::entry::{Image, continue_in_copy, copy_image};
use super::panic::halt;
use super::{build, cache, firmware, heap, mmu, smp};
use crate::smccc;
use crate::stage1::Kind;

/// What boot has found, and the plan that follows from it.
pub struct Planned<'a> {
    /// The host's tree.
    pub tree: &'a Tree<'a>,
    /// What it says.
    pub host: Host,
    /// The plan.
    pub outcome: Outcome,
}

/// Ends in order what can't go on: the firmware switches the machine off.
fn stop() -> ! {
    firmware::call(smccc::SYSTEM_OFF, [0; 3]);
    halt()
}

fn range(start: u64, bytes: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), bytes)
}

/// Memory that boot left there, as bytes.
///
/// # Safety
/// The range is RAM mapped at EL2, and nobody writes to it while the slice is in use.
unsafe fn bytes_of(range: MachineRange) -> &'static [u8] {
    let length = usize::try_from(range.size()).unwrap_or(0);
    // SAFETY: the caller vouches for the memory.
    unsafe { core::slice::from_raw_parts(range.start().raw() as *const u8, length) }
}

/// The container, by `linux,initrd-start` and `-end` of the host's tree: any boot loader can place one
/// as it places a ramdisk.
fn container(tree: &Tree<'_>) -> Option<MachineRange> {
    let chosen = tree.find("/chosen")?;
    let number = |name| chosen.u64(name).or_else(|| chosen.u32(name).map(u64::from));
    let (start, end) = (number("linux,initrd-start")?, number("linux,initrd-end")?);
    let container = range(start, end.saturating_sub(start));
    if start.is_multiple_of(8) && is_ram(tree, container) {
        return Some(container);
    }
    say(format_args!(
        "warning[module-outside-ram]: no container at {start:#x}-{end:#x}: that isn't RAM, or misaligned"
    ));
    None
}

/// Whether a range that isn't empty lies in one of the tree's memory nodes. [`host::read`] says more about RAM,
/// but only once it is known what the container asks for.
fn is_ram(tree: &Tree<'_>, wanted: MachineRange) -> bool {
    let mut nodes = tree.root().children();
    !wanted.is_empty()
        && nodes.any(|node| {
            let (address, size) = tree.root().child_cells();
            let mut cells = Cells::new(node.value("reg").unwrap_or_default());
            let mut banks = core::iter::from_fn(|| {
                Some(range(cells.next_number(address)?, cells.next_number(size)?))
            });
            node.string("device_type") == Some("memory") && banks.any(|bank| bank.covers(&wanted))
        })
}

/// Plans, moves the image to where the plan has it, prints what there is to say, and builds.
///
/// `loaded` is zero, or where the boot loader had put the image before it moved itself here: the plan
/// of the second run must be that of the first.
pub fn launch(tree_address: u64, bytes: &'static [u8], image: &Image, loaded: u64) -> ! {
    let tree = match Tree::read(bytes) {
        Ok(tree) => tree,
        Err(error) => {
            say(format_args!(
                "error[tree-invalid]: the host's tree: {error}"
            ));
            halt()
        }
    };
    let image_bytes = image.end - image.start;
    let boot = BootFacts {
        hypervisor: range(if loaded == 0 { image.start } else { loaded }, image_bytes),
        host_tree: range(tree_address, bytes.len() as u64),
        container: container(&tree),
    };
    let container_bytes = boot.container.map(|range| {
        let (start, end) = (range.start().raw(), range.end().raw());
        if mmu::map(start, end, Kind::Ram).is_err() {
            say(format_args!(
                "error[module-outside-ram]: the container {range} lies over the hypervisor"
            ));
            stop()
        }
        // SAFETY: the boot loader left the container there, and it was just mapped; nothing is copied
        // over it before the plan is carried out.
        unsafe { bytes_of(range) }
    });
    // A ramdisk that is no container belongs to a host tree in Xen's binding.
    let system_bytes = container_bytes.filter(|bytes| blob::total_size(bytes).is_some());
    let (system_tree, modules) = match (system_bytes, boot.container) {
        (Some(bytes), Some(range)) => match Tree::read(bytes) {
            Ok(tree) => (Some(tree), Modules::Container(range.start().raw())),
            Err(error) => {
                say(format_args!(
                    "error[tree-invalid]: the system's tree: {error}"
                ));
                stop()
            }
        },
        _ => (None, Modules::Absolute),
    };
    let system_tree = system_tree.as_ref().unwrap_or(&tree);

    let mut origins = Origins::new();
    let named = system_tree
        .find("/chosen")
        .and_then(|chosen| chosen.string("terrane,console"));
    let console = host::resolve_console(&tree, named);
    let mut host = host::read(&tree, &boot, console.as_deref(), &mut origins);
    firmware::set_conduit(host.psci);
    choose_uart(bytes, host.console.as_ref().map(|uart| uart.path.as_str()));
    map_host(&host, image);
    let in_memory = InMemory(&host);
    let system = system::read(system_tree, modules, &tree, &in_memory, &mut origins);
    host.map.reserved.extend(system.reserved.iter().cloned());
    let mut outcome = layout::plan(&host.map, &system.request);
    let homeless = host::without_room(&host.dynamic, &outcome.plan);
    outcome.conflicts.extend(homeless);
    move_image(&outcome, image, &boot);

    let report = Report {
        image: range(image.start, image_bytes),
        host: &host.map,
        host_problems: &host.problems,
        system: &system,
        outcome: &outcome,
        origins: &origins,
    };
    if !report.print(&say) {
        stop()
    }
    for piece in &outcome.plan.hypervisor.heap {
        let piece = piece.bytes();
        let bytes = usize::try_from(piece.size()).unwrap_or(0);
        // SAFETY: the plan gives the range to the hypervisor as heap and to nobody else; all RAM is
        // mapped.
        unsafe { heap::add(piece.start().raw(), bytes) };
    }
    let planned = Planned {
        tree: &tree,
        host,
        outcome,
    };
    match build::build(planned) {
        Ok(true) => smp::enter(),
        // This CPU is nobody's: it waits for ever.
        Ok(false) => halt(),
        Err(error) => {
            say(format_args!("error[build-failed]: {error}"));
            stop()
        }
    }
}

/// Maps all RAM and the interrupt controller.
fn map_host(host: &Host, image: &Image) {
    let mut holes: Vec<(u64, u64)> = host
        .map
        .reserved
        .iter()
        .filter(|reserved| reserved.kind == Reservation::NoMap)
        .map(|reserved| (reserved.range.start().raw(), reserved.range.end().raw()))
        .collect();
    // It is mapped, and in use.
    holes.push((image.start, image.end));
    holes.sort_unstable();
    for bank in &host.map.ram {
        let (mut at, end) = (bank.range.start().raw(), bank.range.end().raw());
        for &(hole, hole_end) in &holes {
            if hole_end <= at || hole >= end {
                continue;
            }
            map_or_say(at, hole.max(at), Kind::Ram);
            at = hole_end;
        }
        map_or_say(at, end, Kind::Ram);
    }
    for frames in &host.map.controller.ranges {
        map_or_say(frames.start().raw(), frames.end().raw(), Kind::Device);
    }
}

fn map_or_say(start: u64, end: u64, kind: Kind) {
    if start < end
        && let Err(error) = mmu::map(start, end, kind)
    {
        say(format_args!(
            "{start:#x}-{end:#x} can't be mapped: {error:?}"
        ));
    }
}

/// What boot left in a range; `None` if it isn't all RAM that `map_host` has mapped.
pub fn contents(host: &Host, range: MachineRange) -> Option<&'static [u8]> {
    let in_ram = host.map.ram.iter().any(|bank| bank.range.covers(&range));
    let mut reserved = host.map.reserved.iter();
    let unmapped = reserved
        .any(|reserved| reserved.kind == Reservation::NoMap && reserved.range.overlaps(&range));
    // SAFETY: it is RAM and mapped, and nothing writes to it before the plan is carried out; its
    // content is not looked at any more then.
    (in_ram && !unmapped).then(|| unsafe { bytes_of(range) })
}

/// The modules where the boot loader put them.
struct InMemory<'h>(&'h Host);

impl Contents for InMemory<'_> {
    fn header(&self, module: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        let first = range(module.start().raw(), HEADER_BYTES as u64);
        contents(self.0, first)?.try_into().ok()
    }

    fn partial_tree(&self, module: MachineRange) -> Option<&[u8]> {
        contents(self.0, module)
    }
}

/// If the plan has the image elsewhere, copies it there and starts again in the copy.
fn move_image(outcome: &Outcome, image: &Image, boot: &BootFacts) {
    let plan = &outcome.plan.hypervisor;
    let target = plan.image.bytes().start().raw();
    if target == image.start || plan.region.is_empty() {
        return;
    }
    let (tree, tree_bytes) = (boot.host_tree.start().raw(), boot.host_tree.size());
    let bytes = image.end - image.start;
    let apart = target + bytes <= image.start || image.end <= target;
    if !apart {
        say(format_args!(
            "error[no-room-for-hypervisor]: the image at {:#x} can't move to {target:#x}",
            image.start
        ));
        stop()
    }
    // SAFETY: the plan gives the target to the hypervisor, and it overlaps neither image nor trees.
    unsafe { copy_image(image, target) };
    cache::clean_invalidate(target, bytes);
    // The copy reads the tree with its MMU off.
    cache::clean(tree, tree_bytes);
    // SAFETY: it is a whole copy, cleaned; the plan places images as a boot loader may.
    unsafe { continue_in_copy(target, tree, boot.hypervisor.start().raw()) }
}

//! From what boot left there to a plan.
//!
//! No decision is made here: the planner is the one that the `terrane` command calls, from the same
//! facts.

use layout::{MachineAddress, MachineRange, Outcome};
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::pc::{self, BootFacts, Description};
use manifest::report::Report;
use manifest::tree::blob::Tree;
use manifest::tree::system::{self, Modules};

use super::capture::Firmware;
use super::console::say;
use super::entry::{Handover, Image, continue_in_copy};
use super::panic::halt;
use super::platform::Host;
use super::{build, capture, console, heap, run};
use crate::boot_info::{BootInfo, E820_RAM, Region};
use crate::devices::acpi::Tables;
use crate::features::Features;

const LARGE_PAGE: u64 = 2 << 20;
const FOUR_GIB: u64 = 4 << 30;

/// What boot has found, and the plan that follows from it.
pub struct Planned<'a> {
    /// The boot loader's memory map.
    pub regions: &'a [Region],
    /// What the CPU can do.
    pub features: Features,
    /// The machine's description.
    pub description: Description,
    /// The same in the planner's terms.
    pub map: layout::HostMap,
    /// ACPI's tables.
    pub tables: Tables,
    /// Where they are read.
    pub memory: Firmware<'a>,
    /// The machine's own devices.
    pub host: &'static Host,
    /// The plan.
    pub outcome: Outcome,
}

/// Ends in order what can't go on.
fn stop(host: &Host) -> ! {
    host.power_off();
    halt()
}

fn range(start: u64, bytes: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), bytes)
}

/// What boot left in a range; `None` if it isn't all RAM.
fn contents(info: &BootInfo, wanted: MachineRange) -> Option<&'static [u8]> {
    let mut ram = info.regions.iter().filter(|region| region.kind == E820_RAM);
    let is_ram = ram.any(|region| {
        let whole = range(region.start, region.bytes);
        whole.frames_inside().bytes().covers(&wanted)
    });
    let bytes = usize::try_from(wanted.size()).ok()?;
    // SAFETY: it is RAM and mapped, and nothing writes to it before the plan is carried out; its content
    // is not looked at any more then.
    is_ram.then(|| unsafe { core::slice::from_raw_parts(wanted.start().raw() as *const u8, bytes) })
}

/// The first module with the system's tree at its start.
fn container(info: &BootInfo) -> Result<(MachineRange, Tree<'static>), &'static str> {
    let module = info.modules.first().ok_or("the boot loader passed none")?;
    let place = range(module.start, module.bytes);
    let bytes = contents(info, place).ok_or("it doesn't lie in RAM")?;
    match Tree::read(bytes) {
        Ok(tree) => Ok((place, tree)),
        Err(error) => {
            say(format_args!(
                "error[tree-invalid]: the system's tree: {error}"
            ));
            Err("it doesn't begin with a system's tree")
        }
    }
}

/// If the plan has the image elsewhere, copies it there and starts again in the copy.
///
/// # Errors
/// The place, if the image can't be there.
fn move_image(outcome: &Outcome, image: &Image, boot: &Handover) -> Result<(), u64> {
    let plan = &outcome.plan.hypervisor;
    let target = plan.image.bytes().start().raw();
    if target == image.machine || plan.region.is_empty() {
        return Ok(());
    }
    let bytes = image.end - image.start;
    let apart = target + bytes <= image.machine || image.machine + bytes <= target;
    // Other CPUs come in by its first tables.
    let reachable =
        (LARGE_PAGE..FOUR_GIB - bytes).contains(&target) && target.is_multiple_of(LARGE_PAGE);
    if !apart || !reachable {
        return Err(target);
    }
    // SAFETY: the plan gives the target, which is RAM and mapped, to the hypervisor and to nobody else, and no
    // module lies there.
    unsafe { continue_in_copy(image, target, boot) }
}

/// Describes the machine; plans, moves the image to where the plan has it, prints what there is to say,
/// and builds. The plan of an image that has moved is the one that moved it: `boot` still says where it was
/// loaded.
pub fn launch(boot: &Handover, features: Features, image: &Image) -> ! {
    let info = &boot.info;
    let memory = Firmware::new(&info.regions, &features);
    let tables = match capture::tables(info, &memory) {
        Ok(tables) => tables,
        Err(error) => {
            say(format_args!("error[host-invalid]: {error}"));
            halt()
        }
    };
    let host = Host::start(&tables, &memory, Some(console::PORT));
    let description = match capture::describe(info, &features, &tables, &memory) {
        Ok(description) => description,
        Err(error) => {
            say(format_args!("error[host-invalid]: {error}"));
            stop(host)
        }
    };
    if info.has_word("capture") {
        capture::print(&description);
        stop(host)
    }
    let (container, tree) = match container(info) {
        Ok(found) => found,
        Err(why) => {
            say(format_args!("error[no-container]: {why}"));
            stop(host)
        }
    };
    let image_bytes = image.end - image.start;
    let facts = BootFacts {
        hypervisor: range(boot.loaded, image_bytes),
        container: Some(container),
    };
    let mut origins = Origins::new();
    let pc::Host {
        mut map, problems, ..
    } = pc::host_map(&description, &facts, &mut origins);
    let header = |module: MachineRange| -> Option<[u8; HEADER_BYTES]> {
        contents(info, range(module.start().raw(), HEADER_BYTES as u64))?
            .try_into()
            .ok()
    };
    let modules = Modules::Container(container.start().raw());
    let system = system::read(&tree, modules, &description, &header, &mut origins);
    map.reserved.extend(system.reserved.iter().cloned());
    let outcome = layout::plan(&map, &system.request);
    if let Err(target) = move_image(&outcome, image, boot) {
        say(format_args!(
            "error[no-room-for-hypervisor]: the image at {:#x} can't move to {target:#x}",
            image.machine
        ));
        stop(host)
    }

    let report = Report {
        image: range(image.machine, image_bytes),
        host: &map,
        host_problems: &problems,
        system: &system,
        outcome: &outcome,
        origins: &origins,
    };
    if !report.print(&say) {
        stop(host)
    }
    for piece in &outcome.plan.hypervisor.heap {
        let piece = piece.bytes();
        let bytes = usize::try_from(piece.size()).unwrap_or(0);
        // SAFETY: the plan gives the range to the hypervisor as heap and to nobody else; all RAM is
        // mapped.
        unsafe { heap::add(piece.start().raw(), bytes) };
    }
    let planned = Planned {
        regions: &info.regions,
        features,
        description,
        map,
        tables,
        memory,
        host,
        outcome,
    };
    match build::build(planned) {
        Ok(Some(cpu)) => run::enter(cpu),
        // This CPU is nobody's: it waits for ever.
        Ok(None) => halt(),
        Err(error) => {
            say(format_args!("error[build-failed]: {error}"));
            stop(host)
        }
    }
}

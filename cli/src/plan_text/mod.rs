//! A plan as tables for people: who owns which frames, where each domain sees them, and what
//! devices can reach.

mod bar;
mod reach;
mod table;

use std::fmt::Write as _;

use anstyle::Style;
use layout::{Capabilities, Kind, MachineRange, MfnRange, Placement, Plan, Size};
use manifest::plan_json::dma_mask;

pub use reach::sentence;

use crate::arch::Arch;
use crate::view::{Source, View, shown, span};
use table::Columns;

/// Cells in a line where nobody says how many there are.
const WIDTH: usize = 80;

/// The whole plan as text, with colours; tables are cut to `width` if there is such a limit.
pub fn render(source: Source<'_>, view: &View, width: Option<usize>) -> String {
    let plan = source.plan;
    let mut text = String::new();
    let _ = writeln!(text, "Machine: {}\n", view.machine);
    let bold = Style::new().bold();
    for (title, body) in [
        ("Domains", domains(plan, width)),
        (
            "Where their parts begin, in the domain's own addresses",
            placements(plan, width),
        ),
        ("Machine memory", memory(source, width)),
        (
            "Memory, and each domain's own view of it, on one scale",
            bar::render(view, width.unwrap_or(WIDTH)),
        ),
        ("Devices", devices(source, width)),
    ] {
        let _ = writeln!(
            text,
            "{bold}{title}{bold:#}\n{}\n",
            body.trim_end_matches('\n')
        );
    }
    let _ = writeln!(text, "{bold}What devices can reach{bold:#}");
    text += &reach::render(view, width);
    text
}

/// The text without colours, and without the blanks that only they need.
pub fn plain(text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    text.lines()
        .fold(String::new(), |plain, line| plain + line.trim_end() + "\n")
}

/// How many cells a line of standard output has if it is a terminal: what `COLUMNS` says, else
/// the terminal.
pub fn width() -> Option<usize> {
    use std::io::IsTerminal as _;
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS").ok();
    let said = said.and_then(|columns| columns.parse().ok());
    let window = || rustix::termios::tcgetwinsize(&stdout).ok();
    let columns = said.or_else(|| window().map(|window| usize::from(window.ws_col)));
    // A terminal that doesn't know how wide it is says 0.
    columns.map(|columns| if columns == 0 { WIDTH } else { columns })
}

/// Who owns which part of RAM, and where it is seen: by machine address.
fn memory(source: Source<'_>, width: Option<usize>) -> String {
    let plan = source.plan;
    let mut rows: Vec<(MfnRange, String, String, String)> = Vec::new();
    let hypervisor = &plan.hypervisor;
    rows.push((
        hypervisor.region,
        "(terrane)".into(),
        String::new(),
        "hypervisor".into(),
    ));
    for domain in &plan.domains {
        for bank in &domain.banks {
            let seen = if bank.gfn.raw() == bank.mfn.raw() {
                "same address".to_owned()
            } else {
                format!("{:#x}", bank.gfn.address().raw())
            };
            let what = if bank.reserved {
                "RAM, reserved in its tree"
            } else {
                "RAM"
            };
            rows.push((bank.machine(), shown(&domain.name), seen, what.into()));
        }
    }
    for range in &plan.reserved {
        let what = "reserved by firmware or manifest";
        let parts = seen_reserved(source, *range).into_iter();
        rows.extend(parts.map(|(part, seen)| (part, "-".into(), seen, what.to_owned())));
    }
    let nobody = [
        (&plan.kept, "modules kept for a restart"),
        (&plan.unowned, "nobody's"),
    ];
    for (ranges, what) in nobody {
        rows.extend(
            ranges
                .iter()
                .map(|range| (*range, "-".into(), String::new(), what.to_owned())),
        );
    }
    rows.sort_by_key(|(range, ..)| range.start());

    let mut table = Columns::new(
        ["MACHINE ADDRESSES", "SIZE", "OWNER", "SEEN AT", "WHAT"],
        width,
    );
    for (range, owner, seen, what) in rows.iter().filter(|(range, ..)| !range.is_empty()) {
        let bytes = range.bytes();
        table.row([
            &span_of(&bytes),
            &Size(bytes.size()).to_string(),
            owner,
            seen,
            what,
        ]);
    }
    table.align_right(1);
    table.keep_whole(&[0, 1, 3]);
    table.text()
}

/// Reserved RAM in parts, with who sees each: what a driver asks for is a device of its domain's.
fn seen_reserved(source: Source<'_>, range: MfnRange) -> Vec<(MfnRange, String)> {
    let mut shown_to: Vec<(MfnRange, &str)> = Vec::new();
    for domain in &source.plan.domains {
        let devices = domain.devices.iter();
        let devices = devices.filter_map(|index| source.host.devices.get(*index));
        let parts = devices.flat_map(|device| &device.ranges);
        let parts = parts.filter_map(|part| part.frames_touched().intersection(&range));
        shown_to.extend(parts.map(|part| (part, domain.name.as_str())));
    }
    let mut edges = vec![range.start(), range.end()];
    edges.extend(
        shown_to
            .iter()
            .flat_map(|(part, _)| [part.start(), part.end()]),
    );
    edges.sort_unstable();
    edges.dedup();
    let between = edges.iter().zip(edges.iter().skip(1));
    let parts = between.map(|(start, end)| {
        let part = MfnRange::between(*start, *end);
        let seen_by = shown_to.iter().filter(|(other, _)| other.overlaps(&part));
        let mut names: Vec<String> = seen_by
            .map(|(_, name)| format!("{}: same address", shown(name)))
            .collect();
        names.dedup();
        (part, names.join("\n"))
    });
    parts.collect()
}

fn domains(plan: &Plan, width: Option<usize>) -> String {
    let mut table = Columns::new(
        [
            "ID",
            "NAME",
            "KIND",
            "CAPABILITIES",
            "DIRECT-MAPPED",
            "MEMORY",
            "CPUS",
        ],
        width,
    );
    for domain in &plan.domains {
        let cpus: Vec<String> = domain.cpus.iter().map(u32::to_string).collect();
        let direct = if domain.identity.is_direct_mapped() {
            "yes"
        } else {
            "no"
        };
        table.row([
            &domain.id.to_string(),
            &shown(&domain.name),
            kind(domain.identity.kind),
            &capabilities(domain.identity.capabilities),
            direct,
            &Size(domain.frames() << layout::FRAME_SHIFT).to_string(),
            &cpus.join(","),
        ]);
    }
    table.align_right(5);
    table.text()
}

fn placements(plan: &Plan, width: Option<usize>) -> String {
    let mut table = Columns::new(["NAME", "WHAT", "ADDRESSES", "SIZE", "HOW"], width);
    for domain in &plan.domains {
        let mut row = |what: &str, start: u64, bytes: u64, how: &str| {
            let addresses = span(start, start.saturating_add(bytes));
            let size = Size(bytes).to_string();
            table.row([&shown(&domain.name), what, &addresses, &size, how]);
        };
        let mut module = |what: &str, placement: &Placement| {
            let how = if placement.in_place {
                "used where it lies"
            } else {
                "copied"
            };
            row(what, placement.address.raw(), placement.size, how);
        };
        module("kernel", &domain.kernel);
        if let Some(ramdisk) = &domain.ramdisk {
            module("ramdisk", ramdisk);
        }
        row(
            Arch::of_host(plan.architecture).guest_description,
            domain.tree.start().raw(),
            domain.tree.size(),
            "at most",
        );
    }
    table.align_right(3);
    table.keep_whole(&[2, 3]);
    table.text()
}

fn devices(source: Source<'_>, width: Option<usize>) -> String {
    let Source {
        plan,
        host,
        request,
        ..
    } = source;
    let mut table = Columns::new(
        ["DOMAIN", "DEVICE", "ADDRESSES", "INTERRUPTS", "DMA"],
        width,
    );
    for domain in &plan.domains {
        for device in domain
            .devices
            .iter()
            .filter_map(|index| host.devices.get(*index))
        {
            let ranges: Vec<String> = device.ranges.iter().map(span_of).collect();
            let interrupts: Vec<String> = device.interrupts.iter().map(u32::to_string).collect();
            let dma = match dma_mask(device, domain, request) {
                None => "none".to_owned(),
                Some(u64::MAX) => "possible".to_owned(),
                Some(mask) => format!("up to {mask:#x}"),
            };
            table.row([
                &shown(&domain.name),
                &shown(&device.path),
                &ranges.join("\n"),
                &shortened(&interrupts),
                &dma,
            ]);
        }
    }
    table.keep_whole(&[2]);
    table.text()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Pv => "pv",
        Kind::Pvh => "pvh",
        Kind::Hvm => "hvm",
    }
}

fn capabilities(capabilities: Capabilities) -> String {
    let names = [
        (Capabilities::CONTROL, "control"),
        (Capabilities::HARDWARE, "hardware"),
        (Capabilities::XENSTORE, "xenstore"),
    ];
    let held: Vec<&str> = names
        .iter()
        .filter(|(capability, _)| capabilities.contains(*capability))
        .map(|(_, name)| *name)
        .collect();
    if held.is_empty() {
        "-".to_owned()
    } else {
        held.join(",")
    }
}

/// A list of numbers, cut where it gets long.
fn shortened(numbers: &[String]) -> String {
    match numbers.get(8..) {
        Some([_, ..]) => {
            format!(
                "{} and {} more",
                numbers.get(..7).unwrap_or_default().join(","),
                numbers.len() - 7
            )
        }
        _ => numbers.join(","),
    }
}

fn span_of(range: &MachineRange) -> String {
    span(range.start().raw(), range.end().raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_interrupts_is_cut() {
        let numbers = |count: u32| {
            (1..=count)
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(shortened(&numbers(8)), "1,2,3,4,5,6,7,8");
        assert_eq!(shortened(&numbers(10)), "1,2,3,4,5,6,7 and 3 more");
    }
}

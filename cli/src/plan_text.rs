//! A plan as tables for people: who owns which frames, where each domain sees them, and what
//! devices can reach.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use layout::{
    Capabilities, Dma, DomainPlan, HostMap, Kind, MachineRange, MfnRange, Placement, Plan,
};

use crate::arch::Arch;

/// The whole plan as text.
pub fn render(plan: &Plan, host: &HostMap) -> String {
    let mut text = String::new();
    let ram: u64 = host.ram.iter().map(|bank| bank.range.size()).sum();
    let cpus = host.cpus.len();
    let plural = if cpus == 1 { "" } else { "s" };
    let _ = writeln!(
        text,
        "Machine: {}, {cpus} CPU{plural}, {} of RAM\n",
        plan.architecture.as_str(),
        size(ram)
    );
    for (title, table) in [
        ("Domains", domains(plan)),
        (
            "Where their parts begin, in the domain's own addresses",
            placements(plan),
        ),
        ("Machine memory", memory(plan)),
        ("Devices", devices(plan, host)),
    ] {
        let _ = writeln!(text, "{title}\n{}\n", trimmed(&table));
    }
    let _ = writeln!(text, "What devices can reach");
    for line in reach(plan, host) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Who owns which part of RAM, and where it is seen: by machine address.
fn memory(plan: &Plan) -> Table {
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
            rows.push((bank.machine(), domain.name.clone(), seen, "RAM".into()));
        }
    }
    let nobody = [
        (&plan.kept, "modules kept for a restart"),
        (&plan.reserved, "reserved by firmware or manifest"),
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

    let mut table = new_table(["MACHINE ADDRESSES", "SIZE", "OWNER", "SEEN AT", "WHAT"]);
    for (range, owner, seen, what) in rows.iter().filter(|(range, ..)| !range.is_empty()) {
        let bytes = range.bytes();
        table.add_row([&span(&bytes), &size(bytes.size()), owner, seen, what]);
    }
    align_right(&mut table, 1);
    table
}

fn domains(plan: &Plan) -> Table {
    let mut table = new_table([
        "ID",
        "NAME",
        "KIND",
        "CAPABILITIES",
        "DIRECT-MAPPED",
        "MEMORY",
        "CPUS",
    ]);
    for domain in &plan.domains {
        let cpus: Vec<String> = domain.cpus.iter().map(u32::to_string).collect();
        let direct = if domain.identity.is_direct_mapped() {
            "yes"
        } else {
            "no"
        };
        table.add_row([
            &domain.id.to_string(),
            &domain.name,
            kind(domain.identity.kind),
            &capabilities(domain.identity.capabilities),
            direct,
            &size(domain.frames() << layout::FRAME_SHIFT),
            &cpus.join(","),
        ]);
    }
    align_right(&mut table, 5);
    table
}

fn placements(plan: &Plan) -> Table {
    let mut table = new_table(["NAME", "WHAT", "ADDRESSES", "SIZE", "HOW"]);
    for domain in &plan.domains {
        let mut row = |what: &str, start: u64, bytes: u64, how: &str| {
            let addresses = span_of(start, bytes);
            table.add_row([&domain.name, what, &addresses, &size(bytes), how]);
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
    align_right(&mut table, 3);
    table
}

fn devices(plan: &Plan, host: &HostMap) -> Table {
    let mut table = new_table(["DOMAIN", "DEVICE", "ADDRESSES", "INTERRUPTS", "DMA"]);
    for domain in &plan.domains {
        for device in domain
            .devices
            .iter()
            .filter_map(|index| host.devices.get(*index))
        {
            let ranges: Vec<String> = device.ranges.iter().map(span).collect();
            let interrupts: Vec<String> = device.interrupts.iter().map(u32::to_string).collect();
            let dma = match device.dma {
                Dma::None => "none".to_owned(),
                Dma::Possible { mask: u64::MAX } => "possible".to_owned(),
                Dma::Possible { mask } => format!("up to {mask:#x}"),
            };
            table.add_row([
                &domain.name,
                &device.path,
                &ranges.join("\n"),
                &shortened(&interrupts),
                &dma,
            ]);
        }
    }
    table
}

/// The security statement: for each domain what its devices read and write behind the CPUs'
/// backs, and who therefore has to trust it.
fn reach(plan: &Plan, host: &HostMap) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .domains
        .iter()
        .filter_map(|domain| reach_of(domain, plan, host))
        .collect();
    if lines.is_empty() {
        lines.push("No domain has a device that may do DMA.".to_owned());
    }
    lines
}

fn reach_of(domain: &DomainPlan, plan: &Plan, host: &HostMap) -> Option<String> {
    let masters: Vec<u64> = domain
        .devices
        .iter()
        .filter_map(|index| host.devices.get(*index))
        .filter_map(|device| match device.dma {
            Dma::Possible { mask } => Some(mask),
            Dma::None => None,
        })
        .collect();
    let highest = *masters.iter().max()?;
    let reachable = |range: &MfnRange| !range.is_empty() && range.bytes().start().raw() <= highest;
    let mut trusting: Vec<String> = plan
        .domains
        .iter()
        .filter(|other| other.id != domain.id)
        .filter(|other| other.banks.iter().any(|bank| reachable(&bank.machine())))
        .map(|other| format!("`{}`", other.name))
        .collect();
    if reachable(&plan.hypervisor.region) {
        trusting.insert(0, "the hypervisor".to_owned());
    }
    let devices = match masters.len() {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    };
    let extent = if highest == u64::MAX {
        "all of the machine's memory".to_owned()
    } else {
        format!("the machine's memory up to {highest:#x}")
    };
    let trust = if trusting.is_empty() {
        "nobody else's memory lies there".to_owned()
    } else {
        format!("it is in the trust base of {}", trusting.join(", "))
    };
    Some(format!(
        "`{}`: {devices} may read and write {extent}, no IOMMU in between: {trust}.",
        domain.name
    ))
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// The table without the blanks that pad each line's end.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| format!(" {}", line.trim_end()))
        .collect();
    lines.join("\n")
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

fn span(range: &MachineRange) -> String {
    span_of(range.start().raw(), range.size())
}

/// First and last byte, as /proc/iomem has them.
fn span_of(start: u64, bytes: u64) -> String {
    format!(
        "{start:#010x}-{:#010x}",
        start.saturating_add(bytes.saturating_sub(1))
    )
}

/// Bytes in the largest unit that leaves no remainder.
pub fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        64 => "0".to_owned(),
        30.. if bytes >= 8 << 30 => format!("{} GiB", bytes >> 30),
        20.. => format!("{} MiB", bytes >> 20),
        10.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_says_them_exactly() {
        let shown = [0, 5, 4096, 3 << 20, 2 << 30, 8 << 30].map(size);
        assert_eq!(shown, ["0", "5 B", "4 KiB", "3 MiB", "2048 MiB", "8 GiB"]);
    }

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

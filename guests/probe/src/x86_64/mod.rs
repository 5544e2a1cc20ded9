//! x86-64: the report, and the order of the tests.

mod checks;

use rt::range::Range;
use rt::{Boot, cpu, exception, say};

use crate::common::{end, memory, report_interface, verdict};

rt::entry!(run);

/// Memory below this belongs to the firmware, to devices, or to a CPU that starts.
const LOW: Range = Range {
    start: 0,
    size: 1 << 20,
};

fn run(boot: Boot) {
    let facts = boot.facts;
    say!("probe: begin");
    report(&boot);
    if facts.xen.is_some() {
        report_interface();
    }
    verdict(&[
        ("memory", memory(&facts.ram, &[LOW])),
        ("interrupts", checks::start_interrupts(facts)),
        ("ipi", checks::interrupt_to_itself()),
        ("timer", checks::timer()),
        ("hypercall-page", checks::hypercall_page(facts)),
        ("memory-map", checks::memory_maps(facts)),
        ("clock", checks::clock(facts)),
        ("event-channel", checks::event_channel(facts)),
        ("xen-timer", checks::hypervisor_timer(facts)),
        ("cpus", checks::other_cpus(facts)),
    ]);
    end(&facts.arguments);
}

fn report(boot: &Boot) {
    let facts = boot.facts;
    say!("arguments={}", facts.arguments);
    say!("entered-at=pvh");
    say!(
        "start-info=version {} flags {:#x}",
        facts.version,
        facts.flags
    );
    say!("first-tsc={}", boot.first_tsc);
    say!("tsc-khz={}", cpu::ticks_per_millisecond());
    let image = rt::memory::image();
    say!("image={:#x}+{:#x}", image.start, image.size);
    for bank in &facts.ram {
        say!("ram={:#x}+{:#x}", bank.start, bank.size);
    }
    for (range, kind) in &facts.others {
        say!("map={:#x}+{:#x} kind {kind}", range.start, range.size);
    }
    for module in &facts.modules {
        say!("module={:#x}+{:#x}", module.start, module.size);
    }
    say!("rsdp={:#x}", facts.rsdp);
    for (signature, range) in &facts.tables {
        let name = core::str::from_utf8(signature).unwrap_or("?");
        say!("table={name} {:#x}+{:#x}", range.start, range.size);
    }
    say!("cpus={}", facts.cpus.len());
    for id in &facts.cpus {
        say!("apic-id={id}");
    }
    report_cpu();
    if let Some(xen) = &facts.xen {
        say!("xen-leaves={:#x}-{:#x}", xen.base, xen.last);
        say!("xen-features={:#x}", xen.features);
        say!("hypercall-page-msr={:#x}", xen.page_msr);
    }
}

fn report_cpu() {
    let leaf = cpu::cpuid(0, 0);
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    let vendor = vendor.as_flattened();
    say!("vendor={}", core::str::from_utf8(vendor).unwrap_or("?"));
    say!("highest-leaf={:#x}", leaf.eax);
    let leaf = cpu::cpuid(1, 0);
    say!(
        "cpuid-1={:#x} ecx={:#x} edx={:#x}",
        leaf.eax,
        leaf.ecx,
        leaf.edx
    );
    match exception::read_msr(0xc000_0080) {
        Ok(efer) => say!("efer={efer:#x}"),
        Err(fault) => say!("efer=fault {fault}"),
    }
}

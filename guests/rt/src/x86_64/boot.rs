//! What the guest was started with: PVH's start structure (Xen's `arch-x86/hvm/start_info.h`), ACPI's tables, and the
//! hypervisor's CPUID leaves.

use core::slice;

use arrayvec::{ArrayString, ArrayVec};
use spin::Once;

use crate::range::Range;
use crate::{acpi, cpu};

/// The facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The start structure's version and flags.
    pub version: u32,
    /// See `version`.
    pub flags: u32,
    /// RAM, in the map's order.
    pub ram: ArrayVec<Range, 64>,
    /// All else that the map has, with its kind.
    pub others: ArrayVec<(Range, u32), 64>,
    /// Modules.
    pub modules: ArrayVec<Range, 8>,
    /// The command line; cut at 2,048 bytes.
    pub arguments: ArrayString<2048>,
    /// ACPI's root pointer, 0 without ACPI.
    pub rsdp: u64,
    /// Signatures of the tables that the root table lists, with where they are.
    pub tables: ArrayVec<([u8; 4], Range), 32>,
    /// Local APIC numbers of the CPUs.
    pub cpus: ArrayVec<u32, 64>,
    /// The fixed hardware.
    pub fixed: acpi::Fixed,
    /// The sleep type of "off".
    pub off: Option<u8>,
    /// The hypervisor of Xen's ABI, if there is one.
    pub xen: Option<Xen>,
}

/// What its CPUID leaves say (`arch-x86/cpuid.h`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Xen {
    /// The first leaf.
    pub base: u32,
    /// The last.
    pub last: u32,
    /// Major version in the upper half, minor in the lower.
    pub version: u32,
    /// The MSR that names the hypercall page.
    pub page_msr: u32,
    /// EAX of the leaf for auto-translated guests.
    pub features: u32,
    /// Ticks of the counter in a millisecond.
    pub ticks: u32,
}

static FACTS: Once<Facts> = Once::new();
static KEPT: Once<ArrayVec<Range, 80>> = Once::new();

/// Ranges that hold what the guest was started with.
pub(crate) fn kept() -> &'static [Range] {
    KEPT.get().map_or(&[], |kept| kept.as_slice())
}

/// The facts, once they have been read.
pub fn facts() -> Option<&'static Facts> {
    FACTS.get()
}

/// `size` bytes of memory at a physical address, which by the boot protocol nobody changes.
fn bytes(address: u64, size: u64) -> &'static [u8] {
    let size = usize::try_from(size.min(1 << 20)).unwrap_or(0);
    if address == 0 || address.saturating_add(size as u64) > 1 << 32 {
        return &[];
    }
    // SAFETY: memory below 4 GiB is mapped 1:1. The protocol puts these structures into memory; `memory::is_own` keeps
    // the tests from writing there.
    unsafe { slice::from_raw_parts(address as *const u8, size) }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at + 4)) << 32 | u64::from(word(bytes, at))
}

/// Reads all of it, once. A structure that can't be read gives no facts.
pub(crate) fn read(start_info: u64) -> &'static Facts {
    FACTS.call_once(|| {
        let mut facts = Facts {
            xen: xen(),
            ..Facts::default()
        };
        if let Some(xen) = facts.xen.filter(|xen| xen.ticks != 0) {
            cpu::set_ticks_per_millisecond(xen.ticks.into());
        }
        start_structure(start_info, &mut facts);
        tables(&mut facts);
        keep(start_info, &facts);
        facts
    })
}

fn start_structure(address: u64, facts: &mut Facts) {
    const MAGIC: u32 = 0x336e_c578;
    const RAM: u32 = 1;
    let info = bytes(address, 56);
    if word(info, 0) != MAGIC {
        return;
    }
    facts.version = word(info, 4);
    facts.flags = word(info, 8);
    facts.rsdp = long(info, 32);
    let modules = bytes(long(info, 16), u64::from(word(info, 12)) * 32);
    for module in modules.chunks_exact(32) {
        let _ = facts.modules.try_push(Range {
            start: long(module, 0),
            size: long(module, 8),
        });
    }
    let line = bytes(long(info, 24), 2048);
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    if let Ok(text) = core::str::from_utf8(line) {
        let _ = facts.arguments.try_push_str(text);
    }
    if facts.version == 0 {
        return;
    }
    let map = bytes(long(info, 40), u64::from(word(info, 48)) * 24);
    for entry in map.chunks_exact(24) {
        let range = Range {
            start: long(entry, 0),
            size: long(entry, 8),
        };
        match word(entry, 16) {
            RAM => drop(facts.ram.try_push(range)),
            kind => drop(facts.others.try_push((range, kind))),
        }
    }
}

/// A table by its address, as long as its header says.
fn table(address: u64) -> &'static [u8] {
    let size = word(bytes(address, 36), 4);
    bytes(address, size.into())
}

fn tables(facts: &mut Facts) {
    let root = bytes(facts.rsdp, 36);
    if root.get(..8) != Some(b"RSD PTR ") {
        return;
    }
    let (list, wide) = match (root.get(15), long(root, 24)) {
        (Some(2..), address @ 1..) => (table(address), true),
        _ => (table(word(root, 16).into()), false),
    };
    let entries = list.get(36..).unwrap_or_default();
    for entry in entries.chunks_exact(if wide { 8 } else { 4 }) {
        let address = if wide {
            long(entry, 0)
        } else {
            word(entry, 0).into()
        };
        let bytes = table(address);
        let Some(signature) = bytes.first_chunk() else {
            continue;
        };
        let range = Range {
            start: address,
            size: bytes.len() as u64,
        };
        let _ = facts.tables.try_push((*signature, range));
        match signature {
            b"APIC" => facts.cpus = acpi::cpus(bytes),
            b"FACP" => {
                facts.fixed = acpi::fixed(bytes);
                facts.off = acpi::sleep_type_off(table(facts.fixed.dsdt));
            }
            _ => {}
        }
    }
}

fn keep(start_info: u64, facts: &Facts) {
    const PAGE: u64 = 4096;
    let page = |address: u64| Range {
        start: address & !(PAGE - 1),
        size: 2 * PAGE,
    };
    KEPT.call_once(|| {
        let tables = facts.tables.iter().map(|(_, range)| *range);
        let dsdt = facts.fixed.dsdt;
        let fixed = Range {
            start: dsdt,
            size: table(dsdt).len() as u64,
        };
        let modules = facts.modules.iter().copied();
        // The structure and all that it points to lie together.
        let mut kept: ArrayVec<Range, 80> = [page(start_info), page(facts.rsdp), fixed]
            .into_iter()
            .collect();
        kept.extend(tables.chain(modules).take(40));
        kept
    });
}

/// Looks for the leaves where Xen puts them.
fn xen() -> Option<Xen> {
    const PRESENT: u32 = 1 << 31;
    if cpu::cpuid(1, 0).ecx & PRESENT == 0 {
        return None;
    }
    let base = (0x4000_0000..0x4001_0000).step_by(0x100).find(|base| {
        let leaf = cpu::cpuid(*base, 0);
        [leaf.ebx, leaf.ecx, leaf.edx] == [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]
    })?;
    Some(Xen {
        base,
        last: cpu::cpuid(base, 0).eax,
        version: cpu::cpuid(base + 1, 0).eax,
        page_msr: cpu::cpuid(base + 2, 0).ebx,
        features: cpu::cpuid(base + 4, 0).eax,
        ticks: cpu::cpuid(base + 3, 0).ecx,
    })
}

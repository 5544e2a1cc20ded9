//! Any bytes as memory that a PC's boot loader filled: its information by each protocol, and the memory map in it made
//! into a description that is planned for.
#![no_main]

use layout::{MachineAddress, MachineRange, SystemRequest};
use libfuzzer_sys::fuzz_target;
use machine_x86_64::boot_info::{self, Protocol};
use manifest::origin::Origins;
use manifest::pc::{self, BootFacts, Description, Memory, MemoryKind};
use terrane_fuzz::Window;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (protocol, address, bytes) = input;
    let protocol = match protocol % 3 {
        0 => Protocol::Multiboot1,
        1 => Protocol::Multiboot2,
        _ => Protocol::Pvh,
    };
    let Ok(info) = boot_info::read(&Window(bytes), protocol, u64::from(address)) else {
        return;
    };
    for region in &info.regions {
        assert!(region.bytes > 0 && region.start.checked_add(region.bytes).is_some());
    }
    for module in &info.modules {
        assert!(module.start.checked_add(module.bytes).is_some());
    }
    let _ = (info.has_word("capture"), info.ram_bytes());
    let memory = info.regions.iter();
    let memory =
        memory.map(|region| Memory::new(region.start, region.bytes, MemoryKind::of(region.kind)));
    let machine = Description {
        memory: memory.collect(),
        cpus: vec![0],
        address_bits: 40,
        ..Description::default()
    };
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let container = info
        .modules
        .first()
        .map(|module| range(module.start, module.bytes));
    let boot = BootFacts {
        hypervisor: range(0x20_0000, 0x10_0000),
        container,
    };
    let host = pc::host_map(&machine, &boot, &mut Origins::new());
    let _ = layout::plan(&host.map, &SystemRequest::default());
});

//! ACPI tables whose headers are right and whose insides are the fuzzer's, and a root pointer that is all the fuzzer's.
//! What they say of the machine is described, planned for, and written.
#![no_main]

use layout::{HostMap, MachineAddress, MachineRange, SystemRequest};
use libfuzzer_sys::fuzz_target;
use machine_x86_64::devices::acpi::{self, Fadt, Tables};
use machine_x86_64::devices::pci::{Address, Registers, Size};
use machine_x86_64::discover::pci::Configuration;
use machine_x86_64::discover::{self, Facts, Hardware};
use manifest::origin::Origins;
use manifest::pc::{self, BootFacts};
use terrane_fuzz::Window;

/// One function on bus 0, whose registers are the fuzzer's.
struct Bus<'a>(&'a [u8]);

/// The registers of a function; there are none where no function is.
struct Function(Option<Vec<u8>>);

impl Configuration for Bus<'_> {
    type Function = Function;

    fn function(&self, address: Address) -> Function {
        let there = address.bus == 0 && address.device < 2;
        Function(there.then(|| {
            let mut bytes = self.0.to_vec();
            bytes.resize(4096, 0);
            bytes
        }))
    }
}

impl Registers for Function {
    fn read(&self, offset: u16, size: Size) -> u32 {
        let Some(bytes) = &self.0 else {
            return size.ones();
        };
        let mut word = [0; 4];
        let (at, length) = (usize::from(offset), usize::from(size.bytes()));
        if let Some(found) = bytes.get(at..at + length) {
            word[..length].copy_from_slice(found);
        }
        u32::from_le_bytes(word)
    }

    fn write(&mut self, offset: u16, size: Size, value: u32) {
        let (at, length) = (usize::from(offset), usize::from(size.bytes()));
        if let Some(place) = self
            .0
            .as_mut()
            .and_then(|bytes| bytes.get_mut(at..at + length))
        {
            place.copy_from_slice(&value.to_le_bytes()[..length]);
        }
    }
}

impl Hardware for Bus<'_> {
    fn pins(&self, io_apic: u64) -> u32 {
        u32::try_from(io_apic & 0x1ff).unwrap_or_default()
    }
}

const SIGNATURES: [&[u8; 4]; 8] = [
    b"APIC", b"MCFG", b"DMAR", b"IVRS", b"SRAT", b"FACP", b"HPET", b"SSDT",
];
const PLACE: u64 = 0x1_0000;

/// A table with the header that it must have.
fn seal(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend_from_slice(&(36 + body.len() as u32).to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend_from_slice(body);
    bytes[9] = sum(&bytes).wrapping_neg();
    bytes
}

fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The memory with all tables, and where the root pointer is.
fn firmware(tables: &[(u8, &[u8])]) -> (Vec<u8>, u64) {
    let mut memory = vec![0; PLACE as usize];
    let mut list = Vec::new();
    for (which, body) in tables.iter().take(16) {
        let signature = *SIGNATURES[usize::from(*which) % SIGNATURES.len()];
        list.extend_from_slice(&(memory.len() as u64).to_le_bytes());
        memory.extend_from_slice(&seal(signature, body));
    }
    let xsdt = memory.len() as u64;
    memory.extend_from_slice(&seal(*b"XSDT", &list));
    let root_at = memory.len() as u64;
    let mut root = b"RSD PTR \0FUZZER\x02".to_vec();
    root.extend_from_slice(&[0; 4]);
    root.extend_from_slice(&36_u32.to_le_bytes());
    root.extend_from_slice(&xsdt.to_le_bytes());
    root.extend_from_slice(&[0; 4]);
    root[8] = sum(&root[..20]).wrapping_neg();
    root[32] = sum(&root).wrapping_neg();
    memory.extend_from_slice(&root);
    (memory, root_at)
}

fuzz_target!(|input: (Vec<(u8, &[u8])>, &[u8], &[u8])| {
    let (tables, function, raw) = input;
    // What isn't sealed is refused, and no more.
    let _ = acpi::find_root(&Window(raw)).and_then(|root| Tables::read(&Window(raw), root));
    let _ = Tables::of_root(&Window(raw), raw, 0);

    let (memory, root) = firmware(&tables);
    let window = Window(&memory);
    let tables = Tables::read(&window, root).expect("a list that is right");
    let table = |signature: &[u8; 4]| tables.load(&window, *signature);
    if let Ok(fadt) = table(b"FACP") {
        let _ = Fadt::read(&fadt);
    }
    if let Ok(hpet) = table(b"HPET") {
        let _ = acpi::hpet(&hpet);
    }
    if let Ok(aml) = table(b"SSDT") {
        let _ = acpi::soft_off(&aml);
    }
    let mut map = HostMap::default();
    for signature in [b"DMAR", b"IVRS"] {
        if let Ok(table) = table(signature) {
            acpi::describe_iommus(&table, &mut map);
        }
    }
    let facts = Facts {
        regions: &[],
        address_bits: 40,
        console: Some(0x3f8),
    };
    let Ok(mut machine) = discover::describe(facts, &tables, &window, &Bus(function)) else {
        return;
    };
    assert_eq!(pc::read(&pc::write(&machine)).ok().as_ref(), Some(&machine));
    machine
        .memory
        .push(pc::Memory::new(0, 1 << 30, pc::MemoryKind::Ram));
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let boot = BootFacts {
        hypervisor: range(0x20_0000, 0x10_0000),
        container: None,
    };
    let host = pc::host_map(&machine, &boot, &mut Origins::new());
    let _ = layout::plan(&host.map, &SystemRequest::default());
});

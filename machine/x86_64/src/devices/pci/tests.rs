use super::msi::Message;
use super::msix::{Memory, Table};
use super::*;
use crate::devices::interrupt::{Delivery, Destination, Target};
use proptest::prelude::*;

/// One vCPU, with APIC ID 4.
struct One;

impl Directory for One {
    fn first(&self, destination: Destination) -> Option<Target> {
        let named = matches!(
            destination,
            Destination::Everyone | Destination::Physical(4) | Destination::Logical(1)
        );
        named.then_some(Target {
            vcpu: 0,
            apic_id: 4,
        })
    }
}

/// A function's registers.
struct Chip([u8; 4096]);

impl Registers for Chip {
    fn read(&self, offset: u16, size: Size) -> u32 {
        let at = usize::from(offset);
        (0..usize::from(size.bytes())).fold(0, |value, byte| {
            value | u32::from(self.0[at + byte]) << (8 * byte)
        })
    }

    fn write(&mut self, offset: u16, size: Size, value: u32) {
        for byte in 0..usize::from(size.bytes()) {
            self.0[usize::from(offset) + byte] = value.to_le_bytes()[byte];
        }
    }
}

const MSI: u16 = 0x50;
const MSIX: u16 = 0x70;

impl Chip {
    /// An NVMe controller with both capabilities; its MSI has 64 bits of address and can have 32 messages.
    fn nvme() -> Self {
        let mut chip = Self([0; 4096]);
        chip.write(0, Size::Word, 0x0010_1b36);
        chip.write(STATUS, Size::Half, STATUS_CAPABILITIES);
        chip.write(CLASS, Size::Half, 0x0108);
        chip.write(CAPABILITIES, Size::Byte, 0x40);
        chip.write(0x40, Size::Half, 0x5001);
        chip.write(MSI, Size::Half, 0x7005);
        chip.write(MSI + 2, Size::Half, 0x008a);
        chip.write(MSIX, Size::Half, 0x0011);
        chip.write(MSIX + 2, Size::Half, 64);
        chip.write(MSIX + 4, Size::Word, 0x2000);
        chip
    }

    fn host_bridge() -> Self {
        let mut chip = Self([0; 4096]);
        chip.write(0, Size::Word, 0x29c0_8086);
        chip.write(CLASS, Size::Half, CLASS_HOST_BRIDGE);
        chip
    }

    /// The message that hardware sends, if it does.
    fn message(&self) -> Option<(u64, u32)> {
        let low = u64::from(self.read(MSI + 4, Size::Word));
        let high = u64::from(self.read(MSI + 8, Size::Word));
        let enabled = self.read(MSI + 2, Size::Half) & 1 != 0;
        enabled.then(|| (high << 32 | low, self.read(MSI + 12, Size::Half)))
    }
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address {
        bus,
        device,
        function,
    }
}

#[test]
fn ports_and_memory_name_the_same_registers() {
    let mut port = AddressPort::default();
    assert_eq!(port.target(0xcfc, Size::Word), None, "not enabled");
    port.write(0xff00_fb43);
    assert_eq!(port.read(), 0x8000_fb40);
    assert_eq!(port.target(0xcfe, Size::Half), Some((at(0, 31, 3), 0x42)));
    assert_eq!(port.target(0xcff, Size::Byte), Some((at(0, 31, 3), 0x43)));
    assert_eq!(port.target(0xcfd, Size::Half), None);
    assert_eq!(port.target(0xcfe, Size::Word), None);
    assert_eq!(port.target(0xcf8, Size::Word), None);
    assert_eq!(port.target(0xd00, Size::Byte), None);
    assert_eq!(ecam(0xf_b042), (at(0, 31, 3), 0x42));
    assert_eq!(ecam(0x0123_4fff), (at(0x12, 6, 4), 0xfff));
    assert_eq!(alloc::format!("{}", at(0, 31, 2)), "00:1f.2");
}

/// What a hostile domain makes of a BAR.
#[test]
fn a_table_is_where_its_bar_is_or_nowhere() {
    let mut chip = Chip::nvme();
    let place = Function::find(&chip).unwrap().msix().unwrap();
    let mut address = |command, low, high| {
        chip.write(COMMAND, Size::Half, command);
        chip.write(FIRST_BAR, Size::Word, low);
        chip.write(FIRST_BAR + 4, Size::Word, high);
        place.address(&chip)
    };
    assert_eq!(address(2, 0xfebf_0004, 0x12), Some(0x12_febf_2000));
    assert_eq!(address(2, 0xfebf_0000, 0x12), Some(0xfebf_2000), "32 bits");
    assert_eq!(address(0, 0xfebf_0000, 0), None, "it decodes no memory");
    assert_eq!(address(2, 0xc001, 0), None, "ports");
    assert_eq!(address(2, 4, 0), None, "nobody has given it an address");
    let highest = Some(0xffff_ffff_ffff_e000);
    assert_eq!(address(2, 0xffff_c004, u32::MAX), highest);
    assert_eq!(address(2, 0xffff_fff4, u32::MAX), None, "past the last");
}

#[test]
fn the_chipsets_registers_stay_where_they_are() {
    let mut chip = Chip::nvme();
    chip.write(0, Size::Word, 0x2918_8086);
    chip.write(CLASS, Size::Half, CLASS_ISA_BRIDGE);
    let mut function = Function::find(&chip).unwrap();
    for (offset, size) in [(0x40, Size::Word), (0x44, Size::Byte), (0xf2, Size::Half)] {
        let result = function.write(offset, size, u32::MAX, &One, &mut chip);
        assert_eq!(result, Err(Refused::Kept), "{offset:#x}");
    }
    let pirq = function.write(0x60, Size::Byte, 0x80, &One, &mut chip);
    assert_eq!((pirq, chip.read(0x60, Size::Byte)), (Ok(()), 0x80));
}

#[test]
fn an_iommus_registers_stay() {
    let mut chip = Chip::nvme();
    chip.write(CLASS, Size::Half, CLASS_IOMMU);
    let mut function = Function::find(&chip).unwrap();
    let result = function.write(0x44, Size::Word, u32::MAX, &One, &mut chip);
    assert_eq!(result, Err(Refused::Kept));
}

#[test]
fn nobody_moves_memory_by_the_host_bridge() {
    let mut chip = Chip::host_bridge();
    let mut function = Function::find(&chip).unwrap();
    // PCIEXBAR, PAM0, SMRAM, TSEG, TOLUD of Q35; AMD's SMN window; an access that reaches beyond what is allowed.
    for offset in [0x60, 0x90, 0x9c, 0xac, 0xb0, 0x64, 0x100, 0x3c] {
        let result = function.write(offset, Size::Word, u32::MAX, &One, &mut chip);
        assert_eq!(result, Err(Refused::Kept), "{offset:#x}");
        assert_eq!(chip.read(offset, Size::Word), 0, "{offset:#x}");
    }
    let sized = function.write(0x10, Size::Word, u32::MAX, &One, &mut chip);
    assert_eq!((sized, chip.read(0x10, Size::Word)), (Ok(()), 0));
    assert_eq!(function.write(4, Size::Half, 6, &One, &mut chip), Ok(()));
    assert_eq!(function.write(0x3c, Size::Byte, 9, &One, &mut chip), Ok(()));
    assert_eq!(function.read(4, Size::Half, &chip), 6);
    assert_eq!(function.read(0, Size::Word, &chip), 0x29c0_8086);
}

#[test]
fn what_is_not_there_or_not_aligned_reads_as_ones() {
    let mut nobody = Chip([0xff; 4096]);
    assert_eq!(Function::find(&nobody), None);
    nobody.0 = Chip::nvme().0;
    let mut function = Function::find(&nobody).unwrap();
    assert_eq!(function.read(0x41, Size::Half, &nobody), 0xffff);
    assert_eq!(function.read(0x1000, Size::Byte, &nobody), 0xff);
    let before = nobody.0;
    assert_eq!(
        function.write(0x41, Size::Half, 1, &One, &mut nobody),
        Ok(())
    );
    assert_eq!(nobody.0, before);
}

#[test]
fn a_message_is_translated_and_reads_as_written() {
    let mut chip = Chip::nvme();
    let mut function = Function::find(&chip).unwrap();
    let mut write =
        |offset, size, value| function.write(MSI + offset, size, value, &One, &mut chip);
    // Logical, lowest priority, redirection hint.
    write(4, Size::Word, 0xfee0_100c).unwrap();
    write(8, Size::Word, 0).unwrap();
    write(12, Size::Half, 0x0141).unwrap();
    write(2, Size::Half, 1).unwrap();
    assert_eq!(chip.message(), Some((0xfee0_4000, 0x41)));
    assert_eq!(function.read(MSI + 4, Size::Word, &chip), 0xfee0_100c);
    assert_eq!(function.read(MSI + 12, Size::Half, &chip), 0x0141);
    assert_eq!(function.read(MSI, Size::Word, &chip), 0x008b_7005);
    // Mask bits are the hardware's.
    function
        .write(MSI + 16, Size::Word, 3, &One, &mut chip)
        .unwrap();
    assert_eq!(chip.read(MSI + 16, Size::Word), 3);
    function
        .write(MSI + 2, Size::Half, 0, &One, &mut chip)
        .unwrap();
    assert_eq!(chip.message(), None);
}

#[test]
fn a_message_that_a_domain_cant_have_turns_it_off() {
    let cases = [
        (
            0xfee0_5000,
            0,
            0x41,
            Refusal::Destination(Destination::Physical(5)),
        ),
        (0xfee0_4000, 0, 0x1f, Refusal::Vector(0x1f)),
        (0xfee0_4000, 0, 0xf1, Refusal::Vector(0xf1)),
        (0xfee0_4000, 0, 0x441, Refusal::Delivery(Delivery::Nmi)),
        (0xfee0_4000, 0, 0x241, Refusal::Delivery(Delivery::Smi)),
        (0xfee0_4000, 0, 0x8041, Refusal::Level),
        (0xfec0_0000, 0, 0x41, Refusal::Address(0xfec0_0000)),
        (0xfee0_4010, 0, 0x41, Refusal::Address(0xfee0_4010)),
        (0xfee0_4000, 1, 0x41, Refusal::Address(0x1_fee0_4000)),
    ];
    for (low, high, data, refusal) in cases {
        let mut chip = Chip::nvme();
        let mut function = Function::find(&chip).unwrap();
        let mut write =
            |offset, size, value| function.write(MSI + offset, size, value, &One, &mut chip);
        write(4, Size::Word, low).unwrap();
        write(8, Size::Word, high).unwrap();
        write(12, Size::Half, data).unwrap();
        assert_eq!(write(2, Size::Half, 1), Err(Refused::Message(refusal)));
        assert_eq!(chip.message(), None);
        assert_eq!(function.read(MSI + 2, Size::Half, &chip) & 1, 1);
    }
}

#[test]
fn several_messages_stay_below_the_hypervisors_vectors() {
    let mut chip = Chip::nvme();
    let mut function = Function::find(&chip).unwrap();
    let mut write =
        |offset, size, value| function.write(MSI + offset, size, value, &One, &mut chip);
    write(4, Size::Word, 0xfee0_4000).unwrap();
    write(12, Size::Half, 0xe8).unwrap();
    write(2, Size::Half, 3 << 4 | 1).unwrap(); // 8: up to 0xef
    let refused = write(2, Size::Half, 5 << 4 | 1); // 32: up to 0xff
    assert_eq!(refused, Err(Refused::Message(Refusal::Vector(0xff))));
    assert_eq!(chip.message(), None);
    let _ = function.write(MSI + 2, Size::Half, 7 << 4, &One, &mut chip);
    let most = function.read(MSI + 2, Size::Half, &chip);
    assert_eq!(most, 0x00da, "not more than the device has");
}

#[derive(Default)]
struct Words(Vec<(u32, u32)>);

impl Memory for Words {
    fn write(&mut self, offset: u32, value: u32) {
        self.0.push((offset, value));
    }
}

#[test]
fn an_entry_of_the_table_is_masked_until_it_is_whole_and_allowed() {
    let function = Function::find(&Chip::nvme()).unwrap();
    let place = function.msix().unwrap();
    assert_eq!((place.bar, place.offset, place.entries), (0, 0x2000, 65));
    let mut table = Table::new(place.entries);
    let mut words = Words::default();
    assert_eq!(table.read(0x1c), 1);
    table.write(0x10, 0xfee0_4000, &One, &mut words).unwrap();
    table.write(0x18, 0x51, &One, &mut words).unwrap();
    assert_eq!(words.0, [(0x1c, 1), (0x1c, 1)]);
    words.0.clear();
    table.write(0x1c, 0, &One, &mut words).unwrap();
    let whole = [
        (0x1c, 1),
        (0x10, 0xfee0_4000),
        (0x14, 0),
        (0x18, 0x51),
        (0x1c, 0),
    ];
    assert_eq!(words.0, whole);
    words.0.clear();
    let refused = table.write(0x18, 0xf5, &One, &mut words);
    assert_eq!(refused, Err(Refusal::Vector(0xf5)));
    assert_eq!(words.0, [(0x1c, 1)]);
    assert_eq!(table.read(0x18), 0xf5);
    words.0.clear();
    table.write(65 * 16, 0, &One, &mut words).unwrap();
    assert_eq!((words.0.len(), table.read(65 * 16)), (0, 0));
}

#[test]
fn a_table_that_moved_is_written_again() {
    let mut table = Table::new(2);
    for (offset, value) in [(0x10, 0xfee0_4000), (0x18, 0x51), (0x1c, 0)] {
        table
            .write(offset, value, &One, &mut Words::default())
            .unwrap();
    }
    let mut words = Words::default();
    table.restore(&One, &mut words);
    let whole = [
        (0x0c, 1),
        (0x1c, 1),
        (0x10, 0xfee0_4000),
        (0x14, 0),
        (0x18, 0x51),
        (0x1c, 0),
    ];
    assert_eq!(words.0, whole);
}

#[test]
fn a_quiet_function_sends_nothing() {
    let mut chip = Chip::nvme();
    let mut function = Function::find(&chip).unwrap();
    for (offset, size, value) in [
        (0x04, Size::Half, 0x407),
        (MSI + 4, Size::Word, 0xfee0_4000),
        (MSI + 8, Size::Word, 0),
        (MSI + 12, Size::Half, 0x51),
        (MSI + 2, Size::Half, 1),
    ] {
        function
            .write(offset, size, value, &One, &mut chip)
            .unwrap();
    }
    assert!(chip.message().is_some());
    function.quiet(&mut chip);
    assert_eq!(chip.message(), None);
    assert_eq!(chip.read(0x04, Size::Half), 0x403);
    assert_eq!(function.read(MSI + 2, Size::Half, &chip) & 1, 0);
}

fn size() -> impl Strategy<Value = Size> {
    prop::sample::select(vec![Size::Byte, Size::Half, Size::Word])
}

/// Values that have a chance to be a message for the domain.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        Just(0xfee0_4000),
        Just(0xfee0_1004),
        0_u32..0x200,
        (0_u32..8).prop_map(|n| n << 4 | 1)
    ]
}

proptest! {
    /// Whatever is written: an enabled message has an allowed vector, all of its range, and an own CPU.
    #[test]
    fn hardware_sends_allowed_messages_only(
        writes in prop::collection::vec((MSI - 4..MSI + 24, size(), value()), 0..60)
    ) {
        let mut chip = Chip::nvme();
        let mut function = Function::find(&chip).unwrap();
        for (offset, size, value) in writes {
            let _ = function.write(offset, size, value, &One, &mut chip);
            if let Some((address, data)) = chip.message() {
                let count = 1 << (chip.read(MSI + 2, Size::Half) >> 4 & 7);
                prop_assert_eq!(address, 0xfee0_4000);
                prop_assert!(data & !(count - 1) >= 0x20 && data | (count - 1) < 0xf0);
            }
        }
    }

    /// The same for the table.
    #[test]
    fn unmasked_entries_are_allowed_messages(
        writes in prop::collection::vec((0_u32..20, value()), 0..60)
    ) {
        let mut table = Table::new(4);
        let mut entries = [[0_u32; 4]; 4];
        for entry in &mut entries {
            entry[3] = 1;
        }
        for (word, value) in writes {
            let mut words = Words::default();
            let _ = table.write(word * 4, value, &One, &mut words);
            for (offset, value) in words.0 {
                let entry = &mut entries[offset as usize / 16];
                entry[offset as usize / 4 % 4] = value;
                if entry[3] & 1 == 0 {
                    let sent = Message { address: u64::from(entry[1]) << 32 | u64::from(entry[0]), data: entry[2] };
                    prop_assert_eq!(sent.address, 0xfee0_4000);
                    prop_assert!((0x20..0xf0).contains(&sent.data));
                }
            }
        }
    }

    /// A device with any bytes in its configuration space is looked at without harm.
    #[test]
    fn no_device_upsets_the_search(bytes in prop::collection::vec(any::<u8>(), 256), writes in prop::collection::vec((0_u16..0x110, size(), any::<u32>()), 0..20)) {
        let mut chip = Chip([0; 4096]);
        chip.0[..256].copy_from_slice(&bytes);
        chip.0[6] |= 0x10;
        if let Some(mut function) = Function::find(&chip) {
            for (offset, size, value) in writes {
                let _ = function.write(offset, size, value, &One, &mut chip);
                let _ = function.read(offset, size, &chip);
            }
        }
    }
}

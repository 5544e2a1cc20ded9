use std::collections::BTreeMap;

use layout::{MachineAddress, MachineRange};
use manifest::pc::{Bridge, PciAddress};

use super::pci::{Configuration, scan};
use crate::devices::pci::{Address, Registers, Size};

/// Configuration space in which BARs keep the bits that their size lets them.
#[derive(Default)]
struct Space(BTreeMap<Address, Device>);

#[derive(Clone)]
struct Device {
    bytes: Vec<u8>,
    /// For each BAR the bits that can be set.
    masks: [u32; 6],
}

impl Configuration for Space {
    type Function = Option<Device>;
    fn function(&self, address: Address) -> Option<Device> {
        self.0.get(&address).cloned()
    }
}

impl Registers for Option<Device> {
    fn read(&self, offset: u16, size: Size) -> u32 {
        let Some(device) = self else {
            return size.ones();
        };
        let at = usize::from(offset);
        let mut word = [0; 4];
        let length = usize::from(size.bytes());
        word[..length].copy_from_slice(&device.bytes[at..at + length]);
        u32::from_le_bytes(word)
    }
    fn write(&mut self, offset: u16, size: Size, value: u32) {
        let Some(device) = self else { return };
        let at = usize::from(offset);
        let mut value = value;
        let bar = at.checked_sub(0x10).map(|at| at / 4);
        if let Some(mask) = bar.and_then(|bar| device.masks.get(bar)) {
            assert_eq!(device.bytes[4] & 3, 0, "sized while it decodes");
            let kept = u32::from_le_bytes(device.bytes[at..at + 4].try_into().unwrap());
            value = value & mask | kept & !mask & if *mask == 0 { 0 } else { 0xf };
        }
        let length = usize::from(size.bytes());
        device.bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address {
        bus,
        device,
        function,
    }
}

fn device(vendor: u16, class: u32, header: u8, bars: &[(u32, u32)]) -> Device {
    let mut bytes = vec![0; 4096];
    bytes[0..2].copy_from_slice(&vendor.to_le_bytes());
    bytes[2..4].copy_from_slice(&0x1234_u16.to_le_bytes());
    bytes[4] = 7;
    bytes[8..12].copy_from_slice(&(class << 8).to_le_bytes());
    bytes[14] = header;
    let mut masks = [0; 6];
    for (index, (value, mask)) in bars.iter().enumerate() {
        bytes[0x10 + index * 4..0x14 + index * 4].copy_from_slice(&value.to_le_bytes());
        masks[index] = *mask;
    }
    Device { bytes, masks }
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

fn place(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress {
        segment: 0,
        bus,
        device,
        function,
    }
}

#[test]
fn functions_with_their_registers() {
    let mut space = Space::default();
    // A host bridge whose BAR must not be touched, and a device of two functions.
    let mut add = |address, device| space.0.insert(address, device);
    add(
        at(0, 0, 0),
        device(0x8086, 0x06_0000, 0, &[(0xe000_0000, 0xffff_0000)]),
    );
    let bars = [
        (0xfebf_0000, 0xffff_0000),
        (0xc001, 0xffe1),
        (0x0000_000c, 0xc000_0000),
        (0x40, 0xffff_ffff),
        (0, 0xffff_f000),
    ];
    add(at(0, 2, 0), device(0x1af4, 0x01_0000, 0x80, &bars));
    add(at(0, 2, 3), device(0x1af4, 0x02_0000, 0, &[]));
    // Without the bit in function 0 nobody looks further.
    add(at(0, 3, 0), device(0x1af4, 0x02_0000, 0, &[]));
    add(at(0, 3, 1), device(0x1af4, 0x02_0000, 0, &[]));
    let mut bridge = device(0x1b36, 0x06_0400, 1, &[(0, 0)]);
    bridge.bytes[0x18..0x1b].copy_from_slice(&[0, 1, 4]);
    add(at(0, 4, 0), bridge);
    add(
        at(1, 0, 0),
        device(
            0x1b36,
            0x01_0802,
            0,
            &[(0xfe80_0004, 0xffff_c000), (0, u32::MAX)],
        ),
    );

    let (functions, bridges) = scan(&space, 3);
    let found: Vec<_> = functions.iter().map(|it| it.address).collect();
    let expected = [
        place(0, 0, 0),
        place(0, 2, 0),
        place(0, 2, 3),
        place(0, 3, 0),
        place(0, 4, 0),
        place(1, 0, 0),
    ];
    assert_eq!(found, expected);
    assert!(functions[0].bars.is_empty());
    assert_eq!(
        functions[1].bars,
        [range(0xfebf_0000, 0x1_0000), range(0x40_0000_0000, 1 << 30)]
    );
    assert_eq!(functions[1].class, 0x01_0000);
    assert_eq!(functions[5].bars, [range(0xfe80_0000, 0x4000)]);
    let expected = Bridge {
        address: place(0, 4, 0),
        secondary: 1,
        subordinate: 4,
        isolates: false,
    };
    assert_eq!(bridges, [expected]);
}

/// Access control is looked for in the list of extended capabilities, whatever stands there.
#[test]
fn access_control_of_a_port_and_of_a_function() {
    let mut space = Space::default();
    let with = |mut device: Device, control: u16| {
        device.bytes[0x100..0x104].copy_from_slice(&0x1481_0001_u32.to_le_bytes());
        device.bytes[0x148..0x14c].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        device.bytes[0x14c..0x14e].copy_from_slice(&control.to_le_bytes());
        device
    };
    let port = device(0x8086, 0x06_0400, 1, &[]);
    let plain = device(0x8086, 0x02_0000, 0, &[]);
    space.0.insert(at(0, 1, 0), with(port.clone(), 0x1d));
    space.0.insert(at(0, 2, 0), with(port.clone(), 0x0d));
    space.0.insert(at(0, 3, 0), port);
    space.0.insert(at(0, 4, 0), with(plain.clone(), 0x0c));
    let mut circle = with(plain, 0);
    circle.bytes[0x148..0x14c].copy_from_slice(&0x1001_0002_u32.to_le_bytes());
    space.0.insert(at(0, 5, 0), circle);
    let (functions, bridges) = scan(&space, 0);
    let isolates: Vec<bool> = bridges.iter().map(|bridge| bridge.isolates).collect();
    assert_eq!(isolates, [true, false, false]);
    let isolated: Vec<bool> = functions.iter().map(|it| it.isolated).collect();
    assert_eq!(isolated, [true, true, false, true, false]);
}

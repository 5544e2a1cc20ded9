//! PCI functions, by what the kernel shows of each (Linux, Documentation/PCI/sysfs-pci.rst).

use layout::{MachineAddress, MachineRange};
use manifest::pc::{Bridge, Function, PciAddress};

use super::files::{Files, hexadecimal};
use crate::diagnostics::Diagnostic;

const DEVICES: &str = "sys/bus/pci/devices";

/// Where a header's type is; its top bit says that the device has several functions (PCI Local Bus 3.0, 6.1).
const HEADER_TYPE: usize = 0x0e;
const SECONDARY_BUS: usize = 0x19;
const SUBORDINATE_BUS: usize = 0x1a;
const HOST_BRIDGE: u32 = 0x0600;

/// Of a resource's flags (Linux, include/linux/ioport.h): it is memory; it has no place.
const IN_MEMORY: u64 = 0x200;
const UNSET: u64 = 0x2000_0000;

/// Access control services that redirect requests and completions (PCI Express 5.0, 7.7.8).
const REDIRECTS: u16 = 1 << 2 | 1 << 3;
/// Those, source validation and upstream forwarding.
const KEEPS_APART: u16 = REDIRECTS | 1 << 0 | 1 << 4;

/// What is on the PCI buses, by address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// The functions.
    pub functions: Vec<Function>,
    /// The bridges among them.
    pub bridges: Vec<Bridge>,
}

/// Reads all of them. What firmware doesn't know is left out: virtual functions, which a driver makes, and segments of
/// more than 16 bits, in which the kernel puts what is behind a controller of its own.
pub fn read(files: &Files) -> Result<Functions, Diagnostic> {
    let mut found = Functions::default();
    let names = files.names(DEVICES)?.unwrap_or_default();
    let mut places: Vec<(PciAddress, String)> = names
        .into_iter()
        .filter_map(|name| Some((address(&name)?, format!("{DEVICES}/{name}"))))
        .filter(|(_, folder)| !files.has(&format!("{folder}/physfn")))
        .collect();
    places.sort_unstable();
    for (address, folder) in places {
        let config = files.bytes(&format!("{folder}/config"))?;
        let header = config
            .get(HEADER_TYPE)
            .ok_or_else(|| files.nonsense(&format!("{folder}/config")))?
            & 0x7f;
        found
            .functions
            .push(function(files, address, &folder, header, &config)?);
        if let (1, [.., secondary, subordinate]) =
            (header, config.get(..=SUBORDINATE_BUS).unwrap_or_default())
        {
            found.bridges.push(Bridge {
                address,
                secondary: *secondary,
                subordinate: *subordinate,
                isolates: access_control(&config) & KEEPS_APART == KEEPS_APART,
            });
        }
    }
    Ok(found)
}

const _: () = assert!(SUBORDINATE_BUS == SECONDARY_BUS + 1);

/// As `0000:00:1f.2`.
fn address(name: &str) -> Option<PciAddress> {
    let (segment, rest) = name.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    Some(PciAddress {
        segment: u16::from_str_radix(segment, 16).ok()?,
        bus: u8::from_str_radix(bus, 16).ok()?,
        device: u8::from_str_radix(device, 16).ok().filter(|it| *it < 32)?,
        function: u8::from_str_radix(function, 16).ok().filter(|it| *it < 8)?,
    })
}

fn function(
    files: &Files,
    address: PciAddress,
    folder: &str,
    header: u8,
    config: &[u8],
) -> Result<Function, Diagnostic> {
    let number = |name: &str| {
        let path = format!("{folder}/{name}");
        files.number(&path).map(|number| (number, path))
    };
    let half = |name: &str| {
        let (number, path) = number(name)?;
        u16::try_from(number).map_err(|_| files.nonsense(&path))
    };
    let (class, path) = number("class")?;
    let class = u32::try_from(class)
        .ok()
        .filter(|class| *class < 1 << 24)
        .ok_or_else(|| files.nonsense(&path))?;
    // As the hypervisor finds them: a host bridge's registers may move memory, and are left alone.
    let bars = match header {
        _ if class >> 8 == HOST_BRIDGE => 0,
        0 => 6,
        1 => 2,
        _ => 0,
    };
    let path = format!("{folder}/resource");
    let resources = files.text(&path)?;
    let resources: Option<Vec<[u64; 3]>> = resources.lines().map(resource).collect();
    let resources = resources.ok_or_else(|| files.nonsense(&path))?;
    Ok(Function {
        address,
        vendor: half("vendor")?,
        device: half("device")?,
        class,
        bars: resources.into_iter().take(bars).filter_map(bar).collect(),
        behind_iommu: false,
        isolated: access_control(config) & REDIRECTS == REDIRECTS,
    })
}

/// First address, last address and flags.
fn resource(line: &str) -> Option<[u64; 3]> {
    let mut numbers = line.split_whitespace().map(hexadecimal);
    let three = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(three)
}

fn bar([first, last, flags]: [u64; 3]) -> Option<MachineRange> {
    let is_placed = first != 0 && flags & (IN_MEMORY | UNSET) == IN_MEMORY;
    let size = last.checked_sub(first)?.saturating_add(1);
    is_placed.then(|| MachineRange::saturating(MachineAddress::new(first), size))
}

/// What a function's access control services can do; 0 without them. Who isn't root sees 64 bytes, which hold none.
fn access_control(config: &[u8]) -> u16 {
    const FIRST: usize = 0x100;
    const SERVICES: u32 = 0x000d;
    let word = |at: usize| Some(u32::from_le_bytes(*config.get(at..)?.first_chunk()?));
    let mut at = FIRST;
    // No more fit; the list may be a ring.
    for _ in 0..1024 {
        let header = match word(at) {
            None | Some(0 | u32::MAX) => return 0,
            Some(header) => header,
        };
        if header & 0xffff == SERVICES {
            return word(at + 4).map_or(0, |services| (services & 0xffff) as u16);
        }
        at = header as usize >> 20;
        if at < FIRST {
            return 0;
        }
    }
    0
}

//! Reads a PC's description: the line that the hypervisor printed, or a file that a running Linux wrote.

use std::fmt;

use layout::{MachineAddress, MachineRange};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::{
    Bridge, CpuNode, Description, Ecam, FIRST_VERSION, Function, IoApic, Iommu, IommuKind, Memory,
    MemoryKind, MemoryNode, PciAddress, VERSION,
};

/// Why a text is no description.
#[derive(Debug)]
pub enum ReadError {
    /// It isn't JSON, or not of the schema.
    Json(serde_json::Error),
    /// It is of another version.
    Version(u32),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::Version(version) => {
                write!(
                    f,
                    "the description has version {version}, and this reads versions {FIRST_VERSION} to {VERSION}"
                )
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a description. Keys that this version doesn't know are an error.
///
/// # Errors
/// See [`ReadError`].
pub fn read(text: &str) -> Result<Description, ReadError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned = serde_json::from_str(text).map_err(ReadError::Json)?;
    if !(FIRST_VERSION..=VERSION).contains(&versioned.version) {
        return Err(ReadError::Version(versioned.version));
    }
    let line: Line = serde_json::from_str(text).map_err(ReadError::Json)?;
    Ok(line.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Line {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(rename = "architecture")]
    _architecture: Architecture,
    memory: Vec<MemoryLine>,
    cpus: Vec<u32>,
    #[serde(deserialize_with = "address")]
    local_apic: u64,
    io_apics: Vec<IoApicLine>,
    ecam: Vec<EcamLine>,
    iommus: Vec<IommuLine>,
    functions: Vec<FunctionLine>,
    #[serde(default)]
    bridges: Vec<BridgeLine>,
    #[serde(default)]
    memory_nodes: Vec<MemoryNodeLine>,
    #[serde(default)]
    cpu_nodes: Vec<CpuNodeLine>,
    #[serde(deserialize_with = "port")]
    console: Option<u16>,
    tsc_khz: Option<u64>,
    address_bits: u8,
}

#[derive(Deserialize)]
enum Architecture {
    #[serde(rename = "x86_64")]
    X86,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryLine {
    #[serde(deserialize_with = "address")]
    start: u64,
    size: u64,
    #[serde(deserialize_with = "memory_kind")]
    kind: MemoryKind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IoApicLine {
    id: u8,
    #[serde(deserialize_with = "address")]
    address: u64,
    first_interrupt: u32,
    pins: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct EcamLine {
    #[serde(deserialize_with = "address")]
    base: u64,
    segment: u16,
    first_bus: u8,
    last_bus: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IommuLine {
    path: String,
    #[serde(deserialize_with = "iommu_kind")]
    kind: IommuKind,
    #[serde(deserialize_with = "address")]
    start: u64,
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FunctionLine {
    #[serde(deserialize_with = "pci_address")]
    address: PciAddress,
    #[serde(deserialize_with = "small")]
    vendor: u16,
    #[serde(deserialize_with = "small")]
    device: u16,
    #[serde(deserialize_with = "class")]
    class: u32,
    bars: Vec<RangeLine>,
    behind_iommu: bool,
    #[serde(default)]
    isolated: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeLine {
    #[serde(deserialize_with = "pci_address")]
    address: PciAddress,
    secondary: u8,
    subordinate: u8,
    isolates: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryNodeLine {
    #[serde(deserialize_with = "address")]
    start: u64,
    size: u64,
    node: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CpuNodeLine {
    cpu: u32,
    node: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RangeLine {
    #[serde(deserialize_with = "address")]
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl From<Line> for Description {
    fn from(line: Line) -> Self {
        let memory = line.memory.into_iter();
        let io_apics = line.io_apics.into_iter();
        let ecam = line.ecam.into_iter();
        let iommus = line.iommus.into_iter();
        let functions = line.functions.into_iter();
        let bridges = line.bridges.into_iter();
        let memory_nodes = line.memory_nodes.into_iter();
        let cpu_nodes = line.cpu_nodes.into_iter();
        Self {
            memory: memory
                .map(|it| Memory::new(it.start, it.size, it.kind))
                .collect(),
            cpus: line.cpus,
            local_apic: line.local_apic,
            io_apics: io_apics
                .map(|it| IoApic {
                    id: it.id,
                    address: it.address,
                    first_interrupt: it.first_interrupt,
                    pins: it.pins,
                })
                .collect(),
            ecam: ecam
                .map(|it| Ecam {
                    base: it.base,
                    segment: it.segment,
                    first_bus: it.first_bus,
                    last_bus: it.last_bus,
                })
                .collect(),
            iommus: iommus
                .map(|it| Iommu {
                    path: it.path,
                    kind: it.kind,
                    range: range(it.start, it.size),
                })
                .collect(),
            functions: functions
                .map(|it| Function {
                    address: it.address,
                    vendor: it.vendor,
                    device: it.device,
                    class: it.class,
                    bars: it
                        .bars
                        .iter()
                        .map(|bar| range(bar.start, bar.size))
                        .collect(),
                    behind_iommu: it.behind_iommu,
                    isolated: it.isolated,
                })
                .collect(),
            bridges: bridges
                .map(|it| Bridge {
                    address: it.address,
                    secondary: it.secondary,
                    subordinate: it.subordinate,
                    isolates: it.isolates,
                })
                .collect(),
            memory_nodes: memory_nodes
                .map(|it| MemoryNode {
                    range: range(it.start, it.size),
                    node: it.node,
                })
                .collect(),
            cpu_nodes: cpu_nodes
                .map(|it| CpuNode {
                    cpu: it.cpu,
                    node: it.node,
                })
                .collect(),
            console: line.console,
            tsc_khz: line.tsc_khz,
            address_bits: line.address_bits,
        }
    }
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

/// A number as "0x" and hexadecimal digits.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would take a sign.
    let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    hexadecimal(&text)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no address like 0xfee00000")))
}

fn small<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    u16::try_from(address(from)?).map_err(|_| D::Error::custom("the number has more than 16 bits"))
}

fn class<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = u32::try_from(address(from)?)
        .ok()
        .filter(|number| *number < 1 << 24);
    number.ok_or_else(|| D::Error::custom("a class has 24 bits"))
}

fn port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    let number = hexadecimal(&text).and_then(|number| u16::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no port like 0x3f8")))
}

fn memory_kind<'de, D: Deserializer<'de>>(from: D) -> Result<MemoryKind, D::Error> {
    let word = String::deserialize(from)?;
    let found = MemoryKind::ALL.into_iter().find(|row| row.2 == word);
    found
        .map(|row| row.0)
        .ok_or_else(|| D::Error::custom(format!("`{word}` is no kind of memory")))
}

fn iommu_kind<'de, D: Deserializer<'de>>(from: D) -> Result<IommuKind, D::Error> {
    let word = String::deserialize(from)?;
    let kinds = [IommuKind::VtD, IommuKind::AmdVi];
    kinds
        .into_iter()
        .find(|kind| kind.word() == word)
        .ok_or_else(|| D::Error::custom(format!("`{word}` is no kind of IOMMU")))
}

fn pci_address<'de, D: Deserializer<'de>>(from: D) -> Result<PciAddress, D::Error> {
    let text = String::deserialize(from)?;
    parse_pci_address(&text)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no PCI address like 0000:00:1f.2")))
}

fn parse_pci_address(text: &str) -> Option<PciAddress> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let digits = |text: &str, most: usize| {
        let good = text.len() == most && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| u16::from_str_radix(text, 16).ok()).flatten()
    };
    let byte = |text: &str, most: usize, below: u16| {
        let number = digits(text, most).filter(|number| *number < below)?;
        u8::try_from(number).ok()
    };
    Some(PciAddress {
        segment: digits(segment, 4)?,
        bus: byte(bus, 2, 256)?,
        device: byte(device, 2, 32)?,
        function: byte(function, 1, 8)?,
    })
}

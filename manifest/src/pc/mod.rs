//! A PC as the hypervisor finds it: memory map, CPUs, interrupt controllers, IOMMUs, PCI functions.
//!
//! A PC has no device tree. The hypervisor fills a [`Description`] in from the boot loader's memory map, the ACPI
//! tables and a look at every PCI function, and prints it on request as one line of JSON ([`write()`]); the
//! workstation reads that line (`read`). Both turn it into the planner's terms by the same [`host_map`]. The line's
//! schema is in docs/host-description.md.
//!
//! Nothing here looks at hardware: that is the machine crate's, or a running Linux's. What both find in ACPI tables is
//! read by [`acpi`].

pub mod acpi;
mod groups;
mod host_map;
#[cfg(feature = "std")]
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use host_map::{BootFacts, Host, console_name, host_map};
#[cfg(feature = "std")]
pub(crate) use read::RangeLine;
#[cfg(feature = "std")]
pub use read::{ReadError, read};
pub use write::write;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use layout::{MachineAddress, MachineRange};

/// The version of the JSON line.
pub const VERSION: u32 = 2;

/// The first version that is still read. What later ones added may be left out of them.
pub const FIRST_VERSION: u32 = 1;

/// What a domain on a PC gets set aside for what it starts from, in bytes: start structure, memory map, command line
/// and ACPI tables. It is the plan's `tree` range.
pub const START_BYTES: u64 = 64 << 10;

/// The longest command line of a domain, in bytes: Linux on x86 keeps 2048 with the terminating zero
/// (`COMMAND_LINE_SIZE`, arch/x86/include/asm/setup.h).
pub const MAX_COMMAND_LINE: usize = 2047;

/// What a range of the memory map is (ACPI 6.5, table 15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Memory to use, type 1.
    Ram,
    /// Not to be used, type 2; persistent memory and whatever else has no name here too.
    Reserved,
    /// ACPI tables, type 3.
    AcpiTables,
    /// Firmware's memory that is saved over sleep, type 4.
    AcpiNvs,
    /// Memory with errors, type 5.
    Unusable,
}

impl MemoryKind {
    /// Every kind, with its number in the firmware's map, its word in the JSON line and what messages call it.
    const ALL: [(Self, u32, &'static str, &'static str); 5] = [
        (Self::Ram, 1, "ram", "RAM"),
        (Self::Reserved, 2, "reserved", "firmware"),
        (Self::AcpiTables, 3, "acpi", "ACPI tables"),
        (Self::AcpiNvs, 4, "nvs", "ACPI NVS"),
        (Self::Unusable, 5, "unusable", "bad memory"),
    ];

    fn row(self) -> (Self, u32, &'static str, &'static str) {
        let found = Self::ALL.into_iter().find(|row| row.0 == self);
        found.unwrap_or((Self::Reserved, 2, "reserved", "firmware"))
    }

    /// The kind behind a type of the firmware's map.
    #[must_use]
    pub fn of(number: u32) -> Self {
        let found = Self::ALL.into_iter().find(|row| row.1 == number);
        found.map_or(Self::Reserved, |row| row.0)
    }

    /// Its type in the firmware's map.
    #[must_use]
    pub fn number(self) -> u32 {
        self.row().1
    }

    /// Its word in the JSON line.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().2
    }

    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().3
    }
}

/// An entry of the memory map. Entries may overlap: what one of them doesn't call RAM, isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Where.
    pub range: MachineRange,
    /// What.
    pub kind: MemoryKind,
}

impl Memory {
    /// An entry as firmware has it; a size that passes 2^64 - 1 is cut off there.
    #[must_use]
    pub fn new(start: u64, size: u64, kind: MemoryKind) -> Self {
        Self {
            range: MachineRange::saturating(MachineAddress::new(start), size),
            kind,
        }
    }
}

/// An IO-APIC (ACPI 6.5, 5.2.12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Its ID.
    pub id: u8,
    /// The machine address of its registers, one page.
    pub address: u64,
    /// Its first interrupt among all (GSI).
    pub first_interrupt: u32,
    /// How many inputs it has, 1 to 240.
    pub pins: u32,
}

/// A window of PCI configuration space in memory (PCI Firmware Specification 3.3, 4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecam {
    /// The machine address where bus 0's configuration space would be.
    pub base: u64,
    /// Its PCI segment.
    pub segment: u16,
    /// The first bus in it.
    pub first_bus: u8,
    /// The last bus in it.
    pub last_bus: u8,
}

impl Ecam {
    /// The machine addresses that answer: 1 MiB for each bus.
    #[must_use]
    pub fn range(&self) -> MachineRange {
        const BUS: u64 = 1 << 20;
        let start = self.base.saturating_add(u64::from(self.first_bus) * BUS);
        let buses = u64::from(self.last_bus).saturating_sub(u64::from(self.first_bus)) + 1;
        MachineRange::saturating(MachineAddress::new(start), buses * BUS)
    }
}

/// Whose IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IommuKind {
    /// Intel's VT-d, from the DMAR table.
    VtD,
    /// AMD's, from the IVRS table.
    AmdVi,
}

impl IommuKind {
    /// Its word in the JSON line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::VtD => "vt-d",
            Self::AmdVi => "amd-vi",
        }
    }
}

/// An IOMMU. It stays hidden from every domain and in bypass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iommu {
    /// Its name, such as "acpi:DMAR:0xfed90000".
    pub path: String,
    /// Whose.
    pub kind: IommuKind,
    /// Its registers.
    pub range: MachineRange,
}

/// A PCI function's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// The segment.
    pub segment: u16,
    /// The bus.
    pub bus: u8,
    /// The device, 0 to 31.
    pub device: u8,
    /// The function, 0 to 7.
    pub function: u8,
}

/// As `0000:00:1f.2`, which is how Linux writes it.
impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Where.
    pub address: PciAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, subclass and programming interface in one number of 24 bits (`0x010601` is an AHCI controller).
    pub class: u32,
    /// Its registers in memory, as the firmware placed its BARs; an expansion ROM isn't among them.
    pub bars: Vec<MachineRange>,
    /// Whether an IOMMU could translate its DMA: a unit's scope covers it and doesn't exempt it.
    pub behind_iommu: bool,
    /// Whether it can keep its device's other functions from reaching it past what isolates it: its access control has
    /// redirection of requests and completions (PCI Express 5.0, 7.7.8).
    pub isolated: bool,
}

/// A bridge from one PCI bus to another, PCI Express's ports included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge itself.
    pub address: PciAddress,
    /// The bus right behind it.
    pub secondary: u8,
    /// The last bus behind it.
    pub subordinate: u8,
    /// Whether it can keep apart what is behind it: a root port or a switch's downstream port whose access control has
    /// source validation, redirection of requests and completions, and upstream forwarding (PCI Express 5.0, 7.7.8).
    pub isolates: bool,
}

/// Memory of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNode {
    /// Where; it may name more than there is.
    pub range: MachineRange,
    /// The proximity domain.
    pub node: u32,
}

/// A CPU of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuNode {
    /// Its local APIC ID.
    pub cpu: u32,
    /// The proximity domain.
    pub node: u32,
}

/// A machine. Lists are in the order in which the firmware has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// The memory map, as the boot loader handed it over.
    pub memory: Vec<Memory>,
    /// The local APIC IDs of the CPUs that can be started. Affinity counts in this order.
    pub cpus: Vec<u32>,
    /// The machine address of the local APICs' registers, one page.
    pub local_apic: u64,
    /// The IO-APICs.
    pub io_apics: Vec<IoApic>,
    /// PCI configuration space in memory.
    pub ecam: Vec<Ecam>,
    /// The IOMMUs that the ACPI tables name.
    pub iommus: Vec<Iommu>,
    /// The PCI functions, by address.
    pub functions: Vec<Function>,
    /// The bridges among them.
    pub bridges: Vec<Bridge>,
    /// Which node memory belongs to, as far as firmware says.
    pub memory_nodes: Vec<MemoryNode>,
    /// Which node CPUs belong to, as far as firmware says.
    pub cpu_nodes: Vec<CpuNode>,
    /// The first port of the UART that the hypervisor takes for its console (`0x3f8`: COM1), if there is one.
    pub console: Option<u16>,
    /// The TSC's rate in kHz, if CPUID or firmware tells it.
    pub tsc_khz: Option<u64>,
    /// Bits of a machine address (CPUID 8000_0008h, EAX bits 7 to 0), 36 to 52.
    pub address_bits: u8,
}

//! The machine as the firmware describes it, in arch-neutral terms.
//!
//! `manifest` fills this in from a device tree or a capture. Nothing here is a decision.

use alloc::string::String;
use alloc::vec::Vec;

use crate::address::MachineRange;

/// Where something was said: an index into the table of positions that `manifest` keeps (file,
/// line and column, or a device-tree node). Meaningless to the planner, which only hands it on.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// Nobody said it: a default, or the planner's own.
    pub const NONE: Self = Self(u32::MAX);
}

impl Default for Origin {
    fn default() -> Self {
        Self::NONE
    }
}

/// A value with the place where it was said.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub struct Located<T> {
    /// What was said.
    pub value: T,
    /// Where; [`Origin::NONE`] for a default.
    pub origin: Origin,
}

impl<T> Located<T> {
    /// A value that was said at `origin`.
    pub const fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

/// A value that nobody wrote down.
impl<T> From<T> for Located<T> {
    fn from(value: T) -> Self {
        Self {
            value,
            origin: Origin::NONE,
        }
    }
}

/// The machine's architecture, by name only: it chooses between fixed numbers such as the
/// guest layout of domains that don't use the host's.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Architecture {
    /// 64-bit Arm.
    #[default]
    Aarch64,
    /// 64-bit x86.
    X86_64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Architecture {
    /// The name that manifest and command use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
            Self::Riscv64 => "riscv64",
        }
    }
}

/// All that the planner knows of a machine. Lists may come in any order; RAM banks may touch
/// or overlap (firmware does both), the planner merges them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostMap {
    /// The architecture.
    pub architecture: Architecture,
    /// Memory, reserved parts included.
    pub ram: Vec<RamBank>,
    /// Memory that firmware or the manifest keeps from being shared out.
    pub reserved: Vec<Reserved>,
    /// Devices other than CPUs, memory, interrupt controller and IOMMUs.
    pub devices: Vec<HostDevice>,
    /// The interrupt controller.
    pub controller: Controller,
    /// CPUs that can be started, in the firmware's order. Affinity counts in this order.
    pub cpus: Vec<HostCpu>,
    /// IOMMUs.
    pub iommus: Vec<Iommu>,
    /// What the boot loader placed in RAM.
    pub boot: Vec<BootRange>,
}

/// A range of memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RamBank {
    /// Where.
    pub range: MachineRange,
    /// Its NUMA node (device tree: `numa-node-id`; ACPI: the SRAT's proximity domain); `None` if
    /// the firmware doesn't say.
    pub node: Option<u32>,
    /// Who says so.
    pub origin: Origin,
}

/// A range that isn't shared out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// Where; it may lie outside RAM.
    pub range: MachineRange,
    /// The firmware's or the manifest's name for it.
    pub name: String,
    /// What becomes of it.
    pub kind: Reservation,
    /// Who says so.
    pub origin: Origin,
}

/// What becomes of reserved memory.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Reservation {
    /// Nobody has it as RAM: it is the firmware's, or the manifest keeps it.
    #[default]
    Kept,
    /// Nobody has it as RAM, and it must not even be mapped (device tree's `no-map`).
    NoMap,
    /// RAM of the machine's own kernel, which keeps it for what its tree says: a child of
    /// `/reserved-memory` without `no-map`. That kernel is the direct-mapped hardware domain's; without
    /// such a domain nobody has it.
    Kernel,
}

/// Whether a device can read and write memory by itself.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum Dma {
    /// It can't.
    #[default]
    None,
    /// It can, or nobody knows that it can't.
    Possible {
        /// The highest address that it can put on its bus; `u64::MAX` if nothing is known of a
        /// limit. Bus addresses are machine addresses unless [`HostDevice::dma_windows`] says
        /// otherwise.
        mask: u64,
    },
}

/// A part of a device's bus through which it reaches memory.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct DmaWindow {
    /// The first address on the device's bus.
    pub bus: u64,
    /// The machine addresses that it stands for, in the same order.
    pub machine: MachineRange,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostDevice {
    /// The firmware's path, which is how a manifest names it.
    pub path: String,
    /// Its registers.
    pub ranges: Vec<MachineRange>,
    /// Its interrupts by the controller's numbers (INTID on Arm).
    pub interrupts: Vec<u32>,
    /// The path of the first controller with numbers of its own (a GPIO block, Marvell's ICU) that
    /// another interrupt of it goes to, which isn't among `interrupts`. `None`: there is none.
    pub other_controller: Option<String>,
    /// Reserved regions that it is for or that its driver uses, by numbers that a region and its
    /// devices have in common (device tree: `memory-region`).
    pub regions: Vec<u32>,
    /// Whether it does DMA.
    pub dma: Dma,
    /// Through which machine memory its bus addresses reach (device tree: the `dma-ranges` of
    /// all its parents in one). Empty: every bus address is the machine address.
    pub dma_windows: Vec<DmaWindow>,
    /// Whether its DMA and the CPUs' caches agree without maintenance (device tree:
    /// `dma-coherent`; always so on x86).
    pub coherent: bool,
    /// Devices of the same number can't be told apart by what isolates them: functions of one
    /// PCI device, or functions behind a bridge without access control. `None`: it stands alone.
    pub group: Option<u32>,
    /// Whether an IOMMU could translate its DMA: a [usable](Iommu::usable) one stands before the
    /// device and isn't bypassed.
    pub behind_iommu: bool,
    /// Whether an IOMMU stands before it that only its own driver can use: one stage of
    /// translation, none for a hypervisor.
    pub private_iommu: bool,
    /// Who says so.
    pub origin: Origin,
}

/// Which interrupt controller, by name only, so that messages can say it.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum ControllerKind {
    /// The host describes none.
    #[default]
    None,
    /// Arm's, version 2 (GIC-400 and its like).
    GicV2,
    /// Arm's, version 3 or 4.
    GicV3,
    /// Arm's, of another version.
    GicOther,
    /// RISC-V's first, for wired interrupts.
    Plic,
    /// RISC-V's for wired interrupts, of its advanced interrupt architecture.
    Aplic,
    /// RISC-V's for message-signalled interrupts.
    Imsic,
    /// A PC's.
    IoApic,
    /// One that none of these names fits.
    Other,
}

impl ControllerKind {
    /// The name that messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GicV2 => "GICv2",
            Self::GicV3 => "GICv3",
            Self::GicOther => "GIC",
            Self::Plic => "PLIC",
            Self::Aplic => "APLIC",
            Self::Imsic => "IMSIC",
            Self::IoApic => "I/O APIC",
            Self::Other => "interrupt controller",
        }
    }
}

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Which.
    pub kind: ControllerKind,

    /// Its registers.
    pub ranges: Vec<MachineRange>,
    /// Those of them that are a GIC's interrupt translation services. The direct-mapped hardware domain has the first;
    /// nobody else has one.
    pub its: Vec<MachineRange>,
    /// How many CPUs its layout covers (redistributors on GICv3, 8 on GICv2): a domain with
    /// the host layout gets no more vCPUs. `u32::MAX` if there is no such limit.
    pub max_cpus: u32,
    /// Who says so.
    pub origin: Origin,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            kind: ControllerKind::None,
            ranges: Vec::new(),
            its: Vec::new(),
            max_cpus: u32::MAX,
            origin: Origin::NONE,
        }
    }
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCpu {
    /// The number that the hardware knows it by (MPIDR affinity, APIC ID, hart ID).
    pub hardware_id: u64,
    /// Its NUMA node; see [`RamBank::node`].
    pub node: Option<u32>,
    /// Who says so.
    pub origin: Origin,
}

/// An IOMMU. It is hidden from domains and left in bypass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// The firmware's path.
    pub path: String,
    /// Its registers.
    pub ranges: Vec<MachineRange>,
    /// Whether it has a second stage that could translate for a guest (SMMUv2 and v3, AMD-Vi,
    /// VT-d, the RISC-V IOMMU). The IOMMUs of one driver's own (Rockchip, Exynos, MediaTek, DART
    /// and their like) have none.
    pub usable: bool,
    /// Who says so.
    pub origin: Origin,
}

/// What kind of thing the boot loader placed.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
pub enum BootKind {
    /// The hypervisor's image with its zeroed data, as it runs now.
    Hypervisor,
    /// The device tree of the host. The hypervisor copies it before any domain is built.
    HostTree,
    /// The container of system tree and modules.
    Container,
}

/// A range of RAM in which the boot loader placed something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootRange {
    /// What lies there.
    pub kind: BootKind,
    /// Where.
    pub range: MachineRange,
    /// Who says so.
    pub origin: Origin,
}

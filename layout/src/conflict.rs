//! What is wrong with a request: a stable code, everything that clashes, and the mend.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::Origin;

/// How bad it is.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The domains that it touches can't be started.
    Error,
    /// Worth knowing; nothing is refused for it.
    Warning,
}

/// One of the things that clash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// What it is, with its numbers.
    pub what: String,
    /// Where it was said.
    pub origin: Origin,
    /// The domain that it belongs to, by index in the request; `None` for the host's side.
    pub domain: Option<usize>,
}

/// Something that can't be had as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The stable code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What clashes; both sides wherever there are two.
    pub sides: Vec<Side>,
    /// Why that can't be.
    pub why: String,
    /// The nearest change that works; empty if none is known.
    pub help: String,
}

impl Conflict {
    /// Whether a domain is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What kind of conflict, by a name that scripts can rely on.
        #[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// Two domains' static memory, or two ranges of one domain, share frames.
    OverlapDomainDomain = "overlap-domain-domain";
    /// Static memory lies over the hypervisor's image.
    OverlapDomainHypervisor = "overlap-domain-hypervisor";
    /// Static memory lies over the host's device tree.
    OverlapDomainHostTree = "overlap-domain-host-tree";
    /// Static memory lies over a boot module.
    OverlapDomainModule = "overlap-domain-module";
    /// Static memory lies over memory that firmware or the manifest reserves.
    OverlapDomainReserved = "overlap-domain-reserved";
    /// Static memory lies over a device, the interrupt controller or an IOMMU.
    OverlapDomainMmio = "overlap-domain-mmio";
    /// Static memory, or a part of it, isn't RAM.
    StaticOutsideRam = "static-outside-ram";
    /// Static memory begins in one bank of RAM and ends in another, with a hole between.
    StaticAcrossBanks = "static-across-banks";
    /// Static memory passes 2^64.
    StaticWraps = "static-wraps";
    /// Static memory or a size isn't a multiple of 4 KiB.
    StaticMisalignedPage = "static-misaligned-page";
    /// No range of static memory lets the kernel begin at its alignment.
    StaticMisalignedKernel = "static-misaligned-kernel";
    /// Static memory ends above `memory-below`.
    StaticAboveLimit = "static-above-limit";
    /// The static ranges' sum isn't `memory`.
    MemorySumMismatch = "memory-sum-mismatch";
    /// A domain with no memory.
    MemoryZero = "memory-zero";
    /// `memory` isn't a multiple of 4 KiB.
    MemoryMisaligned = "memory-misaligned-page";
    /// More memory than the host has left.
    MemoryTooLarge = "memory-too-large";
    /// More than one domain takes the rest.
    MemoryTwoRests = "memory-two-rests";
    /// Memory that can't hold kernel, ramdisk and device tree.
    TooSmallForModules = "too-small-for-modules";
    /// Enough memory, but not in pieces that hold kernel, ramdisk and device tree.
    NoContiguousRoom = "no-contiguous-room";
    /// More memory than the guest layout of the architecture has room for.
    BeyondGuestLayout = "beyond-guest-layout";
    /// Modules that lie where others must go, with no RAM left to put one aside.
    ModuleCycle = "module-cycle";
    /// The hypervisor itself finds no room.
    NoRoomForHypervisor = "no-room-for-hypervisor";
    /// A domain without a kernel.
    KernelMissing = "kernel-missing";
    /// A kernel whose header asks for something that no placement satisfies.
    KernelHeader = "kernel-header";
    /// No RAM that the domain could have holds the kernel where it must lie.
    KernelBounds = "kernel-bounds";
    /// Two direct-mapped domains whose kernels must lie at the same machine addresses.
    KernelSameAddress = "kernel-same-address";
    /// A direct-mapped domain on a PC that has no RAM below 1 MiB.
    NoLowMemory = "no-low-memory";
    /// A boot module that isn't in RAM, or over something else that boot placed.
    ModuleOutsideRam = "module-outside-ram";
    /// A device tree of more than 2 MiB.
    TreeTooLarge = "tree-too-large";
    /// A domain with no vCPU.
    CpusZero = "cpus-zero";
    /// More vCPUs than the host has CPUs.
    CpusTooMany = "cpus-too-many";
    /// More vCPUs than the interrupt controller's layout covers.
    CpusBeyondController = "cpus-beyond-controller";
    /// Affinity that names a CPU that isn't there, or not one for each vCPU.
    AffinityInvalid = "affinity-invalid";
    /// A CPU that more than one vCPU is pinned to.
    CpuShared = "cpu-shared";
    /// Two domains with one name.
    NameDuplicate = "name-duplicate";
    /// A domain without a name.
    NameEmpty = "name-empty";
    /// Two hardware domains.
    HardwareDomainTwice = "hardware-domain-twice";
    /// A PV domain that asks for `direct-map`.
    PvDirectMap = "pv-direct-map";
    /// A kind of domain that the host's architecture doesn't have.
    KindForeign = "kind-foreign";
    /// `dtb` or `vpl011` where the host's architecture has no use for it.
    KeyForeign = "key-foreign";
    /// A device that isn't there.
    DeviceUnknown = "device-unknown";
    /// A device that two domains ask for.
    DeviceTwice = "device-twice";
    /// A partial tree says of a device what the host's tree doesn't.
    DeviceMismatch = "device-mismatch";
    /// Two owners' devices whose registers lie in one page of 4 KiB.
    DeviceSharesPage = "device-shares-page";
    /// Two owners' devices that raise one interrupt.
    DeviceSharesInterrupt = "device-shares-interrupt";
    /// Two owners' devices that nothing tells apart, such as functions of one PCI device.
    DeviceSharesGroup = "device-shares-group";
    /// Two owners' devices that use one reserved region, or a region and its device.
    DeviceSharesMemory = "device-shares-memory";
    /// A device whose interrupt goes through a controller that another domain drives.
    DeviceInterruptLost = "device-interrupt-lost";
    /// DMA that nothing translates, in a domain that isn't direct-mapped.
    DmaWithoutIommu = "dma-without-iommu";
    /// A device whose DMA doesn't reach all of the domain's memory.
    DmaMask = "dma-mask";
    /// The ends of shared memory don't agree.
    SharedMemoryEnds = "shared-memory-ends";
    /// Shared memory that can't be where it is asked for.
    SharedMemoryRange = "shared-memory-range";
    /// The ends of an event channel don't agree.
    EventChannelEnds = "event-channel-ends";
    /// An event-channel port that the domain can't have.
    EventChannelPort = "event-channel-port";
    /// Cache colouring with `direct-map` or static memory.
    LlcColorsExclude = "llc-colors-exclude";
    /// A domain of a machine without a second stage's translation (MPU) that isn't both
    /// direct-mapped and of static memory.
    MpuNotStatic = "mpu-not-static";
    /// A limit outside its range.
    LimitInvalid = "limit-invalid";
    /// A host whose boot loader fills the memory in.
    MemoryNotDescribed = "memory-not-described";
    /// A region that the hardware domain's kernel is to place, and has no room for.
    ReservedNoRoom = "reserved-no-room";
    /// An interrupt controller that the hypervisor doesn't drive.
    ControllerNotDriven = "controller-not-driven";
    /// A CPU that the hypervisor doesn't know how to start.
    CpuNotStarted = "cpu-not-started";
    /// A host without RAM or without CPUs.
    HostInvalid = "host-invalid";
    /// A manifest key, or a property of a device tree, that nobody knows.
    UnknownKey = "unknown-key";
    /// A manifest value of the wrong type.
    WrongType = "wrong-type";
    /// A manifest value of the right type that can't be meant.
    ValueInvalid = "value-invalid";
    /// A manifest key that must be there.
    KeyMissing = "key-missing";
    /// A file that the manifest names and that can't be read.
    FileUnreadable = "file-unreadable";
    /// A kernel file that can't be unwrapped, or has no header that this architecture starts.
    KernelFile = "kernel-file";
    /// A device tree, or a part of it, that can't be understood.
    TreeInvalid = "tree-invalid";
    /// Right, but not built yet.
    NotBuiltYet = "not-built-yet";
}

//! What a manifest asks for, before anything is checked.
//!
//! `manifest` fills this in from TOML or a device tree. Every number may be wrong: the planner
//! checks it and answers with conflicts. Fields that the planner only hands on (policies,
//! limits, command line) are here because the hypervisor reads one plan and nothing else.

use alloc::string::String;
use alloc::vec::Vec;

use crate::address::{GuestRange, MachineRange};
use crate::conflict::{Code, Conflict};
use crate::domain::{Capabilities, Identity, Kind};
use crate::host::{Located, Origin};

/// A whole system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SystemRequest {
    /// The hypervisor's settings.
    pub hypervisor: HypervisorRequest,
    /// The domains, in the manifest's order.
    pub domains: Vec<DomainRequest>,
}

impl SystemRequest {
    /// Has the planner refuse each domain that an error of its reader is about.
    pub fn refuse_misread(&mut self, problems: &[Conflict]) {
        for problem in problems.iter().filter(|problem| problem.is_error()) {
            for domain in problem.sides.iter().filter_map(|side| side.domain) {
                if let Some(domain) = self.domains.get_mut(domain) {
                    domain.misread.get_or_insert(problem.code);
                }
            }
        }
    }
}

/// What to do when a conflict was found at boot.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConflict {
    /// Start nothing.
    #[default]
    Halt,
    /// Start the domains that can be started safely.
    SkipDomain,
}

/// Which frames are cleared before a domain gets them.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum Scrub {
    /// Those that held another domain.
    #[default]
    Reused,
    /// All.
    All,
}

/// The hypervisor's settings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HypervisorRequest {
    /// Bytes of the image in memory, its zeroed data included. 0 means: as large as the
    /// [`BootKind::Hypervisor`](crate::BootKind::Hypervisor) range.
    pub image_bytes: u64,
    /// Bytes of the trees that the hypervisor copies for itself: host's and system's.
    pub tree_bytes: u64,
    /// What a conflict at boot leads to.
    pub on_conflict: OnConflict,
    /// Whether the plan is printed on the console.
    pub print_plan: bool,
    /// Which frames are cleared.
    pub scrub: Scrub,
    /// The path of the UART that the hypervisor keeps, as in
    /// [`HostDevice::path`](crate::HostDevice::path): aliases and the host's default are
    /// resolved before. `None`: it has none.
    pub console: Option<Located<String>>,
}

/// How much memory a domain wants.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryRequest {
    /// This many bytes.
    Size(u64),
    /// All that nobody else wants. One domain per machine.
    Rest,
    /// As much as its static ranges hold.
    #[default]
    SumOfStatic,
}

/// A machine range that a domain shall own, unchecked: it may wrap, be empty or misaligned.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct StaticRange {
    /// The first byte.
    pub start: u64,
    /// The number of bytes.
    pub size: u64,
    /// Who says so.
    pub origin: Origin,
}

/// A kernel and what its header demands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRequest {
    /// Where the boot loader left it.
    pub module: MachineRange,
    /// Bytes that it takes in memory from its first byte on, unfilled data included; at least
    /// the module's size counts (arm64: `image_size`).
    pub memory_size: u64,
    /// The alignment of its base, a power of two (arm64: 2 MiB).
    pub alignment: u64,
    /// Its distance from an aligned base (arm64: `text_offset`).
    pub text_offset: u64,
    /// Guest addresses that it must lie within, if it says so.
    pub bounds: Option<GuestRange>,
    /// Where its first vCPU starts, in bytes from its first byte (x86: the PVH entry); `None` for
    /// its first byte (arm64).
    pub entry: Option<u64>,
    /// Who asks for it.
    pub origin: Origin,
}

/// A file that lies in a domain's memory when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleRequest {
    /// Where the boot loader left it.
    pub module: MachineRange,
    /// Who asks for it.
    pub origin: Origin,
}

/// A device to be passed through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRequest {
    /// The firmware's path, as in [`HostDevice::path`](crate::HostDevice::path).
    pub path: String,
    /// The highest address that it reaches, if the manifest knows better than the host map.
    pub dma_mask: Option<u64>,
    /// Who asks for it.
    pub origin: Origin,
}

/// Which end of shared memory a domain is.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub enum ShareRole {
    /// The memory is its own. One domain of those that share it.
    Owner,
    /// It sees the owner's.
    Borrower,
}

/// A domain's end of memory that it shares with others, unchecked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedMemoryRequest {
    /// The name that all ends have in common.
    pub id: String,
    /// The number of bytes.
    pub size: u64,
    /// Which end.
    pub role: ShareRole,
    /// The machine address of its first byte; `None`: the planner chooses.
    pub start: Option<u64>,
    /// Where the domain sees it.
    pub address: u64,
    /// Whether the domain can't write it.
    pub read_only: bool,
    /// Who asks for it.
    pub origin: Origin,
}

/// A domain's end of an event channel that is there from the start, unchecked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventChannelRequest {
    /// The domain's own port, 1 to [`Limits::max_event_channels`].
    pub port: u32,
    /// The name of the domain at the other end.
    pub peer: String,
    /// The port there.
    pub peer_port: u32,
    /// Who asks for it.
    pub origin: Origin,
}

/// What happens to a guest that touches an address that nobody gave it.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStrayAccess {
    /// The guest gets the architecture's fault.
    #[default]
    Fault,
    /// Reads give ones, writes are dropped.
    Ignore,
    /// The domain is stopped.
    Stop,
}

/// What follows when a domain ends.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStop {
    /// It stays ended.
    #[default]
    Stop,
    /// It is built and started again.
    Restart,
    /// The machine is powered off.
    HaltMachine,
    /// The machine is reset.
    RebootMachine,
}

/// What the hypervisor does when a domain does something.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// It touches an address that nobody gave it.
    pub on_stray_access: OnStrayAccess,
    /// It powers itself off.
    pub on_poweroff: OnStop,
    /// It asks for a reboot.
    pub on_reboot: OnStop,
    /// It crashes.
    pub on_crash: OnStop,
}

/// Bounds of what a domain can make the hypervisor hold for it.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The highest event-channel port, 1 to 4095.
    pub max_event_channels: u32,
    /// Grant-table frames, 1 to 256.
    pub max_grant_frames: u32,
}

/// The contract's defaults.
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_event_channels: 1023,
            max_grant_frames: 64,
        }
    }
}

/// A domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DomainRequest {
    /// Its name; it must be unique and not empty. The origin is the domain's own.
    pub name: Located<String>,
    /// How it is virtualised; `None` for the architecture's default, [`Kind::Pvh`].
    pub kind: Option<Located<Kind>>,
    /// Its roles.
    pub capabilities: Located<Capabilities>,
    /// Whether GFN == MFN; `None` for the default of [`Identity::new`].
    pub direct_map: Option<Located<bool>>,
    /// vCPUs, at least 1. 0 is a conflict.
    pub cpus: Located<u32>,
    /// Host CPUs by their index in [`HostMap::cpus`](crate::HostMap::cpus), one for each vCPU.
    pub affinity: Option<Located<Vec<u32>>>,
    /// How much memory.
    pub memory: Located<MemoryRequest>,
    /// Named machine ranges. Empty: the planner chooses.
    pub static_mem: Vec<StaticRange>,
    /// All of its memory must end at or below this machine address.
    pub memory_below: Option<Located<u64>>,
    /// The kernel. `None` is a conflict: a domain has something to run.
    pub kernel: Option<KernelRequest>,
    /// The ramdisk.
    pub ramdisk: Option<ModuleRequest>,
    /// The partial device tree that describes passed-through devices.
    pub partial_tree: Option<ModuleRequest>,
    /// Bytes to set aside for the device tree that the guest gets, at most 2 MiB.
    pub tree_bytes: u64,
    /// The kernel's command line, handed on.
    pub command_line: String,
    /// Devices passed through. The hardware domain has all others.
    pub devices: Vec<DeviceRequest>,
    /// The owner's word that devices may do DMA although nothing confines it.
    pub allow_dma_without_iommu: bool,
    /// Whether its modules are needed again after the start (any `on-*` is "restart").
    pub keep_modules: bool,
    /// Bounds.
    pub limits: Limits,
    /// What follows what.
    pub policies: Policies,
    /// Whether it gets a virtual PL011.
    pub vpl011: bool,
    /// Memory shared with other domains.
    pub shared_memory: Vec<SharedMemoryRequest>,
    /// Event channels that are there from the start.
    pub event_channels: Vec<EventChannelRequest>,
    /// The first error that its reader found in it: the planner refuses it for that, so that nothing starts that wasn't
    /// understood.
    pub misread: Option<Code>,
}

impl DomainRequest {
    /// The mask that is stated for the device of this path.
    pub fn dma_mask(&self, path: &str) -> Option<u64> {
        let mut asked = self.devices.iter();
        asked.find(|asked| asked.path == path)?.dma_mask
    }

    /// The identity that is asked for, defaults filled in.
    pub fn identity(&self) -> Identity {
        Identity::new(
            self.kind.map_or(Kind::Pvh, |kind| kind.value),
            self.capabilities.value,
            self.direct_map.map(|direct| direct.value),
        )
    }
}

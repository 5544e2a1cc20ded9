//! The system tree: Xen's dom0less binding, with `terrane,*` properties for what that lacks.
//!
//! [`write`](fn@write) makes it on the workstation, [`read`](fn@read) turns it into a
//! [`layout::SystemRequest`] there and in the hypervisor. Trees for Xen are read too: domains of class
//! `xen,domain`, and the classic hardware domain whose modules stand right under `/chosen`.
//!
//! Beside it stands the host's description, a tree or a PC's ([`HostDescription`]).
//!
//! Source: Xen, docs/misc/arm/device-tree/booting.txt. The `terrane,*` properties are described in
//! docs/system-tree.md.

mod classic;
mod domain;
mod host;
mod kernel;
mod links;
mod partial;
mod read;
pub mod words;
mod write;
mod xen;

#[cfg(feature = "std")]
pub(crate) use classic::xen_size;
pub use host::HostDescription;
pub use read::{Modules, System, read};
pub use write::{DIGEST_LENGTH, write};

use layout::{MachineAddress, MachineRange, Origin};

use crate::image::HEADER_BYTES;

/// Properties of `/chosen` and of domain nodes that Xen's binding lacks.
mod property {
    pub const VERSION: &str = "terrane,version";
    pub const MODULES_RELATIVE: &str = "terrane,modules-relative";
    pub const PLAN_DIGEST: &str = "terrane,plan-digest";
    pub const ON_CONFLICT: &str = "terrane,on-conflict";
    pub const PRINT_PLAN: &str = "terrane,print-plan";
    pub const SCRUB: &str = "terrane,scrub";
    pub const CONSOLE: &str = "terrane,console";

    pub const NAME: &str = "terrane,name";
    pub const MANIFEST_LINE: &str = "terrane,manifest-line";
    pub const KIND: &str = "terrane,kind";
    pub const DIRECT_MAP: &str = "terrane,direct-map";
    pub const MEMORY: &str = "terrane,memory";
    pub const MEMORY_BYTES: &str = "terrane,memory-bytes";
    pub const MEMORY_BELOW: &str = "terrane,memory-below";
    pub const AFFINITY: &str = "terrane,affinity";
    pub const ALLOW_DMA: &str = "terrane,allow-dma-without-iommu";
    pub const MAX_EVENT_CHANNELS: &str = "terrane,max-event-channels";
    pub const ON_STRAY_ACCESS: &str = "terrane,on-stray-access";
    pub const ON_POWEROFF: &str = "terrane,on-poweroff";
    pub const ON_REBOOT: &str = "terrane,on-reboot";
    pub const ON_CRASH: &str = "terrane,on-crash";

    pub const MEMORY_SIZE: &str = "terrane,memory-size";
    pub const ALIGNMENT: &str = "terrane,alignment";
    pub const TEXT_OFFSET: &str = "terrane,text-offset";
    pub const ENTRY: &str = "terrane,entry";
    pub const BOUNDS: &str = "terrane,bounds";

    pub const RESERVED: &str = "terrane,reserved";
    pub const DEVICE: &str = "terrane,device";
    pub const DMA_MASK: &str = "terrane,dma-mask";

    pub const READ_ONLY: &str = "terrane,read-only";
    pub const PORT: &str = "terrane,port";
    pub const PEER: &str = "terrane,peer";
    pub const PEER_PORT: &str = "terrane,peer-port";

    /// What any node may have.
    pub const OF_ALL: [&str; 7] = [
        "compatible",
        "#address-cells",
        "#size-cells",
        "phandle",
        "linux,phandle",
        "status",
        "name",
    ];
    /// Xen's in a domain's node.
    pub const XEN_OF_DOMAIN: [&str; 21] = [
        "memory",
        "cpus",
        "capabilities",
        "vpl011",
        "nr_spis",
        "direct-map",
        "xen,static-mem",
        "#xen,static-mem-address-cells",
        "#xen,static-mem-size-cells",
        "domain-cpupool",
        "llc-colors",
        "sve",
        "trap-unmapped-accesses",
        "xen,enhanced",
        "xen,domain-p2m-mem-mb",
        "max_grant_version",
        "max_grant_frames",
        "max_maptrack_frames",
        "passthrough",
        "xen,sci_type",
        "v8r_el1_msa",
    ];
    /// Xen's in a module's node.
    pub const XEN_OF_MODULE: [&str; 3] = ["reg", "bootargs", "xen,uefi-binary"];
    /// Xen's in `/chosen`.
    pub const XEN_OF_CHOSEN: [&str; 4] = [
        "xen,xen-bootargs",
        "xen,dom0-bootargs",
        "xen,static-heap",
        "xen,uefi-cfg-load",
    ];
    /// What may stand in the node of shared memory.
    pub const OF_SHARED: [&str; 5] = [
        MANIFEST_LINE,
        READ_ONLY,
        "xen,shm-id",
        "xen,shared-mem",
        "role",
    ];
    /// What may stand in the node of an event channel.
    pub const OF_CHANNEL: [&str; 5] = [MANIFEST_LINE, PORT, PEER, PEER_PORT, "xen,evtchn"];

    /// What may stand in a module's node.
    pub const OF_MODULE: [&str; 6] = [
        MANIFEST_LINE,
        MEMORY_SIZE,
        ALIGNMENT,
        TEXT_OFFSET,
        ENTRY,
        BOUNDS,
    ];
    /// What may stand in `/chosen`.
    pub const OF_CHOSEN: [&str; 7] = [
        VERSION,
        MODULES_RELATIVE,
        PLAN_DIGEST,
        ON_CONFLICT,
        PRINT_PLAN,
        SCRUB,
        CONSOLE,
    ];
    /// What may stand in a domain's node.
    pub const OF_DOMAIN: [&str; 14] = [
        NAME,
        MANIFEST_LINE,
        KIND,
        DIRECT_MAP,
        MEMORY,
        MEMORY_BYTES,
        MEMORY_BELOW,
        AFFINITY,
        ALLOW_DMA,
        MAX_EVENT_CHANNELS,
        ON_STRAY_ACCESS,
        ON_POWEROFF,
        ON_REBOOT,
        ON_CRASH,
    ];
}

/// What is known of the modules' bytes. A function that gives headers is one that knows no more.
pub trait Contents {
    /// The first bytes of a kernel's module; `None` where nothing can be read.
    fn header(&self, module: MachineRange) -> Option<[u8; HEADER_BYTES]>;

    /// All of a partial tree's module; `None` where nothing can be read.
    fn partial_tree(&self, module: MachineRange) -> Option<&[u8]> {
        let _ = module;
        None
    }
}

impl<F: Fn(MachineRange) -> Option<[u8; HEADER_BYTES]>> Contents for F {
    fn header(&self, module: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        self(module)
    }
}

/// What a module is to its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `multiboot,kernel`.
    Kernel,
    /// `multiboot,ramdisk`.
    Ramdisk,
    /// `multiboot,device-tree`.
    PartialTree,
}

/// A module that the tree names, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Its domain, by index in the request; `None` if that isn't there for want of a kernel.
    pub domain: Option<usize>,
    /// What it is there.
    pub role: Role,
    /// Where the boot loader puts it: its `reg`.
    pub range: MachineRange,
    /// Cells of an address and of a size in that `reg`.
    pub cells: (usize, usize),
    /// Where that is said.
    pub origin: Origin,
}

/// The version of the `terrane,*` properties that this writes, and reads.
pub const VERSION: u32 = 1;

fn moved(range: MachineRange, by: impl Fn(u64) -> Option<u64>) -> Option<MachineRange> {
    MachineRange::new(MachineAddress::new(by(range.start().raw())?), range.size())
}

//! The plan: who owns which frames, who sees them where, and what is done before the start.
//!
//! Every field is public and every list has one canonical order, so that a plan can be written
//! down, hashed and compared: RAM by machine address within a domain, domains by the order of
//! the request, host RAM by address. The planner makes it; the hypervisor builds by it and
//! decides nothing itself.

use alloc::string::String;
use alloc::vec::Vec;

use crate::address::{
    FRAME_SHIFT, Gfn, GfnRange, GuestAddress, GuestRange, MachineAddress, MachineRange, Mfn,
    MfnRange,
};
use crate::conflict::{Code, Conflict};
use crate::domain::Identity;
use crate::host::Architecture;
use crate::request::{Limits, OnConflict, Policies, Scrub};
use crate::sort::sort_by_key;

/// What planning gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The plan. With conflicts it holds every domain that can be started safely all the same.
    pub plan: Plan,
    /// Everything that clashes, in a canonical order.
    pub conflicts: Vec<Conflict>,
    /// The domains that the plan leaves out, and for what.
    pub refused: Vec<Refusal>,
}

impl Outcome {
    /// Whether any conflict is an error, and not a warning only.
    pub fn has_errors(&self) -> bool {
        self.conflicts.iter().any(Conflict::is_error)
    }
}

/// A domain that isn't in the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Its index in the request.
    pub domain: usize,
    /// Its name.
    pub name: String,
    /// The first error that it is a side of.
    pub code: Code,
}

/// A whole machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The machine's architecture.
    pub architecture: Architecture,
    /// The hypervisor's own memory and settings.
    pub hypervisor: HypervisorPlan,
    /// The domains, in the request's order, without the refused ones.
    pub domains: Vec<DomainPlan>,
    /// Copies to be made before any domain starts, in this order: no copy overwrites what a
    /// later one reads. Source and destination of one copy may overlap.
    pub copies: Vec<Copy>,
    /// Ranges in a domain's RAM that held a module of another domain: to be cleared after the
    /// last copy.
    pub clear: Vec<MachineRange>,
    /// RAM with modules that are needed for a restart. Nobody's RAM, by address.
    pub kept: Vec<MfnRange>,
    /// RAM that firmware or the manifest reserves and no domain has, by address.
    pub reserved: Vec<MfnRange>,
    /// RAM that nobody got, by address.
    pub unowned: Vec<MfnRange>,
}

impl Plan {
    /// The domain with this name.
    pub fn domain(&self, name: &str) -> Option<&DomainPlan> {
        self.domains.iter().find(|domain| domain.name == name)
    }

    /// Every frame of the host's RAM with its owner, by address.
    pub fn owners(&self) -> Vec<Owned> {
        let one = |frames: &MfnRange, owner| Owned {
            frames: *frames,
            owner,
        };
        let mut owned = Vec::new();
        owned.push(one(&self.hypervisor.region, Owner::Hypervisor));
        for (index, domain) in self.domains.iter().enumerate() {
            let banks = domain.banks.iter();
            owned.extend(banks.map(|bank| one(&bank.machine(), Owner::Domain(index))));
        }
        owned.extend(self.kept.iter().map(|frames| one(frames, Owner::Kept)));
        owned.extend(
            self.reserved
                .iter()
                .map(|frames| one(frames, Owner::Reserved)),
        );
        owned.extend(self.unowned.iter().map(|frames| one(frames, Owner::Nobody)));
        owned.retain(|owned| !owned.frames.is_empty());
        sort_by_key(&mut owned, |owned| [owned.frames.start().raw(), 0, 0]);
        owned
    }

    /// The hardware domain.
    pub fn hardware_domain(&self) -> Option<&DomainPlan> {
        self.domains
            .iter()
            .find(|domain| domain.identity.is_hardware())
    }
}

/// To whom a frame of RAM belongs.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Owner {
    /// The hypervisor, the domains' pools and tables included.
    Hypervisor,
    /// A domain, by its place in [`Plan::domains`].
    Domain(usize),
    /// A module that is needed for a restart.
    Kept,
    /// Firmware, or whom the manifest reserves it for.
    Reserved,
    /// Nobody.
    Nobody,
}

/// Frames and their owner.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct Owned {
    /// The frames.
    pub frames: MfnRange,
    /// Whose they are.
    pub owner: Owner,
}

/// The hypervisor's part of the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HypervisorPlan {
    /// All of its memory: image, heap, stacks, tables.
    pub region: MfnRange,
    /// Where in it the image runs. If that is where it lies, nothing is moved.
    pub image: MfnRange,
    /// Whether the image already lies there.
    pub in_place: bool,
    /// What a conflict at boot leads to.
    pub on_conflict: OnConflict,
    /// Whether the plan is printed on the console.
    pub print_plan: bool,
    /// Which frames are cleared.
    pub scrub: Scrub,
    /// The UART that the hypervisor keeps, by index in the host map's devices.
    pub console: Option<usize>,
    /// The region without the image and without the domains' pools, by address: at most two
    /// ranges.
    pub heap: Vec<MfnRange>,
}

/// A domain's part of the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainPlan {
    /// Its index in the request.
    pub index: usize,
    /// Its domain ID: 0 for the hardware domain, the others count from 1 in the request's order.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// What it is.
    pub identity: Identity,
    /// Its RAM, by guest frame. Neighbours that continue each other in both spaces are one, unless
    /// one of them is [reserved](Bank::reserved). On x86 the hardware domain's begins with the RAM
    /// below 1 MiB. That and what is reserved counts in addition to what it asked for.
    pub banks: Vec<Bank>,
    /// Frames in the hypervisor's region for what the hypervisor shares with the domain: one
    /// for shared info, one for a console ring, and the grant table's.
    pub pool: MfnRange,
    /// Frames in the hypervisor's region for the domain's second-stage tables: all that it can
    /// ever have.
    pub tables: MfnRange,
    /// The kernel.
    pub kernel: Placement,
    /// Where its first vCPU starts, if the kernel says so (x86: the PVH entry). `None`: at the
    /// kernel's first byte.
    pub entry: Option<GuestAddress>,
    /// The ramdisk.
    pub ramdisk: Option<Placement>,
    /// Where the guest's device tree goes, and the most bytes it may have; on x86 all that it
    /// starts from instead: start structure, memory map, command line and ACPI tables. It is
    /// written after the last copy: a module that is to be moved may lie there before.
    pub tree: GuestRange,
    /// The partial tree, which the hypervisor reads where it lies before any copy is made.
    pub partial_tree: Option<MachineRange>,
    /// For each vCPU the host CPU that it is pinned to, by index in the host map.
    pub cpus: Vec<u32>,
    /// Its devices, by index in the host map's list.
    pub devices: Vec<usize>,
    /// Bounds.
    pub limits: Limits,
    /// What follows what.
    pub policies: Policies,
    /// The kernel's command line.
    pub command_line: String,
    /// Whether it gets a virtual PL011.
    pub vpl011: bool,
}

impl DomainPlan {
    /// Frames of RAM.
    pub fn frames(&self) -> u64 {
        self.banks.iter().map(|bank| bank.frames).sum()
    }

    /// Its RAM as the guest sees it: banks that follow each other in guest space are one.
    pub fn guest_ram(&self) -> Vec<GfnRange> {
        self.joined(true)
    }

    /// The same without what the host's tree reserves: what the guest's kernel is free to use.
    pub fn guest_ram_to_use(&self) -> Vec<GfnRange> {
        self.joined(false)
    }

    fn joined(&self, reserved: bool) -> Vec<GfnRange> {
        let mut ram: Vec<GfnRange> = Vec::new();
        for bank in self.banks.iter().filter(|bank| reserved || !bank.reserved) {
            let range = bank.guest();
            match ram.last_mut() {
                Some(last) if last.end() == range.start() => {
                    *last = GfnRange::between(last.start(), range.end());
                }
                _ => ram.push(range),
            }
        }
        ram
    }

    /// The machine frame behind a guest frame of its RAM.
    pub fn machine_frame(&self, gfn: Gfn) -> Option<Mfn> {
        let bank = self.banks.iter().find(|bank| bank.guest().contains(gfn))?;
        Some(bank.mfn.offset(gfn.raw() - bank.gfn.raw()))
    }

    /// The machine bytes behind guest bytes, in guest order; `None` if a part isn't RAM.
    pub fn machine_ranges(&self, range: GuestRange) -> Option<Vec<MachineRange>> {
        let mut pieces = Vec::new();
        let mut at = range.start().raw();
        let end = range.end().raw();
        while at < end {
            let gfn = GuestAddress::new(at).frame();
            let bank = self.banks.iter().find(|bank| bank.guest().contains(gfn))?;
            let bank_end = bank.guest().end().address().raw();
            let offset = at - bank.gfn.address().raw();
            let start = MachineAddress::new(bank.mfn.address().raw() + offset);
            let size = bank_end.min(end) - at;
            pieces.push(MachineRange::saturating(start, size));
            at += size;
        }
        Some(pieces)
    }
}

/// Consecutive frames of a domain's RAM, in both spaces.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct Bank {
    /// The first guest frame.
    pub gfn: Gfn,
    /// The machine frame behind it.
    pub mfn: Mfn,
    /// The number of frames.
    pub frames: u64,
    /// Whether the host's tree reserves it: the hardware domain's kernel uses it for what its node
    /// says, and, if that has `reusable`, lends it out as long as it isn't needed for that.
    /// Nothing lies there when the domain starts, and its content, such as a crash log, stays.
    pub reserved: bool,
}

impl Bank {
    /// The guest frames.
    pub fn guest(&self) -> GfnRange {
        GfnRange::between(self.gfn, self.gfn.offset(self.frames))
    }

    /// The machine frames.
    pub fn machine(&self) -> MfnRange {
        MfnRange::between(self.mfn, self.mfn.offset(self.frames))
    }

    /// Bytes of RAM.
    pub fn bytes(&self) -> u64 {
        self.frames << FRAME_SHIFT
    }
}

/// Where a module goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The guest address of its first byte.
    pub address: GuestAddress,
    /// Bytes that it takes in the guest, a kernel's unfilled data included.
    pub size: u64,
    /// Where the boot loader left it.
    pub source: MachineRange,
    /// Whether it is used where it lies. If not, [`Plan::copies`] moves it.
    pub in_place: bool,
}

impl Placement {
    /// The guest bytes that it takes.
    pub fn range(&self) -> GuestRange {
        GuestRange::saturating(self.address, self.size)
    }
}

/// Which of a domain's modules.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Item {
    /// The kernel.
    Kernel,
    /// The ramdisk.
    Ramdisk,
}

/// A module on its way to its domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// The domain, by its place in [`Plan::domains`].
    pub domain: usize,
    /// Which module.
    pub item: Item,
    /// Where it lies.
    pub source: MachineRange,
    /// Where it goes, in order; the sizes add up to the source's.
    pub destination: Vec<MachineRange>,
}

//! From a manifest to everything that a command needs: the plan, and the files that make a
//! machine carry it out.
//!
//! The order is the boot loader's turned round. The container's length is known before its place,
//! its place before the plan, the plan before the digest that the container carries.

use std::path::Path;

use layout::{HostMap, MachineRange, Outcome};
use manifest::origin::{Origins, Position};
use manifest::plan_json;
use manifest::toml::{HostSpec, Manifest};
use manifest::tree::blob::{MAX_BYTES, Tree};
use manifest::tree::{edit, host};

use crate::args::ManifestArgs;
use crate::boot::{self, Places, Sizes};
use crate::diagnostics::{self, Diagnostic, Place, Severity, Side, Sources};
use crate::exit::Exit;
use crate::hypervisor::Hypervisor;
use crate::qemu::{self, Machine, Qemu};

/// What the system runs on.
pub enum Host {
    /// A machine of QEMU's.
    Qemu {
        /// The program.
        qemu: Qemu,
        /// The machine.
        machine: Machine,
    },
    /// A board, described by its device tree.
    Board,
}

/// A planned system.
pub struct System {
    /// What it runs on.
    pub host: Host,
    /// The hypervisor.
    pub hypervisor: Hypervisor,
    /// Where the boot loader puts things.
    pub places: Places,
    /// The host's tree, as the boot loader hands it over.
    pub host_tree: Vec<u8>,
    /// The container, with the plan's digest.
    pub container: Vec<u8>,
    /// What the planner was told of the host.
    pub map: HostMap,
    /// The plan and its conflicts.
    pub outcome: Outcome,
    /// The domains' names, in the manifest's order.
    pub domains: Vec<String>,
    /// The domain that has the console, by index in `domains`.
    pub focus: usize,
}

/// What was found on the way, and the texts that it points into.
#[derive(Default)]
pub struct Findings {
    /// All of it.
    pub diagnostics: Vec<Diagnostic>,
    /// The files' texts.
    pub sources: Sources,
}

impl Findings {
    /// Whether something is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|found| found.severity == Severity::Error)
    }
}

//! The host's side of a system: what its reader asks of the machine's description.

use alloc::string::String;

use layout::{Architecture, DomainRequest};

use crate::pc;
use crate::tree::blob::{Node, Tree};
use crate::tree::{guest, host};

/// The host's description, of either form.
#[derive(Debug, Clone, Copy)]
pub enum HostDescription<'r, 'h> {
    /// A device tree.
    Tree(&'r Tree<'h>),
    /// A PC's.
    Pc(&'r pc::Description),
}

impl<'r, 'h> From<&'r Tree<'h>> for HostDescription<'r, 'h> {
    fn from(tree: &'r Tree<'h>) -> Self {
        Self::Tree(tree)
    }
}

impl<'r> From<&'r pc::Description> for HostDescription<'r, '_> {
    fn from(pc: &'r pc::Description) -> Self {
        Self::Pc(pc)
    }
}

impl HostDescription<'_, '_> {
    pub(super) fn architecture(&self) -> Architecture {
        match self {
            Self::Tree(tree) => host::architecture(tree),
            Self::Pc(_) => Architecture::X86_64,
        }
    }

    /// The path of the UART that this name stands for, or without a name of the host's own console.
    pub(super) fn console(&self, named: Option<&str>) -> Option<String> {
        match self {
            Self::Tree(tree) => host::resolve_console(tree, named),
            Self::Pc(pc) => {
                let own = pc::console_name(pc.console?);
                named.is_none_or(|named| named == own).then_some(own)
            }
        }
    }

    /// CPUs that it describes.
    pub(super) fn cpus(&self) -> usize {
        match self {
            Self::Tree(tree) => {
                let cpu = |node: &Node<'_, '_>| node.string("device_type") == Some("cpu");
                tree.nodes().filter(cpu).count()
            }
            Self::Pc(pc) => pc.cpus.len(),
        }
    }

    /// Bytes that the hypervisor takes for its copy of it.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Tree(tree) => tree.total_bytes() as u64,
            Self::Pc(_) => 0,
        }
    }

    /// Bytes to set aside for what a domain finds its hardware by.
    pub(super) fn budget(&self, domain: &DomainRequest) -> u64 {
        match self {
            Self::Tree(tree) => guest::budget(tree, domain),
            Self::Pc(_) => pc::START_BYTES,
        }
    }
}

//! What a starter manifest needs to know of its machine.

use layout::{HostMap, MachineAddress, MachineRange};
use manifest::origin::Origins;
use manifest::pc;
use manifest::tree::blob::Tree;
use manifest::tree::host;

use crate::arch::Arch;
use crate::diagnostics::Diagnostic;
use crate::host::Description;

/// A machine as `init` sees it.
#[derive(Debug)]
pub struct Seen {
    /// Its architecture.
    pub arch: &'static Arch,
    /// What it calls itself.
    pub model: Option<String>,
    /// CPUs that one domain can have.
    pub cpus: u32,
    /// Bytes of RAM.
    pub ram: u64,
    /// The console that its description names.
    pub console: Option<String>,
    /// UARTs, where none is named.
    pub uarts: Vec<String>,
    /// Whether anything that an IOMMU doesn't stand before may do DMA.
    pub dma: bool,
}

impl Seen {
    /// The machine that a description describes.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of(described: &Description, arch: &'static Arch) -> Result<Self, Diagnostic> {
        match described {
            Description::Tree { live, .. } => {
                let tree = Tree::read(live).map_err(|error| {
                    let message = format!("the host's device tree can't be read: {error}");
                    Diagnostic::error("tree-invalid", message)
                })?;
                Ok(Self::of_tree(&tree, arch))
            }
            Description::Pc(described) => Ok(Self::of_pc(described, arch)),
        }
    }

    fn of_tree(tree: &Tree<'_>, arch: &'static Arch) -> Self {
        let console = host::resolve_console(tree, None);
        let facts = host::BootFacts {
            hypervisor: nowhere(),
            host_tree: nowhere(),
            container: None,
        };
        let read = host::read(tree, &facts, console.as_deref(), &mut Origins::new());
        let is_uart = |path: &&str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with("serial@") || name.starts_with("uart@")
        };
        let paths = read.map.devices.iter().map(|device| device.path.as_str());
        let uarts = paths.filter(is_uart).map(str::to_owned).collect();
        let model = tree.root().string("model").map(str::to_owned);
        Self {
            console: read.console.map(|uart| uart.path),
            uarts,
            model,
            ..Self::of_map(&read.map, arch)
        }
    }

    fn of_pc(described: &pc::Description, arch: &'static Arch) -> Self {
        let facts = pc::BootFacts {
            hypervisor: nowhere(),
            container: None,
        };
        let read = pc::host_map(described, &facts, &mut Origins::new());
        Self {
            console: read.console,
            ..Self::of_map(&read.map, arch)
        }
    }

    fn of_map(map: &HostMap, arch: &'static Arch) -> Self {
        let cpus = u32::try_from(map.cpus.len()).unwrap_or(u32::MAX);
        let open =
            |device: &layout::HostDevice| device.dma != layout::Dma::None && !device.behind_iommu;
        Self {
            arch,
            model: None,
            cpus: cpus.min(map.controller.max_cpus).max(1),
            ram: map
                .ram
                .iter()
                .map(|bank| bank.range.size())
                .fold(0, u64::saturating_add),
            console: None,
            uarts: Vec::new(),
            dma: map.devices.iter().any(open),
        }
    }

    /// The machine that [`super::text`] asks QEMU for.
    pub fn of_qemu(arch: &'static Arch) -> Self {
        Self {
            arch,
            model: None,
            cpus: 2,
            ram: 2 << 30,
            console: None,
            uarts: Vec::new(),
            dma: false,
        }
    }
}

fn nowhere() -> MachineRange {
    MachineRange::saturating(MachineAddress::new(0), 0)
}

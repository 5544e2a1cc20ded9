//! The facts of the guest's own device tree, read once at the start into a value that needs no allocator.

use arrayvec::{ArrayString, ArrayVec};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::{NodeStandard, Status};
use dtoolkit::{Node, Property};

use crate::range::Range;

/// Why a tree gives no facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATree;

/// How PSCI and SMCCC are called (the `method` of the `psci` node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc #0`.
    Hvc,
    /// `smc #0`.
    Smc,
}

/// The interrupt controller, at the addresses that the tree gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// GICv2: distributor and CPU interface.
    V2 {
        /// GICD.
        distributor: Range,
        /// GICC.
        cpu: Range,
    },
    /// GICv3: distributor, redistributor regions, translation services.
    V3 {
        /// GICD.
        distributor: Range,
        /// GICR regions, each with the frames of several CPUs.
        redistributors: ArrayVec<Range, 8>,
        /// The ITS's registers, if there is one.
        its: Option<Range>,
    },
}

/// The `hypervisor` node of a guest of Xen's ABI (Linux: Documentation/devicetree/bindings/arm/xen.txt).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xen {
    /// Its ranges: the first is for grant tables, those after it are free of RAM and devices ("extended regions").
    pub ranges: ArrayVec<Range, 16>,
    /// INTID of the event channels' interrupt.
    pub upcall: Option<u32>,
}

/// The facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// RAM banks, in the tree's order.
    pub ram: ArrayVec<Range, 32>,
    /// Ranges under `/reserved-memory`.
    pub reserved: ArrayVec<Range, 32>,
    /// MPIDR affinity fields of the CPUs, in the tree's order.
    pub cpus: ArrayVec<u64, 64>,
    /// `bootargs` of `/chosen`; cut at 2,048 bytes.
    pub arguments: ArrayString<2048>,
    /// How to call PSCI, if there is a `psci` node.
    pub conduit: Option<Conduit>,
    /// The interrupt controller.
    pub controller: Option<Controller>,
    /// The first PL011 that isn't disabled.
    pub pl011: Option<Range>,
    /// INTIDs of the timers: secure physical, physical, virtual, hypervisor; 0 where absent.
    pub timers: [u32; 4],
    /// The hypervisor node, when a hypervisor of Xen's ABI runs this guest.
    pub xen: Option<Xen>,
    /// Register ranges of every node with a `compatible`, whose parents' addresses are its own (empty `ranges`), and the
    /// windows of PCI host bridges.
    pub devices: ArrayVec<Range, 256>,
    /// Where the tree itself lies, if it was read where the boot loader put it.
    pub blob: Range,
}

impl Facts {
    /// Reads the facts of a flattened tree. What doesn't fit (more than 32 banks, 64 CPUs...) is left out.
    ///
    /// # Errors
    /// [`NotATree`] when the blob isn't a well-formed tree.
    pub fn read(blob: &[u8]) -> Result<Self, NotATree> {
        let tree = Fdt::new(blob).map_err(|_| NotATree)?;
        let root = tree.root();
        let mut facts = Self::default();
        facts.visit(root);
        if let Some(chosen) = root.child("chosen")
            && let Some(property) = chosen.property("bootargs")
            && let Ok(text) = property.value_as::<&str>()
        {
            let cut = text.floor_char_boundary(facts.arguments.capacity());
            facts
                .arguments
                .push_str(text.get(..cut).unwrap_or_default());
        }
        if let Some(cpus) = root.child("cpus") {
            for cpu in cpus.children() {
                let is_cpu = cpu
                    .property("device_type")
                    .is_some_and(|kind| kind.value() == b"cpu\0");
                if is_cpu && let Some(first) = registers(cpu).first() {
                    let _ = facts.cpus.try_push(first.start);
                }
            }
        }
        if let Some(reserved) = root.child("reserved-memory") {
            for node in reserved.children() {
                let _ = facts.reserved.try_extend_from_slice(&registers(node));
            }
        }
        Ok(facts)
    }

    /// Takes what the children of `parent` say, and theirs, as long as addresses need no translation.
    fn visit(&mut self, parent: FdtNode<'_>) {
        for node in parent.children() {
            self.take(node);
            let transparent = node
                .property("ranges")
                .is_some_and(|ranges| ranges.value().is_empty());
            if transparent && node.name() != "reserved-memory" {
                self.visit(node);
            }
        }
    }

    fn take(&mut self, node: FdtNode<'_>) {
        let ranges = registers(node);
        let is_memory = node
            .property("device_type")
            .is_some_and(|kind| kind.value() == b"memory\0");
        if is_memory {
            let _ = self.ram.try_extend_from_slice(&ranges);
            return;
        }
        let is = |name| node.is_compatible(name);
        if is("arm,psci") || is("arm,psci-0.2") || is("arm,psci-1.0") {
            self.conduit = conduit(node);
        } else if is("arm,gic-v3") {
            self.controller = controller_v3(node, &ranges);
        } else if is("arm,cortex-a15-gic") || is("arm,gic-400") {
            if let [distributor, cpu, ..] = ranges[..] {
                self.controller = Some(Controller::V2 { distributor, cpu });
            }
        } else if is("arm,armv8-timer") {
            let interrupts = interrupts(node);
            for (timer, interrupt) in self.timers.iter_mut().zip(interrupts) {
                *timer = interrupt;
            }
        } else if is("xen,xen") {
            self.xen = Some(Xen {
                upcall: interrupts(node).first().copied(),
                ranges: ranges.iter().copied().take(16).collect(),
            });
            return;
        } else if is("arm,pl011") && self.pl011.is_none() && node.status() == Ok(Status::Okay) {
            self.pl011 = ranges.first().copied();
        }
        if node.property("compatible").is_some() {
            let _ = self.devices.try_extend_from_slice(&ranges);
            let _ = self.devices.try_extend_from_slice(&windows(node));
        }
    }
}

fn registers(node: FdtNode<'_>) -> ArrayVec<Range, 32> {
    let Ok(Some(all)) = node.reg() else {
        return ArrayVec::new();
    };
    all.filter_map(|register| {
        let start = register.address::<u64>().ok()?;
        let size = register.size::<u64>().unwrap_or(0);
        start.checked_add(size)?;
        Some(Range { start, size })
    })
    .take(32)
    .collect()
}

/// What a PCI host bridge passes on to its bus, at the CPU's addresses.
fn windows(node: FdtNode<'_>) -> ArrayVec<Range, 8> {
    let is_pci = node
        .property("device_type")
        .is_some_and(|kind| kind.value() == b"pci\0");
    let Some(all) = node.ranges().ok().flatten().filter(|_| is_pci) else {
        return ArrayVec::new();
    };
    all.filter_map(|window| {
        let start = window.parent_bus_address::<u64>().ok()?;
        let size = window.length::<u64>().ok()?;
        start.checked_add(size)?;
        Some(Range { start, size })
    })
    .take(8)
    .collect()
}

fn conduit(node: FdtNode<'_>) -> Option<Conduit> {
    match node.property("method")?.value() {
        b"hvc\0" => Some(Conduit::Hvc),
        b"smc\0" => Some(Conduit::Smc),
        _ => None,
    }
}

fn controller_v3(node: FdtNode<'_>, ranges: &[Range]) -> Option<Controller> {
    let regions = node
        .property("#redistributor-regions")
        .and_then(|property| property.value_as::<u32>().ok())
        .unwrap_or(1);
    let (distributor, rest) = ranges.split_first()?;
    let its = node
        .children()
        .find(|child| child.is_compatible("arm,gic-v3-its"))
        .and_then(|child| registers(child).first().copied());
    Some(Controller::V3 {
        distributor: *distributor,
        redistributors: rest
            .iter()
            .copied()
            .take((regions as usize).min(8))
            .collect(),
        its,
    })
}

/// INTIDs of `interrupts` in the GIC binding's three cells: kind (0 SPI, 1 PPI), number, flags.
fn interrupts(node: FdtNode<'_>) -> ArrayVec<u32, 8> {
    let Some(property) = node.property("interrupts") else {
        return ArrayVec::new();
    };
    property
        .value()
        .as_chunks::<12>()
        .0
        .iter()
        .filter_map(|cells| {
            let [kind, number] = [0, 4].map(|at| {
                let bytes = cells
                    .get(at..at + 4)
                    .and_then(|bytes| bytes.try_into().ok());
                u32::from_be_bytes(bytes.unwrap_or_default())
            });
            number.checked_add(if kind == 0 { 32 } else { 16 })
        })
        .take(8)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Conduit, Controller, Facts, NotATree, Range};

    const GICV3: &[u8] = include_bytes!("../../../manifest/tests/trees/virt-gicv3.dtb");
    const GICV2: &[u8] = include_bytes!("../../../manifest/tests/trees/virt-gicv2.dtb");

    fn range(start: u64, size: u64) -> Range {
        Range { start, size }
    }

    #[test]
    fn reads_qemus_tree_with_gicv3() {
        let Ok(facts) = Facts::read(GICV3) else {
            unreachable!("the tree is QEMU's own");
        };
        assert_eq!(facts.ram.first().map(|bank| bank.start), Some(0x4000_0000));
        assert_eq!(facts.timers, [29, 30, 27, 26]);
        assert_eq!(facts.pl011, Some(range(0x900_0000, 0x1000)));
        assert!(matches!(
            &facts.controller,
            Some(Controller::V3 { distributor, redistributors, its: Some(its) })
                if *distributor == range(0x800_0000, 0x1_0000)
                    && redistributors.as_slice() == [range(0x80a_0000, 0xf6_0000)]
                    && its.start == 0x808_0000
        ));
        assert_eq!(facts.xen, None);
        // A window of the PCI host bridge, and its ECAM.
        assert!(
            facts
                .devices
                .iter()
                .any(|device| device.contains(0x1000_0000))
        );
        assert!(
            facts
                .devices
                .iter()
                .any(|device| device.contains(0x40_1000_0000))
        );
    }

    #[test]
    fn reads_qemus_tree_with_gicv2() {
        let Ok(facts) = Facts::read(GICV2) else {
            unreachable!("the tree is QEMU's own");
        };
        assert!(matches!(
            facts.controller,
            Some(Controller::V2 { distributor, cpu })
                if distributor.start == 0x800_0000 && cpu.start == 0x801_0000
        ));
        assert!(!facts.cpus.is_empty());
        assert!(matches!(facts.conduit, Some(Conduit::Smc | Conduit::Hvc)));
    }

    #[test]
    fn refuses_what_is_no_tree() {
        assert_eq!(Facts::read(b"no tree").err(), Some(NotATree));
        assert_eq!(Facts::read(&GICV3[..200]).err(), Some(NotATree));
    }

    proptest! {
        #[test]
        fn a_damaged_tree_does_no_harm(at in 0..GICV3.len(), byte: u8) {
            let mut blob = GICV3.to_vec();
            blob[at] = byte;
            let _ = Facts::read(&blob);
        }
    }
}

//! The CPUs that can be started.
//!
//! Source: Linux, Documentation/devicetree/bindings/arm/cpus.yaml.

use alloc::vec::Vec;

use layout::{HostCpu, Severity};

use super::Reader;

/// The affinity fields of MPIDR_EL1: Aff3 at bits 39 to 32, Aff2 to Aff0 at bits 23 to 0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// The CPUs of `/cpus` that are enabled and started by PSCI, in the tree's order. The first, which is the one that
/// boots, is started whatever its enable-method: QEMU gives none to a machine with one CPU, other boards spin.
pub fn read(reader: &mut Reader<'_, '_, '_>) -> Vec<HostCpu> {
    let Some(parent) = reader.tree.find("/cpus") else {
        reader.problem(
            reader.tree.root(),
            Severity::Error,
            "no CPUs",
            "there is no /cpus node",
        );
        return Vec::new();
    };
    let mut cpus: Vec<HostCpu> = Vec::new();
    for node in parent.children() {
        if node.string("device_type") != Some("cpu") || !node.is_enabled() {
            continue;
        }
        let Some(hardware_id) = node.u64("reg").filter(|id| id & !AFFINITY == 0) else {
            reader.problem(
                node,
                Severity::Error,
                "a CPU that can't be used",
                "its reg is not an MPIDR affinity",
            );
            continue;
        };
        if node.string("enable-method") != Some("psci") && !cpus.is_empty() {
            reader.problem(
                node,
                Severity::Warning,
                "a CPU that is left out",
                "its enable-method is not \"psci\"",
            );
            continue;
        }
        if cpus.iter().any(|cpu| cpu.hardware_id == hardware_id) {
            reader.problem(
                node,
                Severity::Error,
                "a CPU that is left out",
                "another has the same reg",
            );
            continue;
        }
        let origin = reader.origin(node);
        cpus.push(HostCpu {
            hardware_id,
            node: None,
            origin,
        });
    }
    cpus
}

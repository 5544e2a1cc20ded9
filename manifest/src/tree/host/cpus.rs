//! The CPUs, and by them the architecture.
//!
//! Source: Linux, Documentation/devicetree/bindings/arm/cpus.yaml and riscv/cpus.yaml; dt-schema, numa.yaml.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{Architecture, Code, HostCpu, Severity};

use super::Reader;
use crate::tree::blob::{Node, Tree};

/// The affinity fields of MPIDR_EL1: Aff3 at bits 39 to 32, Aff2 to Aff0 at bits 23 to 0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// What the tree's CPUs are: 64-bit RISC-V or, without a word of it, Arm.
#[must_use]
pub fn architecture(tree: &Tree<'_>) -> Architecture {
    let cpus = tree.find("/cpus");
    let mut cpus = cpus.iter().flat_map(|cpus| cpus.children()).filter(is_cpu);
    let is_riscv = |cpu: Node<'_, '_>| {
        cpu.has("riscv,isa") || cpu.has("riscv,isa-base") || cpu.is_compatible("riscv")
    };
    if cpus.any(is_riscv) {
        Architecture::Riscv64
    } else {
        Architecture::Aarch64
    }
}

fn is_cpu(node: &Node<'_, '_>) -> bool {
    node.string("device_type") == Some("cpu")
}

/// Why a CPU can't be used whatever starts it.
fn unusable(cpu: Node<'_, '_>, architecture: Architecture) -> Option<&'static str> {
    let Some(id) = cpu.u64("reg") else {
        return Some("its reg is not the number of a CPU");
    };
    match architecture {
        Architecture::Riscv64 => {
            let isa = cpu.string("riscv,isa").or(cpu.string("riscv,isa-base"));
            let is_narrow = isa.is_some_and(|isa| isa.starts_with("rv32"));
            is_narrow.then_some("it is a 32-bit CPU")
        }
        _ if id & !AFFINITY != 0 => Some("its reg is not an MPIDR affinity"),
        _ => None,
    }
}

/// The CPUs of `/cpus` that are enabled, in the tree's order. The hypervisor starts them by PSCI, and RISC-V's by SBI; the
/// first, which is the one that boots, runs already. Arm's others that say something else, or nothing as on boards whose
/// boot loader fills it in, are planned with too, and a warning says so.
pub fn read(reader: &mut Reader<'_, '_, '_>, architecture: Architecture) -> Vec<HostCpu> {
    let Some(parent) = reader.tree.find("/cpus") else {
        let why = "there is no /cpus node";
        reader.problem(reader.tree.root(), Severity::Error, "no CPUs", why);
        return Vec::new();
    };
    let mut cpus: Vec<HostCpu> = Vec::new();
    let mut unstarted: Vec<Node<'_, '_>> = Vec::new();
    for node in parent.children() {
        if !is_cpu(&node) || !node.is_enabled() {
            continue;
        }
        if let Some(why) = unusable(node, architecture) {
            reader.problem(node, Severity::Error, "a CPU that can't be used", why);
            continue;
        }
        let hardware_id = node.u64("reg").unwrap_or_default();
        if cpus.iter().any(|cpu| cpu.hardware_id == hardware_id) {
            let why = "another has the same reg";
            reader.problem(node, Severity::Error, "a CPU that is left out", why);
            continue;
        }
        let is_started = architecture != Architecture::Aarch64 || cpus.is_empty();
        if !is_started && node.string("enable-method") != Some("psci") {
            unstarted.push(node);
        }
        let origin = reader.origin(node);
        cpus.push(HostCpu {
            hardware_id,
            node: node.u32("numa-node-id"),
            origin,
        });
    }
    if let Some(&first) = unstarted.first() {
        not_started(reader, first, unstarted.len(), cpus.len());
    }
    cpus
}

fn not_started(reader: &mut Reader<'_, '_, '_>, first: Node<'_, '_>, count: usize, all: usize) {
    let method = match first.string("enable-method") {
        Some(method) => format!("enable-method = \"{method}\""),
        None => String::from("without enable-method"),
    };
    let what = format!("{count} of {all} CPUs, {method}");
    let origin = reader.origin(first);
    let why = "the hypervisor starts CPUs by PSCI: unless the boot loader changes that, a domain with one of these CPUs \
               doesn't start";
    let code = Code::CpuNotStarted;
    reader.add(code, Severity::Warning, what, origin, why, String::new());
}

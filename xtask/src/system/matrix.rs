//! Unmodified Linux as hardware domain on many machines: every pair of choices, or with `--full` every combination.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::Boot;
use super::devices::Devices;
use super::facts::Facts;
use super::{Context, Scenario, linux, pairwise};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

/// One thing about a machine or its guest that can be chosen.
#[derive(Clone, Copy)]
enum Choice {
    /// QEMU's CPU model.
    Cpu(&'static str),
    /// arm64's interrupt controller, and with it how PCIe devices interrupt.
    Controller(Controller),
    /// CPUs of the machine and of the domain.
    Cpus(u32),
    /// MiB.
    Memory(u64),
    /// The guest's kernel.
    Kernel(Kernel),
    /// An IOMMU that is there and left in bypass.
    Iommu(Iommu),
    /// Whether an x86-64 machine has a PC's clocks, and the mode of the firmware's own.
    Clocks(bool),
}

#[derive(Clone, Copy)]
enum Controller {
    /// GICv2 with v2m: MSI as SPIs.
    V2,
    /// GICv3 without ITS: INTx.
    V3,
    /// GICv3 with ITS: MSI as LPIs.
    V3Its,
}

#[derive(Clone, Copy)]
enum Iommu {
    None,
    /// arm64's SMMUv3.
    Smmu,
    /// x86-64's two, which QEMU lets devices bypass.
    Intel,
    Amd,
}

/// What an architecture's machines can be. The order decides which pairs meet, and the names.
fn axes(arch: Arch) -> Vec<Vec<Choice>> {
    let cpus = vec![Choice::Cpus(1), Choice::Cpus(2), Choice::Cpus(4)];
    let kernels = vec![
        Choice::Kernel(Kernel::Bookworm),
        Choice::Kernel(Kernel::Trixie),
    ];
    match arch {
        Arch::Aarch64 => vec![
            vec![
                Choice::Cpu("cortex-a57"),
                Choice::Cpu("cortex-a72"),
                Choice::Cpu("max"),
            ],
            vec![
                Choice::Controller(Controller::V2),
                Choice::Controller(Controller::V3),
                Choice::Controller(Controller::V3Its),
            ],
            cpus,
            vec![
                Choice::Memory(512),
                Choice::Memory(2048),
                Choice::Memory(8192),
            ],
            kernels,
            vec![Choice::Iommu(Iommu::None), Choice::Iommu(Iommu::Smmu)],
        ],
        Arch::X86_64 => vec![
            vec![
                Choice::Cpu("qemu64,+svm,+npt"),
                Choice::Cpu("EPYC"),
                Choice::Cpu("max"),
            ],
            cpus,
            vec![
                Choice::Memory(1024),
                Choice::Memory(2048),
                Choice::Memory(6144),
            ],
            kernels,
            vec![
                Choice::Iommu(Iommu::None),
                Choice::Iommu(Iommu::Intel),
                Choice::Iommu(Iommu::Amd),
            ],
            vec![Choice::Clocks(true), Choice::Clocks(false)],
        ],
    }
}

/// A machine and a kernel.
struct Point {
    machine: String,
    cpu: &'static str,
    cpus: u32,
    memory: u64,
    kernel: Kernel,
    /// More arguments for QEMU.
    arguments: Vec<&'static str>,
    /// What stands in `/proc/interrupts` for the NVMe disk's interrupts. Linux 6.1 and 6.12 name the domains of MSI
    /// differently, but both with these letters.
    interrupts: &'static str,
    /// What the choices add to the name, but for the kernel.
    name: String,
}

/// The scenarios: all pairs, or all.
pub fn scenarios(arch: Arch, full: bool) -> Vec<Scenario> {
    let axes = axes(arch);
    let sizes: Vec<usize> = axes.iter().map(Vec::len).collect();
    let combinations = if full {
        pairwise::all(&sizes)
    } else {
        pairwise::pairs(&sizes)
    };
    combinations
        .into_iter()
        .map(|chosen| {
            let mut point = Point::plain(arch);
            for (axis, choice) in axes.iter().zip(chosen) {
                point.choose(axis[choice]);
            }
            Scenario::new(
                format!("linux-{}{}", point.kernel.series(), point.name),
                move |context, folder| point.test(context, folder),
            )
        })
        .collect()
}

impl Point {
    /// The machine before anything is chosen.
    fn plain(arch: Arch) -> Self {
        Self {
            // An arm64 machine is named by its controller.
            machine: arch.machine().split(',').take(1).collect(),
            cpu: arch.cpu(),
            cpus: 1,
            memory: 1024,
            kernel: Kernel::Trixie,
            arguments: Vec::new(),
            interrupts: "MSI",
            name: String::new(),
        }
    }

    fn choose(&mut self, choice: Choice) {
        let (option, name) = match choice {
            Choice::Cpu(model) => {
                self.cpu = model;
                ("", model.split(',').take(1).collect())
            }
            Choice::Controller(Controller::V2) => (",gic-version=2", "gicv2".to_owned()),
            Choice::Controller(Controller::V3) => {
                self.interrupts = "Level";
                (",gic-version=3,its=off", "gicv3".to_owned())
            }
            Choice::Controller(Controller::V3Its) => (",gic-version=3,its=on", "its".to_owned()),
            Choice::Cpus(count) => {
                self.cpus = count;
                ("", format!("{count}cpu"))
            }
            Choice::Memory(mebibytes) => {
                self.memory = mebibytes;
                ("", format!("{mebibytes}M"))
            }
            Choice::Kernel(kernel) => {
                self.kernel = kernel;
                ("", String::new())
            }
            Choice::Iommu(Iommu::None) | Choice::Clocks(true) => ("", String::new()),
            Choice::Iommu(Iommu::Smmu) => (",iommu=smmuv3", "smmu".to_owned()),
            Choice::Iommu(Iommu::Intel) => {
                self.arguments = vec!["-device", "intel-iommu,intremap=off"];
                (",default-bus-bypass-iommu=on", "vtd".to_owned())
            }
            Choice::Iommu(Iommu::Amd) => {
                self.arguments = vec!["-device", "amd-iommu"];
                (",default-bus-bypass-iommu=on", "amdvi".to_owned())
            }
            Choice::Clocks(false) => (",hpet=off,pit=off,smm=off", "cloud".to_owned()),
        };
        self.machine += option;
        if !name.is_empty() {
            self.name.push('-');
            self.name += &name;
        }
    }

    fn test(&self, context: &Context, folder: &Path) -> Result<()> {
        let memory = format!("{}MiB", self.memory);
        let mut manifest = Manifest::new(context.arch, &self.machine, self.cpu, self.cpus, &memory);
        for word in &self.arguments {
            manifest.argument(*word);
        }
        // QEMU takes `edu` only where there is MSI.
        let edu = self.interrupts == "MSI";
        let devices = Devices::attach(context.arch, &mut manifest, folder, edu)?;
        let edu = if edu { "edu-dma" } else { "" };
        let checks = format!("CHECKS='{edu} balloon cpus:{}'", self.cpus);
        let task = linux::report(&format!("{} {checks}", devices.variables()));
        let domain = linux::domain(context, folder, self.kernel, &task)?;
        manifest.domain(domain.key("cpus", &self.cpus.to_string()));

        let ran = Boot::new(&manifest).run(context, folder)?;
        let facts = Facts::read(&ran.console(linux::NAME));
        linux::check(context.arch, &facts, self.cpus, self.memory, 0)?;
        devices.check(&facts)?;
        facts.expect_check("cpus")?;
        facts.expect_check("balloon")?;
        let disk = facts
            .all("interrupt")
            .iter()
            .find(|line| line.contains("nvme"));
        ensure!(
            disk.is_some_and(|line| line.contains(self.interrupts)),
            "the NVMe disk doesn't interrupt by {}: {disk:?}",
            self.interrupts
        );
        ran.expect_line(&format!("{}: powered off", linux::NAME))?;
        ran.expect_line("all domains have stopped")?;
        ran.expect_status(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_names_of_their_own() {
        for arch in [Arch::Aarch64, Arch::X86_64] {
            let mut names: Vec<String> = scenarios(arch, true)
                .into_iter()
                .map(|scenario| scenario.name)
                .collect();
            assert_eq!(names.len(), 324);
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), 324, "two scenarios share a name");
        }
    }

    #[test]
    fn a_name_says_what_was_chosen() {
        let mut point = Point::plain(Arch::X86_64);
        point.choose(Choice::Cpu("qemu64,+svm,+npt"));
        point.choose(Choice::Cpus(2));
        point.choose(Choice::Iommu(Iommu::Amd));
        point.choose(Choice::Clocks(false));
        assert_eq!(point.name, "-qemu64-2cpu-amdvi-cloud");
        assert_eq!(
            point.machine,
            "q35,default-bus-bypass-iommu=on,hpet=off,pit=off,smm=off"
        );
    }
}

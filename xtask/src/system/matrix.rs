//! Unmodified Linux as hardware domain on many machines: every pair of choices, or with `--full` every combination.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::Boot;
use super::devices::Devices;
use super::facts::Facts;
use super::{Context, Scenario, linux, pairwise};
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

const CPUS: [&str; 3] = ["cortex-a57", "cortex-a72", "max"];
const CONTROLLERS: [Controller; 3] = [Controller::V2, Controller::V3, Controller::V3Its];
const COUNTS: [u32; 3] = [1, 2, 4];
const MEMORY: [u64; 3] = [512, 2048, 8192];
const KERNELS: [Kernel; 2] = [Kernel::Bookworm, Kernel::Trixie];
const IOMMU: [bool; 2] = [false, true];

/// The machine's interrupt controller, and with it how PCIe devices interrupt.
#[derive(Clone, Copy)]
enum Controller {
    /// GICv2 with v2m: MSI as SPIs.
    V2,
    /// GICv3 without ITS: INTx.
    V3,
    /// GICv3 with ITS: MSI as LPIs.
    V3Its,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::V2 => "gicv2",
            Self::V3 => "gicv3",
            Self::V3Its => "its",
        }
    }

    fn machine(self) -> &'static str {
        match self {
            Self::V2 => "gic-version=2",
            Self::V3 => "gic-version=3,its=off",
            Self::V3Its => "gic-version=3,its=on",
        }
    }

    fn has_msi(self) -> bool {
        !matches!(self, Self::V3)
    }

    /// What stands in `/proc/interrupts` for the NVMe disk's interrupts.
    fn interrupts(self) -> &'static str {
        match self {
            // Linux 6.1 and 6.12 name the MSI-X domains differently, but both with these letters.
            Self::V2 | Self::V3Its => "MSI",
            Self::V3 => "Level",
        }
    }
}

/// A machine and a kernel.
#[derive(Clone, Copy)]
struct Point {
    cpu: &'static str,
    controller: Controller,
    cpus: u32,
    memory: u64,
    kernel: Kernel,
    iommu: bool,
}

/// The scenarios: all pairs, or all.
pub fn scenarios(full: bool) -> Vec<Scenario> {
    let sizes = [
        CPUS.len(),
        CONTROLLERS.len(),
        COUNTS.len(),
        MEMORY.len(),
        KERNELS.len(),
        IOMMU.len(),
    ];
    let combinations = if full {
        pairwise::all(&sizes)
    } else {
        pairwise::pairs(&sizes)
    };
    combinations
        .into_iter()
        .map(|choice| Point {
            cpu: CPUS[choice[0]],
            controller: CONTROLLERS[choice[1]],
            cpus: COUNTS[choice[2]],
            memory: MEMORY[choice[3]],
            kernel: KERNELS[choice[4]],
            iommu: IOMMU[choice[5]],
        })
        .map(|point| {
            Scenario::new(point.name(), move |context, folder| {
                point.test(context, folder)
            })
        })
        .collect()
}

impl Point {
    fn name(self) -> String {
        let (cpu, controller, kernel) = (self.cpu, self.controller.name(), self.kernel.series());
        let iommu = if self.iommu { "-smmu" } else { "" };
        format!(
            "linux-{kernel}-{cpu}-{controller}-{}cpu-{}M{iommu}",
            self.cpus, self.memory
        )
    }

    fn test(self, context: &Context, folder: &Path) -> Result<()> {
        let iommu = if self.iommu { ",iommu=smmuv3" } else { "" };
        let machine = format!("virt,{}{iommu}", self.controller.machine());
        let memory = format!("{}MiB", self.memory);
        let mut manifest = Manifest::new(&machine, self.cpu, self.cpus, &memory);
        let devices = Devices::attach(&mut manifest, folder, self.controller.has_msi())?;
        let edu = if self.controller.has_msi() {
            "edu-dma"
        } else {
            ""
        };
        let checks = format!("CHECKS='{edu} balloon cpus:{}'", self.cpus);
        let task = linux::report(&format!("{} {checks}", Devices::variables()));
        let domain = linux::domain(context, folder, self.kernel, &task)?;
        manifest.domain(domain.key("cpus", &self.cpus.to_string()));

        let ran = Boot::new(&manifest).run(context, folder)?;
        let facts = Facts::read(&ran.console(linux::NAME));
        linux::check(&facts, self.cpus, self.memory)?;
        devices.check(&facts)?;
        facts.expect_check("cpus")?;
        facts.expect_check("balloon")?;
        let disk = facts
            .all("interrupt")
            .iter()
            .find(|line| line.contains("nvme"));
        ensure!(
            disk.is_some_and(|line| line.contains(self.controller.interrupts())),
            "the NVMe disk doesn't interrupt by {}: {disk:?}",
            self.controller.interrupts()
        );
        ran.expect_line(&format!("{}: powered off", linux::NAME))?;
        ran.expect_line("all domains have stopped")?;
        ran.expect_status(0)
    }
}

//! What differs between architectures on the workstation, as data.
//!
//! Everything else in this program is the same for all of them: it asks the entry here, or looks at
//! the form of what it holds.

use layout::Architecture;

/// How the hypervisor's file says what it takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageForm {
    /// The header of an Image, as arm64 and RISC-V have it.
    Image,
    /// The program headers of an ELF file, linked where it runs.
    Elf,
}

/// What describes a machine, and so what is asked of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptionForm {
    /// A device tree, which QEMU can write.
    Tree,
    /// What the hypervisor itself finds: it is booted with the word `capture`.
    Capture,
}

/// Words that a QEMU machine of a family gets.
#[derive(Debug)]
pub struct MachineWords {
    /// The machine's name; a name that goes on with `-` (a version of it) counts too.
    pub family: &'static str,
    /// `KEY=VALUE`, added unless the manifest says `KEY`.
    pub words: &'static [&'static str],
}

/// Words that one CPU model of QEMU's gets.
#[derive(Debug)]
pub struct ModelWords {
    /// The model's name.
    pub model: &'static str,
    /// Added if the manifest says nothing but the name.
    pub words: &'static [&'static str],
}

/// RAM of a machine's firmware.
#[derive(Clone, Copy, Debug)]
pub struct Firmware {
    /// The machines, as [`MachineWords::family`] names them.
    pub family: &'static str,
    /// Its first address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// An architecture.
#[derive(Debug)]
pub struct Arch {
    /// The name that manifests, `--arch` and QEMU's programs use.
    pub name: &'static str,
    /// The planner's name for it.
    pub architecture: Architecture,
    /// Whether there is a hypervisor for it; if not, its systems are planned and can't be booted.
    pub boots: bool,
    /// The hypervisor's file among the build products.
    pub hypervisor: &'static str,
    /// How that file says what it takes.
    pub image: ImageForm,
    /// What describes a machine.
    pub description: DescriptionForm,
    /// What a domain finds its hardware by: the plan's `tree` range, as people are told of it.
    pub guest_description: &'static str,
    /// The machine and the CPU that a starter manifest asks QEMU for.
    pub starter: (&'static str, &'static str),
    /// Additions to `-machine`.
    pub machines: &'static [MachineWords],
    /// Additions to `-cpu`: features, each unless the manifest says it in either sense.
    pub features: &'static [&'static str],
    /// Additions to `-cpu` for single models.
    pub models: &'static [ModelWords],
    /// RAM that QEMU's firmware keeps, which QEMU's own tree doesn't say: it is written into the tree that QEMU is
    /// handed.
    pub firmware: Option<Firmware>,
    /// More arguments for QEMU, before the manifest's own.
    pub arguments: &'static [&'static str],
    /// `-accel` for more than one CPU, unless somebody names an accelerator.
    pub accelerator: Option<&'static str>,
}

/// The architectures that the command plans for.
static ARCHITECTURES: [Arch; 3] = [
    Arch {
        name: "aarch64",
        architecture: Architecture::Aarch64,
        boots: true,
        hypervisor: "hypervisor.bin",
        image: ImageForm::Image,
        description: DescriptionForm::Tree,
        guest_description: "device tree",
        starter: ("virt,gic-version=3", "cortex-a57"),
        // EL2, and a tree without random seeds, so that it repeats.
        machines: &[MachineWords {
            family: "virt",
            words: &["virtualization=on", "dtb-randomness=off"],
        }],
        features: &[],
        models: &[],
        firmware: None,
        arguments: &[],
        accelerator: None,
    },
    Arch {
        name: "x86_64",
        architecture: Architecture::X86_64,
        boots: true,
        hypervisor: "hypervisor.elf",
        image: ImageForm::Elf,
        description: DescriptionForm::Capture,
        guest_description: "start info, ACPI",
        starter: ("q35", "EPYC"),
        machines: &[],
        // QEMU's emulated MWAIT raises #GP where Linux uses it. What its emulation lacks it would
        // say in a line each at every start.
        features: &["+svm", "+npt", "-monitor", "check=off"],
        // An invariant TSC is there and not advertised under emulation, unless features are forced;
        // then what the model has and the emulation lacks must be taken away by name.
        models: &[
            ModelWords {
                model: "EPYC",
                words: &[
                    "-fxsr-opt",
                    "-misalignsse",
                    "-osvw",
                    "-topoext",
                    "-nrip-save",
                    "-xsavec",
                    "+invtsc",
                    "x-force-features=on",
                ],
            },
            ModelWords {
                model: "qemu64",
                words: &["+invtsc", "x-force-features=on"],
            },
        ],
        firmware: None,
        arguments: &["-nodefaults"],
        // With a thread for each CPU QEMU 10.0 can fail an assertion (`iotlb_to_section`) when one
        // CPU moves a BAR while another reaches a device, as Linux does at boot.
        accelerator: Some("tcg,thread=single"),
    },
    Arch {
        name: "riscv64",
        architecture: Architecture::Riscv64,
        boots: false,
        hypervisor: "hypervisor.bin",
        image: ImageForm::Image,
        description: DescriptionForm::Tree,
        guest_description: "device tree",
        starter: ("virt", "rv64"),
        machines: &[],
        // The hypervisor extension.
        features: &["h=true"],
        models: &[],
        // OpenSBI lies below what it starts, and writes its own part into the tree only as it runs.
        firmware: Some(Firmware {
            family: "virt",
            start: 0x8000_0000,
            size: 2 << 20,
        }),
        arguments: &[],
        accelerator: None,
    },
];

impl Arch {
    /// All of them.
    pub fn all() -> &'static [Self] {
        &ARCHITECTURES
    }

    /// The architecture of this name, if it is there.
    pub fn find(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|arch| arch.name == name)
    }

    /// The architecture of a host.
    pub fn of_host(architecture: Architecture) -> &'static Self {
        let [first, ..] = &ARCHITECTURES;
        let mut all = ARCHITECTURES.iter();
        all.find(|arch| arch.architecture == architecture)
            .unwrap_or(first)
    }

    /// The architecture whose boards are described in this form.
    pub fn of_description(form: DescriptionForm) -> &'static Self {
        let [first, ..] = &ARCHITECTURES;
        let found = ARCHITECTURES.iter().find(|arch| arch.description == form);
        found.unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a look-up falls back to the first entry, it is never needed.
    #[test]
    fn every_form_and_every_planned_host_has_an_architecture() {
        for form in [DescriptionForm::Tree, DescriptionForm::Capture] {
            assert_eq!(Arch::of_description(form).description, form);
        }
        for architecture in [
            Architecture::Aarch64,
            Architecture::X86_64,
            Architecture::Riscv64,
        ] {
            assert_eq!(Arch::of_host(architecture).architecture, architecture);
            assert_eq!(Arch::of_host(architecture).name, architecture.as_str());
        }
    }
}

//! The architectures that the commands take by `--arch`.

use anyhow::{Result, bail};
use clap::ValueEnum;

/// An architecture of the contract.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Arch {
    /// arm64, on QEMU's `virt` machine.
    #[default]
    Aarch64,
    /// x86-64, with SVM.
    #[value(name = "x86_64")]
    X86_64,
    /// RISC-V with the H extension.
    Riscv64,
}

impl Arch {
    /// Its name, as in `--arch` and in the build products' path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// Fails with "not built yet" unless Terrane runs on this architecture.
    pub fn require_built(self) -> Result<()> {
        match self {
            Self::Aarch64 => Ok(()),
            Self::X86_64 | Self::Riscv64 => {
                bail!(
                    "not built yet: Terrane runs on aarch64 only, there is no {} machine crate",
                    self.name()
                )
            }
        }
    }
}

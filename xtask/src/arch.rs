//! The architectures that the commands take by `--arch`, and what tools call them.

use std::str::FromStr;

/// An architecture that Terrane is built for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arch {
    /// arm64, on QEMU's `virt` machine.
    Aarch64,
    /// x86-64 with SVM, on QEMU's `q35` machine.
    X86_64,
}

impl Arch {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Aarch64, Self::X86_64];
    /// Its name, as in `--arch` and in the build products' path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }

    /// Debian's name for it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }

    /// QEMU's machine, as far as a scenario asks for none in particular.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::Aarch64 => "virt,gic-version=3",
            Self::X86_64 => "q35",
        }
    }

    /// QEMU's CPU model, likewise.
    pub const fn cpu(self) -> &'static str {
        match self {
            Self::Aarch64 => "cortex-a57",
            Self::X86_64 => "EPYC",
        }
    }

    /// Rust's target for the bare machine. Neither touches floating-point registers: those stay a guest's.
    pub const fn bare_target(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-none-softfloat",
            Self::X86_64 => "x86_64-unknown-none",
        }
    }

    /// Rust's target for static programs in a Linux guest.
    pub const fn linux_target(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-musl",
            Self::X86_64 => "x86_64-unknown-linux-musl",
        }
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "aarch64" => Ok(Self::Aarch64),
            "x86_64" => Ok(Self::X86_64),
            "riscv64" => Err("not built yet: there is no riscv64 machine crate".to_owned()),
            _ => Err("`--arch` is aarch64, x86_64 or riscv64".to_owned()),
        }
    }
}

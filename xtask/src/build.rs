//! Building the product: the hypervisor and the guests, from ELF to what a boot loader takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use anyhow::{Context as _, Result, bail, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::arch::Arch;
use crate::paths;
use crate::run::{self, step};

/// Where a program of ours runs, and so what it is built for and packed as.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Ground {
    /// On the bare machine, or in a domain without an operating system: a flat binary.
    Bare,
    /// In a Linux guest: a static program.
    Linux,
}

/// A package that is built for the target machine.
struct Program {
    /// Where it is built for.
    archs: &'static [Arch],
    package: &'static str,
    /// The binary's name in cargo's output.
    binary: &'static str,
    /// The product's name.
    product: &'static str,
    ground: Ground,
}

const ARM64: &[Arch] = &[Arch::Aarch64];
const X86: &[Arch] = &[Arch::X86_64];
const ALL: &[Arch] = &[Arch::Aarch64, Arch::X86_64];

const fn hypervisor(
    archs: &'static [Arch],
    package: &'static str,
    binary: &'static str,
) -> Program {
    Program {
        archs,
        package,
        binary,
        product: "hypervisor",
        ground: Ground::Bare,
    }
}

const fn guest(
    archs: &'static [Arch],
    package: &'static str,
    product: &'static str,
    ground: Ground,
) -> Program {
    Program {
        archs,
        package,
        binary: package,
        product,
        ground,
    }
}

const PROGRAMS: &[Program] = &[
    hypervisor(ARM64, "terrane-machine-aarch64", "terrane-aarch64"),
    hypervisor(X86, "terrane-machine-x86_64", "terrane-x86_64"),
    guest(ALL, "terrane-guest-probe", "probe", Ground::Bare),
    guest(ALL, "terrane-guest-attacker", "attacker", Ground::Bare),
    guest(ALL, "terrane-guest-bench", "bench", Ground::Bare),
    guest(ALL, "terrane-guest-checker", "checker", Ground::Linux),
];

/// What is built for `arch` to run on `ground`.
fn programs(arch: Arch, ground: Ground) -> impl Iterator<Item = &'static Program> {
    PROGRAMS
        .iter()
        .filter(move |program| program.ground == ground && program.archs.contains(&arch))
}

/// The packages that are built for the bare machine of `arch`.
pub fn bare_packages(arch: Arch) -> impl Iterator<Item = &'static str> {
    programs(arch, Ground::Bare).map(|program| program.package)
}

/// What a build gives.
pub struct Products {
    arch: Arch,
    folder: PathBuf,
}

impl Products {
    /// The hypervisor in the form that boot loaders take: a flat arm64 Image, an ELF file on x86-64.
    pub fn hypervisor(&self) -> PathBuf {
        self.guest("hypervisor")
    }

    /// A bare-metal guest, in the form of a kernel of the architecture.
    pub fn guest(&self, name: &str) -> PathBuf {
        let form = match self.arch {
            Arch::Aarch64 => "bin",
            Arch::X86_64 => "elf",
        };
        self.folder.join(format!("{name}.{form}"))
    }

    /// A static program for a Linux guest.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds the hypervisor and every guest for `arch` into `target/terrane/ARCH/`.
pub fn all(arch: Arch) -> Result<Products> {
    step(format_args!(
        "building hypervisor and guests for {}",
        arch.name()
    ));
    let folder = paths::products(arch)?;
    for (ground, target) in [
        (Ground::Bare, arch.bare_target()),
        (Ground::Linux, arch.linux_target()),
    ] {
        let mut command = cargo();
        command.args(["build", "--profile", "hypervisor", "--target", target]);
        for program in programs(arch, ground) {
            command.args(["-p", program.package]);
        }
        run::check(&mut command)?;
        for program in programs(arch, ground) {
            let built = paths::target()
                .join(target)
                .join("hypervisor")
                .join(program.binary);
            pack(arch, program, &built, &folder)?;
        }
    }
    Ok(Products { arch, folder })
}

/// Builds the `terrane` command for the workstation and gives its path.
pub fn command() -> Result<PathBuf> {
    step("building the terrane command");
    run::check(cargo().args(["build", "-p", "terrane"]))?;
    Ok(paths::target().join("debug").join("terrane"))
}

/// Cargo, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    command
}

fn pack(arch: Arch, program: &Program, built: &Path, folder: &Path) -> Result<()> {
    let elf = fs::read(built).with_context(|| format!("cargo left no {}", built.display()))?;
    if program.ground == Ground::Linux {
        return replace(&folder.join(program.product), &elf);
    }
    replace(&folder.join(format!("{}.elf", program.product)), &elf)?;
    let mut size = elf.len();
    if arch == Arch::Aarch64 {
        let flat =
            loaded(&elf).with_context(|| format!("{} is no usable ELF file", built.display()))?;
        replace(&folder.join(format!("{}.bin", program.product)), &flat)?;
        size = flat.len();
    }
    eprintln!("    {:<12} {size:>9} bytes", program.product);
    Ok(())
}

/// Writes a file and gives it its name in one step, so that a reader beside us sees the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The bytes of an ELF file's loaded segments as they lie in memory, from the lowest physical address to the last byte
/// that the file holds. What follows and isn't in the file (`.bss`) is the program's to clear.
pub fn loaded(elf: &[u8]) -> Result<Vec<u8>> {
    let header: &FileHeader64<Endianness> = FileHeader64::parse(elf)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let endian = header.endian()?;
    let loaded: Vec<_> = header
        .program_headers(endian, elf)?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) > 0)
        .collect();
    let Some(base) = loaded.iter().map(|segment| segment.p_paddr(endian)).min() else {
        bail!("no segment is loaded");
    };
    let mut flat = Vec::new();
    for segment in loaded {
        let data = segment
            .data(endian, elf)
            .map_err(|()| anyhow::anyhow!("a segment lies outside the file"))?;
        let start = usize::try_from(segment.p_paddr(endian) - base)?;
        let end = start + data.len();
        ensure!(end < 64 << 20, "segments are spread over more than 64 MiB");
        if flat.len() < end {
            flat.resize(end, 0);
        }
        flat[start..end].copy_from_slice(data);
    }
    Ok(flat)
}

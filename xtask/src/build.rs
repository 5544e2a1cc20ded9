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
    package: &'static str,
    /// The binary's name in cargo's output.
    binary: &'static str,
    /// The product's name.
    product: &'static str,
    ground: Ground,
}

const fn bare(package: &'static str, binary: &'static str, product: &'static str) -> Program {
    Program {
        package,
        binary,
        product,
        ground: Ground::Bare,
    }
}

const PROGRAMS: &[Program] = &[
    bare("terrane-machine-aarch64", "terrane-aarch64", "hypervisor"),
    bare("terrane-guest-probe", "terrane-guest-probe", "probe"),
    bare(
        "terrane-guest-attacker",
        "terrane-guest-attacker",
        "attacker",
    ),
    bare("terrane-guest-bench", "terrane-guest-bench", "bench"),
    Program {
        package: "terrane-guest-checker",
        binary: "terrane-guest-checker",
        product: "checker",
        ground: Ground::Linux,
    },
];

/// The packages that are built for the bare machine.
pub fn bare_packages() -> impl Iterator<Item = &'static str> {
    PROGRAMS
        .iter()
        .filter(|program| program.ground == Ground::Bare)
        .map(|program| program.package)
}

/// What a build gives.
pub struct Products {
    folder: PathBuf,
}

impl Products {
    /// The hypervisor as a flat arm64 Image.
    pub fn hypervisor(&self) -> PathBuf {
        self.folder.join("hypervisor.bin")
    }

    /// A bare-metal guest as a flat arm64 Image.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.bin"))
    }

    /// A static program for a Linux guest.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds the hypervisor and every guest for `arch` into `target/terrane/ARCH/`.
pub fn all(arch: Arch) -> Result<Products> {
    arch.require_built()?;
    step(format_args!(
        "building hypervisor and guests for {}",
        arch.name()
    ));
    let folder = paths::products(arch)?;
    for (ground, target) in [
        (Ground::Bare, "aarch64-unknown-none-softfloat"),
        (Ground::Linux, "aarch64-unknown-linux-musl"),
    ] {
        let programs: Vec<&Program> = PROGRAMS
            .iter()
            .filter(|program| program.ground == ground)
            .collect();
        if programs.is_empty() {
            continue;
        }
        let mut command = cargo();
        command.args(["build", "--profile", "hypervisor", "--target", target]);
        for program in &programs {
            command.args(["-p", program.package]);
        }
        run::check(&mut command)?;
        for program in programs {
            let built = paths::target()
                .join(target)
                .join("hypervisor")
                .join(program.binary);
            pack(program, &built, &folder)?;
        }
    }
    Ok(Products { folder })
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

fn pack(program: &Program, built: &Path, folder: &Path) -> Result<()> {
    match program.ground {
        Ground::Linux => replace(
            &folder.join(program.product),
            &fs::read(built).with_context(|| missing(built))?,
        ),
        Ground::Bare => {
            let elf = fs::read(built).with_context(|| missing(built))?;
            let flat = flatten(&elf)
                .with_context(|| format!("{} is no usable ELF file", built.display()))?;
            replace(&folder.join(format!("{}.elf", program.product)), &elf)?;
            replace(&folder.join(format!("{}.bin", program.product)), &flat)?;
            eprintln!("    {:<12} {:>9} bytes", program.product, flat.len());
            Ok(())
        }
    }
}

fn missing(built: &Path) -> String {
    format!("cargo left no {}", built.display())
}

/// Writes a file and gives it its name in one step, so that a reader beside us sees the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The bytes of an ELF file's loaded segments as they lie in memory, from the lowest physical address to the last byte
/// that the file holds. What follows and isn't in the file (`.bss`) is the program's to clear.
fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
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

//! `terrane init`: a starter manifest that works as it is once its files are in place.
//!
//! It looks at the machine and writes TOML with a word on each choice. Whether the result can be planned
//! is `check`'s to say: nothing is planned here.

mod seen;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use layout::{MachineAddress, MachineRange, Origin, RamBank};
use manifest::files;

use crate::arch::Arch;
use crate::diagnostics::{self, Diagnostic};
use crate::exit::Exit;
use crate::host::{Description, HostFile};
use crate::output::{self, Output};
use crate::{status, told};
use seen::Seen;
use text::{Files, Starter};

/// `terrane init`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("machine").required(true).args(["host", "qemu"])))]
pub struct InitArgs {
    /// The machine's description: a board's device tree, or a capture
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// A QEMU machine of this architecture: aarch64, x86_64, riscv64
    #[arg(long, value_name = "ARCH")]
    pub qemu: Option<String>,
    /// RAM that the board's boot loader fills in, such as 0x4000_0000,2GiB; once for each bank
    #[arg(long, value_name = "START,SIZE", value_parser = bank, requires = "host")]
    pub memory: Vec<(u64, u64)>,
    /// The hardware domain's kernel
    #[arg(long, value_name = "FILE", default_value = "vmlinuz")]
    pub kernel: PathBuf,
    /// The hardware domain's ramdisk
    #[arg(long, value_name = "FILE", default_value = "initrd.gz")]
    pub ramdisk: PathBuf,
    /// Write the manifest to a file instead of standard output; paths in it count from its folder
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite the file if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

fn bank(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once(',').and_then(|(start, size)| {
        let start = manifest::toml::parse_number(start.trim())?;
        let size = manifest::toml::parse_number(size.trim())?;
        MachineRange::new(MachineAddress::new(start), size)?;
        (size > 0).then_some((start, size))
    });
    parsed.ok_or_else(|| "not a start and a size such as 0x4000_0000,2GiB".to_owned())
}

/// Runs it.
pub fn init(args: &InitArgs) -> io::Result<Exit> {
    if let Some(path) = args
        .output
        .as_ref()
        .filter(|path| path.exists() && !args.force)
    {
        let message = format!("{} is there already", path.display());
        let found = Diagnostic::error("file-exists", message)
            .with_help("name another file, or overwrite it by `--force`");
        return output::fail(found, Exit::Unreadable);
    }
    let seen = match see(args) {
        Ok(seen) => seen,
        Err((wrong, exit)) => return Output::default().fail_by(wrong, exit),
    };
    let folder = args.output.as_deref().and_then(Path::parent);
    let files = Files {
        host: args.host.as_deref().map(|path| from(folder, path)),
        kernel: file(folder, &args.kernel),
        ramdisk: file(folder, &args.ramdisk),
    };
    let text = Starter {
        seen: &seen,
        files: &files,
        memory: &args.memory,
    }
    .to_string();
    let inputs = args.host.iter().chain([&args.kernel, &args.ramdisk]);
    let inputs: Vec<PathBuf> = inputs.cloned().collect();
    let exit = Output::default().put(text.as_bytes(), args.output.as_deref(), &inputs)?;
    let absent = [&files.kernel, &files.ramdisk].into_iter();
    let absent = absent.filter(|path| !in_folder(folder, path).exists());
    let absent: Vec<String> = absent.map(|path| path.display().to_string()).collect();
    if exit == Exit::Good && !absent.is_empty() {
        let what = "a distribution's, from its /boot, beside the manifest";
        status::step(
            "Missing",
            format_args!("{}: put {what}", absent.join(" and ")),
        );
    }
    Ok(exit)
}

/// The machine that is asked for.
fn see(args: &InitArgs) -> Result<Seen, (Vec<Diagnostic>, Exit)> {
    let Some(path) = &args.host else {
        let name = args.qemu.as_deref().unwrap_or_default();
        return qemu(name).map_err(|found| (vec![found], Exit::Conflicts));
    };
    let unreadable = |found| (vec![found], Exit::Unreadable);
    let bytes = files::read(path, files::MAX_TEXT)
        .map_err(|error| unreadable(diagnostics::unreadable(path, &error)))?;
    let file = HostFile::read(path, bytes).map_err(|(found, exit)| (vec![found], exit))?;
    let arch = file.arch;
    let banks: Vec<RamBank> = args
        .memory
        .iter()
        .map(|&(start, size)| RamBank {
            range: MachineRange::saturating(MachineAddress::new(start), size),
            node: None,
            origin: Origin::NONE,
        })
        .collect();
    let described = file.describe(path, &banks, &|_| None)?;
    if matches!(described, Description::Pc(_)) && !banks.is_empty() {
        let found = Diagnostic::error("value-invalid", told::FIRMWARES_OWN);
        let found = found.with_help("leave `--memory` out");
        return Err((vec![found], Exit::Conflicts));
    }
    let seen = Seen::of(&described, arch).map_err(unreadable)?;
    if seen.ram == 0 {
        let message = format!(
            "{} describes no memory: the board's boot loader fills it in",
            path.display()
        );
        let found = Diagnostic::error("init-memory", message).with_help(
            "say what it fills in, such as `--memory 0x4000_0000,2GiB`; U-Boot shows it by `bdinfo`, Linux as \
             \"System RAM\" in /proc/iomem",
        );
        return Err((vec![found], Exit::Conflicts));
    }
    Ok(seen)
}

fn qemu(name: &str) -> Result<Seen, Diagnostic> {
    match Arch::find(name) {
        Some(arch) => Ok(Seen::of_qemu(arch)),
        None => Err(Diagnostic::error(
            "value-invalid",
            format!("there is no architecture \"{name}\""),
        )
        .with_help("write one of aarch64, x86_64, riscv64")),
    }
}

/// How the manifest names a file of a domain's: one that isn't here counts from the manifest's folder, where the user
/// may have put it or will.
fn file(folder: Option<&Path>, path: &Path) -> PathBuf {
    if path.exists() {
        from(folder, path)
    } else {
        path.to_owned()
    }
}

/// The file that a manifest in `folder` means by `path`.
fn in_folder(folder: Option<&Path>, path: &Path) -> PathBuf {
    folder.unwrap_or(Path::new("")).join(path)
}

/// How a manifest in `folder` names the file that is `path` from here.
fn from(folder: Option<&Path>, path: &Path) -> PathBuf {
    let folder = match folder {
        Some(folder) if folder != Path::new("") => folder,
        _ => return path.to_owned(),
    };
    let (Ok(whole), Ok(base)) = (path.canonicalize(), folder.canonicalize()) else {
        return path.to_owned();
    };
    whole
        .strip_prefix(base)
        .map(Path::to_owned)
        .unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_is_a_start_and_a_size() {
        assert_eq!(bank("0x4000_0000,2GiB"), Ok((0x4000_0000, 2 << 30)));
        assert_eq!(bank("0, 1GiB"), Ok((0, 1 << 30)));
        for bad in [
            "",
            "1GiB",
            "0,0",
            "0xffff_ffff_ffff_f000,1MiB",
            "a,b",
            "1,2,3",
        ] {
            assert!(bank(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_named_from_the_manifests_folder() {
        let folder = tempfile::tempdir().unwrap();
        let board = folder.path().join("board.dtb");
        std::fs::write(&board, "").unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let sub = folder.path().join("sub");
        assert_eq!(from(Some(folder.path()), &board), Path::new("board.dtb"));
        assert_eq!(from(Some(&sub), &board), board.canonicalize().unwrap());
        assert_eq!(
            from(Some(Path::new("")), Path::new("a/b")),
            Path::new("a/b")
        );
        assert_eq!(from(None, Path::new("a/b")), Path::new("a/b"));
        let absent = folder.path().join("absent");
        assert_eq!(file(Some(folder.path()), &absent), absent);
    }
}

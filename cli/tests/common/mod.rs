//! The command as tests run it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// The folder of tests and their files.
pub const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// The command with these arguments, in a folder that has its cache too. The hypervisor is arm64's; QEMU is a script that
/// gives descriptions of machines with 2 GiB.
pub fn terrane<A: AsRef<OsStr>>(arguments: &[A], folder: &Path) -> Command {
    within(
        Command::new(env!("CARGO_BIN_EXE_terrane")),
        arguments,
        folder,
    )
}

/// [`terrane`] by another program, to which these are the last arguments.
pub fn within<A: AsRef<OsStr>>(mut program: Command, arguments: &[A], folder: &Path) -> Command {
    program.args(arguments);
    for arch in ["AARCH64", "X86_64", "RISCV64"] {
        program.env(
            format!("TERRANE_QEMU_{arch}"),
            format!("{TESTS}/fake-qemu.sh"),
        );
    }
    for (variable, file) in [
        ("TERRANE_HYPERVISOR", "files/hypervisor.bin"),
        ("FAKE_TREE", "hosts/virt-2g.dtb"),
        ("FAKE_CAPTURE", "hosts/q35-2g.json"),
    ] {
        program.env(variable, format!("{TESTS}/{file}"));
    }
    program
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .current_dir(folder)
        .stdin(Stdio::null());
    program
}

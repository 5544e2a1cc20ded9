//! The few commands of daily work: `cargo xtask demo`, `test`, `bench`, `fuzz`, and the steps they are made of.
//!
//! No product logic lives here: what a user of Terrane needs is in the `terrane` command.

mod arch;
mod build;
mod demo;
mod fetch;
mod initramfs;
mod manifest;
mod paths;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::arch::Arch;
use crate::fetch::guests::{self, Kernel};

/// Build, try, test and measure Terrane.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the hypervisor and the guests into target/terrane/ARCH
    Build {
        #[arg(long, default_value = "aarch64")]
        arch: Arch,
    },
    /// Boot an unmodified Debian Linux as direct-mapped hardware domain in QEMU, to a shell
    ///
    /// Without a terminal the lines of stdin go to the shell, and the exit status is the guest's.
    Demo {
        #[arg(long, default_value = "aarch64")]
        arch: Arch,
        /// Debian's kernel
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
    },
    /// Fetch the guests' packages into the cache
    Fetch,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<u8> {
    match task {
        Task::Build { arch } => build::all(arch).map(|_| 0),
        Task::Demo { arch, kernel } => demo::demo(arch, kernel),
        Task::Fetch => {
            for kernel in [Kernel::Bookworm, Kernel::Trixie] {
                println!("{}", guests::kernel(kernel)?.image.display());
            }
            println!("{}", guests::busybox()?.display());
            println!("{}", guests::xen()?.display());
            Ok(0)
        }
    }
}

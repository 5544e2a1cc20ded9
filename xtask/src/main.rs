//! The few commands of daily work: `cargo xtask demo`, `test`, `bench`, `fuzz`, and the steps they are made of.
//!
//! No product logic lives here: what a user of Terrane needs is in the `terrane` command.

mod arch;
mod bench;
mod build;
mod demo;
mod fetch;
mod fuzz;
mod initramfs;
mod install;
mod manifest;
mod paths;
mod run;
mod system;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::arch::Arch;
use crate::fetch::guests::{self, Kernel};
use crate::install::Purpose;
use crate::test::Part;

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
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
    },
    /// Run the tests: workstation tests and whole systems in QEMU
    ///
    /// The closing line counts them: `N passed, N failed`.
    Test {
        /// Only this architecture, in place of all
        #[arg(long)]
        arch: Option<Arch>,
        /// Every combination of the matrix in place of every pair
        #[arg(long)]
        full: bool,
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
        /// Only a part of the tests
        #[arg(long, value_enum, default_value_t)]
        part: Part,
        /// Only system tests whose names contain this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Count instructions: native beside Xen beside Terrane, one run, one table
    Bench {
        #[arg(long, default_value = "aarch64")]
        arch: Arch,
        /// Time the planner on a large machine instead, on this workstation
        #[arg(long)]
        planner: bool,
        /// One JSON object in place of the table
        #[arg(long)]
        json: bool,
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
    },
    /// Run the fuzz targets, all or one
    Fuzz {
        /// One target of fuzz/fuzz_targets
        target: Option<String>,
        /// Minutes for each
        #[arg(long, default_value_t = 5)]
        minutes: u32,
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
    },
    /// Fetch the guests' packages into the cache
    Fetch {
        #[arg(long, default_value = "aarch64")]
        arch: Arch,
    },
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
        Task::Demo { arch, kernel, yes } => {
            install::ensure(&[arch], Purpose::Run, yes)?;
            demo::demo(arch, kernel)
        }
        Task::Test {
            arch,
            full,
            yes,
            part,
            filter,
        } => {
            let archs = arch.map_or(Arch::ALL.to_vec(), |arch| vec![arch]);
            install::ensure(&archs, Purpose::Test, yes)?;
            Ok(u8::from(!test::test(&archs, part, full, &filter)?))
        }
        Task::Bench { planner: true, .. } => bench::planner().map(|()| 0),
        Task::Bench {
            arch, json, yes, ..
        } => {
            install::ensure(&[arch], Purpose::Run, yes)?;
            bench::bench(arch, json).map(|()| 0)
        }
        Task::Fuzz {
            target,
            minutes,
            yes,
        } => {
            install::ensure(&[], Purpose::Fuzz, yes)?;
            fuzz::fuzz(target.as_deref(), minutes).map(|()| 0)
        }
        Task::Fetch { arch } => {
            for kernel in [Kernel::Bookworm, Kernel::Trixie] {
                println!("{}", guests::kernel(arch, kernel)?.image.display());
            }
            println!("{}", guests::busybox(arch)?.display());
            println!("{}", guests::xen(arch)?.display());
            Ok(0)
        }
    }
}

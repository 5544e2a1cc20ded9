//! The `terrane` command: plan, check and run a system of direct-mapped domains.
//!
//! Knows files, terminals and QEMU. Decides nothing about placement: `layout` does, by the same
//! code that the hypervisor runs.

mod args;
mod boot;
mod diagnostics;
mod exit;
mod host_tree;
mod qemu;
mod run;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cli.command {
        _ => exit::Exit::Good.into(),
    }
}

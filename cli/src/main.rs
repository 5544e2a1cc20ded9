//! The `terrane` command: plan, check and run a system of direct-mapped domains.
//!
//! Knows files, terminals and QEMU. Decides nothing about placement: `layout` does, by the same
//! code that the hypervisor runs.

mod args;
mod boot;
mod diagnostics;
mod exit;
mod explain;
mod host_tree;
mod hypervisor;
mod image;
mod plan_text;
mod qemu;
mod run;
mod status;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cli.command {
        _ => exit::Exit::Good.into(),
    }
}

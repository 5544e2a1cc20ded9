//! The `terrane` command: plan, check and run a system of direct-mapped domains.
//!
//! Knows files, terminals and QEMU. Decides nothing about placement: `layout` does, by the same
//! code that the hypervisor runs.

mod arch;
mod args;
mod boot;
mod capture;
mod cells;
mod commands;
mod completions;
mod diagnostics;
mod diff;
mod exit;
mod explain;
mod findings;
mod host;
mod host_tree;
mod hypervisor;
mod image;
mod import;
mod init;
mod man;
mod module_files;
mod output;
mod picture;
mod plan_text;
mod qemu;
mod run;
mod schema;
mod status;
mod stream;
mod system;
mod told;
mod tree_words;
mod view;
mod whose;
mod writing;
mod xen_dts;
mod xen_tree;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, ImportCommand};
use diagnostics::Diagnostic;
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    let command = args::Cli::parse().command;
    let output = Output {
        json: command.speaks_json(),
    };
    let result = match command {
        Command::Check(args) => commands::check(&args),
        Command::Plan(args) => commands::plan(&args),
        Command::Explain(args) => commands::explain(args),
        Command::Diff(args) => diff::run(&args),
        Command::Image(args) => commands::image(&args),
        Command::Run(args) => commands::run(args),
        Command::Import(ImportCommand::Imagebuilder(args)) => import::imagebuilder(&args),
        Command::Init(args) => init::init(&args),
        Command::Host(command) => capture::host(&command),
        Command::Schema(args) => schema::schema(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
    };
    let exit = result.or_else(|error| {
        let message = format!("can't write the output: {error}");
        output.fail(Diagnostic::error("cannot-write", message), Exit::Unreadable)
    });
    // Where standard error can't be written either, the status has to say it.
    exit.unwrap_or(Exit::Unreadable).into()
}

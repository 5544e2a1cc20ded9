//! Targets and components of the pinned toolchain, and the dated nightly for Miri and fuzzing.
//!
//! `rust-toolchain.toml` names them too, but rustup's automatic installation is switched off on some machines.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Step;
use crate::arch::Arch;
use crate::run;

/// The nightly that Miri and the fuzzers are run with. The date is part of what makes a result repeatable.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// The target libraries of `archs` that the pinned toolchain lacks.
pub fn targets(archs: &[Arch]) -> Result<Option<Step>> {
    let mut absent = Vec::new();
    for target in archs
        .iter()
        .flat_map(|arch| [arch.bare_target(), arch.linux_target()])
    {
        let mut command = rustc();
        command.args(["--print", "target-libdir", "--target", target]);
        let folder = run::output(&mut command).context("cannot ask rustc for its libraries")?;
        if !Path::new(folder.trim()).is_dir() {
            absent.push(target);
        }
    }
    Ok(step("Rust's libraries for the targets", "target", &absent))
}

/// The components that the pinned toolchain lacks.
pub fn components() -> Option<Step> {
    let absent: Vec<&str> = [("clippy", "cargo-clippy"), ("rustfmt", "rustfmt")]
        .into_iter()
        .filter(|(_, program)| !run::works(program, &["--version"]))
        .map(|(component, _)| component)
        .collect();
    step("Rust's components", "component", &absent)
}

/// The dated nightly, unless it is there. Failing to get it is no error: what needs it is skipped, and says so.
pub fn nightly_step() -> Option<Step> {
    if nightly().is_some() || !run::works("rustup", &["--version"]) {
        return None;
    }
    let mut command = Command::new("rustup");
    command.args([
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "miri,rust-src",
    ]);
    Some(Step {
        what: format!("{NIGHTLY} for Miri and fuzzing"),
        commands: vec![command],
        lists: None,
        optional: true,
    })
}

/// The name of a toolchain that is the dated nightly and has Miri.
pub fn nightly() -> Option<&'static str> {
    let chosen = format!("+{NIGHTLY}");
    (run::works("cargo", &[&chosen, "miri", "--version"])).then_some(NIGHTLY)
}

/// Cargo of another toolchain than the one that runs us, which must not be handed on.
pub fn cargo_of(toolchain: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{toolchain}"));
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
        command.env_remove(name);
    }
    command
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn step(what: &str, kind: &str, absent: &[&str]) -> Option<Step> {
    if absent.is_empty() {
        return None;
    }
    let mut command = Command::new("rustup");
    command.args([kind, "add"]).args(absent);
    Some(Step {
        what: format!("{what}: {}", absent.join(", ")),
        commands: vec![command],
        lists: None,
        optional: false,
    })
}

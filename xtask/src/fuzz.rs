//! `cargo xtask fuzz`: the programs of fuzz/, each for a while, on the dated nightly with AddressSanitizer.
//!
//! The flags are those that libFuzzer's coverage needs; nothing else is installed for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::install;
use crate::paths;
use crate::run::{self, step};

/// The host's triple: fuzzers run on the workstation only, and flags for a named target don't reach build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// What a target may hold. The largest bound of a reader is 256 MiB, xz's.
const MEMORY_MIB: u32 = 1024;

/// Runs one fuzz target or all, `minutes` each. What breaks one is kept in `fuzz/artifacts/TARGET/`, and is an error.
pub fn fuzz(target: Option<&str>, minutes: u32) -> Result<()> {
    let folder = paths::workspace().join("fuzz");
    let targets = match target {
        Some(target) => vec![target.to_owned()],
        None => targets(&folder)?,
    };
    if targets.is_empty() {
        bail!("there are no fuzz targets in {}", folder.display());
    }
    let Some(nightly) = install::nightly() else {
        bail!("fuzzing needs the toolchain {}", install::NIGHTLY);
    };
    let mut broken = Vec::new();
    for target in targets {
        step(format_args!("fuzzing {target} for {minutes} min"));
        let program = build(&folder, nightly, &target)?;
        if let Err(error) = run::check(&mut runner(&folder, &program, &target, minutes)?) {
            eprintln!("FAIL  {target}: {error:#}");
            broken.push(target);
        }
    }
    if !broken.is_empty() {
        bail!("broken: {}", broken.join(", "));
    }
    Ok(())
}

/// The names of the programs in `fuzz/fuzz_targets`.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder.join("fuzz_targets")) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.context("cannot list the fuzz targets")?.file_name();
        names.extend(
            name.to_string_lossy()
                .strip_suffix(".rs")
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

fn build(folder: &Path, nightly: &str, target: &str) -> Result<PathBuf> {
    let products = paths::target().join("fuzz");
    let mut command = install::cargo_of(nightly);
    command
        .args(["build", "--release", "--target", TARGET, "--bin", target])
        .env("CARGO_TARGET_DIR", &products)
        .env("RUSTFLAGS", FLAGS.join(" "))
        .current_dir(folder);
    run::check(&mut command)?;
    Ok(products.join(TARGET).join("release").join(target))
}

fn runner(folder: &Path, program: &Path, target: &str, minutes: u32) -> Result<Command> {
    let mut command = Command::new(program);
    // New inputs go to the first folder; the one that is kept in the repository only feeds.
    for kind in ["corpus", "seeds"] {
        let path = folder.join(kind).join(target);
        if kind == "corpus" {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        if path.is_dir() {
            command.arg(path);
        }
    }
    let artifacts = folder.join("artifacts").join(target);
    fs::create_dir_all(&artifacts)
        .with_context(|| format!("cannot make {}", artifacts.display()))?;
    command
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={}", u64::from(minutes) * 60))
        .args(["-timeout=20", "-print_final_stats=1"])
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    Ok(command)
}

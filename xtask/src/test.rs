//! `cargo xtask test`: everything that must hold before a change lands, ending in one line that counts.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use crate::arch::Arch;
use crate::build;
use crate::fetch::guests;
use crate::install;
use crate::paths;
use crate::run::{self, step};
use crate::system;

/// How many tests ended how.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    /// Good.
    pub passed: u32,
    /// Bad.
    pub failed: u32,
    /// Not run, because what they need isn't here.
    pub skipped: u32,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The closing line.
    fn line(self) -> String {
        let skipped = if self.skipped > 0 {
            format!(", {} skipped", self.skipped)
        } else {
            String::new()
        };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
}

/// Which tests are run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Part {
    /// All of them.
    #[default]
    All,
    /// Formatting, lints, unit tests and Miri.
    Workstation,
    /// Whole systems in QEMU.
    System,
}

/// Runs the tests and prints the closing line; true if none failed.
pub fn test(archs: &[Arch], part: Part, full: bool, filter: &str) -> Result<bool> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let fetch = || archs.iter().try_for_each(|&arch| guests::fetch(arch));
    if part == Part::System {
        fetch()?;
    } else {
        // Downloads wait for the network, lints for the compiler.
        tally.add(thread::scope(|scope| {
            let fetching = scope.spawn(fetch);
            let linted = lints(archs);
            fetching
                .join()
                .map_err(|_| anyhow!("the thread of the downloads panicked"))?
                .map(|()| linted)
        })?);
    }
    // Miri has use for one CPU, and machines in QEMU wait now and then: beside them it costs little time.
    let beside = (part != Part::System).then(|| thread::spawn(move || miri(full)));
    if part != Part::System {
        tally.add(workstation(archs)?);
    }
    if part != Part::Workstation {
        for &arch in archs {
            tally.add(system::run(arch, full, filter)?);
        }
    }
    if let Some(miri) = beside {
        let told = miri
            .join()
            .map_err(|_| anyhow!("the thread of Miri's tests panicked"))??;
        eprint!("{}", told.lines);
        tally.add(told.tally);
    }
    step(format_args!("{} s", begun.elapsed().as_secs()));
    println!("{}", tally.line());
    Ok(tally.failed == 0)
}

fn workstation(archs: &[Arch]) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    // The kernels' packages hold the device trees of hundreds of real boards.
    if archs.contains(&Arch::Aarch64) {
        tests.env("TERRANE_BOARD_TREES", guests::folder()?);
    }
    match install::browser() {
        Some(browser) => {
            tests.env("TERRANE_BROWSER", browser);
        }
        None => {
            eprintln!("skipped: the command's page in a browser, for want of one");
            tally.skipped += 1;
        }
    }
    step("workstation tests");
    tally.add(cargo_tests("workstation tests", tests, |line| {
        eprintln!("{line}")
    })?);
    Ok(tally)
}

/// Formatting, and lints for both kinds of machine that code is built for.
fn lints(archs: &[Arch]) -> Tally {
    let warnings = ["--", "-D", "warnings"];
    let mut host = cargo(&["clippy", "--workspace", "--all-targets"]);
    host.args(warnings);
    let mut checks = vec![
        ("formatting".to_owned(), cargo(&["fmt", "--all", "--check"])),
        ("lints for the workstation".to_owned(), host),
    ];
    for arch in archs {
        let mut bare = cargo(&["clippy", "--target", arch.bare_target()]);
        for package in build::bare_packages(*arch) {
            bare.args(["-p", package]);
        }
        bare.args(warnings);
        checks.push((format!("lints for the bare machine, {}", arch.name()), bare));
    }
    let mut tally = Tally::default();
    for (what, mut command) in checks {
        step(&what);
        match run::check(&mut command) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("FAIL  {what}: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally
}

/// What tests beside others had to say, for when those are through.
#[derive(Default)]
struct Told {
    lines: String,
    tally: Tally,
}

/// The rooms without std, the memory of the bare machines and the core on the fake machine, under Miri, with few cases for each property. All of their
/// tests take Miri the better part of an hour; without `full` it runs the unit tests and some of the core's memory operations.
fn miri(full: bool) -> Result<Told> {
    let mut told = Told::default();
    let Some(nightly) = install::nightly() else {
        let date = install::NIGHTLY;
        told.lines = format!("skipped: Miri, for want of the toolchain {date}\n");
        told.tally.skipped = 1;
        return Ok(told);
    };
    let mut rooms = under_miri(nightly);
    for package in [
        "terrane-layout",
        "terrane-abi",
        "terrane-hypervisor",
        "terrane-machine-common",
        "terrane-machine-fake",
    ] {
        rooms.args(["-p", package]);
    }
    let mut core = under_miri(nightly);
    core.args(["-p", "terrane-machine-fake", "--test", "memory", "--"]);
    core.args(["given_back", "gives_way"]);
    // Its other tests are of the workstation's half, or read the trees of hundreds of boards.
    let mut manifest = under_miri(nightly);
    manifest.args(["-p", "terrane-manifest", "--lib"]);
    if !full {
        rooms.arg("--lib");
    }
    let runs = [
        ("tests under Miri", Some(rooms)),
        (
            "the core's memory operations under Miri",
            (!full).then_some(core),
        ),
        ("the tree half of manifest under Miri", Some(manifest)),
    ];
    for (what, command) in runs {
        let Some(command) = command else { continue };
        told.lines.push_str(&format!("==> {what}\n"));
        let keep = |line: &str| {
            told.lines.push_str(line);
            told.lines.push('\n');
        };
        told.tally.add(cargo_tests(what, command, keep)?);
    }
    Ok(told)
}

fn under_miri(nightly: &str) -> Command {
    let mut command = install::cargo_of(nightly);
    command
        .args(["miri", "test"])
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", "2")
        // Miri's artefacts are another toolchain's: apart from ours, or each would rebuild the other's.
        .env("CARGO_TARGET_DIR", paths::target().join("miri"))
        .current_dir(paths::workspace());
    command
}

/// Runs `cargo test` in some form, tells its lines and adds up what its test programs report.
fn cargo_tests(what: &str, mut command: Command, mut tell: impl FnMut(&str)) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", run::line(&command)))?;
    let output = child.stdout.take().context("no pipe from cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read cargo's output")?;
        tell(&line);
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.add(counts(result));
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        // It didn't come to a test's failure: a program couldn't be built, or ended by a signal.
        tell(&format!(
            "FAIL  {what}: `{}` ended with {status}",
            run::line(&command)
        ));
        tally.failed += 1;
    }
    Ok(tally)
}

/// Reads `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn counts(result: &str) -> Tally {
    let number = |what: &str| {
        let part = result
            .split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(what));
        part.and_then(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: number("passed"),
        failed: number("failed"),
        skipped: number("ignored"),
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = build::cargo();
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_programs_result_is_read() {
        let tally = counts(
            "FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (12, 3, 1));
    }

    #[test]
    fn the_closing_line_names_what_was_skipped_only_if_something_was() {
        let mut tally = Tally {
            passed: 5,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(tally.line(), "5 passed, 0 failed");
        tally.add(Tally {
            passed: 0,
            failed: 1,
            skipped: 2,
        });
        assert_eq!(tally.line(), "5 passed, 1 failed, 2 skipped");
    }
}

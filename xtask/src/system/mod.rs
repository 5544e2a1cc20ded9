//! The system tests: whole machines in QEMU, each scenario a boot or a few, two at a time.
//!
//! A scenario judges by what users see: the `terrane` command's exit status, the consoles, the disks afterwards.

mod astray;
mod attack;
mod balloon;
mod beside;
mod boot;
mod devices;
mod facts;
mod iso;
mod linux;
mod matrix;
mod pairwise;
mod panic;
mod planning;
mod power;
mod probe;
mod qemu;
mod reserved;
mod uboot;
mod wrong_input;
mod xen;
mod xen_boot;
mod xen_plan;
mod xen_trees;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::build::{self, Products};
use crate::paths;
use crate::run::step;
use crate::test::Tally;

/// So many emulators run at once.
const AT_ONCE: usize = 2;

/// What every scenario has at hand.
pub struct Context {
    /// The architecture of the machines.
    pub arch: Arch,
    /// Hypervisor and guests.
    pub products: Products,
    command: PathBuf,
    folder: PathBuf,
}

impl Context {
    /// A call of the `terrane` command.
    pub fn terrane(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.command);
        command
            .arg(subcommand)
            .env("TERRANE_HYPERVISOR", self.products.hypervisor());
        command
    }

    /// A folder of this name for a scenario's files, empty at first.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// One test of a whole system.
pub struct Scenario {
    name: String,
    #[expect(
        clippy::type_complexity,
        reason = "a test is what it does with context and folder"
    )]
    test: Box<dyn Fn(&Context, &Path) -> Result<()> + Send + Sync>,
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        test: impl Fn(&Context, &Path) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            test: Box::new(test),
        }
    }
}

/// Runs the scenarios whose names contain `filter`, and counts.
pub fn run(arch: Arch, full: bool, filter: &str) -> Result<Tally> {
    let context = Context {
        arch,
        products: build::all(arch)?,
        command: build::command()?,
        folder: paths::scratch(arch, "system")?,
    };
    let mut scenarios: Vec<Scenario> = probe::scenarios(arch);
    scenarios.extend(planning::scenarios(arch));
    scenarios.extend(power::scenarios());
    scenarios.extend(attack::scenarios(arch, full));
    scenarios.extend(astray::scenarios(arch));
    scenarios.extend(balloon::scenarios());
    scenarios.extend(reserved::scenarios(arch));
    scenarios.extend(panic::scenarios(arch));
    scenarios.extend(beside::scenarios(arch));
    scenarios.extend(iso::scenarios(arch, full));
    scenarios.extend(uboot::scenarios(arch));
    scenarios.extend(matrix::scenarios(arch, full));
    scenarios.extend(wrong_input::scenarios(arch));
    scenarios.extend(xen_trees::scenarios(arch));
    scenarios.extend(xen_plan::scenarios(arch));
    scenarios.extend(xen_boot::scenarios(arch));
    scenarios.retain(|scenario| scenario.name.contains(filter));
    step(format_args!(
        "{} system tests, {}",
        scenarios.len(),
        arch.name()
    ));

    let queue = Mutex::new(VecDeque::from(scenarios));
    let (passed, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = queue.lock().ok().and_then(|mut queue| queue.pop_front())
                {
                    let counter = if one(&context, &scenario) {
                        &passed
                    } else {
                        &failed
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(Tally {
        passed: passed.into_inner(),
        failed: failed.into_inner(),
        skipped: 0,
    })
}

fn one(context: &Context, scenario: &Scenario) -> bool {
    let begun = Instant::now();
    let result = context
        .folder(&scenario.name)
        .and_then(|folder| (scenario.test)(context, &folder));
    let seconds = begun.elapsed().as_secs();
    match result {
        Ok(()) => {
            eprintln!("ok    {} ({seconds} s)", scenario.name);
            true
        }
        Err(error) => {
            let folder = context.folder.join(&scenario.name);
            eprintln!(
                "FAIL  {} ({seconds} s): {error:#}\n      see {}",
                scenario.name,
                folder.display()
            );
            false
        }
    }
}

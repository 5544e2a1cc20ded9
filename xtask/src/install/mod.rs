//! What must be on the machine before a command can do its work: looked for, shown, asked for, installed.
//!
//! Nothing here is about guests: their packages are only unpacked, see [`crate::fetch`].

mod qemu;
mod rust;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::fetch::{self, HostLists};
use crate::run;

pub use self::qemu::program;
pub use self::rust::{NIGHTLY, cargo_of, nightly};

/// What a command needs beside the toolchain that runs it.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// Build the product and run it in QEMU.
    Run,
    /// Also check formatting and lints, and run Miri.
    Test,
    /// Build fuzzers and run them; QEMU isn't needed.
    Fuzz,
}

/// One step of installation.
struct Step {
    /// What is missing, for the user.
    what: String,
    /// What mends it, in this order.
    commands: Vec<Command>,
    /// Own package lists, where the packages come from a suite that the user's apt may not know.
    lists: Option<HostLists>,
    /// Whether the command can do most of its work without it.
    optional: bool,
}

impl Step {
    fn take(mut self) -> Result<()> {
        if let Some(lists) = &self.lists {
            lists.update()?;
        }
        self.commands.iter_mut().try_for_each(run::check)
    }
}

/// Looks for all that `purpose` needs on `archs`, and installs what is missing. On a terminal the user is asked first,
/// unless `yes`.
pub fn ensure(archs: &[Arch], purpose: Purpose, yes: bool) -> Result<()> {
    let steps = missing(archs, purpose)?;
    if steps.is_empty() {
        return Ok(());
    }
    eprintln!("These are missing and will be installed:");
    for step in &steps {
        eprintln!("  {}", step.what);
        for command in &step.commands {
            eprintln!("      {}", run::line(command));
        }
    }
    if !yes && io::stdin().is_terminal() && !agreed()? {
        bail!("not installed; install it by hand or run again with --yes");
    }
    let _lock = fetch::Lock::take()?;
    for step in steps {
        let optional = step.optional;
        match step.take() {
            Err(error) if optional => eprintln!("warning: {error:#}"),
            result => result?,
        }
    }
    match missing(archs, purpose)?.iter().find(|step| !step.optional) {
        Some(step) => bail!("still missing after installation: {}", step.what),
        None => Ok(()),
    }
}

fn missing(archs: &[Arch], purpose: Purpose) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    match purpose {
        Purpose::Run => {
            steps.extend(packages(archs, purpose)?);
            steps.extend(rust::targets(archs)?);
        }
        Purpose::Test => {
            steps.extend(packages(archs, purpose)?);
            steps.extend(rust::targets(archs)?);
            steps.extend(rust::components());
            steps.extend(rust::nightly_step());
            steps.extend(browser_step()?);
        }
        Purpose::Fuzz => {
            steps.extend(packages(archs, purpose)?);
            steps.extend(rust::nightly_step());
        }
    }
    Ok(steps)
}

fn agreed() -> Result<bool> {
    eprint!("Go on? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// OVMF, UEFI for QEMU's PCs: its code and the variables that it starts with.
pub const OVMF: [&str; 2] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_VARS_4M.fd",
];

/// The packages behind [`disc`].
const DISC: [&str; 6] = [
    "grub-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "mtools",
    "ovmf",
    "xorriso",
];

/// Whether `terrane image --iso` can work, and both kinds of firmware are there to boot what it makes.
fn disc() -> bool {
    let files = ["/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi"];
    let programs = ["grub-mkrescue", "xorriso", "mformat"];
    files
        .iter()
        .chain(&OVMF)
        .all(|path| fs::exists(path).unwrap_or(false))
        && programs.iter().all(|name| run::works(name, &["--version"]))
}

/// The browser that the page of `terrane plan --format html` is looked at with.
pub fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| run::works(name, &["--version"]))
}

/// Its package, with a font of fixed width. Everything else can be tested without.
fn browser_step() -> Result<Option<Step>> {
    if browser().is_some() || !run::works("apt-get", &["--version"]) {
        return Ok(None);
    }
    let mut update = as_root("apt-get")?;
    update.args(["-q", "update"]);
    let mut install = as_root("apt-get")?;
    install
        .args(["-q", "-y", "--no-install-recommends", "install"])
        .args(["chromium", "fonts-dejavu-core"]);
    Ok(Some(Step {
        what: "Chromium, to look at the command's page".to_owned(),
        commands: vec![update, install],
        lists: None,
        optional: true,
    }))
}

/// Packages of the distribution.
fn packages(archs: &[Arch], purpose: Purpose) -> Result<Option<Step>> {
    let mut reasons = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut emulator = false;
    if matches!(purpose, Purpose::Fuzz) {
        if !run::works("c++", &["--version"]) {
            reasons.push("a C++ compiler, for libFuzzer".to_owned());
            names.push("g++");
        }
    } else {
        for &arch in archs {
            if let Err(reason) = qemu::probe(arch) {
                reasons.push(format!("QEMU ({reason})"));
                names.extend(qemu::packages(arch));
                emulator = true;
            }
        }
        if matches!(purpose, Purpose::Test) && archs.contains(&Arch::X86_64) && !disc() {
            reasons.push("what makes and boots discs: GRUB for BIOS and UEFI, OVMF".to_owned());
            names.extend(DISC);
        }
        let compiler = ["dtc", "fdtoverlay"]
            .iter()
            .all(|name| run::works(name, &["--version"]));
        if matches!(purpose, Purpose::Test) && archs.contains(&Arch::Aarch64) && !compiler {
            reasons.push("the device-tree compiler".to_owned());
            names.push("device-tree-compiler");
        }
        if !fs::exists(fetch::KEYRING).unwrap_or(false) {
            reasons.push("Debian's archive keyring".to_owned());
            names.push("debian-archive-keyring");
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let what = reasons.join(", ");
    if !run::works("apt-get", &["--version"]) {
        bail!("missing: {what}. This machine has no apt-get; please install it by other means");
    }
    // Debian 12 has newer emulators in a suite that the user's sources needn't name: ours do.
    let backports = emulator && codename() == "bookworm";
    let lists = if backports {
        Some(HostLists::open("bookworm")?)
    } else {
        None
    };
    let mut install = as_root("apt-get")?;
    if let Some(lists) = &lists {
        install
            .args(lists.options())
            .args(["-t", "bookworm-backports"]);
    }
    install
        .args(["-q", "-y", "--no-install-recommends", "install"])
        .args(names);
    let mut commands = Vec::new();
    if lists.is_none() {
        let mut update = as_root("apt-get")?;
        update.args(["-q", "update"]);
        commands.push(update);
    }
    commands.push(install);
    Ok(Some(Step {
        what,
        commands,
        lists,
        optional: false,
    }))
}

/// `program` by way of sudo unless we are root.
fn as_root(program: &str) -> Result<Command> {
    let root = run::output(Command::new("id").arg("-u"))?.trim() == "0";
    if root {
        return Ok(Command::new(program));
    }
    if !run::works("sudo", &["-V"]) {
        bail!("packages must be installed, and neither are we root nor is there sudo");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// The release's code name, as in `/etc/os-release`.
fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

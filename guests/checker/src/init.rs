//! The program as process 1.
//!
//! The kernel command line says what happens: `check=NAME[:ARGUMENT...],...` and `end=poweroff|reboot|halt|crash|never`
//! (default poweroff). Modules come from /modules: `order` lists their names, each in `NAME.ko`, unpacked.

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, mount};

use crate::checks::{self, swiotlb};
use crate::power::{self, End};

/// Runs as init and ends the system; comes back only when it can't.
///
/// # Errors
/// What kept it from mounting /proc, from reading the command line, or from ending the system.
pub fn run(first: u64) -> Result<Infallible> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/tmp"),
    ] {
        if let Err(error) = attach(kind, target) {
            println!("init: cannot mount {target}: {error:#}");
        }
    }
    let line = fs::read_to_string("/proc/cmdline").context("no kernel command line")?;
    let wanted: Vec<&str> = words(&line, "check=")
        .flat_map(|list| list.split(','))
        .collect();
    if wanted.iter().any(|name| name.starts_with("swiotlb")) {
        swiotlb::start().unwrap_or_else(|error| println!("init: cannot trace: {error:#}"));
    }
    load_modules(Path::new("/modules"));
    let failed = wanted
        .iter()
        .filter(|check| !checks::run(check, first))
        .count();
    println!("checks: {} run, {failed} failed", wanted.len());
    let how = words(&line, "end=")
        .last()
        .and_then(End::named)
        .unwrap_or(End::PowerOff);
    Err(power::end(how))
}

fn words<'a>(line: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    line.split_ascii_whitespace()
        .filter_map(move |word| word.strip_prefix(key))
}

fn attach(kind: &str, target: &str) -> Result<()> {
    // The directory may be there already, in the ramdisk or by an earlier mount.
    let _ = rustix::fs::mkdirat(CWD, target, Mode::RWXU);
    match mount(kind, target, kind, MountFlags::empty(), None) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn load_modules(folder: &Path) {
    let Ok(order) = fs::read_to_string(folder.join("order")) else {
        return;
    };
    for name in order.split_ascii_whitespace() {
        if let Err(error) = load(&folder.join(format!("{name}.ko"))) {
            println!("init: cannot load {name}: {error:#}");
        }
    }
}

fn load(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

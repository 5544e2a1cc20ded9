//! Gives memory back to the hypervisor and takes it again, through Linux's balloon driver.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

const FOLDER: &str = "/sys/devices/system/xen_memory/xen_memory0";

fn read(name: &str) -> Result<u64> {
    let path = format!("{FOLDER}/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("no {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path}: {text}"))
}

/// Far above what a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(120);

/// Sets the target and waits until the balloon is there.
fn go(target: u64) -> Result<()> {
    fs::write(format!("{FOLDER}/target_kb"), target.to_string())
        .context("cannot set the target")?;
    let begin = Instant::now();
    loop {
        let now = read("info/current_kb")?;
        if now == target {
            return Ok(());
        }
        ensure!(begin.elapsed() < LIMIT, "{now} KiB, on the way to {target}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// `[MIB]`: how much to give back, 16 by default.
///
/// # Errors
/// A target that isn't reached.
pub fn check(arguments: &[&str]) -> Result<String> {
    let mebibytes = arguments
        .first()
        .map_or(Ok(16), |text| text.parse())
        .context("MIB")?;
    cycle(mebibytes)
}

/// Down by so much, and up again.
///
/// # Errors
/// A target that isn't reached.
pub fn cycle(mebibytes: u64) -> Result<String> {
    let before = read("info/current_kb")?;
    let less = before
        .checked_sub(mebibytes * 1024)
        .context("more than there is")?;
    go(less)?;
    go(before)?;
    Ok(format!("kib={before} less={less}"))
}

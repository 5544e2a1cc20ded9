//! The counted figures of one column, as far as architectures count alike, and the time by the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::machine::{self, Bench, Column, Guest, Running};

/// The guests that are counted.
pub struct Guests {
    /// The bench guest in Linux's disguise: as much to load.
    pub bare: Guest,
    /// Linux with a program as init that tells the counter at its first instruction.
    pub linux: Guest,
    /// Linux with the same program and the drivers that it needs to tell what operations cost.
    pub costs: Option<Guest>,
}

/// One column's counts.
pub struct Counts {
    /// Instructions from the hypervisor's first to the guest's first.
    pub before_guest: Option<u64>,
    /// Instructions from the first of hypervisor or native kernel to the first of init.
    pub userspace: u64,
    /// What an operation costs, by the row's name.
    pub costs: BTreeMap<String, f64>,
}

/// The number behind `name` and `=` on one of the lines.
pub fn value(lines: &[String], name: &str) -> Result<u64> {
    let begin = format!("{name}=");
    let value = lines.iter().find_map(|line| {
        let (_, value) = line.split_once(begin.as_str())?;
        value.split_whitespace().next()?.parse().ok()
    });
    value.with_context(|| format!("the guest told no {name}"))
}

/// The rows of the bench guest, and of the checker: lines `bench NAME COST`.
pub fn costs(lines: &[String]) -> BTreeMap<String, f64> {
    lines
        .iter()
        .filter_map(|line| {
            let (name, cost) = line.split_once("bench ")?.1.split_once(' ')?;
            Some((name.to_owned(), cost.trim().parse().ok()?))
        })
        .collect()
}

/// The counter as init read it first thing, and the console up to then.
pub fn userspace(bench: &Bench, column: Column, linux: &Guest) -> Result<(u64, Vec<String>)> {
    let lines = machine::lines(bench.machine(column, linux, true)?, "check init-mark: ")?;
    Ok((value(&lines, "cntvct")?, lines))
}

/// Seconds from QEMU's start to userspace: the median of three, two CPUs, nothing counted.
pub fn wall(bench: &Bench, column: Column, linux: &Guest) -> Result<f64> {
    let guest = Guest {
        cpus: 2,
        ..linux.clone()
    };
    let mut times = Vec::new();
    for _ in 0..3 {
        let command = bench.machine(column, &guest, false)?;
        let (_, time) = Running::start(command)?.until("check init-mark: ")?;
        times.push(time);
    }
    times.sort_unstable();
    Ok(times.get(1).map_or(f64::NAN, Duration::as_secs_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_values_are_read() {
        let lines = [
            "(terrane) x".to_owned(),
            "bench: first-tsc=15800000".to_owned(),
            "bench cpuid 412".to_owned(),
            "check init-mark: pass cntvct=1813776627 cntfrq=1000000000".to_owned(),
        ];
        assert_eq!(value(&lines, "first-tsc").ok(), Some(15_800_000));
        assert_eq!(value(&lines, "cntvct").ok(), Some(1_813_776_627));
        assert!(value(&lines, "absent").is_err());
        assert_eq!(costs(&lines).get("cpuid"), Some(&412.0));
    }
}

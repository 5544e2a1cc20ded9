//! Every CPU at work, with its timer.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

/// `[COUNT]`: runs a thread on each online CPU, which sleeps and is woken there; compares the number if one is given.
///
/// # Errors
/// A CPU that is missing or doesn't wake.
pub fn check(arguments: &[&str]) -> Result<String> {
    let online =
        fs::read_to_string("/sys/devices/system/cpu/online").context("no CPUs in sysfs")?;
    let cpus = numbers(online.trim());
    if let Some(expected) = arguments.first() {
        ensure!(
            cpus.len().to_string() == *expected,
            "online={}, not {expected}",
            cpus.len()
        );
    }
    let workers: Vec<_> = cpus
        .iter()
        .map(|cpu| (*cpu, *cpu))
        .map(|(cpu, it)| (cpu, thread::spawn(move || work(it))))
        .collect();
    for (cpu, worker) in workers {
        let outcome = worker.join().ok().context("a thread panicked")?;
        outcome.with_context(|| format!("CPU {cpu}"))?;
    }
    Ok(format!("online={}", cpus.len()))
}

fn work(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("affinity")?;
    for _ in 0..10 {
        let begin = Instant::now();
        thread::sleep(Duration::from_millis(10));
        let slept = begin.elapsed();
        ensure!(slept < Duration::from_secs(5), "woke after {slept:?}");
        ensure!(sched_getcpu() == cpu, "runs elsewhere");
    }
    Ok(())
}

/// The numbers of a kernel list such as `0-2,4`.
fn numbers(list: &str) -> Vec<usize> {
    list.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_lists() {
        assert_eq!(super::numbers("0-2,4"), [0, 1, 2, 4]);
        assert_eq!(super::numbers("0"), [0]);
    }
}

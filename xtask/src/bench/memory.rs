//! How much of a machine with 2 GiB no domain can have, and how much one direct-mapped domain can.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::as_float;
use super::machine::{self, Bench, Column, Guest, Running};
use crate::arch::Arch;

const HOST_MIB: u64 = 2048;

/// KiB that no domain can have.
pub fn taken(bench: &Bench, linux: &Guest) -> Result<Vec<Option<f64>>> {
    let whole = Guest {
        memory: None,
        arguments: "quiet check=facts end=poweroff".to_owned(),
        ..linux.clone()
    };
    let mut column = Vec::new();
    for &one in Column::all(bench.arch) {
        let kib = match one {
            Column::Xen | Column::XenPv => taken_by_xen(bench, one, linux)?,
            Column::Native | Column::Terrane => {
                let lines = machine::lines(bench.machine(one, &whole, false)?, "check facts: ")?;
                let ram = lines.iter().find_map(|line| {
                    line.split_once("fact ram-kib ")?
                        .1
                        .trim()
                        .parse::<u64>()
                        .ok()
                });
                (HOST_MIB << 10).saturating_sub(ram.context("Linux told no size of its RAM")?)
            }
        };
        column.push(Some(as_float(kib)));
    }
    Ok(column)
}

/// Xen gives dom0 a fixed size, and tells what is left when asked on its console.
fn taken_by_xen(bench: &Bench, column: Column, linux: &Guest) -> Result<u64> {
    // Nearly all, where it gets all: tables for it are taken too.
    let given = linux.memory.unwrap_or(1792);
    let guest = Guest {
        memory: Some(given),
        arguments: "quiet check=init-mark end=never".to_owned(),
        ..linux.clone()
    };
    let mut machine = Running::start(bench.machine(column, &guest, false)?)?;
    machine.until("check init-mark: ")?;
    machine.types(b"\x01\x01\x01")?;
    // The console takes a moment to switch, and drops what comes meanwhile.
    thread::sleep(Duration::from_millis(500));
    machine.types(b"m")?;
    let (lines, _) = machine.until("Dom heap:")?;
    let free = |name: &str| {
        let line = lines.iter().find_map(|line| line.split_once(name))?;
        line.1.trim().strip_suffix("kB free")?.parse::<u64>().ok()
    };
    let xen = free("Xen heap:").context("Xen told no Xen heap")?;
    let domains = free("Dom heap:").context("Xen told no domain heap")?;
    Ok(((HOST_MIB - given) << 10).saturating_sub(xen + domains))
}

/// MiB of the largest direct-mapped hardware domain, found by halving: it counts if the guest in it comes up. Xen has
/// none on x86-64.
pub fn largest(bench: &Bench, bare: &Guest) -> Result<Vec<Option<f64>>> {
    let mut column = Vec::new();
    for &one in Column::all(bench.arch) {
        if one == Column::Native || one != Column::Terrane && bench.arch == Arch::X86_64 {
            column.push(None);
            continue;
        }
        // MiB: the largest that is known to work, the smallest that is known not to.
        let (mut good, mut bad) = (512, HOST_MIB + 1);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if comes_up(
                bench,
                one,
                &Guest {
                    memory: Some(middle),
                    ..bare.clone()
                },
            ) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        column.push(Some(as_float(good)));
    }
    Ok(column)
}

fn comes_up(bench: &Bench, column: Column, guest: &Guest) -> bool {
    bench
        .machine(column, guest, true)
        .and_then(|command| machine::lines(command, "bench: begin"))
        .is_ok()
}

//! The counted figures: what comes before the guest, what a trap costs, when userspace is reached.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::machine::{self, Bench, Column, Guest, Running};

/// A row of the bench guest (guests/bench).
#[derive(Clone, Copy)]
pub enum Trap {
    /// XENVER_version.
    Hypercall,
    /// ID_AA64PFR0_EL1.
    IdRegister,
    /// GICD_TYPER.
    DistributorRead,
    /// ICC_SGI1R_EL1, to the CPU itself.
    SoftwareInterrupt,
}

impl Trap {
    fn name(self) -> &'static str {
        match self {
            Self::Hypercall => "hypercall",
            Self::IdRegister => "id-register",
            Self::DistributorRead => "gicd-read",
            Self::SoftwareInterrupt => "sgi",
        }
    }
}

/// One column's counts.
pub struct Counts {
    /// Instructions from the hypervisor's first to the guest's first.
    pub before_guest: Option<u64>,
    /// Instructions from the first of hypervisor or native kernel to the first of init.
    pub userspace: u64,
    traps: Vec<(String, f64)>,
}

impl Counts {
    /// Boots the bare guest in Linux's disguise, then Linux.
    pub fn of(
        bench: &Bench,
        column: Column,
        bare: &Guest,
        linux: &Guest,
        firmware: u64,
    ) -> Result<Self> {
        let lines = machine::lines(bench.machine(column, bare, true)?, "bench: done")?;
        let value = |name: &str| {
            let begin = format!("bench: {name}=");
            let value = lines.iter().find_map(|line| {
                line.split_once(begin.as_str())?
                    .1
                    .trim()
                    .parse::<u64>()
                    .ok()
            });
            value.with_context(|| format!("the bench guest told no {name}"))
        };
        let tick = 1_000_000_000 / value("cntfrq")?;
        let first = value("first-cntpct")?;
        // Xen takes the time at which the domain was made from the guest's own counter.
        let hidden = first.saturating_sub(value("first-cntvct")?);
        let traps = lines
            .iter()
            .filter_map(|line| {
                let (name, cost) = line.split_once("bench ")?.1.split_once(' ')?;
                Some((name.to_owned(), cost.trim().parse().ok()?))
            })
            .collect();

        let lines = machine::lines(bench.machine(column, linux, true)?, "check init-mark: ")?;
        let mark = lines.iter().find_map(|line| {
            line.split_once("cntvct=")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        });
        let mark = mark.context("init told no counter")?;
        Ok(Self {
            before_guest: (column != Column::Native)
                .then_some((first * tick).saturating_sub(firmware)),
            userspace: ((mark + hidden) * tick).saturating_sub(firmware),
            traps,
        })
    }

    /// What this trap costs.
    pub fn trap(&self, trap: Trap) -> Option<f64> {
        self.traps
            .iter()
            .find(|(name, _)| name == trap.name())
            .map(|(_, cost)| *cost)
    }
}

/// Instructions of QEMU's own boot code before the first one of what it loaded. The counter is too coarse for so few, so
/// they are counted in the listing that QEMU makes of what it translates: there is no loop in them.
pub fn firmware(bench: &Bench, guest: &Guest) -> Result<u64> {
    const LOADED: u64 = 0x4020_0000;
    let listing = bench.folder.join("firmware.log");
    let mut command = bench.machine(Column::Native, guest, true)?;
    command.args(["-d", "in_asm", "-D"]).arg(&listing);
    machine::lines(command, "bench: begin")?;
    let text = fs::read_to_string(&listing).context("QEMU left no listing")?;
    let addresses = text.lines().filter_map(|line| {
        let (address, _) = line.strip_prefix("0x")?.split_once(':')?;
        u64::from_str_radix(address, 16).ok()
    });
    let before = addresses.take_while(|&address| address < LOADED).count();
    Ok(u64::try_from(before)?)
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

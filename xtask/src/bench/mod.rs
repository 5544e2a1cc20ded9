//! `cargo xtask bench`: what Terrane costs, in instructions, beside Linux alone and beside Xen, in one run.
//!
//! QEMU counts: with one CPU and one instruction to the nanosecond of virtual time, the machine's own counter is a count
//! of instructions that repeats to the digit. Only the row `wall` is a time.

mod arm64;
mod exits;
mod machine;
mod measure;
mod memory;
mod pc;
mod planner;
mod table;
mod vmlinux;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use self::planner::planner;

use self::machine::{Bench, Column, Guest};
use self::measure::{Counts, Guests};
use self::table::{Row, Table};
use crate::arch::Arch;
use crate::build;
use crate::fetch::guests::{self, Kernel};
use crate::initramfs::{self, Initramfs};
use crate::paths;
use crate::run::step;

/// Rows of single operations, of both architectures: what a guest doesn't tell stays empty.
const OPERATIONS: [&str; 7] = [
    "hypercall",
    "id-register",
    "gicd-read",
    "sgi",
    "cpuid",
    "port-io",
    "page-fault",
];

/// Measures and prints, as a table or as one JSON object.
pub fn bench(arch: Arch, json: bool) -> Result<()> {
    let bench = Bench {
        arch,
        products: build::all(arch)?,
        command: build::command()?,
        folder: paths::scratch(arch, "bench")?,
    };
    let table = measure_all(&bench)?;
    if json {
        println!("{}", table.json());
    } else {
        print!("{}", table.text());
    }
    Ok(())
}

fn measure_all(bench: &Bench) -> Result<Table> {
    let columns = Column::all(bench.arch);
    let guests = guests(bench)?;
    let firmware = match bench.arch {
        Arch::Aarch64 => arm64::firmware(bench, &guests.bare)?,
        Arch::X86_64 => pc::firmware(bench, &guests.bare)?,
    };
    let mut counts: Vec<Counts> = Vec::new();
    for &column in columns {
        step(format_args!("counting: {}", column.name()));
        counts.push(match bench.arch {
            Arch::Aarch64 => arm64::counts(bench, column, &guests, firmware)?,
            Arch::X86_64 => pc::counts(bench, column, &guests, firmware)?,
        });
        if let Some(counted) = counts.last() {
            let (before, userspace) = (counted.before_guest, counted.userspace);
            step(format_args!(
                "{userspace} instructions to userspace, {} of them before the guest; {:?}",
                before.unwrap_or(0),
                counted.costs
            ));
        }
    }
    let all = |value| vec![Some(value); columns.len()];
    let mut rows = vec![
        Row::new("firmware", "instructions", all(as_float(firmware))),
        Row::new(
            "before-guest",
            "instructions",
            counts.iter().map(|one| one.before_guest.map(as_float)),
        ),
        Row::new(
            "userspace",
            "instructions",
            counts.iter().map(|one| Some(as_float(one.userspace))),
        ),
    ];
    rows.extend(OPERATIONS.map(|name| {
        let costs = counts.iter().map(|one| one.costs.get(name).copied());
        Row::new(name, "instructions", costs)
    }));

    step("memory");
    let taken = memory::taken(bench, &guests.linux)?;
    rows.push(Row::new("memory-taken", "KiB", taken));
    rows.push(Row::new("image", "bytes", images(bench)?));
    let largest = memory::largest(bench, &guests.bare)?;
    rows.push(Row::new("largest-direct", "MiB", largest));

    step("wall clock");
    let mut walls = Vec::new();
    for &column in columns {
        walls.push(Some(measure::wall(bench, column, &guests.linux)?));
    }
    rows.push(Row::new("wall", "seconds", walls));

    step("exits");
    let exits =
        exits::count(bench, Column::Terrane, &guests.linux).context("cannot count exits")?;
    Ok(Table {
        arch: bench.arch.name(),
        columns: columns.iter().map(|column| column.name()).collect(),
        rows,
        exits,
    })
}

/// Linux with as little around it as can be, and the bench guest that takes the same work to load.
fn guests(bench: &Bench) -> Result<Guests> {
    step("making the guests");
    let files = guests::kernel(bench.arch, Kernel::Trixie)?;
    let kernel = files.image.clone();
    let file = |name: &str| bench.folder.join(name);
    let checker = bench.products.program("checker");
    let ramdisk = file("initrd.gz");
    initramfs::write_program(&checker, &ramdisk)?;
    let bare = bench.products.guest("bench");
    let (unwrapped, disguised): (PathBuf, PathBuf) = match bench.arch {
        Arch::Aarch64 => {
            let disguised = file("bench-as-linux.bin");
            arm64::disguise(&bare, &kernel, &disguised)?;
            (kernel.clone(), disguised)
        }
        Arch::X86_64 => {
            let (plain, disguised) = (file("vmlinux"), file("bench-as-linux.elf"));
            vmlinux::unwrap(&kernel, &plain)?;
            vmlinux::disguise(&bare, &plain, &disguised)?;
            (plain, disguised)
        }
    };
    let linux = Guest {
        kernel,
        unwrapped,
        ramdisk,
        // QEMU hands its seed for KASLR to a kernel that it loads itself, and only to that one.
        arguments: "quiet nokaslr check=init-mark end=poweroff".to_owned(),
        memory: match bench.arch {
            Arch::Aarch64 => Some(512),
            Arch::X86_64 => None,
        },
        cpus: 1,
    };
    let bare = Guest {
        kernel: disguised.clone(),
        unwrapped: disguised,
        arguments: String::new(),
        ..linux.clone()
    };
    let costs = match bench.arch {
        Arch::Aarch64 => None,
        Arch::X86_64 => {
            let ramdisk = file("costs.gz");
            Initramfs {
                arch: bench.arch,
                drivers: &["xen_privcmd"],
                task: "checker costs",
                programs: &[("checker", checker)],
            }
            .write(&files, &ramdisk)?;
            Some(Guest {
                ramdisk,
                arguments: "quiet nokaslr".to_owned(),
                ..linux.clone()
            })
        }
    };
    Ok(Guests { bare, linux, costs })
}

/// Bytes of the hypervisors' files: of ours on x86-64, an ELF file with symbols, what is loaded.
fn images(bench: &Bench) -> Result<Vec<Option<f64>>> {
    let file = |path: PathBuf| Ok(Some(as_float(fs::metadata(path)?.len())));
    Column::all(bench.arch)
        .iter()
        .map(|column| match (column, bench.arch) {
            (Column::Native, _) => Ok(None),
            (Column::Xen | Column::XenPv, _) => file(guests::xen(bench.arch)?),
            (Column::Terrane, Arch::Aarch64) => file(bench.products.hypervisor()),
            (Column::Terrane, Arch::X86_64) => {
                let loaded = build::loaded(&fs::read(bench.products.hypervisor())?)?;
                Ok(Some(as_float(loaded.len().try_into()?)))
            }
        })
        .collect()
}

/// Counts stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

//! `cargo xtask bench`: what Terrane costs, in instructions, beside Linux alone and beside Xen, in one run.
//!
//! QEMU counts: with one CPU and one instruction to the nanosecond of virtual time, the machine's own counter is a count
//! of instructions that repeats to the digit. Only the row `wall` is a time.

mod exits;
mod machine;
mod measure;
mod memory;
mod table;

use anyhow::{Context as _, Result};

use self::machine::{Bench, COLUMNS, Column, Guest};
use self::measure::{Counts, Trap};
use self::table::{Row, Table};
use crate::arch::Arch;
use crate::build;
use crate::fetch::guests::{self, Kernel};
use crate::initramfs;
use crate::paths;
use crate::run::step;

/// Measures and prints, as a table or as one JSON object.
pub fn bench(arch: Arch, json: bool) -> Result<()> {
    let bench = Bench {
        products: build::all(arch)?,
        command: build::command()?,
        folder: paths::scratch(arch, "bench")?,
    };
    let table = measure_all(arch, &bench)?;
    if json {
        println!("{}", table.json());
    } else {
        print!("{}", table.text());
    }
    Ok(())
}

fn measure_all(arch: Arch, bench: &Bench) -> Result<Table> {
    step("making the guests");
    let kernel = guests::kernel(arch, Kernel::Trixie)?.image;
    let ramdisk = bench.folder.join("initrd.gz");
    initramfs::write_program(&bench.products.program("checker"), &ramdisk)?;
    let disguised = bench.folder.join("bench-as-linux.bin");
    machine::disguise(&bench.products.guest("bench"), &kernel, &disguised)?;
    let linux = Guest {
        kernel,
        ramdisk,
        // QEMU hands its seed for KASLR to a kernel that it loads itself, and only to that one.
        arguments: "quiet nokaslr check=init-mark end=poweroff".to_owned(),
        memory: Some(512),
        cpus: 1,
    };
    let bare = Guest {
        kernel: disguised,
        arguments: String::new(),
        ..linux.clone()
    };

    let firmware = measure::firmware(bench, &bare)?;
    let mut counts = Vec::new();
    for column in COLUMNS {
        step(format_args!("counting: {column:?}"));
        counts.push(Counts::of(bench, column, &bare, &linux, firmware)?);
    }
    let trap = |name: &'static str, trap: Trap| {
        Row::new(
            name,
            "instructions",
            counts.iter().map(|one| one.trap(trap)),
        )
    };
    let each = |name, unit, values: Vec<Option<f64>>| Row::new(name, unit, values.into_iter());
    let mut rows = vec![
        each(
            "firmware",
            "instructions",
            vec![Some(as_float(firmware)); 3],
        ),
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
        trap("hypercall", Trap::Hypercall),
        trap("id-register", Trap::IdRegister),
        trap("gicd-read", Trap::DistributorRead),
        trap("sgi", Trap::SoftwareInterrupt),
        // Of the other architectures.
        each("cpuid", "instructions", vec![None; 3]),
        each("port-io", "instructions", vec![None; 3]),
        each("page-fault", "instructions", vec![None; 3]),
    ];

    step("memory");
    rows.push(Row::new(
        "memory-taken",
        "KiB",
        memory::taken(bench, &linux)?.into_iter(),
    ));
    let image = |path| Ok::<_, anyhow::Error>(Some(as_float(std::fs::metadata(path)?.len())));
    let images = vec![
        None,
        image(guests::xen(arch)?)?,
        image(bench.products.hypervisor())?,
    ];
    rows.push(each("image", "bytes", images));
    rows.push(Row::new(
        "largest-direct",
        "MiB",
        memory::largest(bench, &bare)?.into_iter(),
    ));

    step("wall clock");
    let mut walls = Vec::new();
    for column in COLUMNS {
        walls.push(Some(measure::wall(bench, column, &linux)?));
    }
    rows.push(each("wall", "seconds", walls));

    step("exits");
    let exits = exits::count(bench, Column::Terrane, &linux).context("cannot count exits")?;
    Ok(Table {
        arch: arch.name(),
        rows,
        exits,
    })
}

/// Counts stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

//! arm64's machine: QEMU's `virt` with a Cortex-A57. The generic timer counts the instructions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::machine::{self, Bench, Column, Guest};
use super::measure::{self, Counts, Guests};
use crate::arch::Arch;
use crate::fetch::guests;

/// Linux alone, or under Xen.
pub fn machine(column: Column, guest: &Guest) -> Result<Command> {
    if column == Column::Native {
        return Ok(native(guest));
    }
    xen(guest)
}

fn qemu(machine: &str, memory: u64, cpus: u32) -> Command {
    let mut command = Command::new("qemu-system-aarch64");
    command.args([
        "-M",
        machine,
        "-cpu",
        Arch::Aarch64.cpu(),
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    command.args(["-m", &memory.to_string(), "-smp", &cpus.to_string()]);
    command
}

fn native(guest: &Guest) -> Command {
    let mut command = qemu(
        Arch::Aarch64.machine(),
        guest.memory.unwrap_or(2048),
        guest.cpus,
    );
    command
        .arg("-kernel")
        .arg(&guest.unwrapped)
        .arg("-initrd")
        .arg(&guest.ramdisk);
    command.args(["-append", &format!("console=ttyAMA0 {}", guest.arguments)]);
    command
}

fn xen(guest: &Guest) -> Result<Command> {
    let mut command = qemu("virt,virtualization=on,gic-version=3", 2048, guest.cpus);
    let memory = guest.memory.context("a dom0 has a size")?;
    let cpus = guest.cpus;
    command.arg("-kernel").arg(guests::xen(Arch::Aarch64)?).arg("-append").arg(format!(
        "dom0_mem={memory}M dom0_max_vcpus={cpus} bootscrub=0 console=dtuart dtuart=/pl011@9000000"
    ));
    let arguments = format!("console=hvc0 {}", guest.arguments).replace(',', ",,");
    command.arg("-device").arg(format!(
        "guest-loader,addr=0x50000000,kernel={},bootargs={arguments}",
        guest.kernel.display()
    ));
    command.arg("-device").arg(format!(
        "guest-loader,addr=0x54000000,initrd={}",
        guest.ramdisk.display()
    ));
    Ok(command)
}

/// Boots the bare guest in Linux's disguise, then Linux. Terrane's counter starts at reset; Xen takes the time at which
/// the domain was made from the guest's own counter, which is added back.
pub fn counts(bench: &Bench, column: Column, guests: &Guests, firmware: u64) -> Result<Counts> {
    let lines = machine::lines(bench.machine(column, &guests.bare, true)?, "bench: done")?;
    let tick = 1_000_000_000 / measure::value(&lines, "bench: cntfrq")?;
    let first = measure::value(&lines, "bench: first-cntpct")?;
    let hidden = first.saturating_sub(measure::value(&lines, "bench: first-cntvct")?);
    let (mark, _) = measure::userspace(bench, column, &guests.linux)?;
    Ok(Counts {
        before_guest: (column != Column::Native).then_some((first * tick).saturating_sub(firmware)),
        userspace: ((mark + hidden) * tick).saturating_sub(firmware),
        costs: measure::costs(&lines),
    })
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

/// Writes a copy of the bare-metal `guest` that takes the same work to load as `kernel`: as long, and with the same
/// header fields. So what happens before a guest's first instruction can be counted in a guest that tells.
pub fn disguise(guest: &Path, kernel: &Path, as_file: &Path) -> Result<()> {
    const SIZES: std::ops::Range<usize> = 8..32; // text_offset, image_size, flags
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut bytes, kernel) = (read(guest)?, read(kernel)?);
    bytes.resize(kernel.len(), 0);
    let (Some(fields), Some(wanted)) = (bytes.get_mut(SIZES), kernel.get(SIZES)) else {
        bail!("{} is no arm64 Image", guest.display());
    };
    fields.copy_from_slice(wanted);
    fs::write(as_file, bytes).with_context(|| format!("cannot write {}", as_file.display()))
}

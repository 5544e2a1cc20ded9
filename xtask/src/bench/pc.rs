//! x86-64's machine: QEMU's `q35` with an EPYC that has nested paging. The TSC counts the instructions.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::machine::{self, Bench, Column, Guest};
use super::measure::{self, Counts, Guests};
use crate::arch::Arch;
use crate::fetch::guests;

/// The CPU model of every column: EPYC without what QEMU can't emulate, with the invariant TSC that it hides.
pub const CPU: &str = "EPYC,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec,-monitor,+invtsc,x-force-features=on";

/// Linux alone, or under Xen.
pub fn machine(column: Column, guest: &Guest) -> Result<Command> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", Arch::X86_64.machine(), "-cpu", CPU]);
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio"]);
    command.args(["-m", "2048", "-smp", &guest.cpus.to_string()]);
    if column == Column::Native {
        command
            .arg("-kernel")
            .arg(&guest.unwrapped)
            .arg("-initrd")
            .arg(&guest.ramdisk);
        command.args([
            "-append",
            &format!("console=ttyS0,115200 {}", guest.arguments),
        ]);
        return Ok(command);
    }
    let mut arguments = format!(
        "com1=115200,8n1 console=com1 console_timestamps=raw bootscrub=0 dom0_max_vcpus={}",
        guest.cpus
    );
    if let Some(memory) = guest.memory {
        arguments += &format!(" dom0_mem={memory}M");
    }
    if column == Column::Xen {
        arguments += " dom0=pvh";
        command.args(["-device", "intel-iommu,intremap=on"]);
    }
    let linux = format!(
        "{} console=hvc0 {}",
        guest.kernel.display(),
        guest.arguments
    );
    command.arg("-kernel").arg(guests::xen(Arch::X86_64)?);
    command
        .args(["-append", &arguments])
        .arg("-initrd")
        .arg(format!(
            "{},{}",
            linux.replace(',', ",,"),
            guest.ramdisk.display()
        ));
    Ok(command)
}

/// Boots the bare guest in Linux's disguise where the column can run it, Linux, and Linux that tells what operations cost.
///
/// Terrane leaves the TSC as it is. Xen puts its own time before each of its lines (`console_timestamps=raw`): from these
/// come the beginning of dom0, the time from which a PVH dom0's TSC counts (it is set to zero when its vCPU is made, just
/// before the domain is built), and the wait for the real-time clock's next second, which is left out.
pub fn counts(bench: &Bench, column: Column, guests: &Guests, firmware: u64) -> Result<Counts> {
    let (mark, said) = measure::userspace(bench, column, &guests.linux)?;
    let costs = measure::costs(&machine::lines(
        bench.machine(
            column,
            guests.costs.as_ref().context("no guest for costs")?,
            true,
        )?,
        "check costs: ",
    )?);
    let (hidden, waited, first) = match column {
        Column::Native | Column::Terrane => {
            let lines = machine::lines(bench.machine(column, &guests.bare, true)?, "bench: done")?;
            (0, 0, measure::value(&lines, "bench: first-tsc")?)
        }
        Column::Xen | Column::XenPv => {
            let waited =
                stamp(&said, "Allocated console ring")? - stamp(&said, "Wallclock source")?;
            let hidden = match column {
                Column::Xen => stamp(&said, "*** Building a PVH Dom0")?,
                _ => 0,
            };
            (hidden, waited, stamp(&said, "kB init memory")?)
        }
    };
    let counted = |tsc: u64| tsc.saturating_sub(waited).saturating_sub(firmware);
    Ok(Counts {
        before_guest: (column != Column::Native).then_some(counted(first)),
        userspace: counted(mark + hidden),
        costs,
    })
}

/// Instructions of the firmware before the first one of what it loaded, by the bare guest's own count.
pub fn firmware(bench: &Bench, bare: &Guest) -> Result<u64> {
    let lines = machine::lines(bench.machine(Column::Native, bare, true)?, "bench: done")?;
    measure::value(&lines, "bench: first-tsc")
}

/// The TSC at which Xen wrote the line that contains `words`.
fn stamp(lines: &[String], words: &str) -> Result<u64> {
    let line = lines.iter().find(|line| line.contains(words));
    let stamp = line.and_then(|line| {
        let (stamp, _) = line.split_once('[')?.1.split_once(']')?;
        u64::from_str_radix(stamp, 16).ok()
    });
    stamp.with_context(|| format!("Xen never said `{words}`, or not when"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xens_stamps_are_read() {
        let lines = ["(XEN) [00000000109a1cd6] Wallclock source: CMOS RTC".to_owned()];
        assert_eq!(stamp(&lines, "Wallclock source").ok(), Some(0x109a_1cd6));
        assert!(stamp(&lines, "Freed").is_err());
    }
}

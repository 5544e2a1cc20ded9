//! How a domain ends, and what the manifest makes of it.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::{Context, Scenario, linux, probe};
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

/// An end of the probe and what follows.
struct Case {
    name: &'static str,
    /// The probe's `end=`.
    end: &'static str,
    /// The manifest's key and value.
    policy: (&'static str, &'static str),
    /// What the hypervisor says then.
    line: &'static str,
    /// How `terrane run` ends; QEMU is told to end where the machine resets.
    status: i32,
}

const CASES: &[Case] = &[
    Case {
        name: "poweroff",
        end: "off",
        policy: ("on-poweroff", "stop"),
        line: "control: powered off",
        status: 0,
    },
    Case {
        name: "poweroff-sched-op",
        end: "shutdown-off",
        policy: ("on-poweroff", "halt-machine"),
        line: "control: powered off",
        status: 0,
    },
    Case {
        name: "reboot",
        end: "reset",
        policy: ("on-reboot", "stop"),
        line: "control: rebooted",
        status: 0,
    },
    Case {
        name: "reboot-sched-op",
        end: "shutdown-reboot",
        policy: ("on-reboot", "halt-machine"),
        line: "control: rebooted",
        status: 0,
    },
    Case {
        name: "reboot-machine",
        end: "reset",
        policy: ("on-reboot", "reboot-machine"),
        line: "control: rebooted",
        status: 0,
    },
    Case {
        name: "crash-sched-op",
        end: "shutdown-crash",
        policy: ("on-crash", "stop"),
        line: "control: crashed",
        status: 4,
    },
];

/// The probe's ends, and those of Linux.
pub fn scenarios() -> Vec<Scenario> {
    let probes = CASES.iter().map(|case| {
        Scenario::new(format!("power-{}", case.name), |context, folder| {
            case.test(context, folder)
        })
    });
    probes
        .chain([
            Scenario::new("power-linux-reboots", linux_reboots),
            Scenario::new("power-restart-after-poweroff", restart_after_poweroff),
        ])
        .collect()
}

impl Case {
    fn test(&self, context: &Context, folder: &Path) -> Result<()> {
        let mut manifest = Manifest::plain(context.arch, 1, "512MiB");
        let (key, value) = self.policy;
        let domain = probe::hardware(context, &format!("end={}", self.end));
        manifest.domain(domain.key(key, &format!("\"{value}\"")));
        let ran = Boot {
            qemu: &["-no-reboot"],
            ..Boot::new(&manifest)
        }
        .run(context, folder)?;
        probe::passed(&ran, "control")?;
        ran.expect_line(self.line)?;
        ran.expect_status(self.status)
    }
}

/// Linux writes a mark to the disk and reboots; the second time it finds the mark and powers off.
fn linux_reboots(context: &Context, folder: &Path) -> Result<()> {
    let console = twice(context, folder, "on-reboot", "reboot -f; sleep 60")?;
    ensure!(
        console.contains("fact boot second"),
        "there was no second boot"
    );
    Ok(())
}

/// The same by powering off: the manifest may ask for a restart then too.
fn restart_after_poweroff(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 1, "512MiB");
    let domain = probe::restartable(context, folder)?;
    manifest.domain(domain.key("on-poweroff", "\"restart\""));
    // It never ends by itself.
    let enough = |ran: &Ran| clean_boots(ran) >= 2;
    let ran = Boot {
        enough: Some(enough),
        ..Boot::new(&manifest)
    }
    .run(context, folder)?;
    let ends = ran
        .hypervisor()
        .lines()
        .filter(|line| line.starts_with("control: powered off"))
        .count();
    ensure!(
        ends > 0 && clean_boots(&ran) >= 2,
        "{ends} ends, {} clean boots",
        clean_boots(&ran)
    );
    Ok(())
}

fn clean_boots(ran: &Ran) -> usize {
    ran.console("control")
        .lines()
        .filter(|line| line.trim_end() == "probe: pass")
        .count()
}

fn twice(context: &Context, folder: &Path, policy: &str, first: &str) -> Result<String> {
    let disk = folder.join("mark.img");
    std::fs::write(&disk, vec![0; 1 << 20])?;
    let mut manifest = Manifest::plain(context.arch, 2, "1GiB");
    manifest
        .argument("-drive")
        .argument(format!(
            "file={},if=none,format=raw,id=mark",
            disk.display()
        ))
        .argument("-device")
        .argument("nvme,drive=mark,serial=mark");
    let task = format!(
        "while ! [ -b /dev/nvme0n1 ]; do sleep 1; done\n\
         if [ \"$(dd if=/dev/nvme0n1 bs=512 count=1 2>/dev/null | head -c 4)\" = mark ]; then\n\
         echo 'fact boot second'; exit 0; fi\n\
         printf mark | dd of=/dev/nvme0n1 bs=4k conv=notrunc,fsync 2>/dev/null\n\
         echo 'fact boot first'\n{first}\n"
    );
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", "2").key(policy, "\"restart\""));
    let ran = Boot::new(&manifest).run(context, folder)?;
    ran.expect_line("control: rebooted")?;
    ran.expect_line("control: powered off")?;
    ran.expect_status(0)?;
    Ok(ran.console(linux::NAME))
}

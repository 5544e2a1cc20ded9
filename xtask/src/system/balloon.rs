//! The balloon beside CPUs that use the memory around it. The hypervisor splits a block by breaking its entry and making it
//! anew; a CPU that comes in between must go on as if nothing had been.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::facts::Facts;
use super::{Context, Scenario, linux};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

/// What is done on which machine.
struct Load {
    cpus: u32,
    /// All CPUs but one use so many MiB while the balloon takes so many and gives them back, so many times.
    check: &'static str,
    qemu: &'static [&'static str],
}

/// With one thread for all CPUs, QEMU runs the other CPUs as soon as one drops translations: right between break and make.
/// With a thread each, that is a matter of luck.
const ARM64: Load = Load {
    cpus: 4,
    check: "balloon-busy:64:4:2",
    qemu: &["-accel", "tcg,thread=single"],
};

/// A CPU that drops translations waits for the others to leave the guest, page by page: with one thread that takes the
/// slices of all of them each time.
const X86_64: Load = Load {
    cpus: 2,
    check: "balloon-busy:16:1:1",
    qemu: &["-accel", "tcg,thread=multi"],
};

/// The scenario.
pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("balloon-busy", busy)]
}

fn busy(context: &Context, folder: &Path) -> Result<()> {
    let load = match context.arch {
        Arch::Aarch64 => &ARM64,
        Arch::X86_64 => &X86_64,
    };
    let mut manifest = Manifest::plain(context.arch, load.cpus, "2GiB");
    let task = format!("checker {}", load.check);
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", &load.cpus.to_string()));
    let ran = Boot {
        qemu: load.qemu,
        // Linux rarely comes to its end then.
        enough: Some(strayed),
        ..Boot::new(&manifest)
    }
    .run(context, folder)?;
    ensure!(
        !strayed(&ran),
        "an access to the domain's own memory went astray"
    );
    let facts = Facts::read(&ran.console(linux::NAME));
    facts.expect_check("balloon-busy")?;
    facts.expect_success()?;
    ran.expect_status(0)
}

fn strayed(ran: &Ran) -> bool {
    ran.hypervisor().contains(": stray ")
}

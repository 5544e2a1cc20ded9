//! The balloon beside CPUs that use the memory around it. The hypervisor splits a block by breaking its entry and making it
//! anew; a CPU that comes in between must go on as if nothing had been.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::facts::Facts;
use super::{Context, Scenario, linux};
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

const CPUS: u32 = 4;
/// All CPUs but one use 64 MiB while the balloon takes 4 and gives them back, twice.
const CHECK: &str = "balloon-busy:64:4:2";

/// The scenario, the same on every architecture.
pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("balloon-busy", busy)]
}

fn busy(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, CPUS, "2GiB");
    let task = format!("checker {CHECK}");
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", &CPUS.to_string()));
    let ran = Boot {
        // With one thread for all CPUs, QEMU runs the others as soon as one drops translations: right between break and
        // make. With a thread each, that is a matter of luck.
        qemu: &["-accel", "tcg,thread=single"],
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

//! The balloon beside CPUs that use the memory around it. The hypervisor splits a block by breaking its entry and making it
//! anew; a CPU that comes in between must go on as if nothing had been.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::facts::Facts;
use super::{Context, Scenario, linux};
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

/// Three CPUs use 64 MiB while the balloon takes 4 MiB and gives them back, twice.
const CHECK: &str = "balloon-busy:64:4:2";

/// With one thread for all CPUs, QEMU runs the other CPUs as soon as one drops translations: right between break and make.
/// With a thread each, that is a matter of luck.
const QEMU: &[&str] = &["-accel", "tcg,thread=single"];

/// The scenario.
pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("balloon-busy", busy)]
}

fn busy(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 4, "2GiB");
    let task = format!("checker {CHECK}");
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", "4"));
    let ran = Boot {
        qemu: QEMU,
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

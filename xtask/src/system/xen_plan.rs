//! The trees that `terrane plan --format dts` writes, under Debian's Xen: it builds every domain and goes on. What a guest beside the
//! hardware domain writes, a release of Xen doesn't show, so that only the hardware domain is heard.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::xen::{self, Machine};
use super::{Context, Scenario, probe};
use crate::arch::Arch;
use crate::fetch::guests;
use crate::manifest::{Domain, Manifest};
use crate::run;

/// A hardware domain and a guest beside it, and two guests without one. Static memory isn't in Debian's Xen, so that none of
/// the guests is direct-mapped.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    if arch != Arch::Aarch64 {
        return Vec::new();
    }
    let with_hardware = |context: &Context, folder: &Path| {
        let mut manifest = Manifest::plain(context.arch, 4, "1GiB");
        let hardware = probe::hardware(context, "end=hang").key("memory", "\"256MiB\"");
        manifest.domain(hardware).domain(guest(context, "guest"));
        comes_up(context, folder, &manifest, true)
    };
    let without = |context: &Context, folder: &Path| {
        let mut manifest = Manifest::plain(context.arch, 4, "1GiB");
        manifest.domain(guest(context, "one"));
        manifest.domain(guest(context, "two").key("vpl011", "true"));
        comes_up(context, folder, &manifest, false)
    };
    vec![
        Scenario::new("xen-boots-plan-hardware", with_hardware),
        Scenario::new("xen-boots-plan-guests", without),
    ]
}

/// The first line of the probe.
const PROBE: &str = "probe: begin";

fn guest(context: &Context, name: &str) -> Domain {
    Domain::new(name, &context.products.guest("probe"))
        .key("memory", "\"64MiB\"")
        .cmdline("end=hang")
}

/// Writes the overlay, applies it to the machine's tree, loads every file where its module says, and waits until Xen has
/// started the domains, and for the hardware domain's probe. Xen stops if it can't build one of them.
fn comes_up(context: &Context, folder: &Path, manifest: &Manifest, hardware: bool) -> Result<()> {
    let machine = Machine {
        memory: 1024,
        cpus: 4,
    };
    let path = manifest.write(&folder.join("manifest.toml"))?;
    let source = folder.join("xen.dts");
    let mut plan = context.terrane("plan");
    plan.arg(path).args(["--format", "dts", "-o"]).arg(&source);
    run::output(&mut plan)?;
    let (overlay, blob) = (folder.join("xen.dtbo"), folder.join("xen.dtb"));
    xen::dtc(("dts", &source), ("dtb", &overlay))?;
    xen::apply(&machine.tree(folder)?, &overlay, &blob)?;
    let text = fs::read_to_string(&source).context("there is no overlay")?;
    let files = modules(&text)?;
    ensure!(files.len() == 2, "{} modules, not 2", files.len());
    let mut running = machine.boot(&guests::xen(context.arch)?, &blob, &files)?;
    let (mut lines, _) = running.until_one_of(&[xen::STARTED, xen::PANIC])?;
    let said = |lines: &[String], word: &str| lines.iter().any(|line| line.contains(word));
    if hardware && !said(&lines, xen::PANIC) && !said(&lines, PROBE) {
        lines.extend(running.until_one_of(&[PROBE, xen::PANIC])?.0);
    }
    ensure!(
        !said(&lines, xen::PANIC),
        "Xen stopped: {}",
        lines.join(" | ")
    );
    Ok(())
}

/// The files of the overlay, as the comments above its modules name them, and their addresses.
fn modules(text: &str) -> Result<Vec<(PathBuf, u64)>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut files = Vec::new();
    for (comment, node) in lines.iter().zip(lines.iter().skip(1)) {
        let Some(address) = node
            .strip_prefix("module@")
            .and_then(|rest| rest.strip_suffix(" {"))
        else {
            continue;
        };
        let file = comment
            .strip_prefix("// ")
            .and_then(|rest| rest.split(" (").next());
        let file = file.with_context(|| format!("no file is named above {node}"))?;
        files.push((PathBuf::from(file), u64::from_str_radix(address, 16)?));
    }
    Ok(files)
}

//! Memory that the host's tree reserves for its kernel: Linux makes a pool of it only if it finds it in its RAM.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::boot::Boot;
use super::facts::Facts;
use super::{Context, Scenario, linux, xen};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::install::program;
use crate::manifest::Manifest;
use crate::run;

/// Not the size that Debian's kernel would choose by itself, 64 MiB.
const POOL: (u64, u64) = (0x6000_0000, 48 << 20);
/// Only reserved.
const LOG: (u64, u64) = (0x7000_0000, 1 << 20);
/// For Linux to place, where the machine has no RAM.
const NOWHERE: &str = "nowhere { size = <0 0x100000>; alloc-ranges = <0 0x1000 0 0x100000>; };\n";

const TASK: &str = r#"
sed 's/^/fact iomem /' /proc/iomem
sed -n 's/^CmaTotal: *//p' /proc/meminfo | sed 's/^/fact cma /'
dmesg | sed -n 's/.*created CMA memory pool at /fact pool /p'
"#;

/// The scenario.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    match arch {
        Arch::Aarch64 => vec![Scenario::new("reserved-pool", pool)],
        Arch::X86_64 => Vec::new(),
    }
}

fn pool(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 1, "1GiB");
    let tree = tree(&manifest, folder)?;
    manifest
        .argument("-dtb")
        .argument(tree.display().to_string());
    manifest.domain(linux::domain(context, folder, Kernel::Trixie, TASK)?);
    let ran = Boot::new(&manifest).run(context, folder)?;
    ran.expect_status(0)?;
    ran.expect_line("warning[reserved-no-room]")?;
    let facts = Facts::read(&ran.console(linux::NAME));
    facts.expect_success()?;
    let (start, size) = POOL;
    let made = facts.one("pool")?;
    let expected = format!("0x{start:016x}, size {} MiB", size >> 20);
    ensure!(made == expected, "the pool is `{made}`, not `{expected}`");
    facts.expect("cma", &format!("{} kB", size >> 10))?;
    let ram = facts.iomem("System RAM");
    for (start, size) in [POOL, LOG] {
        ensure!(
            ram.iter()
                .any(|ram| ram.contains(&start) && ram.contains(&(start + size - 1))),
            "{start:#x} is no RAM: {ram:x?}"
        );
    }
    Ok(())
}

/// The machine's own tree with the two regions in it.
fn tree(manifest: &Manifest, folder: &Path) -> Result<std::path::PathBuf> {
    let own = folder.join("host.dtb");
    let mut words = manifest.machine();
    let machine = words.get_mut(1).context("a machine has a name")?;
    *machine += &format!(
        ",virtualization=on,dtb-randomness=off,dumpdtb={}",
        own.display()
    );
    let mut command = std::process::Command::new(program(Arch::Aarch64));
    command
        .args(words)
        .args(["-nodefaults", "-display", "none"]);
    run::output(&mut command)?;
    let source = folder.join("host.dts");
    xen::dtc(("dtb", &own), ("dts", &source))?;
    let region = |name: &str, (start, size): (u64, u64), more: &str| {
        format!("{name}@{start:x} {{ reg = <0 {start:#x} 0 {size:#x}>; {more} }};\n")
    };
    let cma = "compatible = \"shared-dma-pool\"; reusable; linux,cma-default;";
    let regions = region("pool", POOL, cma) + &region("log", LOG, "") + NOWHERE;
    let text = fs::read_to_string(&source).context("dtc left no source")?;
    let text = format!(
        "{text}\n/ {{ reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges;\n{regions}}}; }};\n"
    );
    fs::write(&source, text)?;
    let tree = folder.join("tree.dtb");
    xen::dtc(("dts", &source), ("dtb", &tree))?;
    Ok(tree)
}

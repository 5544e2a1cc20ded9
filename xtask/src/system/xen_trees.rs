//! Trees in Xen's dom0less binding, good and bad: what Debian's Xen 4.20 does with them, and `terrane check`'s word for them.
//!
//! Each tree is booted and checked. Where the two verdicts differ, docs/xen-trees.md has the tree's name and the reason, and
//! nothing else is let pass. Debian's Xen has no static memory: for that `wrong_input` and the command's own corpus stand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::boot::ask;
use super::xen::{self, Machine};
use super::{Context, Scenario};
use crate::arch::Arch;
use crate::fetch::guests;
use crate::paths;

/// What comes of a tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Accepts,
    Refuses,
}

use Verdict::{Accepts, Refuses};

/// A tree: what it has in `/chosen` beside Xen's options, where `DOMAIN` is what every domain needs to be one, `KERNEL` and
/// `OTHER` are modules with kernels, and `RAMDISK` is one with a file.
struct Case {
    name: &'static str,
    chosen: &'static str,
    xen: Verdict,
    terrane: Verdict,
}

/// Xen and Terrane agree.
const fn both(name: &'static str, verdict: Verdict, chosen: &'static str) -> Case {
    Case {
        name,
        chosen,
        xen: verdict,
        terrane: verdict,
    }
}

/// Xen's verdict is this, Terrane's the other one: by design, and docs/xen-trees.md says why.
const fn only_xen(name: &'static str, verdict: Verdict, chosen: &'static str) -> Case {
    let terrane = match verdict {
        Accepts => Refuses,
        Refuses => Accepts,
    };
    Case {
        name,
        chosen,
        xen: verdict,
        terrane,
    }
}

/// RAM is 512 MiB from 0x40000000, the tree lies at 0x48000000; the probe lies at both kernels' places.
const WORDS: [(&str, &str); 6] = [
    (
        "DOMAIN",
        "compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>;",
    ),
    ("MEMORY", "memory = <0 0x10000>;"),
    ("CPUS", "cpus = <1>;"),
    (
        "KERNEL",
        "module@50000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0 0x50000000 0 SIZE>; \
         bootargs = \"end=hang\"; };",
    ),
    (
        "OTHER",
        "module@50200000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0 0x50200000 0 SIZE>; };",
    ),
    (
        "RAMDISK",
        "module@50400000 { compatible = \"multiboot,ramdisk\", \"multiboot,module\"; reg = <0 0x50400000 0 SIZE>; };",
    ),
];

const CASES: &[Case] = &[
    both("one-domain", Accepts, "d1 { DOMAIN MEMORY CPUS KERNEL };"),
    both(
        "ramdisk",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS KERNEL RAMDISK };",
    ),
    both(
        "two-domains",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS KERNEL }; d2 { DOMAIN MEMORY CPUS OTHER };",
    ),
    both(
        "two-cpus",
        Accepts,
        "d1 { DOMAIN MEMORY cpus = <2>; KERNEL };",
    ),
    both(
        "vpl011",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS vpl011; KERNEL };",
    ),
    both(
        "enhanced-without-xenstore",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS xen,enhanced = \"no-xenstore\"; KERNEL };",
    ),
    both(
        "grant-frames",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS max_grant_frames = <128>; KERNEL };",
    ),
    both(
        "one-cell-each",
        Accepts,
        "d1 { compatible = \"xen,domain\"; #address-cells = <1>; #size-cells = <1>; MEMORY CPUS \
         module@50000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0x50000000 SIZE>; }; };",
    ),
    both(
        "hardware-domain",
        Accepts,
        "xen,xen-bootargs = \"OPTIONS dom0_mem=128M dom0_max_vcpus=1\"; xen,dom0-bootargs = \"end=hang\"; KERNEL \
         d1 { DOMAIN MEMORY CPUS OTHER };",
    ),
    both("no-domain", Refuses, ""),
    both("no-memory", Refuses, "d1 { DOMAIN CPUS KERNEL };"),
    both("no-cpus", Refuses, "d1 { DOMAIN MEMORY KERNEL };"),
    both(
        "no-kernel",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS KERNEL }; d2 { DOMAIN MEMORY CPUS };",
    ),
    both(
        "memory-zero",
        Refuses,
        "d1 { DOMAIN memory = <0 0>; CPUS KERNEL };",
    ),
    both(
        "memory-larger-than-the-host",
        Refuses,
        "d1 { DOMAIN memory = <0 0x200000>; CPUS KERNEL };",
    ),
    both(
        "memory-too-small",
        Refuses,
        "d1 { DOMAIN memory = <0 4>; CPUS KERNEL };",
    ),
    only_xen(
        "memory-of-two-mebibytes",
        Refuses,
        "d1 { DOMAIN memory = <0 0x800>; CPUS KERNEL };",
    ),
    both(
        "memory-together-larger-than-the-host",
        Refuses,
        "d1 { DOMAIN memory = <0 0x48000>; CPUS KERNEL }; d2 { DOMAIN memory = <0 0x48000>; CPUS OTHER };",
    ),
    both(
        "cpus-zero",
        Refuses,
        "d1 { DOMAIN MEMORY cpus = <0>; KERNEL };",
    ),
    both(
        "cpus-two-cells",
        Refuses,
        "d1 { DOMAIN MEMORY cpus = <0 1>; KERNEL };",
    ),
    both(
        "cpus-two-hundred",
        Refuses,
        "d1 { DOMAIN MEMORY cpus = <200>; KERNEL };",
    ),
    both(
        "grant-frames-huge",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS max_grant_frames = <0x80000000>; KERNEL };",
    ),
    both(
        "grant-frames-zero",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS max_grant_frames = <0>; KERNEL };",
    ),
    both(
        "colours",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS llc-colors = \"0-3\"; KERNEL };",
    ),
    both(
        "sve",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS sve = <128>; KERNEL };",
    ),
    both(
        "unknown-class",
        Refuses,
        "d1 { compatible = \"xen,domains\"; #address-cells = <2>; #size-cells = <2>; MEMORY CPUS KERNEL };",
    ),
    both(
        "module-outside-ram",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS module@90000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; \
         reg = <0 0x90000000 0 SIZE>; }; };",
    ),
    only_xen(
        "module-empty",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS module@50000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; \
         reg = <0 0x50000000 0 0>; }; };",
    ),
    both(
        "ramdisk-larger-than-memory",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS KERNEL module@51000000 { compatible = \"multiboot,ramdisk\", \"multiboot,module\"; \
         reg = <0 0x51000000 0 0x8000000>; }; };",
    ),
    both(
        "cells-that-do-not-fit",
        Refuses,
        "d1 { compatible = \"xen,domain\"; #address-cells = <1>; #size-cells = <1>; MEMORY CPUS KERNEL };",
    ),
    both(
        "memory-one-cell",
        Refuses,
        "d1 { DOMAIN memory = <0x10000>; CPUS KERNEL };",
    ),
    both(
        "enhanced-without-dom0",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS xen,enhanced; KERNEL };",
    ),
    only_xen(
        "direct-map-without-static-memory",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS direct-map; KERNEL };",
    ),
    only_xen(
        "kernel-that-is-none",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS module@51000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; \
         reg = <0 0x51000000 0 0x1000>; }; };",
    ),
    only_xen(
        "partial-tree-that-is-none",
        Refuses,
        "d1 { DOMAIN MEMORY CPUS KERNEL module@51000000 { compatible = \"multiboot,device-tree\", \"multiboot,module\"; \
         reg = <0 0x51000000 0 0x1000>; }; };",
    ),
    only_xen(
        "pool-of-cpus",
        Accepts,
        "d1 { DOMAIN MEMORY CPUS domain-cpupool = <1>; KERNEL };",
    ),
    only_xen(
        "more-vcpus-than-cpus",
        Accepts,
        "d1 { DOMAIN MEMORY cpus = <4>; KERNEL };",
    ),
];

/// Each tree a scenario, named by Xen's verdict.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    if arch != Arch::Aarch64 {
        return Vec::new();
    }
    let named = |case: &'static Case| {
        let verb = match case.xen {
            Accepts => "accepts",
            Refuses => "refuses",
        };
        Scenario::new(format!("xen-{verb}-{}", case.name), |context, folder| {
            case.judged(context, folder)
        })
    };
    CASES.iter().map(named).collect()
}

impl Case {
    fn judged(&self, context: &Context, folder: &Path) -> Result<()> {
        self.documented()?;
        let kernel = context.products.guest("probe");
        let machine = Machine {
            memory: 512,
            cpus: 2,
        };
        let size = fs::metadata(&kernel).context("there is no probe")?.len();
        let mut chosen = self.chosen.to_owned();
        for (word, text) in WORDS {
            chosen = chosen.replace(word, text);
        }
        let chosen = chosen
            .replace("SIZE", &format!("{size:#x}"))
            .replace("OPTIONS", xen::OPTIONS);
        let source = folder.join("tree.dts");
        fs::write(
            &source,
            xen::with_chosen(&machine.tree(folder)?, &chosen, folder)?,
        )?;
        let blob = folder.join("tree.dtb");
        xen::dtc(("dts", &source), ("dtb", &blob))?;
        let places = [0x5000_0000, 0x5020_0000, 0x5040_0000];
        let files: Vec<(PathBuf, u64)> = places.map(|place| (kernel.clone(), place)).into();
        let mut running = machine.boot(&guests::xen(context.arch)?, &blob, &files)?;
        let (lines, _) = running.until_one_of(&[xen::STARTED, xen::PANIC])?;
        fs::write(folder.join("xen.log"), lines.join("\n"))?;
        let stopped = lines.last().is_some_and(|line| line.contains(xen::PANIC));
        let xen = if stopped { Refuses } else { Accepts };
        ensure!(xen == self.xen, "Xen {xen:?} it, not {:?}", self.xen);
        let (status, said) = ask(context.terrane("check").arg(&source).arg("--json"))?;
        let terrane = match status {
            0 => Accepts,
            1 => Refuses,
            _ => bail!("`terrane check` ended with {status}: {said}"),
        };
        ensure!(
            terrane == self.terrane,
            "`terrane check` {terrane:?} it, not {:?}: {said}",
            self.terrane
        );
        Ok(())
    }

    /// A difference has a row in the documentation, and nothing else has one.
    fn documented(&self) -> Result<()> {
        let path = paths::workspace().join("docs/xen-trees.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let row = format!("| `{}` |", self.name);
        let has_row = text.lines().any(|line| line.starts_with(&row));
        ensure!(
            has_row == (self.xen != self.terrane),
            "docs/xen-trees.md and the tree `{}` don't fit each other",
            self.name
        );
        Ok(())
    }
}

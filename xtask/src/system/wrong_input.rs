//! Input that Xen answers with a panic or with silence: the command refuses it with both sides named, and the hypervisor,
//! given it all the same, says so and does what `on-conflict` asks for. No silent case.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::boot::{Boot, Ran, ask};
use super::{Context, Scenario, probe};
use crate::arch::Arch;
use crate::manifest::{Domain, Manifest};

/// A wrong domain, and the codes that may answer it.
struct Case {
    name: &'static str,
    /// Keys of the domain `wrong`, and their values.
    keys: Vec<(&'static str, &'static str)>,
    /// Any of these is right: a range may be wrong in two ways at once.
    codes: &'static [&'static str],
    /// How many sides the refusal names at least.
    sides: usize,
    /// Also a second domain of this name with this `static-mem`.
    other: Option<&'static str>,
}

fn case(
    name: &'static str,
    keys: Vec<(&'static str, &'static str)>,
    codes: &'static [&'static str],
    sides: usize,
) -> Case {
    Case {
        name,
        keys,
        codes,
        sides,
        other: None,
    }
}

/// Ranges that are wrong on an architecture's machine with 2 GiB, as values of `static-mem`.
struct Places {
    hypervisor: &'static str,
    /// Where there is a tree of the host.
    host_tree: Option<&'static str>,
    partly_outside: &'static str,
    mmio: &'static str,
    /// Over the container, which stays where the boot loader puts it when a restart is asked for.
    modules: &'static str,
}

const fn places(arch: Arch) -> Places {
    match arch {
        // RAM from 0x40000000, the hypervisor at 0x40200000, the tree at 0x48000000, the container behind it.
        Arch::Aarch64 => Places {
            hypervisor: "[{ start = 0x4000_0000, size = \"64MiB\" }]",
            host_tree: Some("[{ start = 0x4800_0000, size = \"64MiB\" }]"),
            partly_outside: "[{ start = 0xbe00_0000, size = \"64MiB\" }]",
            mmio: "[{ start = 0x0900_0000, size = \"64MiB\" }]",
            modules: "[{ start = 0x4400_0000, size = \"128MiB\" }]",
        },
        // RAM from 0 with the hypervisor at 2 MiB and the container behind it; IO-APIC and local APICs below 4 GiB.
        Arch::X86_64 => Places {
            hypervisor: "[{ start = 0x20_0000, size = \"64MiB\" }]",
            host_tree: None,
            partly_outside: "[{ start = 0x7e00_0000, size = \"64MiB\" }]",
            mmio: "[{ start = 0xfec0_0000, size = \"4MiB\" }]",
            modules: "[{ start = 0x20_0000, size = \"128MiB\" }]",
        },
    }
}

/// The rows of "Wrong input under Xen" that are wrong here too.
fn cases(arch: Arch) -> Vec<Case> {
    let places = places(arch);
    let mut cases = vec![
        Case {
            name: "two-domains-overlap",
            keys: vec![("static-mem", "[{ start = 0x6000_0000, size = \"64MiB\" }]")],
            codes: &["overlap-domain-domain"],
            sides: 2,
            other: Some("[{ start = 0x6200_0000, size = \"64MiB\" }]"),
        },
        case(
            "over-the-hypervisor",
            vec![("static-mem", places.hypervisor)],
            &["overlap-domain-hypervisor"],
            2,
        ),
        case(
            "outside-ram",
            vec![(
                "static-mem",
                "[{ start = 0x1_0000_0000, size = \"64MiB\" }]",
            )],
            &["static-outside-ram"],
            2,
        ),
        case(
            "partly-outside-ram",
            vec![("static-mem", places.partly_outside)],
            &["static-outside-ram"],
            2,
        ),
        case(
            "over-mmio",
            vec![("static-mem", places.mmio)],
            &["overlap-domain-mmio", "static-outside-ram"],
            2,
        ),
        case(
            "near-the-end-of-addresses",
            vec![(
                "static-mem",
                "[{ start = \"0xffff_ffff_f000_0000\", size = \"512MiB\" }]",
            )],
            &["static-wraps", "static-outside-ram"],
            1,
        ),
        case(
            "over-a-boot-module",
            vec![("static-mem", places.modules)],
            &["overlap-domain-module", "overlap-domain-host-tree"],
            2,
        ),
        case(
            "base-misaligned-by-0x800",
            vec![("static-mem", "[{ start = 0x6000_0800, size = \"64MiB\" }]")],
            &["static-misaligned-page"],
            1,
        ),
        case(
            "base-not-at-the-kernels-alignment",
            vec![("static-mem", "[{ start = 0x6000_1000, size = \"2MiB\" }]")],
            // A PC's probe lies at 16 MiB, which two MiB don't hold.
            &["static-misaligned-kernel", "kernel-bounds"],
            1,
        ),
        case(
            "static-smaller-than-memory",
            vec![
                ("memory", "\"128MiB\""),
                ("static-mem", "[{ start = 0x6000_0000, size = \"64MiB\" }]"),
            ],
            &["memory-sum-mismatch"],
            2,
        ),
        case(
            "static-larger-than-memory",
            vec![
                ("memory", "\"32MiB\""),
                ("static-mem", "[{ start = 0x6000_0000, size = \"64MiB\" }]"),
            ],
            &["memory-sum-mismatch"],
            2,
        ),
        case(
            "size-zero",
            vec![("static-mem", "[{ start = 0x6000_0000, size = 0 }]")],
            &["memory-zero"],
            1,
        ),
        case(
            "size-no-page-multiple",
            vec![("static-mem", "[{ start = 0x6000_0000, size = 0x400_0800 }]")],
            &["static-misaligned-page"],
            1,
        ),
        case(
            "memory-larger-than-the-host",
            vec![("memory", "\"8GiB\"")],
            &["memory-too-large"],
            2,
        ),
        case(
            "memory-too-small-for-modules",
            vec![("memory", "\"64KiB\"")],
            &["too-small-for-modules"],
            1,
        ),
    ];
    if let Some(range) = places.host_tree {
        cases.push(case(
            "over-the-host-tree",
            vec![("static-mem", range)],
            &["overlap-domain-host-tree", "overlap-domain-module"],
            2,
        ));
    }
    cases
}

/// Each wrong domain at the command, at the hypervisor that halts, and beside a healthy domain that runs on.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    type Check = fn(&Case, &Context, &Path) -> Result<()>;
    let checks: [(&str, Check); 3] = [
        ("checked", Case::checked),
        ("halts", Case::halts),
        ("skipped", Case::skipped),
    ];
    let cases: Vec<Arc<Case>> = cases(arch).into_iter().map(Arc::new).collect();
    cases
        .iter()
        .flat_map(|case| {
            checks.map(|(how, check)| {
                let case = Arc::clone(case);
                Scenario::new(
                    format!("wrong-{}-{how}", case.name),
                    move |context, folder| check(&case, context, folder),
                )
            })
        })
        .collect()
}

impl Case {
    fn manifest(&self, context: &Context, folder: &Path) -> Result<Manifest> {
        let mut manifest = Manifest::plain(context.arch, 4, "2GiB");
        let bare = |name| {
            let kernel = context.products.guest("probe");
            Domain::new(name, &kernel)
                .key("direct-map", probe::beside(context.arch))
                .cmdline("end=off")
        };
        let healthy = if self.name == "over-a-boot-module" {
            probe::restartable(context, folder)?.key("on-crash", "\"restart\"")
        } else {
            probe::hardware(context, "end=off")
        };
        manifest.domain(healthy.key("memory", "\"256MiB\""));
        let wrong = self
            .keys
            .iter()
            .fold(bare("wrong"), |domain, (key, value)| domain.key(key, value));
        manifest.domain(wrong);
        if let Some(memory) = self.other {
            manifest.domain(bare("other").key("static-mem", memory));
        }
        Ok(manifest)
    }

    /// `terrane check`: exit 1, the code, both sides with a position in the manifest, and a mend.
    fn checked(&self, context: &Context, folder: &Path) -> Result<()> {
        let path = self
            .manifest(context, folder)?
            .write(&folder.join("manifest.toml"))?;
        let (status, said) = ask(context.terrane("check").arg(path).arg("--json"))?;
        ensure!(status == 1, "`terrane check` ended with {status}: {said}");
        let refusals = said
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()?;
        let Some(refusal) = refusals
            .iter()
            .find(|one| self.codes.iter().any(|code| one["code"] == *code))
        else {
            anyhow::bail!("none of {:?} in: {said}", self.codes);
        };
        let sides = refusal["sides"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(
            sides.len() >= self.sides,
            "{} sides named, not {}: {refusal}",
            sides.len(),
            self.sides
        );
        ensure!(
            sides
                .iter()
                .any(|side| side["line"].as_u64().is_some_and(|line| line > 0)),
            "no position in the manifest: {refusal}"
        );
        ensure!(
            refusal["help"]
                .as_str()
                .is_some_and(|help| !help.is_empty()),
            "no mend: {refusal}"
        );
        Ok(())
    }

    /// `on-conflict = "halt"`: the hypervisor names the conflict and starts nothing.
    fn halts(&self, context: &Context, folder: &Path) -> Result<()> {
        let mut manifest = self.manifest(context, folder)?;
        manifest.hypervisor("on-conflict = \"halt\"");
        let ran = Boot {
            no_check: true,
            ..Boot::new(&manifest)
        }
        .run(context, folder)?;
        self.named(&ran)?;
        ran.expect_status(1)?;
        ensure!(
            ran.console("control").is_empty(),
            "a domain was started all the same"
        );
        Ok(())
    }

    /// `on-conflict = "skip-domain"`: the healthy domain runs to its end.
    fn skipped(&self, context: &Context, folder: &Path) -> Result<()> {
        let mut manifest = self.manifest(context, folder)?;
        manifest.hypervisor("on-conflict = \"skip-domain\"");
        let ran = Boot {
            no_check: true,
            ..Boot::new(&manifest)
        }
        .run(context, folder)?;
        self.named(&ran)?;
        ran.expect_line("wrong: refused: ")?;
        ran.expect_status(1)?;
        probe::passed(&ran, "control")
    }

    /// The hypervisor's console has one of the codes, and what clashes.
    fn named(&self, ran: &Ran) -> Result<()> {
        let said = ran.hypervisor();
        let begins: Vec<String> = self
            .codes
            .iter()
            .map(|code| format!("error[{code}]: "))
            .collect();
        let line = said
            .lines()
            .position(|line| begins.iter().any(|begin| line.starts_with(begin)));
        let Some(line) = line else {
            anyhow::bail!("the hypervisor named none of {:?}", self.codes);
        };
        let sides = said
            .lines()
            .skip(line + 1)
            .take_while(|line| line.starts_with(' '));
        let sides = sides
            .filter(|line| line.trim_start().starts_with("side: "))
            .count();
        ensure!(
            sides >= self.sides,
            "the hypervisor named {sides} sides, not {}",
            self.sides
        );
        Ok(())
    }
}

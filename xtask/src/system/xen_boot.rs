//! A tree in Xen's dom0less binding, and what its boot loader puts beside it, under Terrane: where Xen would find it, and as
//! `terrane image` packs it. The same of a manifest, whose partial tree is `dtb`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::boot::Boot;
use super::xen::{self, Machine};
use super::{Context, Scenario, probe};
use crate::arch::Arch;
use crate::bench::machine::Running;
use crate::manifest::{Domain, Manifest};
use crate::run;

/// Where the boot loader puts the kernels and the partial tree.
const KERNELS: [u64; 2] = [0x5000_0000, 0x5020_0000];
const PARTIAL: u64 = 0x5060_0000;
/// Where `image`'s files lie, as its `boot.cmd` says: RAM begins here for them, since QEMU has its own tree below.
const IMAGE: u64 = 0x4020_0000;
const TREE: u64 = 0x4040_0000;
const CONTAINER: u64 = 0x4060_0000;
/// Where this boot loader is.
const LOADER: u64 = 0x5fff_f000;

/// The PL061's first identification register, PeriphID0 (DDI 0190, 3.3.9): 0x61.
const REGISTER: &str = "0x9030fe0";

const MACHINE: Machine = Machine {
    memory: 512,
    cpus: 2,
};

/// The partial tree: the machine's GPIO.
const GPIO: &str = r#"/dts-v1/;
/ {
	#address-cells = <2>; #size-cells = <2>;
	gic: gic { #interrupt-cells = <3>; interrupt-controller; };
	passthrough {
		compatible = "simple-bus"; ranges; #address-cells = <2>; #size-cells = <2>;
		gpio@9030000 {
			compatible = "arm,pl061", "arm,primecell";
			reg = <0 0x9030000 0 0x1000>; interrupt-parent = <&gic>; interrupts = <0 7 4>;
			xen,path = "/pl061@9030000"; xen,reg = <0 0x9030000 0 0x1000 0 0x9030000>;
			xen,force-assign-without-iommu;
		};
	};
};
"#;

/// One system, started in each way.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    if arch != Arch::Aarch64 {
        return Vec::new();
    }
    vec![
        Scenario::new("xen-tree-in-place", in_place),
        Scenario::new("xen-tree-image", image),
        Scenario::new("partial-tree", manifest),
    ]
}

/// The tree, whose first domain has the GPIO and reads its register, as the second one tries to; and the files.
struct Prepared {
    source: PathBuf,
    blob: PathBuf,
    files: Vec<(PathBuf, u64)>,
}

fn partial_tree(folder: &Path) -> Result<PathBuf> {
    let (source, blob) = (folder.join("gpio.dts"), folder.join("gpio.dtb"));
    fs::write(&source, GPIO)?;
    xen::dtc(("dts", &source), ("dtb", &blob))?;
    Ok(blob)
}

fn prepare(context: &Context, folder: &Path, more: &str) -> Result<Prepared> {
    let kernel = context.products.guest("probe");
    let partial = partial_tree(folder)?;
    let size = |file: &Path| fs::metadata(file).map(|file| file.len());
    let domain = |name: &str, at: u64, more: &str| -> Result<String> {
        let bytes = size(&kernel).context("there is no probe")?;
        Ok(format!(
            "{name} {{ compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>; memory = <0 0x10000>; cpus = <1>; {more}\n\
             module@{at:x} {{ compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0 {at:#x} 0 {bytes:#x}>; \
             bootargs = \"{}\"; }}; }};\n",
            bootargs()
        ))
    };
    let module = format!(
        "module@{PARTIAL:x} {{ compatible = \"multiboot,device-tree\", \"multiboot,module\"; reg = <0 {PARTIAL:#x} 0 {:#x}>; }};",
        size(&partial)?
    );
    let chosen = domain("driver", KERNELS[0], &module)? + &domain("other", KERNELS[1], "vpl011;")?;
    let source = folder.join("tree.dts");
    let tree = xen::with_chosen(&MACHINE.tree(folder)?, &chosen, folder)? + more;
    fs::write(&source, tree)?;
    let blob = folder.join("tree.dtb");
    xen::dtc(("dts", &source), ("dtb", &blob))?;
    Ok(Prepared {
        source,
        blob,
        files: vec![
            (kernel.clone(), KERNELS[0]),
            (kernel, KERNELS[1]),
            (partial, PARTIAL),
        ],
    })
}

fn bootargs() -> String {
    format!("end=stray stray={REGISTER}")
}

/// Everything where a boot loader would put it for Xen.
fn in_place(context: &Context, folder: &Path) -> Result<()> {
    let prepared = prepare(context, folder, "")?;
    let kernel = context.products.hypervisor();
    let running = MACHINE.boot(&kernel, &prepared.blob, &prepared.files)?;
    judge(running, folder)
}

/// What `terrane image` makes of it, where its `boot.cmd` loads it.
fn image(context: &Context, folder: &Path) -> Result<()> {
    let ram = format!("/ {{ memory@40000000 {{ reg = <0 {IMAGE:#x} 0 0x1fe00000>; }}; }};\n");
    let prepared = prepare(context, folder, &ram)?;
    let packed = folder.join("image");
    let mut command = context.terrane("image");
    command.arg(&prepared.source).arg("-o").arg(&packed);
    for (file, address) in &prepared.files {
        command.arg("--module");
        command.arg(format!("{address:#x}={}", file.display()));
    }
    run::output(&mut command)?;
    let script = fs::read_to_string(packed.join("boot.cmd")).context("there is no boot.cmd")?;
    for line in [
        format!(" {CONTAINER:#x} ${{prefix}}container.bin\n"),
        format!("booti {IMAGE:#x} - {TREE:#x}\n"),
    ] {
        ensure!(script.contains(&line), "boot.cmd doesn't say `{line}`");
    }
    let loader = folder.join("loader.bin");
    fs::write(&loader, boot_loader())?;
    let files = [
        (packed.join("hypervisor.bin"), IMAGE),
        (packed.join("host.dtb"), TREE),
        (packed.join("container.bin"), CONTAINER),
        (loader, LOADER),
    ];
    judge(MACHINE.boot_at(LOADER, &files)?, folder)
}

/// `ldr x0, TREE; ldr x4, IMAGE; br x4`, as arm64's boot protocol has it.
fn boot_loader() -> Vec<u8> {
    const CODE: [u32; 4] = [0x5800_0080, 0x5800_00a4, 0xd61f_0080, 0xd503_201f];
    let code = CODE.iter().flat_map(|word| word.to_le_bytes());
    let places = [TREE, IMAGE].map(u64::to_le_bytes);
    code.chain(places.into_iter().flatten()).collect()
}

/// The system as a manifest. The hypervisor reads the partial tree in the container, and its plan must be the command's.
fn manifest(context: &Context, folder: &Path) -> Result<()> {
    let dtb = format!("\"{}\"", partial_tree(folder)?.display());
    let domain = |name: &str| {
        let domain = Domain::new(name, &context.products.guest("probe"));
        domain.key("memory", "\"64MiB\"").cmdline(&bootargs())
    };
    let mut manifest = Manifest::plain(context.arch, 2, "512MiB");
    manifest
        .domain(domain("driver").key("dtb", &dtb))
        .domain(domain("other").key("vpl011", "true"));
    let ran = Boot::new(&manifest).run(context, folder)?;
    probe::passed(&ran, "driver")?;
    probe::passed(&ran, "other")?;
    ensure!(
        ran.console("driver").contains("stray-read=0x61"),
        "the driver's domain didn't read the register"
    );
    ran.expect_line(&stray_of_the_other())?;
    let said = ran.hypervisor();
    let complaint = said.lines().find(|line| is_complaint(line));
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

fn stray_of_the_other() -> String {
    format!(
        "other: vcpu 0: stray read from {REGISTER}, not in its layout (on the machine: a device of driver)"
    )
}

fn is_complaint(line: &str) -> bool {
    line.contains("error[") || line.contains("warning[")
}

/// Both domains come up; the driver's reads the register, and the other one's is no business of its.
fn judge(mut running: Running, folder: &Path) -> Result<()> {
    let (lines, _) = running.until("(terrane) all domains have stopped")?;
    fs::write(folder.join("console.log"), lines.join("\n"))?;
    let count = |wanted: &str| lines.iter().filter(|line| line.ends_with(wanted)).count();
    ensure!(count("probe: pass") == 2, "not both domains came up");
    ensure!(
        count("stray-read=0x61") == 1,
        "not one domain read the register"
    );
    ensure!(
        count(&stray_of_the_other()) == 1,
        "no stray read of the other domain's"
    );
    let complaint = lines.iter().find(|line| is_complaint(line));
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

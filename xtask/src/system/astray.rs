//! The negative control: a hardware domain that isn't direct-mapped, on a machine without an IOMMU, by the owner's override.
//! What its device is told are not the machine's addresses, so its DMA goes astray; here into memory that nobody owns.
//!
//! The machine's RAM is a file, filled before the boot: afterwards the page at the one address is a copy of the page at the
//! other, and the guest has noticed nothing.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::boot::{Boot, ask};
use super::facts::Facts;
use super::{Context, Scenario, linux};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::manifest::Manifest;

const PAGE: usize = 4096;
/// The machine's RAM, from address 0 on.
const RAM: u64 = 1 << 30;
/// What of it is the domain's: 256 MiB that the domain sees from its own address 0 on.
const STATIC: &str = "[{ start = 0x2000_0000, size = \"256MiB\" }]";
/// The part of those addresses that is filled, behind hypervisor and container.
const CANARY: std::ops::Range<u64> = 0x0800_0000..0x1000_0000;

/// The override at work, and the refusal without it.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    match arch {
        // Its host layout has no RAM at low addresses to be told from the machine's.
        Arch::Aarch64 => Vec::new(),
        Arch::X86_64 => vec![
            Scenario::new("dma-astray", astray),
            Scenario::new("dma-astray-refused", refused),
        ],
    }
}

fn manifest(
    context: &Context,
    folder: &Path,
    ram: &Path,
) -> Result<(Manifest, crate::manifest::Domain)> {
    let mut manifest = Manifest::new(
        context.arch,
        "q35,memory-backend=ram",
        context.arch.cpu(),
        1,
        "1GiB",
    );
    manifest
        .argument("-object")
        .argument(format!(
            "memory-backend-file,id=ram,share=on,size=1G,mem-path={}",
            ram.display()
        ))
        .argument("-device")
        .argument("edu,dma_mask=0xffffffffffffffff");
    let task = format!("checker edu-astray:{:x}:{:x}", CANARY.start, CANARY.end);
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?
        .key("direct-map", "false")
        .key("memory", "\"256MiB\"")
        .key("static-mem", STATIC);
    Ok((manifest, domain))
}

fn astray(context: &Context, folder: &Path) -> Result<()> {
    let ram = folder.join("ram");
    fill(&ram)?;
    let (mut manifest, domain) = manifest(context, folder, &ram)?;
    manifest.domain(domain.key("allow-dma-without-iommu", "true"));
    let ran = Boot::new(&manifest).run(context, folder)?;
    let facts = Facts::read(&ran.console(linux::NAME));
    let told = facts.expect_check("edu-astray")?;
    facts.expect_success()?;
    let address = |name: &str| -> Result<u64> {
        let word = told
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        let digits = word.and_then(|word| word.strip_prefix("=0x"));
        u64::from_str_radix(digits.context("the checker told no address")?, 16)
            .context("the checker told no number")
    };
    let (from, to) = (address("from")?, address("to")?);
    for address in [from, to] {
        ensure!(
            CANARY.contains(&address),
            "{address:#x} isn't canary memory"
        );
        let mut explain = context.terrane("explain");
        let (status, said) = ask(explain
            .arg(folder.join("manifest.toml"))
            .arg(format!("{address:#x}")))?;
        ensure!(
            status == 0 && said.contains("nobody"),
            "{address:#x} has an owner: {said}"
        );
    }
    ensure!(
        read(&ram, to)? == page(from),
        "the device's data isn't at {to:#x}"
    );
    fs::remove_file(&ram).context("cannot remove the machine's RAM")
}

fn refused(context: &Context, folder: &Path) -> Result<()> {
    let ram = folder.join("ram");
    File::create(&ram)?.set_len(RAM)?;
    let (mut manifest, domain) = manifest(context, folder, &ram)?;
    manifest.domain(domain);
    let path = manifest.write(&folder.join("manifest.toml"))?;
    let (status, said) = ask(context.terrane("check").arg(path).arg("--json"))?;
    ensure!(
        status == 1 && said.contains("\"dma-without-iommu\""),
        "`terrane check` ended with {status}: {said}"
    );
    let ran = Boot {
        no_check: true,
        ..Boot::new(&manifest)
    }
    .run(context, folder)?;
    ran.expect_line("error[dma-without-iommu]: ")?;
    ran.expect_status(1)
}

/// The content of the page at this address before the boot: no two are alike.
fn page(address: u64) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for (place, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
        word.copy_from_slice(
            &(address + place)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        );
    }
    bytes
}

fn fill(ram: &Path) -> Result<()> {
    let file = File::create(ram).context("cannot make the machine's RAM")?;
    file.set_len(RAM)?;
    let mut file = BufWriter::new(file);
    file.seek(SeekFrom::Start(CANARY.start))?;
    for address in CANARY.step_by(PAGE) {
        file.write_all(&page(address))?;
    }
    file.flush().context("cannot fill the machine's RAM")
}

fn read(ram: &Path, address: u64) -> Result<[u8; PAGE]> {
    let mut file = File::open(ram).context("the machine's RAM is gone")?;
    file.seek(SeekFrom::Start(address))?;
    let mut bytes = [0; PAGE];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

//! The devices that a Linux guest moves data with, and the proof on the host's side that the data is right.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::facts::Facts;
use crate::arch::Arch;
use crate::manifest::Manifest;

/// What `linux.sh` reads of a disk, and copies to the part behind it.
const HALF: usize = 2 << 20;

/// A disk by what is in its path in sysfs, as `linux.sh` looks for it, and QEMU's devices that make it.
type Disk = (&'static str, &'static [&'static str]);

const fn disks(arch: Arch) -> &'static [Disk] {
    match arch {
        Arch::Aarch64 => &[
            ("virtio", &["virtio-blk-device,drive=virtio"]),
            ("nvme", &["nvme,drive=nvme,serial=terrane"]),
            ("ata", &["ahci,id=ahci", "ide-hd,drive=ata,bus=ahci.0"]),
        ],
        Arch::X86_64 => &[
            ("virtio", &["virtio-blk-pci,drive=virtio"]),
            ("nvme", &["nvme,drive=nvme,serial=terrane"]),
            // On the chipset's own AHCI controller.
            ("ata", &["ide-hd,drive=ata,bus=ide.0"]),
            ("usb", &["qemu-xhci", "usb-storage,drive=usb"]),
        ],
    }
}

/// Every device of the test, with its files.
pub struct Devices {
    arch: Arch,
    folder: PathBuf,
    edu: bool,
}

impl Devices {
    /// Makes the files in `folder` and adds the devices to the machine, with or without `edu`.
    pub fn attach(arch: Arch, manifest: &mut Manifest, folder: &Path, edu: bool) -> Result<Self> {
        let devices = Self {
            arch,
            folder: folder.to_owned(),
            edu,
        };
        for (seed, (disk, _)) in (1..).zip(disks(arch)) {
            let mut data = noise(seed, HALF);
            data.resize(2 * HALF, 0);
            let file = devices.disk(disk);
            fs::write(&file, data).with_context(|| format!("cannot write {}", file.display()))?;
            let drive = format!("file={},if=none,format=raw,id={disk}", file.display());
            manifest.argument("-drive").argument(drive);
        }
        fs::create_dir_all(folder.join("tftp"))
            .context("cannot make a folder for the network test")?;
        fs::write(devices.traffic(), noise(9, HALF / 4))
            .context("cannot write the network test's file")?;
        for device in disks(arch).iter().flat_map(|(_, devices)| *devices) {
            manifest.argument("-device").argument(*device);
        }
        if edu {
            // Its own mask reaches the first 256 MiB only, and cuts addresses off in silence.
            manifest
                .argument("-device")
                .argument("edu,dma_mask=0xffffffffffffffff");
        }
        let network = format!("user,model=e1000e,tftp={}", folder.join("tftp").display());
        manifest.argument("-nic").argument(network);
        Ok(devices)
    }

    /// What `linux.sh` must know of them.
    pub fn variables(&self) -> String {
        let disks: Vec<&str> = disks(self.arch).iter().map(|(disk, _)| *disk).collect();
        format!("DISKS='{}' NETWORK=1", disks.join(" "))
    }

    /// Fails unless the guest has read what the host wrote and the host finds what the guest wrote, and no buffer was
    /// bounced on the way.
    pub fn check(&self, facts: &Facts) -> Result<()> {
        let mut read: Vec<&str> = facts.all("disk").iter().map(String::as_str).collect();
        read.sort_unstable();
        let mut expected = Vec::new();
        for (disk, _) in disks(self.arch) {
            let data =
                fs::read(self.disk(disk)).with_context(|| format!("cannot read {disk}'s file"))?;
            let (first, second) = data.split_at(HALF);
            ensure!(
                first == second,
                "what the guest wrote to {disk} isn't there"
            );
            expected.push(format!("{disk} {}", digest(first)));
        }
        expected.sort_unstable();
        ensure!(
            read == expected,
            "the guest read {read:?} from its disks, not {expected:?}"
        );
        let traffic = fs::read(self.traffic()).context("cannot read the network test's file")?;
        facts.expect("network", &digest(&traffic))?;
        if self.edu {
            facts.expect_check("edu-dma")?;
        }

        // swiotlb-xen is Arm's: on x86-64 Linux maps directly.
        if self.arch == Arch::Aarch64 {
            ensure!(count(facts, "mapped")? > 0, "swiotlb-xen isn't in use");
        }
        let bounced = count(facts, "bounced")?;
        ensure!(bounced == 0, "{bounced} buffers were bounced");
        Ok(())
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.img"))
    }

    fn traffic(&self) -> PathBuf {
        self.folder.join("tftp").join("traffic")
    }
}

/// A fact `count NAME NUMBER`.
fn count(facts: &Facts, name: &str) -> Result<u64> {
    let number = facts
        .all("count")
        .iter()
        .find_map(|fact| fact.strip_prefix(name)?.trim().parse().ok());
    number.with_context(|| format!("the guest counted no `{name}`"))
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Bytes without a pattern that a stray copy could keep (xorshift64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

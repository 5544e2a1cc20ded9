//! The guests and the yardstick: Debian's kernels, a static busybox, and Xen to measure against.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use flate2::read::GzDecoder;

use super::apt::Apt;
use super::once;
use crate::arch::Arch;
use crate::paths;

/// A Debian kernel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, ValueEnum)]
pub enum Kernel {
    /// Linux 6.1 of Debian 12.
    #[value(name = "6.1")]
    Bookworm,
    /// Linux 6.12 of Debian 13.
    #[value(name = "6.12")]
    Trixie,
}

impl Kernel {
    /// The series, as users name it.
    pub fn series(self) -> &'static str {
        match self {
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// A kernel in the cache.
pub struct KernelFiles {
    /// The kernel itself, as Debian packs it: an arm64 Image, a bzImage.
    pub image: PathBuf,
    /// Its modules: the folder that holds `modules.dep`.
    pub modules: PathBuf,
}

/// The kernel of Debian's `linux-image-ARCH`, fetched if it isn't in the cache.
pub fn kernel(arch: Arch, kernel: Kernel) -> Result<KernelFiles> {
    let folder = entry(&format!("debian-{}-{}", kernel.series(), arch.debian()))?;
    once(&folder, |new| {
        let apt = Apt::open(kernel.suite(), arch.debian())?;
        apt.update()?;
        let meta = format!("linux-image-{}", arch.debian());
        let package = apt.dependency(&meta, "linux-image-")?;
        let version = apt.unpack(&package, &new.join("root"))?;
        record(new, &package, &version)?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        symlink(format!("root/boot/vmlinuz-{release}"), new.join("Image"))?;
        // Debian 13 has no /lib but a link to /usr/lib, which lies in another package.
        let modules = [
            format!("root/lib/modules/{release}"),
            format!("root/usr/lib/modules/{release}"),
        ]
        .into_iter()
        .find(|path| new.join(path).is_dir())
        .with_context(|| format!("{package} holds no modules"))?;
        symlink(modules, new.join("modules"))?;
        fs::metadata(new.join("Image")).with_context(|| format!("{package} holds no kernel"))?;
        Ok(())
    })?;
    Ok(KernelFiles {
        image: folder.join("Image"),
        modules: folder.join("modules"),
    })
}

/// Debian's statically linked busybox, fetched if it isn't in the cache.
pub fn busybox(arch: Arch) -> Result<PathBuf> {
    let folder = entry(&format!("busybox-{}", arch.debian()))?;
    once(&folder, |new| {
        let apt = Apt::open("bookworm", arch.debian())?;
        apt.update()?;
        let version = apt.unpack("busybox-static", &new.join("root"))?;
        record(new, "busybox-static", &version)?;
        let program = ["root/bin/busybox", "root/usr/bin/busybox"]
            .into_iter()
            .find(|path| new.join(path).is_file())
            .context("busybox-static holds no busybox")?;
        symlink(program, new.join("busybox"))?;
        Ok(())
    })?;
    Ok(folder.join("busybox"))
}

/// Debian's Xen 4.20, fetched if it isn't in the cache: what the benchmark measures beside us, and whose word on trees the
/// tests compare with ours.
pub fn xen(arch: Arch) -> Result<PathBuf> {
    let name = format!("xen-4.20-{}", arch.debian());
    let folder = entry(&name)?;
    once(&folder, |new| {
        let apt = Apt::open("trixie", arch.debian())?;
        apt.update()?;
        let package = format!("xen-hypervisor-4.20-{}", arch.debian());
        let version = apt.unpack(&package, &new.join("root"))?;
        record(new, &package, &version)?;
        let file = format!("root/boot/{name}");
        match File::open(new.join(format!("{file}.gz"))) {
            // QEMU's multiboot loader takes it unwrapped only.
            Ok(packed) => {
                let mut plain = File::create(new.join("xen")).context("cannot write Xen")?;
                io::copy(&mut GzDecoder::new(packed), &mut plain).context("cannot unwrap Xen")?;
            }
            Err(_) => symlink(file, new.join("xen"))?,
        }
        fs::metadata(new.join("xen")).with_context(|| format!("{package} holds no Xen"))?;
        Ok(())
    })?;
    Ok(folder.join("xen"))
}

/// Debian's U-Boot for QEMU's `virt`, fetched if it isn't in the cache.
pub fn uboot() -> Result<PathBuf> {
    let folder = entry("u-boot-qemu")?;
    once(&folder, |new| {
        let apt = Apt::open("trixie", Arch::Aarch64.debian())?;
        apt.update()?;
        let version = apt.unpack("u-boot-qemu", &new.join("root"))?;
        record(new, "u-boot-qemu", &version)?;
        symlink(
            "root/usr/lib/u-boot/qemu_arm64/u-boot.bin",
            new.join("u-boot.bin"),
        )?;
        fs::metadata(new.join("u-boot.bin")).context("u-boot-qemu holds no U-Boot for arm64")?;
        Ok(())
    })?;
    Ok(folder.join("u-boot.bin"))
}

/// Fetches what the tests on `arch` need, so that none of them waits for a download.
pub fn fetch(arch: Arch) -> Result<()> {
    kernel(arch, Kernel::Bookworm)?;
    kernel(arch, Kernel::Trixie)?;
    busybox(arch)?;
    if arch == Arch::Aarch64 {
        xen(arch)?;
        uboot()?;
    }
    Ok(())
}

/// The folder of all that is here, made if it isn't there.
pub fn folder() -> Result<PathBuf> {
    let folder = paths::cache()?.join("guests");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn entry(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(name))
}

/// Which package a cache entry came from, for reports and to find an old one.
fn record(folder: &Path, package: &str, version: &str) -> Result<()> {
    fs::write(folder.join("version"), format!("{package} {version}\n"))
        .context("cannot record the version")
}

//! PCI functions as sysfs shows them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// A function's folder in sysfs.
pub struct Function(PathBuf);

impl Function {
    /// The first function of that vendor and device.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(vendor: u16, device: u16) -> Result<Self> {
        let read = |path: PathBuf| -> Option<u16> {
            let text = fs::read_to_string(path).ok()?;
            u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        for entry in fs::read_dir("/sys/bus/pci/devices").context("no PCI bus")? {
            let folder = entry?.path();
            if read(folder.join("vendor")) == Some(vendor)
                && read(folder.join("device")) == Some(device)
            {
                return Ok(Self(folder));
            }
        }
        bail!("no device {vendor:04x}:{device:04x}")
    }

    /// Lets the function answer at its BARs and be a bus master.
    ///
    /// # Errors
    /// What sysfs says.
    pub fn enable(&self) -> Result<()> {
        fs::write(self.0.join("enable"), "1").context("cannot enable the device")?;
        const COMMAND: u64 = 4;
        const MEMORY_AND_MASTER: u16 = 1 << 1 | 1 << 2;
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.0.join("config"))?;
        let mut bytes = [0; 2];
        config.read_exact_at(&mut bytes, COMMAND)?;
        let command = u16::from_le_bytes(bytes) | MEMORY_AND_MASTER;
        config.write_all_at(&command.to_le_bytes(), COMMAND)?;
        Ok(())
    }

    /// The file of BAR `index`, to be mapped.
    ///
    /// # Errors
    /// What sysfs says.
    pub fn resource(&self, index: u8) -> Result<File> {
        let path = self.0.join(format!("resource{index}"));
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    }
}

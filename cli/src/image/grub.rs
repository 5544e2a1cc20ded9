//! GRUB: its menu, and an ISO that boots by BIOS or UEFI.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use crate::diagnostics::{self, Diagnostic};

/// The menu's file.
pub const CONFIG: &str = "grub.cfg";
/// The ISO's file.
pub const ISO: &str = "terrane.iso";

/// Where the menu expects the files, below the root of the partition that GRUB was started from.
const FOLDER: &str = "boot/terrane";
const MKRESCUE: &str = "grub-mkrescue";

/// The menu. multiboot2 comes first where the hypervisor has it: only by it does UEFI's GRUB say
/// where the ACPI tables are (Multiboot2 Specification, 3.6.12).
pub fn config(hypervisor: &str, container: &str, multiboot2: bool) -> String {
    let entry = |title: &str, version: &str| {
        format!(
            "\nmenuentry \"{title}\" {{\n    multiboot{version} /{FOLDER}/{hypervisor}\n    \
             module{version} /{FOLDER}/{container}\n}}\n"
        )
    };
    let mut text =
        format!("# Boots Terrane. The files lie in /{FOLDER}.\nset timeout=0\nset default=0\n");
    if multiboot2 {
        text += &entry("Terrane", "2");
    }
    text += &entry("Terrane by multiboot1", "");
    text
}

/// The ISO that has the menu and these files.
///
/// # Errors
/// `grub-mkrescue` isn't installed or fails; a temporary file can't be written.
pub fn iso(menu: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, Diagnostic> {
    let folder = tempfile::Builder::new()
        .prefix("terrane-iso-")
        .tempdir()
        .map_err(|error| diagnostics::unwritable(&std::env::temp_dir(), &error))?;
    let (content, made) = (folder.path().join("content"), folder.path().join(ISO));
    let put = |place: &str, name: &str, bytes: &[u8]| {
        let place = content.join(place);
        let path = place.join(name);
        fs::create_dir_all(&place)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| diagnostics::unwritable(&path, &error))
    };
    put("boot/grub", CONFIG, menu.as_bytes())?;
    for (name, bytes) in files {
        put(FOLDER, name, bytes)?;
    }

    let output = Command::new(MKRESCUE)
        .arg("-o")
        .arg(&made)
        .arg(&content)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(&error))?;
    if output.status.success() {
        return fs::read(&made).map_err(|error| diagnostics::unreadable(&made, &error));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim_end().lines().last().unwrap_or("it said nothing");
    let message = format!("{MKRESCUE} made no ISO: {last}");
    Err(Diagnostic::error("iso-failed", message).with_help("it needs xorriso and mtools"))
}

fn missing(error: &io::Error) -> Diagnostic {
    let message = format!("an ISO is made by {MKRESCUE}, which can't be run: {error}");
    Diagnostic::error("iso-failed", message).with_help(
        "on Debian: grub-common, grub-pc-bin for BIOS, grub-efi-amd64-bin for UEFI, xorriso, mtools",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_prefers_multiboot2() {
        let text = config("h.elf", "c.bin", true);
        let (two, one) = text.split_once("multiboot1").unwrap();
        assert!(
            two.contains("    multiboot2 /boot/terrane/h.elf\n    module2 /boot/terrane/c.bin\n")
        );
        assert!(
            one.contains("    multiboot /boot/terrane/h.elf\n    module /boot/terrane/c.bin\n")
        );
        assert!(!config("h.elf", "c.bin", false).contains("multiboot2"));
    }
}

//! The starter manifest as text.

use std::fmt;
use std::path::{Path, PathBuf};

use layout::Size;

use super::seen::Seen;
use crate::arch::DescriptionForm;

/// The example guest.
const GUEST: &str = "\
# A guest beside it. Take the `# ` off these lines and put its kernel in place.
# [[domain]]
# name = \"guest\"
# memory = \"128MiB\"
# kernel = \"guest-vmlinuz\"
# cmdline = \"console=hvc0\"
";

/// How the manifest names its files.
pub struct Files {
    /// The machine's description, if it is a file.
    pub host: Option<PathBuf>,
    /// The hardware domain's kernel.
    pub kernel: PathBuf,
    /// Its ramdisk.
    pub ramdisk: PathBuf,
}

/// The manifest; it is displayed.
pub struct Starter<'a> {
    /// The machine.
    pub seen: &'a Seen,
    /// The files.
    pub files: &'a Files,
    /// Banks of RAM that the boot loader fills in.
    pub memory: &'a [(u64, u64)],
}

impl fmt::Display for Starter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unnamed = match (&self.files.host, self.seen.arch.description) {
            (None, _) => "A QEMU machine",
            (_, DescriptionForm::Capture) => "A PC",
            (_, DescriptionForm::Tree) => "A board",
        };
        let model = self.seen.model.as_deref().unwrap_or(unnamed);
        // A name from a file may hold a line feed, and what follows it would be no comment.
        let model: String = model.chars().filter(|c| !c.is_control()).collect();
        writeln!(
            f,
            "# {model}. `terrane check` says what doesn't fit, `terrane plan` who gets what."
        )?;
        writeln!(f, "manifest-version = 1\n\n[host]")?;
        self.host(f)?;
        self.hypervisor(f)?;
        self.hardware(f)?;
        match self.seen.cpus {
            0 | 1 => writeln!(
                f,
                "\n# A guest beside it needs a CPU of its own, and the description has one CPU that can be used."
            ),
            _ => write!(f, "\n{GUEST}"),
        }
    }
}

impl Starter<'_> {
    fn host(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = &self.files.host else {
            let (machine, cpu) = self.seen.arch.starter;
            let (arch, cpus) = (self.seen.arch.name, self.seen.cpus);
            return writeln!(
                f,
                "qemu = {{ machine = {}, arch = {}, cpu = {}, cpus = {cpus}, memory = \"{:#}\" }}",
                quoted(machine),
                quoted(arch),
                quoted(cpu),
                Size(self.seen.ram),
            );
        };
        writeln!(f, "description = {}", quoted_path(path))?;
        if self.memory.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "# What the boot loader fills in; the description has none of it.\nmemory = ["
        )?;
        for &(start, bytes) in self.memory {
            writeln!(
                f,
                "    {{ start = {}, size = \"{:#}\" }},",
                address(start),
                Size(bytes)
            )?;
        }
        writeln!(f, "]")
    }

    fn hypervisor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files.host.is_none() {
            return Ok(());
        }
        writeln!(f, "\n[hypervisor]")?;
        match (&self.seen.console, self.seen.uarts.as_slice()) {
            (Some(path), _) => {
                writeln!(f, "# The console that the description names.")?;
                writeln!(f, "console = {}", quoted(path))
            }
            (None, []) => writeln!(
                f,
                "# The description names no console: the hypervisor prints nothing."
            ),
            (None, uarts) => {
                writeln!(
                    f,
                    "# The description names no console. Take the `# ` off the line with the right UART."
                )?;
                uarts
                    .iter()
                    .try_for_each(|path| writeln!(f, "# console = {}", quoted(path)))
            }
        }
    }

    fn hardware(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, files, .. } = self;
        writeln!(
            f,
            "\n# The domain that drives the machine: every device that no other domain has, the memory that is left."
        )?;
        if seen.dma {
            writeln!(
                f,
                "# It is direct-mapped, and what its devices can write to is all in `terrane plan`."
            )?;
        }
        writeln!(
            f,
            "[[domain]]\nname = \"control\"\ncapabilities = [\"control\", \"hardware\"]"
        )?;
        match seen.cpus {
            0..=2 => {}
            // One is left for a guest.
            cpus => writeln!(f, "cpus = {}", cpus - 1)?,
        }
        writeln!(f, "memory = \"rest\"")?;
        writeln!(
            f,
            "# A distribution's kernel and initial ramdisk: on Debian /boot/vmlinuz-* and /boot/initrd.img-*."
        )?;
        writeln!(f, "kernel = {}", quoted_path(&files.kernel))?;
        writeln!(f, "ramdisk = {}", quoted_path(&files.ramdisk))?;
        writeln!(f, "cmdline = \"console=hvc0\"")
    }
}

/// A string as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// An address in hexadecimal; TOML's integers end at 2^63.
fn address(number: u64) -> String {
    match i64::try_from(number) {
        Ok(number) => format!("{number:#x}"),
        Err(_) => format!("\"{number:#x}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        assert_eq!(address(0x4000_0000), "0x40000000");
        assert_eq!(address(u64::MAX), "\"0xffffffffffffffff\"");
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        for text in ["plain", "a\"b", "a\\b", "a'b\"c", "\u{7f}"] {
            let line = format!("key = {}", quoted(text));
            let table: toml::Table = toml::from_str(&line).unwrap();
            assert_eq!(table["key"].as_str(), Some(text));
        }
    }
}

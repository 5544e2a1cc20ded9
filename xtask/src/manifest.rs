//! Writing manifests for the `terrane` command, as far as demo, tests and benchmark need them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::arch::Arch;

/// A manifest for a QEMU host.
#[derive(Clone)]
pub struct Manifest {
    arch: Arch,
    machine: String,
    cpu: String,
    cpus: u32,
    memory: String,
    arguments: Vec<String>,
    hypervisor: String,
    domains: Vec<Domain>,
}

impl Manifest {
    /// A manifest without domains for the architecture's usual machine and CPU model.
    pub fn plain(arch: Arch, cpus: u32, memory: &str) -> Self {
        Self::new(arch, arch.machine(), arch.cpu(), cpus, memory)
    }

    /// A manifest without domains for a QEMU machine.
    pub fn new(arch: Arch, machine: &str, cpu: &str, cpus: u32, memory: &str) -> Self {
        let mut manifest = Self {
            arch,
            machine: machine.to_owned(),
            cpu: cpu.to_owned(),
            cpus,
            memory: memory.to_owned(),
            arguments: Vec::new(),
            hypervisor: String::new(),
            domains: Vec::new(),
        };
        if arch == Arch::X86_64 && cpus > 1 {
            // With a thread for each CPU, QEMU 10.0 fails its own assertion (iotlb_to_section) when one CPU moves a BAR, as
            // Linux does to learn its size, while another reaches a device.
            manifest.argument("-accel").argument("tcg,thread=single");
        }
        manifest
    }

    /// Adds an argument for QEMU.
    pub fn argument(&mut self, word: impl Into<String>) -> &mut Self {
        self.arguments.push(word.into());
        self
    }

    /// Adds a line to the `[hypervisor]` table.
    pub fn hypervisor(&mut self, line: &str) -> &mut Self {
        self.hypervisor += line;
        self.hypervisor.push('\n');
        self
    }

    /// Adds a domain.
    pub fn domain(&mut self, domain: Domain) -> &mut Self {
        self.domains.push(domain);
        self
    }

    /// QEMU's arguments for the bare machine, as far as the manifest fixes them.
    pub fn machine(&self) -> Vec<String> {
        let mut words = vec![
            "-machine".to_owned(),
            self.machine.clone(),
            "-cpu".to_owned(),
            self.cpu.clone(),
            "-smp".to_owned(),
            self.cpus.to_string(),
            "-m".to_owned(),
            self.memory.replace("iB", ""),
        ];
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Writes the manifest to `path` and gives the path back.
    pub fn write(&self, path: &Path) -> Result<PathBuf> {
        fs::write(path, self.text()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.to_owned())
    }

    fn text(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|word| quoted(word)).collect();
        let mut text = format!(
            "manifest-version = 1\n\n[host]\nqemu = {{ machine = {}, arch = \"{}\", cpu = {}, cpus = {}, \
             memory = {}, args = [{}] }}\n",
            quoted(&self.machine),
            self.arch.name(),
            quoted(&self.cpu),
            self.cpus,
            quoted(&self.memory),
            arguments.join(", ")
        );
        if !self.hypervisor.is_empty() {
            let _ = write!(text, "\n[hypervisor]\n{}", self.hypervisor);
        }
        for domain in &self.domains {
            let _ = write!(
                text,
                "\n[[domain]]\nname = {}\n{}",
                quoted(&domain.name),
                domain.keys
            );
        }
        text
    }
}

/// One `[[domain]]` of a manifest.
#[derive(Clone)]
pub struct Domain {
    name: String,
    keys: String,
}

impl Domain {
    /// A domain of which only the name and the kernel are fixed.
    pub fn new(name: &str, kernel: &Path) -> Self {
        let domain = Self {
            name: name.to_owned(),
            keys: String::new(),
        };
        domain.key("kernel", &quoted(&kernel.to_string_lossy()))
    }

    /// The control and hardware domain that gets the rest of the memory.
    pub fn hardware(name: &str, kernel: &Path) -> Self {
        Self::new(name, kernel)
            .key("capabilities", "[\"control\", \"hardware\"]")
            .key("memory", "\"rest\"")
    }

    /// Sets a key to a TOML value, in place of what it was.
    #[must_use]
    pub fn key(mut self, name: &str, value: &str) -> Self {
        let begin = format!("{name} = ");
        let mut keys: String = self
            .keys
            .lines()
            .filter(|line| !line.starts_with(&begin))
            .map(|line| format!("{line}\n"))
            .collect();
        let _ = writeln!(keys, "{begin}{value}");
        self.keys = keys;
        self
    }

    /// Sets `ramdisk`.
    #[must_use]
    pub fn ramdisk(self, path: impl AsRef<Path>) -> Self {
        let path = quoted(&path.as_ref().to_string_lossy());
        self.key("ramdisk", &path)
    }

    /// Sets `cmdline`.
    #[must_use]
    pub fn cmdline(self, text: &str) -> Self {
        self.key("cmdline", &quoted(text))
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_twice_holds_its_last_value() {
        let domain = Domain::hardware("control", Path::new("Image")).key("memory", "\"1GiB\"");
        assert_eq!(domain.keys.matches("memory = ").count(), 1);
        assert!(domain.keys.contains("memory = \"1GiB\""));
    }
}

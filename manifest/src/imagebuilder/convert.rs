//! The translation, variable by variable, in the manifest's order.

use std::path::Path;

use layout::{MachineAddress, MachineRange, Severity};
use toml_edit::DocumentMut;

use super::document::{self, Section};
use super::shell::Assignment;
use super::words::{self, Fate};
use super::{Code, Config, Reading, label};
use crate::origin::Origins;
use crate::tree::blob::Tree;
use crate::tree::host::{self, BootFacts};
use crate::tree::system::xen_size;

const MIB: u64 = 1 << 20;

/// What ImageBuilder gives a domain that says nothing.
const DOM0_MEM: u64 = 1024 * MIB;
const DOMU_MEM: u64 = 512 * MIB;
const DOM0_CMD: &str = "console=hvc0 earlycon=xen earlyprintk=xen clk_ignore_unused";
const DOMU_CMD: &str = "console=ttyAMA0";
/// What Xen on Arm gives dom0 if its command line doesn't say.
const XEN_DOM0_MEM: u64 = 512 * MIB;

/// More domains are taken for a slip: each would be a section.
const MOST_DOMAINS: u32 = 1024;

/// Makes the manifest of one configuration.
pub(super) struct Converter<'c, 't, 'r> {
    config: &'c mut Config<'t>,
    reading: &'r Reading<'r>,
    /// Comments for the manifest's head, with the lines that they are about.
    head: Vec<(u32, String)>,
}

impl<'c, 't, 'r> Converter<'c, 't, 'r> {
    pub(super) fn new(config: &'c mut Config<'t>, reading: &'r Reading<'r>) -> Self {
        Self {
            config,
            reading,
            head: Vec::new(),
        }
    }

    pub(super) fn convert(mut self) -> DocumentMut {
        let count = self.domains();
        let host = self.host();
        let (hypervisor, xen) = self.hypervisor();
        let mut sections: Vec<Section> = self.dom0(&xen).into_iter().collect();
        let mut guests: Vec<Section> = (0..count).map(|_| Section::default()).collect();
        self.leave_out(&mut guests);
        for (index, mut section) in (0..count).zip(guests) {
            if self.domu(index, &mut section) {
                sections.push(section);
            }
        }
        if sections.is_empty() {
            let why = "there is no domain: neither DOM0_KERNEL nor NUM_DOMUS is set";
            self.missing("DOM0_KERNEL", 0, why);
        }
        let name = self.reading.name;
        let made = document::comment(&format!(
            "Made by `terrane import imagebuilder` from {name}."
        ));
        self.head.sort();
        let head: String = self.head.iter().map(|(_, line)| line.as_str()).collect();
        document::document(&(made + &head + "\n"), host, hypervisor, sections)
    }

    /// How many guests are loaded.
    fn domains(&mut self) -> u32 {
        match self.number("NUM_DOMUS", 0) {
            Some(count) if count <= u64::from(MOST_DOMAINS) => u32::try_from(count).unwrap_or(0),
            Some(_) => {
                let why = format!("{MOST_DOMAINS} domains are the most that are taken over");
                self.invalid("NUM_DOMUS", 0, why);
                0
            }
            None => 0,
        }
    }

    fn host(&mut self) -> Section {
        let mut host = Section::default();
        let Some(tree) = self.text("DEVICE_TREE", 0) else {
            let why = "the host is described by its device tree";
            self.missing("DEVICE_TREE", 0, why);
            return host;
        };
        host.set("description", self.path(&tree));
        let start = self.number("MEMORY_START", 0);
        let end = self.number("MEMORY_END", 0);
        let (Some(start), Some(end)) = (start, end) else {
            return host;
        };
        if start >= end {
            self.invalid("MEMORY_END", 0, "memory ends behind its start");
            return host;
        }
        let ram = (self.reading.file)(&tree).and_then(|blob| names_ram(&blob));
        if ram == Some(false) {
            host.comment("The tree names no memory: it is what MEMORY_START and MEMORY_END say.");
            host.set_list("memory", [document::range(start, end - start)]);
        } else {
            host.comment(&format!(
                "ImageBuilder loads between {start:#x} and {end:#x}; what is memory the tree says, or U-Boot fills in."
            ));
        }
        host
    }

    /// The hypervisor's section, and the words of Xen's command line.
    fn hypervisor(&mut self) -> (Section, XenWords) {
        let mut section = Section::default();
        let Some(line) = self.text("XEN_CMD", 0) else {
            section.set("console", "serial0");
            return (section, XenWords::default());
        };
        let mut words = XenWords {
            given: true,
            ..XenWords::default()
        };
        let mut left = Vec::new();
        for word in line.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("dtuart", path)) => {
                    section.set("console", path.split(':').next().unwrap_or_default());
                }
                Some(("dom0_mem", size)) => {
                    words.memory = xen_size(size);
                    if words.memory.is_none() {
                        let why =
                            format!("`{size}` is no size as Xen on Arm takes it, such as 512M");
                        self.invalid("XEN_CMD", 0, why);
                    }
                }
                Some(("dom0_max_vcpus", count)) => {
                    words.cpus = count.parse().ok();
                    if words.cpus.is_none() {
                        self.invalid("XEN_CMD", 0, format!("`{count}` is no number of CPUs"));
                    }
                }
                // Terrane's console is the UART, and it clears nothing that no domain has used.
                Some(("console" | "bootscrub", _)) => {}
                _ => left.push(word),
            }
        }
        if !left.is_empty() {
            let why = format!(
                "options of Xen that a manifest has no word for: {}",
                left.join(" ")
            );
            self.leave("XEN_CMD", 0, &why, None);
        }
        (section, words)
    }

    fn dom0(&mut self, xen: &XenWords) -> Option<Section> {
        let kernel = self.text("DOM0_KERNEL", 0)?;
        let mut section = Section::default();
        section.set("name", "dom0");
        section.set_list("capabilities", ["control", "hardware", "xenstore"]);
        let (memory, cpus) = if xen.given {
            for name in ["DOM0_MEM", "DOM0_VCPUS"] {
                if self.config.get(name, 0).is_some() {
                    let why = "ImageBuilder reads it only without XEN_CMD";
                    self.leave(name, 0, why, Some(&mut section));
                }
            }
            if xen.memory.is_none() {
                section.comment("XEN_CMD has no dom0_mem: Xen then takes 512 MiB.");
            }
            if xen.cpus.is_none() {
                section.comment(
                    "XEN_CMD has no dom0_max_vcpus: Xen then gives dom0 every CPU. Set `cpus`.",
                );
            }
            (xen.memory.unwrap_or(XEN_DOM0_MEM), xen.cpus)
        } else {
            let memory = self.mebibytes("DOM0_MEM", 0).unwrap_or(DOM0_MEM);
            (memory, self.count("DOM0_VCPUS", 0))
        };
        section.set("memory", document::bytes(memory));
        section.set("cpus", i64::from(cpus.unwrap_or(1)));
        section.set("kernel", self.path(&kernel));
        if let Some(ramdisk) = self.text("DOM0_RAMDISK", 0) {
            section.set("ramdisk", self.path(&ramdisk));
        }
        let line = self.text("DOM0_CMD", 0);
        let line = line.unwrap_or_else(|| DOM0_CMD.to_owned());
        if !line.contains("root=") {
            section.comment(
                "ImageBuilder adds a root= that depends on how U-Boot loads; it isn't added here.",
            );
        }
        section.set("cmdline", line);
        Some(section)
    }

    /// Fills a guest's section; false if it isn't started at boot.
    fn domu(&mut self, index: u32, section: &mut Section) -> bool {
        if self.config.get("DOMU_NOBOOT", index).is_some() {
            let why =
                "it is for a domain that dom0 starts; the manifest has only what starts at boot";
            self.leave("DOMU_NOBOOT", index, why, None);
            return false;
        }
        section.set("name", format!("domU{index}"));
        let ranges = self.static_memory(index);
        if ranges.is_empty() {
            let memory = self.mebibytes("DOMU_MEM", index).unwrap_or(DOMU_MEM);
            section.set("memory", document::bytes(memory));
        } else {
            if self.config.get("DOMU_MEM", index).is_some() {
                section.comment("DOMU_MEM gives way to DOMU_STATIC_MEM, as in ImageBuilder.");
            }
            let list = ranges
                .iter()
                .map(|&(start, size)| document::range(start, size));
            section.set_list("static-mem", list);
        }
        // Without static memory ImageBuilder doesn't look at it.
        if !ranges.is_empty() {
            section.set(
                "direct-map",
                self.flag("DOMU_DIRECT_MAP", index).unwrap_or(true),
            );
        } else if self.flag("DOMU_DIRECT_MAP", index).is_some() {
            let why = "ImageBuilder reads it only beside DOMU_STATIC_MEM; Terrane maps any domain 1:1 by `direct-map`";
            self.leave("DOMU_DIRECT_MAP", index, why, Some(section));
        }
        section.set(
            "cpus",
            i64::from(self.count("DOMU_VCPUS", index).unwrap_or(1)),
        );
        match self.text("DOMU_KERNEL", index) {
            Some(kernel) => section.set("kernel", self.path(&kernel)),
            None => {
                let why = format!("NUM_DOMUS counts domain {index}, and it has no kernel");
                self.missing("DOMU_KERNEL", index, &why);
            }
        }
        if let Some(ramdisk) = self.text("DOMU_RAMDISK", index) {
            section.set("ramdisk", self.path(&ramdisk));
        }
        let uart = self.flag("DOMU_VPL011", index).unwrap_or(true);
        match self.text("DOMU_CMD", index) {
            Some(line) => section.set("cmdline", line),
            None if uart => section.set("cmdline", DOMU_CMD),
            None => {}
        }
        if uart {
            section.set("vpl011", true);
        }
        self.devices(index, section);
        if let Some(frames) = self.count("DOMU_GRANT_FRAMES", index) {
            section.set("max-grant-frames", i64::from(frames));
        }
        if self.flag("DOMU_ENHANCED", index) == Some(false) {
            let why = "every domain of Terrane's has the interfaces of Xen";
            self.leave("DOMU_ENHANCED", index, why, Some(section));
        }
        true
    }

    /// What is passed through: by its paths, else by the partial tree.
    fn devices(&mut self, index: u32, section: &mut Section) {
        if let Some(paths) = self.text("DOMU_PASSTHROUGH_PATHS", index) {
            section.set_list("devices", paths.split_ascii_whitespace());
            if self.config.get("DOMU_PASSTHROUGH_DTB", index).is_some() {
                let why = "ImageBuilder doesn't read it beside DOMU_PASSTHROUGH_PATHS";
                self.leave("DOMU_PASSTHROUGH_DTB", index, why, Some(section));
            }
            return;
        }
        if let Some(partial) = self.text("DOMU_PASSTHROUGH_DTB", index) {
            section.set("dtb", self.path(&partial));
        }
    }

    /// Pairs of an address and a size.
    fn static_memory(&mut self, index: u32) -> Vec<(u64, u64)> {
        const NAME: &str = "DOMU_STATIC_MEM";
        let Some(text) = self.text(NAME, index) else {
            return Vec::new();
        };
        let numbers: Option<Vec<u64>> = text.split_ascii_whitespace().map(number).collect();
        let numbers = numbers.filter(|numbers| numbers.len().is_multiple_of(2));
        let Some(numbers) = numbers else {
            self.invalid(NAME, index, "it is a list of pairs: an address, a size");
            return Vec::new();
        };
        numbers
            .chunks_exact(2)
            .filter_map(|pair| Some((*pair.first()?, *pair.last()?)))
            .collect()
    }

    /// Says of every variable that isn't translated that it is left out.
    fn leave_out(&mut self, guests: &mut [Section]) {
        let keys: Vec<(String, u32)> = self.config.variables.keys().cloned().collect();
        for (name, index) in keys {
            let place = usize::try_from(index).unwrap_or(usize::MAX);
            let of_domain = words::is_of_domain(&name);
            let section = guests.get_mut(place).filter(|_| of_domain);
            match words::fate(&name) {
                Some(_) if of_domain && section.is_none() => {
                    let why =
                        "NUM_DOMUS doesn't count this domain, and ImageBuilder doesn't load it";
                    self.unread(&name, index, why, "raise NUM_DOMUS if it is meant", None);
                }
                Some(Fate::Translated) => {}
                Some(Fate::Script) => {
                    if let Some(variable) = self.config.get(&name, index) {
                        let text = self.quoted(variable);
                        let line = self.config.line(variable);
                        self.head.push((line, document::comment(&text)));
                    }
                }
                Some(Fate::NoWord(why)) => self.leave(&name, index, why, section),
                None => {
                    let help = words::nearest(&name)
                        .map(|near| format!("the nearest that it reads is {near}"));
                    let why = "ImageBuilder has no such variable";
                    self.unread(&name, index, why, &help.unwrap_or_default(), section);
                }
            }
        }
    }

    /// A warning and a comment: there is no word for this variable.
    fn leave(&mut self, name: &str, index: u32, why: &str, section: Option<&mut Section>) {
        self.aside(Code::NoWord, name, index, why, "", section);
    }

    fn unread(
        &mut self,
        name: &str,
        index: u32,
        why: &str,
        help: &str,
        section: Option<&mut Section>,
    ) {
        self.aside(Code::Unread, name, index, why, help, section);
    }

    fn aside(
        &mut self,
        code: Code,
        name: &str,
        index: u32,
        why: &str,
        help: &str,
        section: Option<&mut Section>,
    ) {
        let Some(variable) = self.config.variables.get(&(name.to_owned(), index)) else {
            return;
        };
        let text = format!("{}: {why}", self.quoted(variable));
        let (span, label) = (variable.span.clone(), label(variable));
        let line = self.config.line(variable);
        match section {
            Some(section) => section.comment(&text),
            None => self.head.push((line, document::comment(&text))),
        }
        let why = format!("`{label}` is kept as a comment: {why}");
        self.config
            .find(code, Severity::Warning, span, "here", why, help);
    }

    /// The variable with its line, for a comment.
    fn quoted(&self, variable: &Assignment) -> String {
        let line = self.config.line(variable);
        format!("line {line}: {}={:?}", label(variable), variable.value)
    }

    fn text(&self, name: &str, index: u32) -> Option<String> {
        self.config
            .get(name, index)
            .map(|variable| variable.value.clone())
    }

    /// A path as the manifest names it.
    fn path(&self, path: &str) -> String {
        // An absolute one stays as it is.
        self.reading
            .folder
            .join(Path::new(path))
            .to_string_lossy()
            .into_owned()
    }

    fn number(&mut self, name: &str, index: u32) -> Option<u64> {
        let text = self.text(name, index)?;
        let number = number(&text);
        if number.is_none() {
            self.invalid(name, index, "it is a number, in decimal or behind 0x");
        }
        number
    }

    fn count(&mut self, name: &str, index: u32) -> Option<u32> {
        let number = self.number(name, index)?;
        let count = u32::try_from(number).ok();
        if count.is_none() {
            self.invalid(name, index, "it is a number below 2^32");
        }
        count
    }

    fn mebibytes(&mut self, name: &str, index: u32) -> Option<u64> {
        let number = self.number(name, index)?;
        let bytes = number.checked_mul(MIB);
        if bytes.is_none() {
            self.invalid(
                name,
                index,
                "it is a number of MiB, and this passes 2^64 bytes",
            );
        }
        bytes
    }

    fn flag(&mut self, name: &str, index: u32) -> Option<bool> {
        match self.text(name, index)?.as_str() {
            "1" => Some(true),
            "0" => Some(false),
            _ => {
                self.invalid(name, index, "it is 1 or 0");
                None
            }
        }
    }

    fn invalid(&mut self, name: &str, index: u32, why: impl Into<String>) {
        let Some(variable) = self.config.variables.get(&(name.to_owned(), index)) else {
            return;
        };
        let (span, what) = (variable.span.clone(), label(variable));
        self.config
            .find(Code::Invalid, Severity::Error, span, what, why, "");
    }

    fn missing(&mut self, name: &str, index: u32, why: &str) {
        let key = (name.to_owned(), index);
        if self.config.unread.contains(&key) {
            return;
        }
        let what = match words::is_list(name) {
            true => format!("no {name}[{index}]"),
            false => format!("no {name}"),
        };
        self.config
            .find(Code::Missing, Severity::Error, 0..0, what, why, "");
    }
}

/// What Xen's command line says of dom0.
#[derive(Default)]
struct XenWords {
    /// Whether there is one.
    given: bool,
    memory: Option<u64>,
    cpus: Option<u32>,
}

/// A number as the shell's arithmetic takes it: an octal one isn't guessed at.
fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    let octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    if octal || digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Whether a host's tree names memory; `None` if it is no tree.
fn names_ram(blob: &[u8]) -> Option<bool> {
    let tree = Tree::read(blob).ok()?;
    let nowhere = MachineRange::saturating(MachineAddress::new(0), 0);
    let facts = BootFacts {
        hypervisor: nowhere,
        host_tree: nowhere,
        container: None,
    };
    let host = host::read(&tree, &facts, None, &mut Origins::new());
    Some(!host.map.ram.is_empty())
}

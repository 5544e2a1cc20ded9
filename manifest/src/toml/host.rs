//! `[host]` and `[hypervisor]`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use layout::{
    Code, HypervisorRequest, Located, MachineAddress, MachineRange, Origin, RamBank, Reservation,
    Reserved, StaticRange,
};
use toml::de::DeTable;

use super::reader::{Reader, Value, one_of, value};

/// What `[host]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// The machine.
    pub source: HostSource,
    /// RAM that the boot loader fills in.
    pub memory: Vec<RamBank>,
    /// RAM that nobody gets.
    pub reserved: Vec<Reserved>,
}

/// What describes the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSource {
    /// QEMU, which is asked for the description.
    Qemu(Box<QemuSpec>),
    /// A file: a device tree. Relative to the working directory.
    Description(Located<PathBuf>),
}

/// A machine of QEMU's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSpec {
    /// `-machine`.
    pub machine: String,
    /// The architecture: "aarch64" or "x86_64".
    pub arch: String,
    /// `-cpu`.
    pub cpu: String,
    /// `-smp`, at least 1.
    pub cpus: u32,
    /// `-m`, in bytes.
    pub memory: u64,
    /// More arguments.
    pub args: Vec<String>,
    /// Where the table stands.
    pub origin: Origin,
}

const HOST_KEYS: [&str; 4] = ["description", "qemu", "memory", "reserved"];
const QEMU_KEYS: [&str; 6] = ["machine", "arch", "cpu", "cpus", "memory", "args"];
const HYPERVISOR_KEYS: [&str; 4] = ["console", "on-conflict", "print-plan", "scrub"];

/// What describes a machine, in the words of a help.
const SOURCES: &str = "description = \"FILE\", a device tree or a capture, or \
    qemu = { machine = \"virt,gic-version=3\", arch = \"aarch64\", cpu = \"cortex-a57\", memory = \"2GiB\" }";

/// Architectures that are there.
const ARCHITECTURES: [&str; 3] = ["aarch64", "x86_64", "riscv64"];

impl Reader<'_> {
    pub(super) fn host(&mut self, document: &DeTable<'_>, folder: &Path) -> Option<HostSpec> {
        let Some(host) = value(document, "host") else {
            let why = "a manifest describes one machine, and this one has no [host]";
            let help = format!("add [host] with {SOURCES}");
            self.problem(Code::KeyMissing, 0..0, "no [host]", why, help);
            return None;
        };
        let table = self.table(&host)?;
        self.check_keys(table, &HOST_KEYS, "[host]");
        let source = match (value(table, "qemu"), value(table, "description")) {
            (Some(qemu), None) => self.table(&qemu).and_then(|table| {
                let origin = self.origin(qemu.span());
                self.qemu(table, origin, qemu.span())
            }),
            (None, Some(file)) => self.text(&file).map(|path| {
                let path = self.located(folder.join(path), &file);
                HostSource::Description(path)
            }),
            (None, None) => {
                let why = "[host] has exactly one of `qemu` and `description`";
                let help = format!("add {SOURCES}");
                self.problem(Code::KeyMissing, host.span(), "neither is here", why, help);
                None
            }
            (Some(qemu), Some(file)) => {
                let why = "[host] has exactly one of `qemu` and `description`";
                let help = "leave one out: `qemu` or `description`";
                let one = |value: Value<'_>| (value.span(), format!("`{}`", value.key));
                self.clash(Code::ValueInvalid, [one(qemu), one(file)], why, help);
                None
            }
        };
        let memory = match (&source, value(table, "qemu"), value(table, "memory")) {
            (Some(HostSource::Qemu(_)), Some(qemu), Some(memory)) => {
                self.memory_beside_qemu(memory, qemu);
                None
            }
            (.., memory) => memory,
        };
        let memory = memory.map(|list| {
            self.ranges(&list, &[], |reader, said, _| {
                let range = reader.machine_range(&said)?;
                Some(RamBank {
                    range,
                    node: None,
                    origin: said.origin,
                })
            })
        });
        let reserved = value(table, "reserved").map(|list| {
            self.ranges(&list, &["name"], |reader, said, table| {
                let name = value(table, "name").and_then(|name| reader.text(&name));
                Some(Reserved {
                    range: reader.machine_range(&said)?,
                    name: name.unwrap_or_else(|| "reserved".to_owned()),
                    kind: Reservation::Kept,
                    origin: said.origin,
                })
            })
        });
        Some(HostSpec {
            source: source?,
            memory: memory.into_iter().flatten().flatten().collect(),
            reserved: reserved.into_iter().flatten().flatten().collect(),
        })
    }

    fn memory_beside_qemu(&mut self, memory: Value<'_>, qemu: Value<'_>) {
        let side = |value: Value<'_>| (value.span(), format!("`{}`", value.key));
        let why = "`memory` is for a board; a QEMU machine has what `qemu` says and no more";
        let help = "leave `memory` out of [host]: `qemu` has a `memory` of its own";
        self.clash(Code::ValueInvalid, [memory, qemu].map(side), why, help);
    }

    fn machine_range(&mut self, said: &StaticRange) -> Option<MachineRange> {
        let range = MachineRange::new(MachineAddress::new(said.start), said.size);
        if range.is_none() {
            let why = "start and size don't belong together: the range ends beyond 2^64";
            let what = format!("{:#x} and {:#x} bytes more", said.start, said.size);
            let most = u64::MAX - said.start;
            let help = format!("size = {most:#x} at most, or leave the item out");
            self.problem_at(Code::ValueInvalid, said.origin, what, why, help);
        }
        range
    }

    fn qemu(
        &mut self,
        table: &DeTable<'_>,
        origin: Origin,
        span: Range<usize>,
    ) -> Option<HostSource> {
        self.check_keys(table, &QEMU_KEYS, "`qemu`");
        let mut text = |key: &str| match value(table, key) {
            Some(value) => self.text(&value),
            None => {
                self.missing(
                    key,
                    span.clone(),
                    "`qemu` has machine, arch, cpu and memory",
                );
                None
            }
        };
        let (machine, arch, cpu) = (text("machine"), text("arch"), text("cpu"));
        let memory = match value(table, "memory") {
            Some(value) => self.number(&value),
            None => {
                self.missing("memory", span, "`qemu` has machine, arch, cpu and memory");
                None
            }
        };
        let cpus = match value(table, "cpus") {
            Some(value) => self.count(&value),
            None => Some(1),
        };
        let args = value(table, "args")
            .map(|args| self.texts(&args))
            .unwrap_or_default();
        if let (Some(arch), Some(value)) = (&arch, value(table, "arch")) {
            self.check_architecture(arch, value.span());
        }
        Some(HostSource::Qemu(Box::new(QemuSpec {
            machine: machine?,
            arch: arch?,
            cpu: cpu?,
            cpus: cpus?,
            memory: memory?,
            args,
            origin,
        })))
    }

    fn check_architecture(&mut self, arch: &str, span: Range<usize>) {
        if !ARCHITECTURES.contains(&arch) {
            let why = format!("there is no architecture \"{arch}\"");
            let help = one_of(arch, ARCHITECTURES.into_iter());
            self.problem(Code::ValueInvalid, span, "not known", why, help);
        }
    }

    pub(super) fn hypervisor(&mut self, document: &DeTable<'_>) -> HypervisorRequest {
        let mut request = HypervisorRequest::default();
        let Some(table) = value(document, "hypervisor").and_then(|value| self.table(&value)) else {
            return request;
        };
        self.check_keys(table, &HYPERVISOR_KEYS, "[hypervisor]");
        if let Some(console) = value(table, "console") {
            request.console = self.text(&console).map(|path| self.located(path, &console));
        }
        if let Some(choice) = value(table, "on-conflict").and_then(|value| self.word(&value)) {
            request.on_conflict = choice;
        }
        if let Some(print) = value(table, "print-plan").and_then(|value| self.flag(&value)) {
            request.print_plan = print;
        }
        if let Some(scrub) = value(table, "scrub").and_then(|value| self.word(&value)) {
            request.scrub = scrub;
        }
        request
    }
}

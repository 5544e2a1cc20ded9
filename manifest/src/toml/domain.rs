//! `[[domain]]`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use layout::{
    Capabilities, Code, DeviceRequest, DomainRequest, Limits, Located, MemoryRequest, OnStop,
    Policies,
};
use toml::de::DeTable;

use super::mend;
use super::reader::{Reader, Value, one_of, value};

/// The files that a domain names; relative to the working directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainFiles {
    /// The kernel.
    pub kernel: Option<Located<PathBuf>>,
    /// The ramdisk.
    pub ramdisk: Option<Located<PathBuf>>,
    /// The partial device tree.
    pub partial_tree: Option<Located<PathBuf>>,
}

const KEYS: [&str; 24] = [
    "name",
    "kind",
    "capabilities",
    "cpus",
    "affinity",
    "memory",
    "direct-map",
    "static-mem",
    "memory-below",
    "kernel",
    "ramdisk",
    "cmdline",
    "dtb",
    "devices",
    "allow-dma-without-iommu",
    "shared-memory",
    "event-channels",
    "vpl011",
    "max-event-channels",
    "max-grant-frames",
    "on-stray-access",
    "on-poweroff",
    "on-reboot",
    "on-crash",
];

impl Reader<'_> {
    /// Reads one domain; `span` is its table's.
    pub(super) fn domain(
        &mut self,
        table: &DeTable<'_>,
        span: Range<usize>,
        folder: &Path,
    ) -> (DomainRequest, DomainFiles) {
        self.check_keys(table, &KEYS, "[[domain]]");
        let policies = self.policies(table);
        let mut domain = DomainRequest {
            name: self.name(table, span),
            cpus: Located::from(1),
            policies,
            keep_modules: [policies.on_poweroff, policies.on_reboot, policies.on_crash]
                .contains(&OnStop::Restart),
            limits: self.limits(table),
            shared_memory: self.shared_memory(table),
            event_channels: self.event_channels(table),
            ..DomainRequest::default()
        };
        self.identity(table, &mut domain);
        self.memory(table, &mut domain);
        if let Some(cmdline) = value(table, "cmdline").and_then(|value| self.text(&value)) {
            domain.command_line = cmdline;
        }
        if let Some(list) = value(table, "devices") {
            domain.devices = self
                .list(&list)
                .iter()
                .filter_map(|item| self.device(item))
                .collect();
        }
        let mut flag = |key: &str| {
            value(table, key)
                .and_then(|value| self.flag(&value))
                .unwrap_or_default()
        };
        domain.allow_dma_without_iommu = flag("allow-dma-without-iommu");
        domain.vpl011 = flag("vpl011");
        let mut file = |key: &str| {
            let value = value(table, key)?;
            let path = self.text(&value)?;
            Some(self.located(folder.join(path), &value))
        };
        let files = DomainFiles {
            kernel: file("kernel"),
            ramdisk: file("ramdisk"),
            partial_tree: file("dtb"),
        };
        (domain, files)
    }

    fn name(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Located<String> {
        // A tree's node always has a name, so that the planner wouldn't say it.
        let why = "logs and commands name a domain by its name, and it has none";
        let instead = format!("name = \"domain{}\"", self.domain.unwrap_or_default());
        let Some(name) = value(table, "name") else {
            let help = format!("add `{instead}`");
            self.problem(Code::NameEmpty, span.clone(), "no `name`", why, help);
            return Located::new(String::new(), self.origin(span));
        };
        let text = self.text(&name).unwrap_or_default();
        if name.as_text() == Some("") {
            let help = format!("write `{instead}`");
            self.problem(Code::NameEmpty, name.span(), "an empty name", why, help);
        }
        // It stands in front of console lines and in names of log files.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !text.chars().all(plain) || text == "terrane" {
            let why = format!("\"{text}\" can't be a domain's name");
            let help = format!(
                "write \"{}\": a name has letters, digits, '-', '_' and '.', and \"terrane\" is the hypervisor's",
                mend::plain_name(&text)
            );
            self.problem(Code::ValueInvalid, name.span(), "this name", why, help);
        }
        self.located(text, &name)
    }

    fn identity(&mut self, table: &DeTable<'_>, domain: &mut DomainRequest) {
        if let Some(at) = value(table, "kind") {
            domain.kind = self.word(&at).map(|kind| self.located(kind, &at));
        }
        if let Some(at) = value(table, "direct-map") {
            domain.direct_map = self.flag(&at).map(|direct| self.located(direct, &at));
        }
        if let Some(at) = value(table, "capabilities") {
            let mut held = Capabilities::empty();
            for item in self.list(&at) {
                held |= self.capability(&item);
            }
            domain.capabilities = self.located(held, &at);
        }
        if let Some(at) = value(table, "cpus")
            && let Some(cpus) = self.count(&at)
        {
            domain.cpus = self.located(cpus, &at);
        }
        if let Some(at) = value(table, "affinity") {
            let items = self.list(&at);
            let cpus: Option<Vec<u32>> = items.iter().map(|item| self.count(item)).collect();
            // What can't be read is said; the planner needn't count the rest.
            let cpus = cpus.filter(|_| at.is_list());
            domain.affinity = cpus.map(|cpus| self.located(cpus, &at));
        }
    }

    fn capability(&mut self, item: &Value<'_>) -> Capabilities {
        match self.text(item).as_deref() {
            Some("control") => Capabilities::CONTROL,
            Some("hardware") => Capabilities::HARDWARE,
            Some("xenstore") => Capabilities::XENSTORE,
            Some(other) => {
                let why = format!("there is no capability \"{other}\"");
                let help = one_of(other, ["control", "hardware", "xenstore"].into_iter());
                self.problem(Code::ValueInvalid, item.span(), "not known", why, help);
                Capabilities::empty()
            }
            None => Capabilities::empty(),
        }
    }

    fn memory(&mut self, table: &DeTable<'_>, domain: &mut DomainRequest) {
        if let Some(at) = value(table, "memory") {
            let request = if at.as_text() == Some("rest") {
                Some(MemoryRequest::Rest)
            } else {
                self.number(&at).map(MemoryRequest::Size)
            };
            if let Some(request) = request {
                domain.memory = self.located(request, &at);
            }
        }
        if let Some(at) = value(table, "static-mem") {
            domain.static_mem = self.ranges(&at, &[], |_, range, _| range);
        }
        if let Some(at) = value(table, "memory-below") {
            domain.memory_below = self.number(&at).map(|below| self.located(below, &at));
        }
    }

    fn device(&mut self, item: &Value<'_>) -> Option<DeviceRequest> {
        let origin = self.origin(item.span());
        if !item.is_table() {
            return Some(DeviceRequest {
                path: self.text(item)?,
                dma_mask: None,
                origin,
            });
        }
        let table = self.table(item)?;
        self.check_keys(table, &["path", "dma-mask"], "an item of `devices`");
        let dma_mask = value(table, "dma-mask").and_then(|mask| self.number(&mask));
        let Some(path) = value(table, "path") else {
            let why = "a device is named by its path";
            self.missing("path", item.span(), why);
            return None;
        };
        Some(DeviceRequest {
            path: self.text(&path)?,
            dma_mask,
            origin,
        })
    }

    fn limits(&mut self, table: &DeTable<'_>) -> Limits {
        let default = Limits::default();
        let mut limit = |key: &str, default: u32| {
            value(table, key)
                .and_then(|value| self.count(&value))
                .unwrap_or(default)
        };
        Limits {
            max_event_channels: limit("max-event-channels", default.max_event_channels),
            max_grant_frames: limit("max-grant-frames", default.max_grant_frames),
        }
    }

    fn policies(&mut self, table: &DeTable<'_>) -> Policies {
        let stray = value(table, "on-stray-access").and_then(|value| self.word(&value));
        let mut on = |key: &str| {
            value(table, key)
                .and_then(|value| self.word::<OnStop>(&value))
                .unwrap_or_default()
        };
        Policies {
            on_poweroff: on("on-poweroff"),
            on_reboot: on("on-reboot"),
            on_crash: on("on-crash"),
            on_stray_access: stray.unwrap_or_default(),
        }
    }
}

//! A plan as it is read back from its JSON: the keys that two plans are compared by.
//!
//! Keys that a newer program adds are passed over; docs/json.md has them all.

use serde::{Deserialize, Deserializer};

/// A plan.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    /// The version of the schema.
    pub version: u32,
    /// The machine's architecture.
    pub architecture: String,
    /// The hypervisor's part.
    pub hypervisor: Hypervisor,
    /// The domains.
    pub domains: Vec<Domain>,
    /// RAM that is kept for a restart.
    pub kept: Vec<Range>,
    /// RAM that is reserved.
    pub reserved: Vec<Range>,
    /// RAM that is nobody's.
    pub unowned: Vec<Range>,
}

/// The hypervisor's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hypervisor {
    /// All of its memory.
    pub region: Range,
    /// What a conflict at boot leads to.
    pub on_conflict: String,
    /// Whether the machine prints its plan.
    pub print_plan: bool,
    /// Which frames are cleared.
    pub scrub: String,
}

/// Machine addresses.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    #[serde(deserialize_with = "hexadecimal")]
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// The byte behind the last.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// A domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Domain {
    /// Its ID.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// How it is virtualised.
    pub kind: String,
    /// Its roles.
    pub capabilities: Vec<String>,
    /// Whether it is direct-mapped.
    pub direct_map: bool,
    /// The host's CPU of each vCPU.
    pub cpus: Vec<u32>,
    /// Its RAM.
    pub memory: Vec<Bank>,
    /// Its kernel.
    pub kernel: Option<Placement>,
    /// Its ramdisk.
    pub ramdisk: Option<Placement>,
    /// Its device tree.
    pub device_tree: Option<Placement>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its kernel's command line.
    pub cmdline: String,
    /// Everything else, compared word by word.
    #[serde(flatten)]
    pub rest: std::collections::BTreeMap<String, serde_json::Value>,
}

/// RAM of a domain.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Bank {
    /// Where the domain sees it.
    #[serde(deserialize_with = "hexadecimal")]
    pub address: u64,
    /// Where it is.
    #[serde(deserialize_with = "hexadecimal")]
    pub machine: u64,
    /// Bytes.
    pub size: u64,
    /// Whether the host's tree reserves it.
    #[serde(default)]
    pub reserved: bool,
}

/// Where something lies in a domain's memory.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Placement {
    /// The domain's address.
    #[serde(deserialize_with = "hexadecimal")]
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// A device.
#[derive(Clone, Debug, Deserialize)]
pub struct Device {
    /// Its path.
    pub path: String,
    /// Its registers.
    pub ranges: Vec<Range>,
    /// Its interrupts.
    pub interrupts: Vec<u32>,
    /// The highest address that its DMA reaches.
    pub dma: Option<String>,
}

fn hexadecimal<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16).map_err(serde::de::Error::custom)
}

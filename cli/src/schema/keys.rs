//! The manifest's keys as the schema has them. An editor shows the comments here.
#![expect(
    dead_code,
    reason = "the fields are there for what is derived from them"
)]

use std::borrow::Cow;
use std::marker::PhantomData;

use layout::{Kind, OnConflict, OnStop, OnStrayAccess, Scrub, ShareRole};
use manifest::tree::system::words::Word;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A Terrane manifest: one machine and its domains.
#[derive(JsonSchema)]
#[schemars(
    rename_all = "kebab-case",
    deny_unknown_fields,
    title = "Terrane manifest"
)]
pub(super) struct Manifest {
    /// The version of the keys.
    #[schemars(extend("const" = manifest::toml::VERSION))]
    manifest_version: Count,
    host: Host,
    hypervisor: Option<Hypervisor>,
    /// The domains, in the order in which they are started; at least one.
    #[schemars(length(min = 1))]
    domain: Vec<Domain>,
}

/// The machine: exactly one of `qemu` and `description`.
#[derive(JsonSchema)]
#[schemars(
    rename_all = "kebab-case",
    deny_unknown_fields,
    extend("oneOf" = [{"required": ["qemu"]}, {"required": ["description"]}]),
    extend("not" = {"required": ["qemu", "memory"]})
)]
struct Host {
    /// A board's device tree, or a capture from `terrane host capture`. A relative path counts from
    /// the manifest's folder.
    description: Option<String>,
    qemu: Option<Qemu>,
    /// RAM of a board whose boot loader fills it in; not beside `qemu`.
    memory: Option<Vec<Range>>,
    /// Memory that no domain gets: firmware, crash logs.
    reserved: Option<Vec<NamedRange>>,
}

/// A QEMU machine. What the hypervisor needs is added.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Qemu {
    /// `-machine`, such as "virt,gic-version=3" or "q35".
    machine: String,
    /// The architecture.
    #[schemars(extend("enum" = ["aarch64", "x86_64", "riscv64"]))]
    arch: String,
    /// `-cpu`.
    cpu: String,
    /// `-smp`; 1 if left out.
    cpus: Option<Count>,
    /// `-m`.
    memory: Number,
    /// More arguments for QEMU.
    args: Option<Vec<String>>,
}

/// A range of machine addresses.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Range {
    /// Its first address.
    start: Number,
    /// Its size.
    size: Number,
}

/// A range of machine addresses with a name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NamedRange {
    /// Its first address.
    start: Number,
    /// Its size.
    size: Number,
    /// What it is.
    name: Option<String>,
}

/// The hypervisor.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Hypervisor {
    /// Path or alias of its UART. If left out: the tree's `stdout-path`, a PC's "com1".
    console: Option<String>,
    /// What a conflict at boot leads to: nothing is started, or only what can be started safely.
    on_conflict: Option<Choice<OnConflict>>,
    /// Print the plan as JSON on the console, between two marker lines.
    print_plan: Option<bool>,
    /// Which frames are cleared. One that held another domain always is.
    scrub: Option<Choice<Scrub>>,
}

/// A domain.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Domain {
    /// Its name, unique; "terrane" is the hypervisor's.
    #[schemars(extend("pattern" = "^[A-Za-z0-9._-]*$", "not" = {"const": "terrane"}))]
    name: Option<String>,
    /// What kind of domain it is on x86; other architectures have one kind.
    kind: Option<Choice<Kind>>,
    /// What it may do. At most one domain has "hardware".
    #[schemars(extend("items" = {"enum": ["control", "hardware", "xenstore"]}))]
    capabilities: Option<Vec<String>>,
    /// vCPUs, each pinned to a CPU; 1 if left out.
    cpus: Option<Count>,
    /// The CPU of each vCPU; free ones in their order if left out.
    affinity: Option<Vec<Count>>,
    /// Its size, or "rest" for one domain. May be left out beside `static-mem`, else equal to its sum.
    memory: Option<NumberOrRest>,
    /// Guest addresses are machine addresses. If left out: true for a hardware domain.
    direct_map: Option<bool>,
    /// Its machine ranges; without it the planner chooses.
    static_mem: Option<Vec<Range>>,
    /// All of its memory lies under this address.
    memory_below: Option<Number>,
    /// Its kernel: arm64 Image, bzImage or an ELF file with a PVH note, packed or not.
    kernel: Option<String>,
    /// Its ramdisk.
    ramdisk: Option<String>,
    /// Its kernel's command line.
    cmdline: Option<String>,
    /// A partial device tree for it, as Xen takes it.
    dtb: Option<String>,
    /// Devices that are passed through: paths in the host's description. The hardware domain has the
    /// rest.
    devices: Option<Vec<Device>>,
    /// Lets it have devices that do DMA without an IOMMU; the plan then says what they reach.
    allow_dma_without_iommu: Option<bool>,
    /// Memory that it shares with other domains. Not built yet.
    shared_memory: Option<Vec<SharedMemory>>,
    /// Event channels that are there from the start. Not built yet.
    event_channels: Option<Vec<EventChannel>>,
    /// A virtual UART for a guest without Xen support; arm64.
    vpl011: Option<bool>,
    /// 1 to 4095; 1023 if left out.
    max_event_channels: Option<Count>,
    /// 1 to 256; 64 if left out.
    max_grant_frames: Option<Count>,
    /// What an access does to an address that nobody gave it.
    on_stray_access: Option<Choice<OnStrayAccess>>,
    /// What follows when it powers off.
    on_poweroff: Option<Choice<OnStop>>,
    /// What follows when it reboots.
    on_reboot: Option<Choice<OnStop>>,
    /// What follows when it crashes.
    on_crash: Option<Choice<OnStop>>,
}

/// A device: its path, or its path with what is known of its DMA.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Device {
    Path(String),
    Table(DeviceTable),
}

/// A device with what is known of its DMA.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct DeviceTable {
    /// Its path in the host's description.
    path: String,
    /// The highest address that its DMA reaches.
    dma_mask: Option<Number>,
}

/// Memory that domains share.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct SharedMemory {
    /// The same for all who share it.
    id: String,
    /// Its size.
    size: Number,
    /// Whether it has the memory, or uses another's.
    role: Choice<ShareRole>,
    /// Its machine address.
    start: Option<Number>,
    /// Where the domain sees it.
    address: Number,
    /// The domain can't write to it.
    read_only: Option<bool>,
}

/// An event channel between two domains.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct EventChannel {
    /// The port here.
    port: Count,
    /// The other domain's name.
    peer: String,
    /// The port there.
    peer_port: Count,
}

/// Digits as the reader takes them in a string: decimal or hexadecimal, with a unit or without.
const DIGITS: &str =
    "(0x[0-9a-fA-F]([0-9a-fA-F_]*[0-9a-fA-F])?|[0-9]([0-9_]*[0-9])?)\\s*(KiB|MiB|GiB|TiB)?";

/// A size or an address.
struct Number;

impl JsonSchema for Number {
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size or an address: an integer, or a string such as \"256MiB\".",
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": format!("^{DIGITS}$"),
        })
    }
}

/// A size, or the word "rest".
struct NumberOrRest;

impl JsonSchema for NumberOrRest {
    fn schema_name() -> Cow<'static, str> {
        "NumberOrRest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size, or \"rest\".",
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": format!("^(rest|{DIGITS})$"),
        })
    }
}

/// A count.
struct Count;

impl JsonSchema for Count {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
    }
}

/// One of the words that the reader knows for a choice.
struct Choice<W>(PhantomData<W>);

impl<W: Word> JsonSchema for Choice<W> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({"type": "string", "enum": words})
    }
}

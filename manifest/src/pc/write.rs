//! A PC's description as one line of JSON.

use alloc::format;
use alloc::string::String;

use super::{Bridge, Description, Ecam, Function, IoApic, Iommu, Memory, VERSION};
use crate::json::Json;

/// The description as JSON, without a line feed. The same description gives the same bytes.
#[must_use]
pub fn write(pc: &Description) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.number("version", VERSION.into());
        json.string("architecture", "x86_64");
        json.list("memory", &pc.memory, |json, memory| {
            self::memory(json, memory)
        });
        json.list("cpus", &pc.cpus, |json, apic_id| {
            json.plain((*apic_id).into())
        });
        json.address("local-apic", pc.local_apic);
        json.list("io-apics", &pc.io_apics, io_apic);
        json.list("ecam", &pc.ecam, ecam);
        json.list("iommus", &pc.iommus, iommu);
        json.list("functions", &pc.functions, function);
        if !pc.bridges.is_empty() {
            json.list("bridges", &pc.bridges, bridge);
        }
        if !pc.memory_nodes.is_empty() {
            json.list("memory-nodes", &pc.memory_nodes, |json, memory| {
                json.object(|json| {
                    json.address("start", memory.range.start().raw());
                    json.number("size", memory.range.size());
                    json.number("node", memory.node.into());
                });
            });
        }
        if !pc.cpu_nodes.is_empty() {
            json.list("cpu-nodes", &pc.cpu_nodes, |json, cpu| {
                json.object(|json| {
                    json.number("cpu", cpu.cpu.into());
                    json.number("node", cpu.node.into());
                });
            });
        }
        json.key("console");
        json.optional(pc.console, |json, port| json.quoted(&format!("{port:#x}")));
        json.key("tsc-khz");
        json.optional(pc.tsc_khz, Json::plain);
        json.number("address-bits", pc.address_bits.into());
    });
    json.into_text()
}

fn memory(json: &mut Json, memory: &Memory) {
    json.object(|json| {
        json.address("start", memory.range.start().raw());
        json.number("size", memory.range.size());
        json.string("kind", memory.kind.word());
    });
}

fn io_apic(json: &mut Json, chip: &IoApic) {
    json.object(|json| {
        json.number("id", chip.id.into());
        json.address("address", chip.address);
        json.number("first-interrupt", chip.first_interrupt.into());
        json.number("pins", chip.pins.into());
    });
}

fn ecam(json: &mut Json, ecam: &Ecam) {
    json.object(|json| {
        json.address("base", ecam.base);
        json.number("segment", ecam.segment.into());
        json.number("first-bus", ecam.first_bus.into());
        json.number("last-bus", ecam.last_bus.into());
    });
}

fn iommu(json: &mut Json, iommu: &Iommu) {
    json.object(|json| {
        json.string("path", &iommu.path);
        json.string("kind", iommu.kind.word());
        json.address("start", iommu.range.start().raw());
        json.number("size", iommu.range.size());
    });
}

fn function(json: &mut Json, function: &Function) {
    json.object(|json| {
        json.string("address", &format!("{}", function.address));
        json.address("vendor", function.vendor.into());
        json.address("device", function.device.into());
        json.address("class", function.class.into());
        json.list("bars", &function.bars, Json::range);
        json.flag("behind-iommu", function.behind_iommu);
        if function.isolated {
            json.flag("isolated", true);
        }
    });
}

fn bridge(json: &mut Json, bridge: &Bridge) {
    json.object(|json| {
        json.string("address", &format!("{}", bridge.address));
        json.number("secondary", bridge.secondary.into());
        json.number("subordinate", bridge.subordinate.into());
        json.flag("isolates", bridge.isolates);
    });
}

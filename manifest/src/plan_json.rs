//! A plan as one line of JSON: the form that `terrane plan --format json` and the hypervisor's
//! `print-plan` share, and whose digest the container carries.
//!
//! The same plan gives the same bytes. Addresses are strings in hexadecimal, since a JSON number
//! need not hold 64 bits; sizes are numbers, in bytes. The schema is in docs/json.md; `version`
//! counts changes that a reader of an older one would stumble over.

use alloc::string::String;
use core::fmt::Write as _;

use layout::{
    Bank, Capabilities, Dma, DomainPlan, HostDevice, HostMap, HypervisorPlan, Item, Placement,
    Plan, SystemRequest,
};
use sha2::{Digest as _, Sha256};

use crate::json::Json;
use crate::tree::system::words::Word as _;

/// The version of the schema.
pub const VERSION: u32 = 1;

/// The plan as JSON, without a line feed. `host` and `request` are what it was made from.
#[must_use]
pub fn plan_json(plan: &Plan, host: &HostMap, request: &SystemRequest) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.number("version", VERSION.into());
        json.string("architecture", plan.architecture.as_str());
        json.key("hypervisor");
        json.object(|json| hypervisor(json, &plan.hypervisor));
        json.list("domains", &plan.domains, |json, domain| {
            json.object(|json| self::domain(json, domain, host, request));
        });
        json.list("copies", &plan.copies, |json, copy| {
            json.object(|json| {
                let owner = plan.domains.get(copy.domain);
                json.string("domain", owner.map_or("", |domain| domain.name.as_str()));
                let item = match copy.item {
                    Item::Kernel => "kernel",
                    Item::Ramdisk => "ramdisk",
                };
                json.string("item", item);
                json.key("source");
                json.range(&copy.source);
                json.list("destination", &copy.destination, Json::range);
            });
        });
        json.list("clear", &plan.clear, Json::range);
        json.list("kept", &plan.kept, Json::frames);
        json.list("reserved", &plan.reserved, Json::frames);
        json.list("unowned", &plan.unowned, Json::frames);
    });
    json.into_text()
}

/// The SHA-256 of a plan's JSON, as 64 hexadecimal digits.
#[must_use]
pub fn digest(json: &str) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(json.as_bytes()) {
        // Writing to a string can't fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn hypervisor(json: &mut Json, plan: &HypervisorPlan) {
    json.key("region");
    json.frames(&plan.region);
    json.key("image");
    json.frames(&plan.image);
    json.flag("in-place", plan.in_place);
    json.list("heap", &plan.heap, Json::frames);
    json.string("on-conflict", plan.on_conflict.word());
    json.flag("print-plan", plan.print_plan);
    json.string("scrub", plan.scrub.word());
}

/// The highest address that a device's DMA reaches where this domain drives it: what the manifest says, else
/// the host's description. `None` if it does none.
#[must_use]
pub fn dma_mask(device: &HostDevice, domain: &DomainPlan, request: &SystemRequest) -> Option<u64> {
    let asked = request.domains.get(domain.index);
    let asked = asked.and_then(|asked| asked.dma_mask(&device.path));
    match (asked, device.dma) {
        (Some(mask), _) | (None, Dma::Possible { mask }) => Some(mask),
        (None, Dma::None) => None,
    }
}

fn domain(json: &mut Json, domain: &DomainPlan, host: &HostMap, request: &SystemRequest) {
    json.number("id", domain.id.into());
    json.string("name", &domain.name);
    json.string("kind", domain.identity.kind.word());
    let names = [
        (Capabilities::CONTROL, "control"),
        (Capabilities::HARDWARE, "hardware"),
        (Capabilities::XENSTORE, "xenstore"),
    ];
    let held = names
        .iter()
        .filter(|(one, _)| domain.identity.capabilities.contains(*one));
    json.list("capabilities", held, |json, (_, name)| json.quoted(name));
    json.flag("direct-map", domain.identity.is_direct_mapped());
    json.flag("host-layout", domain.identity.uses_host_layout());
    json.list("cpus", &domain.cpus, |json, cpu| json.plain((*cpu).into()));
    json.list("memory", &domain.banks, bank);
    placement(json, "kernel", Some(&domain.kernel));
    if let Some(entry) = domain.entry {
        json.address("entry", entry.raw());
    }
    placement(json, "ramdisk", domain.ramdisk.as_ref());
    json.key("device-tree");
    json.object(|json| {
        json.address("address", domain.tree.start().raw());
        json.number("size", domain.tree.size());
    });
    json.key("partial-tree");
    json.optional(domain.partial_tree.as_ref(), Json::range);
    let devices = domain
        .devices
        .iter()
        .filter_map(|index| host.devices.get(*index));
    json.list("devices", devices, |json, one| {
        device(json, one, dma_mask(one, domain, request));
    });
    json.string("cmdline", &domain.command_line);
    json.flag("vpl011", domain.vpl011);
    json.number(
        "max-event-channels",
        domain.limits.max_event_channels.into(),
    );
    json.number("max-grant-frames", domain.limits.max_grant_frames.into());
    let policies = &domain.policies;
    json.string("on-stray-access", policies.on_stray_access.word());
    json.string("on-poweroff", policies.on_poweroff.word());
    json.string("on-reboot", policies.on_reboot.word());
    json.string("on-crash", policies.on_crash.word());
    json.key("pool");
    json.frames(&domain.pool);
    json.key("tables");
    json.frames(&domain.tables);
}

fn bank(json: &mut Json, bank: &Bank) {
    json.object(|json| {
        json.address("address", bank.gfn.address().raw());
        json.address("machine", bank.mfn.address().raw());
        json.number("size", bank.bytes());
        if bank.reserved {
            json.flag("reserved", true);
        }
    });
}

fn placement(json: &mut Json, key: &str, placement: Option<&Placement>) {
    json.key(key);
    json.optional(placement, |json, placement| {
        json.object(|json| {
            json.address("address", placement.address.raw());
            json.number("size", placement.size);
            json.key("source");
            json.range(&placement.source);
            json.flag("in-place", placement.in_place);
        });
    });
}

fn device(json: &mut Json, device: &HostDevice, dma: Option<u64>) {
    json.object(|json| {
        json.string("path", &device.path);
        json.list("ranges", &device.ranges, Json::range);
        json.list("interrupts", &device.interrupts, |json, number| {
            json.plain((*number).into())
        });
        // The highest address that its DMA reaches; null if it does none.
        match dma {
            None => json.null("dma"),
            Some(mask) => json.address("dma", mask),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use layout::{
        Architecture, GuestAddress, GuestRange, Identity, Kind, Limits, MachineAddress,
        MachineRange, Mfn, MfnRange, OnConflict, Policies, Scrub,
    };

    fn range(start: u64, size: u64) -> MachineRange {
        MachineRange::saturating(MachineAddress::new(start), size)
    }

    fn frames(start: u64, count: u64) -> MfnRange {
        MfnRange::between(Mfn::new(start), Mfn::new(start + count))
    }

    fn sample() -> (Plan, HostMap) {
        let identity = Identity::new(
            Kind::Pvh,
            Capabilities::CONTROL | Capabilities::HARDWARE,
            None,
        );
        let domain = DomainPlan {
            index: 0,
            id: 0,
            name: "con\"trol\n".into(),
            identity,
            banks: vec![Bank {
                reserved: true,
                gfn: layout::Gfn::new(16),
                mfn: Mfn::new(16),
                frames: 8,
            }],
            pool: frames(2, 1),
            tables: frames(3, 1),
            kernel: Placement {
                address: GuestAddress::new(0x10000),
                size: 4096,
                source: range(0x10000, 100),
                in_place: true,
            },
            entry: None,
            ramdisk: None,
            tree: GuestRange::saturating(GuestAddress::new(0x12000), 4096),
            partial_tree: None,
            cpus: vec![0, 1],
            devices: vec![0],
            limits: Limits::default(),
            policies: Policies::default(),
            command_line: "console=hvc0".into(),
            vpl011: false,
        };
        let device = HostDevice {
            path: "/disk@1000".into(),
            ranges: vec![range(0x1000, 0x200), range(0x1000_0000_0000, 1)],
            interrupts: vec![33, 34],
            dma: Dma::Possible { mask: u64::MAX },
            origin: layout::Origin::NONE,
            ..HostDevice::default()
        };
        let plan = Plan {
            architecture: Architecture::Aarch64,
            hypervisor: HypervisorPlan {
                region: frames(0, 4),
                image: frames(0, 1),
                in_place: true,
                on_conflict: OnConflict::Halt,
                print_plan: true,
                scrub: Scrub::Reused,
                console: None,
                heap: vec![frames(1, 1)],
            },
            domains: vec![domain],
            copies: vec![layout::Copy {
                domain: 0,
                item: Item::Ramdisk,
                source: range(1, 2),
                destination: vec![range(3, 2)],
            }],
            clear: Vec::new(),
            kept: Vec::new(),
            reserved: vec![frames(4, 1), frames(6, 1)],
            unowned: Vec::new(),
        };
        (
            plan,
            HostMap {
                devices: vec![device],
                ..HostMap::default()
            },
        )
    }

    fn request() -> SystemRequest {
        SystemRequest {
            domains: vec![layout::DomainRequest::default()],
            ..SystemRequest::default()
        }
    }

    #[test]
    fn the_manifests_mask_goes_before_the_hosts() {
        let (plan, host) = sample();
        let mut request = request();
        request.domains[0].devices = vec![layout::DeviceRequest {
            path: "/disk@1000".into(),
            dma_mask: Some(0xfff_ffff),
            origin: layout::Origin::NONE,
        }];
        let text = plan_json(&plan, &host, &request);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["domains"][0]["devices"][0]["dma"], "0xfffffff");
    }

    #[test]
    fn it_is_json_on_one_line_with_the_documented_keys() {
        let (plan, host) = sample();
        let text = plan_json(&plan, &host, &request());
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["hypervisor"]["region"]["size"], 16384);
        assert_eq!(value["reserved"][1]["start"], "0x6000");
        assert_eq!(value["copies"][0]["destination"][0]["start"], "0x3");
        let domain = &value["domains"][0];
        assert_eq!(domain["name"], "con\"trol\n");
        assert_eq!(
            domain["capabilities"],
            serde_json::json!(["control", "hardware"])
        );
        assert_eq!(domain["cpus"], serde_json::json!([0, 1]));
        assert_eq!(domain["ramdisk"], serde_json::Value::Null);
        assert_eq!(domain["memory"][0]["address"], "0x10000");
        assert_eq!(domain["memory"][0]["reserved"], true);
        assert_eq!(domain["devices"][0]["ranges"][1]["start"], "0x100000000000");
        assert_eq!(domain["devices"][0]["dma"], "0xffffffffffffffff");
    }

    #[test]
    fn the_digest_follows_the_plan() {
        let (plan, host) = sample();
        let first = digest(&plan_json(&plan, &host, &request()));
        assert_eq!(first.len(), 64);
        assert_eq!(digest(&plan_json(&plan, &host, &request())), first);
        let other = Plan {
            kept: vec![frames(9, 1)],
            ..plan
        };
        assert_ne!(digest(&plan_json(&other, &host, &request())), first);
        // FIPS 180-2, appendix B.1.
        assert!(digest("abc").starts_with("ba7816bf8f01cfea"));
    }
}

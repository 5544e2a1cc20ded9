//! Each manifest in `examples/`, with its board's device tree and stand-ins for the kernels beside it: it has no conflict,
//! and the plan is what its comments say. The trees are Debian's, in the folder that `TERRANE_BOARD_TREES` names.

use common::TESTS;
use serde_json::Value;
use std::path::{Path, PathBuf};

mod common;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A folder with one example and all that it names.
struct Example {
    name: String,
    folder: tempfile::TempDir,
    hypervisor: Option<String>,
}

impl Example {
    /// The example, or `None` without the board's tree.
    fn new(name: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("{EXAMPLES}/{name}.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        if let Some(tree) = manifest["host"].get("description") {
            let tree = tree.as_str().unwrap();
            let Some(path) = board_tree(tree) else {
                eprintln!("skipped: {name}, for want of {tree} in TERRANE_BOARD_TREES");
                return None;
            };
            std::fs::write(folder.path().join(tree), with_psci(&path)).unwrap();
        }
        let (kernel, hypervisor) = match name {
            "qemu-x86_64" => ("kernel.elf", "hypervisor.elf"),
            // There is no hypervisor for it yet.
            "qemu-riscv64" => ("kernel-riscv64", ""),
            _ => ("kernel", "hypervisor.bin"),
        };
        for domain in manifest["domain"].as_array().unwrap() {
            for (key, file) in [("kernel", kernel), ("ramdisk", "ramdisk")] {
                if let Some(name) = domain.get(key) {
                    let to = folder.path().join(name.as_str().unwrap());
                    std::fs::copy(format!("{TESTS}/files/{file}"), to).unwrap();
                }
            }
        }
        std::fs::write(folder.path().join("system.toml"), text).unwrap();
        let hypervisor = (!hypervisor.is_empty()).then(|| format!("{TESTS}/files/{hypervisor}"));
        Some(Self {
            name: name.to_owned(),
            folder,
            hypervisor,
        })
    }

    fn terrane(&self, arguments: &[&str]) -> String {
        let tree = match self.name.as_str() {
            "qemu-riscv64" => "virt-riscv64-2g",
            _ => "virt-2g",
        };
        let hypervisor = self.hypervisor.iter();
        let output = common::terrane(arguments, self.folder.path())
            .env_remove("TERRANE_HYPERVISOR")
            .args(hypervisor.flat_map(|path| ["--hypervisor", path]))
            .env("FAKE_TREE", format!("{TESTS}/hosts/{tree}.dtb"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Nothing is wrong with it, and this is its plan.
    fn plan(&self) -> Plan {
        let said = self.terrane(&["check", "--json", "system.toml"]);
        let errors = said
            .lines()
            .filter(|line| line.contains("\"severity\":\"error\""));
        assert_eq!(errors.count(), 0, "{}: {said}", self.name);
        let text = self.terrane(&["plan", "--json", "--format", "json", "system.toml"]);
        Plan(serde_json::from_str(&text).unwrap())
    }
}

/// The file of this name below `TERRANE_BOARD_TREES`; of several the one of the newest kernel.
fn board_tree(name: &str) -> Option<PathBuf> {
    let mut found = Vec::new();
    find(
        Path::new(&std::env::var_os("TERRANE_BOARD_TREES")?),
        name,
        &mut found,
    );
    assert!(!found.is_empty(), "TERRANE_BOARD_TREES has no {name}");
    found.into_iter().max()
}

/// The tree with the Raspberry Pi 4's CPUs started by PSCI, as TF-A hands it over.
fn with_psci(path: &Path) -> Vec<u8> {
    let mut tree = std::fs::read(path).unwrap();
    let (spin, psci) = (b"spin-table\0", b"psci\0\0\0\0\0\0\0");
    while let Some(at) = tree.windows(spin.len()).position(|bytes| bytes == spin) {
        tree[at..at + psci.len()].copy_from_slice(psci);
    }
    tree
}

fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
}

struct Plan(Value);

impl Plan {
    fn domain(&self, name: &str) -> &Value {
        let domains = self.0["domains"].as_array().unwrap();
        let found = domains.iter().find(|domain| domain["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {domains:?}"))
    }

    /// The machine ranges of a domain's memory.
    fn memory(&self, name: &str) -> Vec<(u64, u64)> {
        let ranges = self.domain(name)["memory"].as_array().unwrap();
        ranges
            .iter()
            .map(|range| (number(&range["machine"]), range["size"].as_u64().unwrap()))
            .collect()
    }

    fn bytes(&self, name: &str) -> u64 {
        self.memory(name).iter().map(|(_, size)| size).sum()
    }

    /// How much of a domain's memory lies below `limit`.
    fn below(&self, name: &str, limit: u64) -> u64 {
        let part = |&(start, size): &(u64, u64)| (start + size).min(limit).saturating_sub(start);
        self.memory(name).iter().map(part).sum()
    }

    fn is_direct(&self, name: &str) -> bool {
        let ranges = self.domain(name)["memory"].as_array().unwrap();
        ranges
            .iter()
            .all(|range| range["machine"] == range["address"])
    }

    fn has(&self, name: &str, device: &str) -> bool {
        let devices = self.domain(name)["devices"].as_array().unwrap();
        devices.iter().any(|found| found["path"] == device)
    }
}

fn number(value: &Value) -> u64 {
    let digits = value.as_str().unwrap().strip_prefix("0x").unwrap();
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn raspberry_pi_4() {
    let Some(example) = Example::new("raspberry-pi-4") else {
        return;
    };
    let plan = example.plan();
    assert_eq!(plan.memory("net"), [(4 * GIB, 512 * MIB)]);
    assert!(plan.has("net", "/scb/ethernet@7d580000"));
    assert!(plan.is_direct("control") && plan.is_direct("net"));
    // What its masters of 1 GiB and 3 GiB reach is Linux's.
    assert!(plan.below("control", GIB) > 900 * MIB);
    assert!(plan.below("control", 3 * GIB) > 2900 * MIB);
    assert!(plan.bytes("control") > 7 * GIB);
}

#[test]
fn raspberry_pi_5() {
    let Some(example) = Example::new("raspberry-pi-5") else {
        return;
    };
    let plan = example.plan();
    assert_eq!(plan.bytes("realtime"), 256 * MIB);
    assert!(plan.bytes("control") > 7 * GIB);
    assert_eq!(plan.domain("realtime")["cpus"], serde_json::json!([3]));
    // The firmware is told of in the tree.
    assert!(
        plan.memory("control")
            .iter()
            .all(|(start, _)| *start >= 0x8_0000)
    );
}

#[test]
fn zynqmp_zcu102() {
    let Some(example) = Example::new("zynqmp-zcu102") else {
        return;
    };
    let plan = example.plan();
    assert!(plan.is_direct("can") && plan.has("can", "/axi/can@ff070000"));
    assert_eq!(plan.below("can", 2 * GIB), 128 * MIB);
    assert!(plan.bytes("control") > 3 * GIB + 800 * MIB);
    let of_the_r5 = 0x3ed0_0000..0x3ed4_0000_u64;
    for name in ["control", "can"] {
        for (start, size) in plan.memory(name) {
            assert!(start >= of_the_r5.end || start + size <= of_the_r5.start);
        }
    }
}

#[test]
fn imx8mm_evk() {
    let Some(example) = Example::new("imx8mm-evk") else {
        return;
    };
    let plan = example.plan();
    assert!(plan.is_direct("video"));
    assert!(plan.has("video", "/soc@0/video-codec@38300000"));
    assert_eq!(plan.bytes("video"), 256 * MIB);
    assert!(plan.bytes("control") > GIB + 700 * MIB);
    assert!(plan.below("control", 0xbe00_0000) == plan.bytes("control"));
}

#[test]
fn rk3588_rock_5b() {
    let Some(example) = Example::new("rk3588-rock-5b") else {
        return;
    };
    let plan = example.plan();
    assert_eq!(plan.memory("vision"), [(4 * GIB, GIB)]);
    assert_eq!(plan.domain("vision")["cpus"], serde_json::json!([6, 7]));
    assert!(!plan.is_direct("vision"));
    assert!(plan.below("control", 4 * GIB) > 3 * GIB + 700 * MIB);
}

#[test]
fn qemu_aarch64() {
    let plan = Example::new("qemu-aarch64").unwrap().plan();
    assert!(plan.is_direct("guest") && plan.has("guest", "/pl061@9030000"));
    assert!(plan.bytes("control") > GIB + 700 * MIB);
}

#[test]
fn qemu_riscv64() {
    let plan = Example::new("qemu-riscv64").unwrap().plan();
    assert!(plan.is_direct("guest") && plan.has("guest", "/soc/rtc@101000"));
    assert!(plan.bytes("control") > GIB + 700 * MIB);
    // OpenSBI's.
    for name in ["control", "guest"] {
        assert_eq!(plan.below(name, 0x8020_0000), 0);
    }
}

#[test]
fn qemu_x86_64() {
    let plan = Example::new("qemu-x86_64").unwrap().plan();
    assert!(plan.is_direct("guest") && plan.has("guest", "pci:0000:00:02.0"));
    // Where a mask of 28 bits reaches.
    assert_eq!(plan.below("guest", 256 * MIB), plan.bytes("guest"));
    assert!(plan.bytes("control") > GIB + 800 * MIB);
}

#[test]
fn every_example_is_tested() {
    let tests = include_str!("examples.rs");
    for entry in std::fs::read_dir(EXAMPLES).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(
                tests.contains(&format!("Example::new(\"{name}\")")),
                "{name}"
            );
        }
    }
}

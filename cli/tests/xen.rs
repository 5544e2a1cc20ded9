//! What `plan --format dts` names as static memory is Xen's to give: Xen doesn't move what the boot loader placed.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

/// The overlay for a manifest in `tests/xen`.
fn overlay(name: &str, version: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(env!("CARGO_BIN_EXE_terrane"))
        .arg("plan")
        .arg(tests.join("xen").join(name))
        .args(["--format", "dts", "--xen", version])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The numbers, of two cells each, of every property of this name.
fn numbers(text: &str, name: &str) -> Vec<Vec<u64>> {
    let begins = format!("{name} = <");
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(&begins));
    lines
        .map(|line| {
            let cells: Vec<u64> = line
                .trim_end_matches(">;")
                .split_whitespace()
                .map(|cell| u64::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap())
                .collect();
            cells
                .chunks(2)
                .map(|pair| (pair[0] << 32) | pair[1])
                .collect()
        })
        .collect()
}

fn ranges(numbers: &[u64]) -> Vec<Range<u64>> {
    numbers
        .chunks(2)
        .map(|pair| pair[0]..pair[0] + pair[1])
        .collect()
}

#[test]
fn static_memory_keeps_off_what_xen_reads() {
    const RAM: u64 = 2 << 30;
    for (name, version) in [
        ("rest.toml", "4.20"),
        ("rest.toml", "4.21"),
        ("two.toml", "4.21"),
    ] {
        let text = overlay(name, version);
        let memory: Vec<u64> = numbers(&text, "memory").concat();
        let statics = numbers(&text, "xen,static-mem");
        assert!(!statics.is_empty(), "{text}");
        let modules = numbers(&text, "reg").concat();
        // The head of the file says where Xen is loaded; the host's tree lies behind it.
        let image = 0x4000_0000..0x4020_2000;
        assert!(text.contains("Load Xen at 0x40000000"), "{text}");
        for numbers in &statics {
            let own = ranges(numbers);
            let sum: u64 = own.iter().map(|range| range.end - range.start).sum();
            assert!(memory.contains(&(sum >> 10)), "{sum:#x} in {text}");
            assert!(own[0].start.is_multiple_of(2 << 20), "{text}");
            for range in &own {
                for other in ranges(&modules).iter().chain([&image]) {
                    let apart = range.end <= other.start || other.end <= range.start;
                    assert!(apart, "{range:x?} and {other:x?} in {text}");
                }
            }
        }
        let all: u64 = memory.iter().sum::<u64>() << 10;
        assert!(all <= RAM - RAM / 60, "{all:#x}");
    }
}

#[test]
fn what_xen_would_stop_at_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = std::fs::read_to_string(tests.join("xen/two.toml")).unwrap();
    let text = text.replace("../", &format!("{}/", tests.display()));
    let text = text.replace("console=hvc0", &"x".repeat(1024));
    // Which goes on only where Terrane would.
    let text = format!("{text}\n[hypervisor]\non-conflict = \"skip-domain\"\n");
    std::fs::write(folder.path().join("m.toml"), text).unwrap();
    let plan = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_terrane"))
            .args(["plan", "m.toml", "--format", "dts"])
            .args(more)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error[xen-limit]"), "{said}");
        output.stdout
    };
    plan(&["-o", "xl.dts"]);
    assert!(!folder.path().join("xl.dts").exists());
    assert_eq!(plan(&[]), b"");
}

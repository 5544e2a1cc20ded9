use super::*;
use std::path::Path;

use layout::{MemoryRequest, Severity};
use proptest::prelude::*;

/// With every translated variable, and some that aren't.
const WHOLE: &str = r#"
MEMORY_START="0x0"
MEMORY_END="0x80000000"
LOAD_CMD="tftpb"

DEVICE_TREE="mpsoc.dtb"
XEN="xen"
XEN_CMD="console=dtuart dtuart=serial0 dom0_mem=1G dom0_max_vcpus=2 bootscrub=0 vwfi=native sched=null"
DOM0_KERNEL="Image-dom0"
DOM0_CMD="console=hvc0 root=/dev/ram0"
DOM0_RAMDISK='dom0-ramdisk.cpio'

NUM_DOMUS=3 # three
DOMU_KERNEL[0]="dom1/Image-domU"
DOMU_PASSTHROUGH_PATHS[0]="/axi/ethernet@ff0e0000 /axi/serial@ff000000"
DOMU_CMD[0]="console=ttyPS0 \"quoted\""
DOMU_RAMDISK[0]="dom1/ramdisk.cpio"
DOMU_COLORS[0]="6-14"
DOMU_STATIC_MEM[0]="0x30000000 0x10000000 0x50000000 0x20000000"
DOMU_KERNEL[1]="/boot/Image-domU"
DOMU_MEM[1]=256
DOMU_VCPUS[1]=2
DOMU_VPL011[1]=0
DOMU_GRANT_FRAMES[1]=32
DOMU_KERNEL[2]="later"
DOMU_NOBOOT[2]=y
UBOOT_SCRIPT="boot.scr"
"#;

fn import_with(text: &str, file: &dyn Fn(&str) -> Option<Vec<u8>>) -> Imported {
    let reading = Reading {
        name: "config",
        folder: Path::new("board"),
        file,
    };
    import(text, &reading)
}

fn import_text(text: &str) -> Imported {
    import_with(text, &|_| None)
}

fn read_back(imported: &Imported) -> crate::toml::Manifest {
    let text = imported.manifest.clone().expect("a manifest");
    let manifest = crate::toml::parse("m.toml", text, Path::new("")).expect("TOML");
    assert_eq!(manifest.problems, [], "{}", manifest.text);
    manifest
}

/// Code, line and column of each finding.
fn places(imported: &Imported) -> Vec<(&'static str, u32, u32)> {
    let findings = imported.findings.iter();
    findings
        .map(|finding| {
            (
                finding.code.as_str(),
                finding.start.line,
                finding.start.column,
            )
        })
        .collect()
}

#[test]
fn a_whole_configuration_is_a_manifest() {
    let imported = import_text(WHOLE);
    let manifest = read_back(&imported);
    let console = manifest.request.hypervisor.console.as_ref();
    assert_eq!(
        console.map(|console| console.value.as_str()),
        Some("serial0")
    );
    let [dom0, first, second] = manifest.request.domains.as_slice() else {
        panic!("{}", manifest.text);
    };
    assert_eq!(dom0.name.value, "dom0");
    assert_eq!(dom0.capabilities.value, layout::Capabilities::all());
    assert_eq!(dom0.memory.value, MemoryRequest::Size(1 << 30));
    assert_eq!(dom0.cpus.value, 2);
    assert_eq!(first.name.value, "domU0");
    let ranges: Vec<(u64, u64)> = first
        .static_mem
        .iter()
        .map(|it| (it.start, it.size))
        .collect();
    assert_eq!(
        ranges,
        [(0x3000_0000, 0x1000_0000), (0x5000_0000, 0x2000_0000)]
    );
    assert!(first.identity().is_direct_mapped() && first.vpl011);
    assert_eq!(first.command_line, "console=ttyPS0 \"quoted\"");
    assert_eq!(first.devices[1].path, "/axi/serial@ff000000");
    assert_eq!(second.memory.value, MemoryRequest::Size(256 << 20));
    assert!(!second.vpl011 && second.command_line.is_empty());
    assert_eq!((second.cpus.value, second.limits.max_grant_frames), (2, 32));
    let kernel = |domain: usize| {
        manifest.files[domain]
            .kernel
            .as_ref()
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(kernel(0), Path::new("board/Image-dom0"));
    assert_eq!(kernel(2), Path::new("/boot/Image-domU"));
}

#[test]
fn what_has_no_word_is_said_and_kept() {
    let imported = import_text(WHOLE);
    let expected = [
        ("config-no-word", 8, 1),
        ("config-no-word", 18, 1),
        ("config-no-word", 26, 1),
    ];
    assert_eq!(places(&imported), expected);
    let manifest = imported.manifest.unwrap();
    for line in [
        "# line 4: LOAD_CMD=\"tftpb\"\n",
        "# line 18: DOMU_COLORS[0]=\"6-14\": Terrane doesn't colour caches\n",
        "vwfi=native sched=null",
    ] {
        assert!(manifest.contains(line), "{line} in\n{manifest}");
    }
}

#[test]
fn what_is_wrong_is_said_at_once_and_there_is_no_manifest() {
    let text = "\
NUM_DOMUS=2
DOMU_KERNEL[0]=${BASE}/Image
if test -f x; then
DOMU_MEM[0]=512M
fi
DOMU_STATIC_MEM[0]=\"0x1000\"
DOMU_VPL011[0]=yes
";
    let imported = import_text(text);
    assert_eq!(imported.manifest, None);
    let expected = [
        ("config-missing", 1, 1),
        ("config-missing", 1, 1),
        ("config-not-literal", 2, 16),
        ("config-not-literal", 3, 1),
        ("config-invalid", 4, 1),
        ("config-not-literal", 5, 1),
        ("config-invalid", 6, 1),
        ("config-invalid", 7, 1),
    ];
    assert_eq!(places(&imported), expected);
}

#[test]
fn what_imagebuilder_does_not_read_is_a_warning() {
    let text =
        "DEVICE_TREE=x\nDOM0_KERNEL=k\nDOM0_KERNAL=k\nDOMU_MEM[3]=4\nDOM0_MEM=512\nDOM0_VCPUS=3\n";
    let imported = import_text(text);
    assert_eq!(
        places(&imported),
        [("config-unread", 3, 1), ("config-unread", 4, 1)]
    );
    assert_eq!(
        imported.findings[0].help,
        "the nearest that it reads is DOM0_KERNEL"
    );
    let manifest = read_back(&imported);
    let dom0 = &manifest.request.domains[0];
    assert_eq!(dom0.memory.value, MemoryRequest::Size(512 << 20));
    assert_eq!(dom0.cpus.value, 3);
}

/// A board's tree that names no RAM.
fn without_ram() -> Vec<u8> {
    let mut writer = crate::tree::writer::Writer::new();
    writer.node("", |root| root.node("cpus", |_| {}));
    writer.finish(&[], 4096).unwrap()
}

#[test]
fn the_files_are_looked_into_where_the_configuration_leaves_it_to_them() {
    let text = "\
MEMORY_START=0x40000000
MEMORY_END=0x80000000
DEVICE_TREE=board.dtb
NUM_DOMUS=1
DOMU_KERNEL[0]=k
DOMU_PASSTHROUGH_DTB[0]=part.dtb
";
    let file = |_: &str| Some(without_ram());
    let manifest = read_back(&import_with(text, &file));
    let partial = manifest.files[0].partial_tree.as_ref().unwrap();
    assert!(partial.value.ends_with("part.dtb"));
    let host = manifest.host.unwrap();
    assert_eq!(host.memory.len(), 1);
    assert_eq!(host.memory[0].range.size(), 1 << 30);
    let blind = import_text(text);
    assert_eq!(places(&blind), []);
    assert_eq!(read_back(&blind).host.unwrap().memory, []);
}

proptest! {
    /// Whatever a configuration holds, what comes out is a manifest whose keys and types are right.
    #[test]
    fn a_manifest_can_be_read(
        values in proptest::collection::vec("\\PC{0,12}|[0-9]{1,20}|0x[0-9a-f]{1,16}", 24),
        count in 0u32..3,
    ) {
        let names = [
            "DEVICE_TREE", "XEN_CMD", "DOM0_KERNEL", "DOM0_CMD", "DOM0_MEM", "MEMORY_START", "MEMORY_END",
            "DOMU_KERNEL[0]", "DOMU_CMD[0]", "DOMU_MEM[0]", "DOMU_VCPUS[0]", "DOMU_STATIC_MEM[0]", "DOMU_COLORS[0]",
            "DOMU_PASSTHROUGH_PATHS[0]", "DOMU_PASSTHROUGH_DTB[0]", "DOMU_ENHANCED[0]", "NOT_KNOWN", "DOMU_KERNEL[1]",
            "DOMU_RAMDISK[1]", "DOMU_GRANT_FRAMES[1]", "UBOOT_SCRIPT", "DOMU_NOBOOT[1]", "DOMU_DIRECT_MAP[0]", "LINUX",
        ];
        let mut text = format!("NUM_DOMUS={count}\n");
        for (name, value) in names.iter().zip(&values) {
            let value = value.replace('\'', "'\\''");
            text += &format!("{name}='{value}'\n");
        }
        let imported = import_text(&text);
        if imported.manifest.is_some() {
            read_back(&imported);
            prop_assert!(imported.findings.iter().all(|it| it.severity == Severity::Warning));
        } else {
            prop_assert!(imported.findings.iter().any(|it| it.severity == Severity::Error));
        }
    }

    #[test]
    fn any_text_is_read(text in "\\PC*|[A-Z=\"'$\\[\\]()\\\\;# \n]{0,80}") {
        import_text(&text);
    }
}

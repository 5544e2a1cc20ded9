//! Whether the machine's QEMU can do what Terrane's hosts need. What it offers counts, not its version.

use std::process::{Command, Stdio};

use crate::arch::Arch;

/// The emulator's program.
pub fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::Aarch64 => "qemu-system-aarch64",
        Arch::X86_64 => "qemu-system-x86_64",
    }
}

/// The Debian packages that hold it. The network cards' option ROMs are in a package of their own, and without them
/// QEMU refuses to start.
pub fn packages(arch: Arch) -> [&'static str; 2] {
    let emulator = match arch {
        Arch::Aarch64 => "qemu-system-arm",
        Arch::X86_64 => "qemu-system-x86",
    };
    [emulator, "ipxe-qemu"]
}

/// A machine that must be possible: what it shows, and its options, parted by spaces.
type Probe = (&'static str, &'static str);

/// The devices of the tests on PCIe.
const DEVICES: &str = "-icount shift=0,sleep=off -nic user,model=e1000e -drive file=null-co://,if=none,format=raw,id=none \
    -device nvme,drive=none,serial=none -device ahci -device qemu-xhci -device edu,dma_mask=0xffffffffffffffff";

const fn probes(arch: Arch) -> &'static [Probe] {
    match arch {
        Arch::Aarch64 => &[
            (
                "a virt machine with EL2, GICv3 and ITS",
                "-M virt,virtualization=on,gic-version=3,its=on,dtb-randomness=off -cpu cortex-a57",
            ),
            (
                "GICv2",
                "-M virt,virtualization=on,gic-version=2 -cpu cortex-a72",
            ),
            (
                "an SMMUv3",
                "-M virt,virtualization=on,gic-version=3,iommu=smmuv3 -cpu max",
            ),
        ],
        Arch::X86_64 => &[
            (
                "a q35 machine with SVM, nested paging and nothing of a PC's clocks",
                "-M q35,hpet=off,pit=off,smm=off -cpu qemu64,+svm,+npt,enforce",
            ),
            (
                "an Intel IOMMU that PCIe bypasses",
                "-M q35,default-bus-bypass-iommu=on -cpu EPYC -device intel-iommu,intremap=on",
            ),
            (
                "an AMD IOMMU that PCIe bypasses",
                "-M q35,default-bus-bypass-iommu=on -cpu max -device amd-iommu",
            ),
        ],
    }
}

/// Says what is wrong, if anything is. QEMU builds each machine, devices and all, and is told to quit at once.
pub fn probe(arch: Arch) -> Result<(), String> {
    let program = program(arch);
    for (feature, options) in probes(arch) {
        let mut command = Command::new(program);
        command
            .args(options.split_ascii_whitespace())
            .args(DEVICES.split_ascii_whitespace())
            .args(["-display", "none", "-serial", "none", "-S"])
            .args(["-monitor", "stdio"]);
        // End of input on the monitor doesn't end QEMU, so it is told to quit.
        let ran = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = ran else {
            return Err(format!("there is no {program}"));
        };
        if let Some(mut monitor) = child.stdin.take() {
            use std::io::Write as _;
            // QEMU may be gone already, and then its status tells.
            let _ = monitor.write_all(b"quit\n");
        }
        let ended = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let reason = said.lines().last().unwrap_or("no reason given");
            return Err(format!("{program} cannot emulate {feature}: {reason}"));
        }
    }
    Ok(())
}

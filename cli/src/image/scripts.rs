//! The scripts beside the files: for QEMU, and for U-Boot.

use std::ffi::OsString;

use crate::boot::Places;

/// The script's own folder, in arguments that name its files.
pub const HERE: &str = "$here";

/// A script that boots the directory in QEMU, from wherever it is called. `machine` and `files` are QEMU's arguments
/// without the program; what `files` name lies in [`HERE`], and nothing in them means anything else to a shell.
pub fn qemu(program: &str, machine: &[OsString], files: &[OsString]) -> String {
    let mut text = String::from(
        "\
#!/bin/sh
# Boots this directory in QEMU. More arguments are handed on; files that arguments name are looked for where this is
# called, as `terrane run` does; in this directory, if a comma or a blank is in its name.
set -e
here=$(CDPATH= cd -- \"$(dirname -- \"$0\")\" && pwd)
# They mean something else to QEMU.
case $here in *[,\\ ]*) cd -- \"$here\"; here=. ;; esac
",
    );
    text += &format!("exec {}", quoted(program));
    let own = |argument: &OsString| match argument.to_string_lossy() {
        named if named.contains(HERE) => format!("\"{named}\""),
        other => quoted(&other),
    };
    let machine = machine.iter().map(|it| quoted(&it.to_string_lossy()));
    for argument in machine.chain(files.iter().map(own)) {
        // An option begins a line, its value follows it.
        text += if argument.starts_with('-') {
            " \\\n    "
        } else {
            " "
        };
        text += &argument;
    }
    text += " \\\n    \"$@\"\n";
    text
}

/// A word as the shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The source of `boot.scr`: loads hypervisor, tree and container, by these names, where the plan
/// expects them, from the partition that U-Boot found the script on. `None` without a place for a
/// tree: U-Boot hands one over.
pub fn uboot(places: &Places, [hypervisor, tree, container]: [&str; 3]) -> Option<String> {
    let image_at = places.hypervisor.start().raw();
    let tree_at = places.tree?.start().raw();
    let container_at = places.container.start().raw();
    Some(format!(
        "\
# Boots Terrane. The addresses are those of the plan: loaded elsewhere, the hypervisor plans anew
# and says so. The tree may not be moved by the loader; it says where the container is, which U-Boot
# would take for an image of its own, since that begins with a tree too.
setenv fdt_high 0xffffffffffffffff
test -n \"${{distro_bootpart}}\" || setenv distro_bootpart 1
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {image_at:#x} ${{prefix}}{hypervisor}
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {tree_at:#x} ${{prefix}}{tree}
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {container_at:#x} ${{prefix}}{container}
booti {image_at:#x} - {tree_at:#x}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::{MachineAddress, MachineRange};

    #[test]
    fn the_script_starts_qemu_with_one_option_a_line() {
        let machine = ["-cpu", "max", "-append", "it's $here", "-nographic"].map(OsString::from);
        let files = ["-kernel", "$here/a"].map(OsString::from);
        let text = qemu("qemu-system-aarch64", &machine, &files);
        let expected = "exec qemu-system-aarch64 \\\n    -cpu max \\\n    -append 'it'\\''s $here' \\\n    -nographic \\\n    -kernel \"$here/a\" \\\n    \"$@\"\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn the_boot_script_loads_all_three_and_leaves_the_container_to_the_tree() {
        let at = |start| MachineRange::saturating(MachineAddress::new(start), 4096);
        let places = Places {
            hypervisor: at(0x4020_0000),
            tree: Some(at(0x4040_0000)),
            container: at(0x4060_0000),
        };
        let text = uboot(&places, ["h", "t", "c"]).unwrap();
        let loads = text.lines().filter(|line| line.starts_with("load "));
        let loads: Vec<&str> = loads.filter_map(|it| it.rsplit('}').next()).collect();
        assert_eq!(loads, ["h", "t", "c"]);
        assert!(text.ends_with("booti 0x40200000 - 0x40400000\n"), "{text}");
    }
}

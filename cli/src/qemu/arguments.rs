//! The command line of a QEMU machine, completed by what the hypervisor needs.
//!
//! What the manifest says is left as it is: a word is added only if the manifest doesn't say it.

use std::ffi::OsString;
use std::path::PathBuf;

use manifest::toml::QemuSpec;

use crate::arch::Arch;

/// The arguments that make the machine, without anything to boot and without the user's, `more`.
/// `option` is appended to `-machine`, its comma included.
pub fn machine(arch: &Arch, machine: &QemuSpec, more: &[String], option: &str) -> Vec<OsString> {
    let fixed = [
        "-machine",
        &(machine_option(arch, &machine.machine) + option),
        "-cpu",
        &cpu_option(arch, &machine.cpu),
        "-smp",
        &machine.cpus.to_string(),
        "-m",
        &memory(machine.memory),
    ];
    let accelerator = arch
        .accelerator
        .filter(|_| machine.cpus > 1 && !names_accelerator(machine, more));
    fixed
        .into_iter()
        .chain(arch.arguments.iter().copied())
        .chain(accelerator.into_iter().flat_map(|named| ["-accel", named]))
        .map(OsString::from)
        .chain(machine.args.iter().map(OsString::from))
        .collect()
}

/// Whether the manifest or the user says what runs the guest's instructions.
fn names_accelerator(machine: &QemuSpec, more: &[String]) -> bool {
    let is_said = |option: &str| option.split(',').any(|word| key(word) == "accel");
    let words: Vec<&str> = machine
        .args
        .iter()
        .chain(more)
        .map(String::as_str)
        .collect();
    // QEMU takes an option with one dash or two.
    let options = words.iter().enumerate().filter_map(|(index, word)| {
        let option = word.strip_prefix('-')?;
        let value = words.get(index + 1).copied().unwrap_or_default();
        Some((option.strip_prefix('-').unwrap_or(option), value))
    });
    let mut options = options.map(|(option, value)| match option {
        "accel" | "enable-kvm" => true,
        "machine" | "M" => is_said(value),
        _ => false,
    });
    is_said(&machine.machine) || options.any(|is_said| is_said)
}

/// What may be the file of an argument: the whole of it, and the values of its list of options. QEMU looks for it where
/// the command was called, as this does.
pub fn files(argument: &str) -> Vec<PathBuf> {
    // In a list a comma of a value's is written twice.
    let list = argument.replace(",,", "\0");
    let values = list.split(',').filter_map(|part| part.split_once('='));
    let values = values.map(|(_, value)| value.replace('\0', ","));
    let whole = argument.to_owned();
    std::iter::once(whole)
        .chain(values)
        .map(PathBuf::from)
        .collect()
}

fn memory(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes << 20 == bytes {
        format!("{mebibytes}M")
    } else {
        format!("{bytes}B")
    }
}

fn machine_option(arch: &Arch, said: &str) -> String {
    let words = arch
        .machines
        .iter()
        .filter(|words| is_of_family(said, words.family))
        .flat_map(|words| words.words);
    completed(said, words)
}

/// Whether a `-machine` option names a machine of this family: the name, or a version of it. The name comes first or
/// is the `type`.
pub fn is_of_family(option: &str, family: &str) -> bool {
    let mut words = option.split(',');
    let first = words.clone().next().filter(|word| !word.contains('='));
    let name = first.or_else(|| words.find_map(|word| word.strip_prefix("type=")));
    name.and_then(|name| name.strip_prefix(family))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn cpu_option(arch: &Arch, said: &str) -> String {
    let model = arch.models.iter().find(|words| words.model == said);
    let words = model.into_iter().flat_map(|words| words.words);
    completed(said, words.chain(arch.features))
}

/// `said` with those words whose key it doesn't have.
fn completed<'a>(said: &str, words: impl Iterator<Item = &'a &'a str>) -> String {
    let mut option = said.to_owned();
    for word in words {
        if !said.split(',').any(|part| key(part) == key(word)) {
            option.push(',');
            option += word;
        }
    }
    option
}

/// What a word is about: `npt` of `+npt`, `-npt` and `npt=on`.
fn key(word: &str) -> &str {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    word.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(option: &str, cpu: &str) -> QemuSpec {
        QemuSpec {
            machine: option.to_owned(),
            arch: String::new(),
            cpu: cpu.to_owned(),
            cpus: 2,
            memory: 2 << 30,
            args: vec!["-device".to_owned(), "edu".to_owned()],
            origin: layout::Origin::NONE,
        }
    }

    fn arch(name: &str) -> &'static Arch {
        Arch::find(name).unwrap()
    }

    #[test]
    fn the_machine_gets_what_the_hypervisor_needs() {
        let arguments = machine(
            arch("aarch64"),
            &spec("virt,gic-version=3", "cortex-a57"),
            &[],
            "",
        );
        let option = "virt,gic-version=3,virtualization=on,dtb-randomness=off";
        let expected = ["-machine", option, "-cpu", "cortex-a57", "-smp", "2"];
        assert_eq!(arguments[..6], expected);
        assert_eq!(arguments[6..], ["-m", "2048M", "-device", "edu"]);
    }

    #[test]
    fn a_pc_gets_svm_and_no_devices_of_its_own() {
        let arguments = machine(arch("x86_64"), &spec("q35", "EPYC-Rome"), &[], "");
        let cpu = "EPYC-Rome,+svm,+npt,-monitor,check=off";
        let expected = ["-machine", "q35", "-cpu", cpu, "-smp", "2"];
        assert_eq!(arguments[..6], expected);
        let more = ["-accel", "tcg,thread=single", "-device", "edu"];
        assert_eq!(arguments[6..9], ["-m", "2048M", "-nodefaults"]);
        assert_eq!(arguments[9..], more);
    }

    #[test]
    fn an_accelerator_that_somebody_names_is_left_alone() {
        let pc = arch("x86_64");
        let has = |machine: &QemuSpec, more: &[&str]| {
            let more: Vec<String> = more.iter().map(ToString::to_string).collect();
            let arguments = super::machine(pc, machine, &more, "");
            arguments.contains(&OsString::from("tcg,thread=single"))
        };
        let two = spec("q35", "EPYC");
        assert!(has(&two, &["-no-reboot"]));
        assert!(!has(&two, &["-accel", "tcg"]));
        assert!(!has(&two, &["--enable-kvm"]));
        assert!(!has(&two, &["-machine", "hpet=off,accel=kvm"]));
        assert!(!has(&two, &["-M", "accel=kvm"]));
        assert!(has(&two, &["-machine", "hpet=off", "-name", "accel=kvm"]));
        let args = ["--machine".to_owned(), "accel=kvm".to_owned()].to_vec();
        assert!(!has(
            &QemuSpec {
                args,
                ..two.clone()
            },
            &[]
        ));
        assert!(!has(&spec("q35,accel=kvm", "EPYC"), &[]));
        assert!(!has(&QemuSpec { cpus: 1, ..two }, &[]));
    }

    #[test]
    fn what_the_manifest_says_is_not_said_twice() {
        let arm = arch("aarch64");
        assert_eq!(
            machine_option(arm, "virt-9.2,virtualization=off"),
            "virt-9.2,virtualization=off,dtb-randomness=off"
        );
        assert_eq!(machine_option(arm, "raspi3b"), "raspi3b");
        assert_eq!(machine_option(arm, "type=raspi3b"), "type=raspi3b");
        assert_eq!(
            machine_option(arm, "virtualization=off,type=virt"),
            "virtualization=off,type=virt,dtb-randomness=off"
        );
        let pc = arch("x86_64");
        assert_eq!(
            cpu_option(pc, "EPYC,-npt,check=on"),
            "EPYC,-npt,check=on,+svm,-monitor"
        );
        assert!(cpu_option(pc, "EPYC").contains(",+invtsc,x-force-features=on,+svm"));
    }

    #[test]
    fn an_argument_names_files_whole_and_by_its_options() {
        let paths = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(files("a,b.dtb"), paths(&["a,b.dtb"]));
        let list = "virt,dtb=a,,b=c.dtb,gic-version=3";
        assert_eq!(files(list), paths(&[list, "a,b=c.dtb", "3"]));
    }

    #[test]
    fn memory_that_is_no_multiple_of_a_mebibyte_is_said_in_bytes() {
        assert_eq!(memory((512 << 20) + 8192), "536879104B");
    }
}

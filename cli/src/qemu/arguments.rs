//! The command line of a QEMU machine, completed by what the hypervisor needs.
//!
//! What the manifest says is left as it is: a word is added only if the manifest doesn't say it.

use std::ffi::OsString;

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
    let of_machine = machine.machine.split(',').any(|word| key(word) == "accel");
    let words = machine.args.iter().chain(more);
    let mut options = words.map(|word| word.trim_start_matches('-'));
    of_machine || options.any(|option| ["accel", "enable-kvm"].contains(&option))
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

/// Whether a `-machine` option names a machine of this family: the name, or a version of it.
pub fn is_of_family(option: &str, family: &str) -> bool {
    let name = option.split(',').next().unwrap_or_default();
    name.strip_prefix(family)
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
        if !said.split(',').skip(1).any(|part| key(part) == key(word)) {
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
        let pc = arch("x86_64");
        assert_eq!(
            cpu_option(pc, "EPYC,-npt,check=on"),
            "EPYC,-npt,check=on,+svm,-monitor"
        );
        assert!(cpu_option(pc, "EPYC").contains(",+invtsc,x-force-features=on,+svm"));
    }

    #[test]
    fn memory_that_is_no_multiple_of_a_mebibyte_is_said_in_bytes() {
        assert_eq!(memory((512 << 20) + 8192), "536879104B");
    }
}

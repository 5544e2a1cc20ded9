//! QEMU as a host: finding it, the command line of a machine, and its device tree.
//!
//! The tree of a machine is asked from QEMU itself and kept in the user's cache, by the whole
//! specification and QEMU's version. Two trees matter: the one that is handed to QEMU (`-dtb`),
//! and the one that the hypervisor then finds in memory, which QEMU has edited and enlarged.
//! The second is taken from QEMU too, so that nothing here has to imitate it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifest::toml::QemuSpec;
use sha2::{Digest, Sha256};

use crate::diagnostics::Diagnostic;
use crate::host_tree;

/// What went wrong with QEMU, before anything was booted.
#[derive(Debug)]
pub enum Failure {
    /// It isn't there or can't be started.
    Missing(Diagnostic),
    /// It doesn't take this machine: the manifest is wrong.
    Refused(Diagnostic),
    /// The cache or a file for QEMU can't be written.
    Io(Diagnostic),
}

/// A QEMU program.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    version: String,
}

impl Qemu {
    /// Finds the program for an architecture: `$TERRANE_QEMU_AARCH64`, else
    /// `qemu-system-aarch64` in `PATH`.
    ///
    /// # Errors
    /// [`Failure::Missing`] if it isn't there or doesn't start.
    pub fn find(arch: &str) -> Result<Self, Failure> {
        let variable = format!("TERRANE_QEMU_{}", arch.to_uppercase());
        let name = format!("qemu-system-{arch}");
        let program = env::var_os(&variable).map_or_else(|| PathBuf::from(&name), PathBuf::from);
        let missing = |why: String| {
            Failure::Missing(
                Diagnostic::error(
                    "qemu-missing",
                    format!("can't run {}: {why}", program.display()),
                )
                .with_help(format!(
                    "install QEMU ({name} must be in PATH), or name it by {variable}"
                )),
            )
        };
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(error.to_string()))?;
        if !output.status.success() {
            return Err(missing(format!("--version ended with {}", output.status)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().to_owned();
        Ok(Self { program, version })
    }

    /// A command that has QEMU's program and nothing else.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// The program, for scripts.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The machine's own device tree, packed, with room for the container's place and for a seed
    /// in `/chosen`: what is handed over by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn host_tree(&self, machine: &QemuSpec) -> Result<Vec<u8>, Failure> {
        let key = self.key(machine, b"host, seed");
        cached(&key, || {
            let tree = self.dump(machine, None)?;
            let tree = host_tree::with_container(&tree, 0, 0);
            tree.and_then(|tree| host_tree::with_seed(&tree))
                .map_err(|error| {
                    Failure::Io(Diagnostic::error(
                        "tree-invalid",
                        format!("QEMU's device tree can't be read: {error}"),
                    ))
                })
        })
    }

    /// What the hypervisor finds in memory when `tree` is handed to QEMU by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn live_tree(&self, machine: &QemuSpec, tree: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = self.key(machine, tree);
        cached(&key, || self.dump(machine, Some(tree)))
    }

    /// The name under which a tree is kept.
    fn key(&self, machine: &QemuSpec, input: &[u8]) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.version.as_bytes());
        for argument in arguments(machine) {
            hasher.update([0]);
            hasher.update(argument.as_encoded_bytes());
        }
        hasher.update([0]);
        hasher.update(input);
        hasher
            .finalize()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn dump(&self, machine: &QemuSpec, tree: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        let directory = cache_directory()?;
        let scratch = |what: &str| directory.join(format!(".{}.{what}", std::process::id()));
        let (input, output) = (scratch("in.dtb"), scratch("out.dtb"));
        let mut command = self.command();
        command
            .args(arguments_dumping(machine, &output))
            .args(["-display", "none"]);
        if let Some(tree) = tree {
            fs::write(&input, tree).map_err(|error| unwritable(&input, &error))?;
            command.arg("-dtb").arg(&input);
        }
        let result = command.stdin(Stdio::null()).output();
        let dumped = fs::read(&output);
        // Neither need be there.
        let _ = fs::remove_file(&input);
        let _ = fs::remove_file(&output);
        let result = result.map_err(|error| {
            Failure::Missing(Diagnostic::error(
                "qemu-missing",
                format!("can't run {}: {error}", self.program.display()),
            ))
        })?;
        if let (true, Ok(bytes)) = (result.status.success(), dumped) {
            return Ok(bytes);
        }
        let said = String::from_utf8_lossy(&result.stderr);
        let first = said.lines().next().unwrap_or("it said nothing").trim();
        Err(Failure::Refused(
            Diagnostic::error(
                "qemu-refuses",
                format!("QEMU doesn't take this machine: {first}"),
            )
            .with_help("see `[host] qemu` and QEMU's own -machine help and -cpu help"),
        ))
    }
}

/// The arguments that make the machine, without anything to boot.
pub fn arguments(machine: &QemuSpec) -> Vec<OsString> {
    arguments_with(machine, &machine_option(machine))
}

fn arguments_dumping(machine: &QemuSpec, output: &Path) -> Vec<OsString> {
    // A comma in a value of QEMU's is written twice.
    let output = output.display().to_string().replace(',', ",,");
    arguments_with(
        machine,
        &format!("{},dumpdtb={output}", machine_option(machine)),
    )
}

fn arguments_with(machine: &QemuSpec, option: &str) -> Vec<OsString> {
    let mebibytes = machine.memory >> 20;
    let memory = if mebibytes << 20 == machine.memory {
        format!("{mebibytes}M")
    } else {
        format!("{}B", machine.memory)
    };
    let cpus = machine.cpus.to_string();
    let fixed = [
        "-machine",
        option,
        "-cpu",
        &machine.cpu,
        "-smp",
        &cpus,
        "-m",
        &memory,
    ];
    fixed
        .into_iter()
        .map(OsString::from)
        .chain(machine.args.iter().map(OsString::from))
        .collect()
}

/// `-machine` with what the hypervisor needs: EL2, and a tree without random seeds, so that it
/// repeats. What the manifest already says is left as it is.
fn machine_option(machine: &QemuSpec) -> String {
    let said: Vec<&str> = machine.machine.split(',').collect();
    let name = said.first().copied().unwrap_or_default();
    let mut option = machine.machine.clone();
    if machine.arch == "aarch64" && (name == "virt" || name.starts_with("virt-")) {
        for (key, value) in [("virtualization", "on"), ("dtb-randomness", "off")] {
            if !said.iter().any(|part| part.split('=').next() == Some(key)) {
                option += &format!(",{key}={value}");
            }
        }
    }
    option
}

/// The tree kept under `key`, or a new one.
fn cached(key: &str, make: impl FnOnce() -> Result<Vec<u8>, Failure>) -> Result<Vec<u8>, Failure> {
    let path = cache_directory()?.join(format!("{key}.dtb"));
    if let Ok(bytes) = fs::read(&path) {
        return Ok(bytes);
    }
    let bytes = make()?;
    // Written whole and then named: another terrane may be reading.
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, &bytes)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(|error| unwritable(&path, &error))?;
    Ok(bytes)
}

/// `${XDG_CACHE_HOME:-~/.cache}/terrane/hosts`, made if it isn't there.
fn cache_directory() -> Result<PathBuf, Failure> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir);
    let directory = base.join("terrane").join("hosts");
    fs::create_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
    Ok(directory)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Io(Diagnostic::error(
        "cannot-write",
        format!("can't write {}: {error}", path.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(option: &str) -> QemuSpec {
        QemuSpec {
            machine: option.to_owned(),
            arch: "aarch64".to_owned(),
            cpu: "cortex-a57".to_owned(),
            cpus: 2,
            memory: 2 << 30,
            args: vec!["-device".to_owned(), "edu".to_owned()],
            origin: layout::Origin::NONE,
        }
    }

    #[test]
    fn the_machine_gets_what_the_hypervisor_needs() {
        let option = "virt,gic-version=3,virtualization=on,dtb-randomness=off";
        let expected = ["-machine", option, "-cpu", "cortex-a57", "-smp", "2"];
        let arguments = arguments(&machine("virt,gic-version=3"));
        assert_eq!(arguments[..6], expected);
        assert_eq!(arguments[6..], ["-m", "2048M", "-device", "edu"]);
    }

    #[test]
    fn what_the_manifest_says_is_not_said_twice() {
        let said = machine_option(&machine("virt,virtualization=on"));
        assert_eq!(said, "virt,virtualization=on,dtb-randomness=off");
        assert_eq!(machine_option(&machine("raspi3b")), "raspi3b");
    }

    #[test]
    fn memory_that_is_no_multiple_of_a_mebibyte_is_said_in_bytes() {
        let odd = QemuSpec {
            memory: (512 << 20) + 8192,
            ..machine("virt")
        };
        assert!(arguments(&odd).contains(&OsString::from("536879104B")));
    }
}

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

use sha2::{Digest, Sha256};

use crate::diagnostics::Diagnostic;
use crate::host_tree;

/// A machine of QEMU's, as the manifest's `[host] qemu` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `-machine`, without what this program adds.
    pub machine: String,
    /// The architecture's name in the manifest.
    pub arch: String,
    /// `-cpu`.
    pub cpu: String,
    /// `-smp`.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// More arguments.
    pub args: Vec<String>,
}

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

impl Failure {
    /// What to tell the user.
    pub fn diagnostic(self) -> Diagnostic {
        match self {
            Self::Missing(found) | Self::Refused(found) | Self::Io(found) => found,
        }
    }
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

    /// The machine's own device tree, packed, with room for the container's place in `/chosen`:
    /// what is handed over by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn host_tree(&self, machine: &Machine) -> Result<Vec<u8>, Failure> {
        let key = self.key(machine, b"host");
        cached(&key, || {
            let tree = self.dump(machine, None)?;
            host_tree::with_container(&tree, 0, 0).map_err(|error| {
                Failure::Io(Diagnostic::error(
                    "host-tree-invalid",
                    format!("QEMU's device tree can't be read: {error}"),
                ))
            })
        })
    }

    /// What the hypervisor finds in memory when `tree` is handed to QEMU by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn live_tree(&self, machine: &Machine, tree: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = self.key(machine, tree);
        cached(&key, || self.dump(machine, Some(tree)))
    }

    /// The name under which a tree is kept.
    fn key(&self, machine: &Machine, input: &[u8]) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.version.as_bytes());
        for argument in machine.arguments() {
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

    fn dump(&self, machine: &Machine, tree: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        let directory = cache_directory()?;
        let scratch = |what: &str| directory.join(format!(".{}.{what}", std::process::id()));
        let (input, output) = (scratch("in.dtb"), scratch("out.dtb"));
        let mut command = self.command();
        command
            .args(machine.arguments_dumping(&output))
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

impl Machine {
    /// The arguments that make the machine, without anything to boot.
    pub fn arguments(&self) -> Vec<OsString> {
        self.arguments_with(&self.machine_option())
    }

    fn arguments_dumping(&self, output: &Path) -> Vec<OsString> {
        // A comma in a value of QEMU's is written twice.
        let output = output.display().to_string().replace(',', ",,");
        self.arguments_with(&format!("{},dumpdtb={output}", self.machine_option()))
    }

    fn arguments_with(&self, machine: &str) -> Vec<OsString> {
        let mebibytes = self.memory >> 20;
        let memory = if mebibytes << 20 == self.memory {
            format!("{mebibytes}M")
        } else {
            format!("{}B", self.memory)
        };
        let fixed = [
            "-machine",
            machine,
            "-cpu",
            &self.cpu,
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &memory,
        ];
        fixed
            .into_iter()
            .map(OsString::from)
            .chain(self.args.iter().map(OsString::from))
            .collect()
    }

    /// `-machine` with what the hypervisor needs: EL2, and a tree without random seeds, so that
    /// it repeats. What the manifest already says is left as it is.
    fn machine_option(&self) -> String {
        let mut option = self.machine.clone();
        if self.arch == "aarch64" && self.is_virt() {
            for (key, value) in [("virtualization", "on"), ("dtb-randomness", "off")] {
                if !self
                    .machine
                    .split(',')
                    .any(|part| part.split('=').next() == Some(key))
                {
                    option += &format!(",{key}={value}");
                }
            }
        }
        option
    }

    fn is_virt(&self) -> bool {
        let name = self.machine.split(',').next().unwrap_or_default();
        name == "virt" || name.starts_with("virt-")
    }
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

    fn machine(option: &str) -> Machine {
        Machine {
            machine: option.to_owned(),
            arch: "aarch64".to_owned(),
            cpu: "cortex-a57".to_owned(),
            cpus: 2,
            memory: 2 << 30,
            args: vec!["-device".to_owned(), "edu".to_owned()],
        }
    }

    #[test]
    fn the_machine_gets_what_the_hypervisor_needs() {
        let arguments = machine("virt,gic-version=3").arguments();
        let expected = [
            "-machine",
            "virt,gic-version=3,virtualization=on,dtb-randomness=off",
            "-cpu",
            "cortex-a57",
            "-smp",
            "2",
            "-m",
            "2048M",
            "-device",
            "edu",
        ];
        assert_eq!(arguments, expected);
    }

    #[test]
    fn what_the_manifest_says_is_not_said_twice() {
        let said = machine("virt,virtualization=on").machine_option();
        assert_eq!(said, "virt,virtualization=on,dtb-randomness=off");
        assert_eq!(machine("raspi3b").machine_option(), "raspi3b");
    }

    #[test]
    fn memory_that_is_no_multiple_of_a_mebibyte_is_said_in_bytes() {
        let odd = Machine {
            memory: (512 << 20) + 8192,
            ..machine("virt")
        };
        assert!(odd.arguments().contains(&OsString::from("536879104B")));
    }
}

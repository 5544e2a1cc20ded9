//! One boot of a machine by the `terrane` command, and what came of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Context;
use crate::manifest::Manifest;
use crate::run;

/// How often a boot is begun in which QEMU crashes.
const ATTEMPTS: u32 = 3;
/// What `terrane run` says then.
const CRASHED: &str = "QEMU was ended by signal";

/// A boot to be done.
pub struct Boot<'a> {
    /// The system.
    pub manifest: &'a Manifest,
    /// After this much time the machine is hung. Far above what a loaded machine needs: it decides no test that passes.
    pub limit: Duration,
    /// Boot it even if the manifest has conflicts.
    pub no_check: bool,
    /// More arguments for QEMU.
    pub qemu: &'a [&'a str],
    /// Ends the machine as soon as this holds, for systems that don't end by themselves.
    pub enough: Option<fn(&Ran) -> bool>,
}

/// What a boot left behind.
pub struct Ran {
    /// The exit status of `terrane run`.
    pub status: i32,
    folder: PathBuf,
}

impl<'a> Boot<'a> {
    /// A boot with the usual limit.
    pub fn new(manifest: &'a Manifest) -> Self {
        Self {
            manifest,
            limit: Duration::from_secs(600),
            no_check: false,
            qemu: &[],
            enough: None,
        }
    }

    /// Runs it in `folder`, which keeps the manifest and the logs. If the emulator itself crashes, which says nothing of
    /// what runs in it, that is told, and it is run again, a few times at most.
    pub fn run(&self, context: &Context, folder: &Path) -> Result<Ran> {
        for _ in 1..ATTEMPTS {
            let ran = self.once(context, folder)?;
            if !ran.log("output").contains(CRASHED) {
                return Ok(ran);
            }
            eprintln!("note  {}: QEMU crashed; again", folder.display());
        }
        self.once(context, folder)
    }

    fn once(&self, context: &Context, folder: &Path) -> Result<Ran> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let manifest = self.manifest.write(&folder.join("manifest.toml"))?;
        let output = File::create(folder.join("output")).context("cannot write the log")?;
        let mut command = context.terrane("run");
        command
            .arg(&manifest)
            .args(["--timeout", &self.limit.as_secs().to_string()])
            .arg("--log-dir")
            .arg(folder);
        if self.no_check {
            command.arg("--no-check");
        }
        command.arg("--").args(self.qemu);
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        let mut child = command.spawn().context("cannot run the terrane command")?;
        let mut ran = Ran {
            status: 0,
            folder: folder.to_owned(),
        };
        let mut enough = self.enough;
        let status = loop {
            if let Some(status) = child
                .try_wait()
                .context("cannot wait for the terrane command")?
            {
                break status;
            }
            if enough.is_some_and(|enough| enough(&ran)) {
                // It ends QEMU on this signal, and then itself. The shell has a `kill` of its own; not every machine has
                // the program.
                let end = format!("kill {}", child.id());
                run::check(Command::new("sh").args(["-c", &end]))?;
                enough = None;
            }
            thread::sleep(Duration::from_millis(100));
        };
        ran.status = status
            .code()
            .context("the terrane command was ended by a signal")?;
        Ok(ran)
    }
}

impl Ran {
    /// What a domain wrote to its console.
    pub fn console(&self, domain: &str) -> String {
        self.log(&format!("{domain}.log"))
    }

    /// What the hypervisor wrote.
    pub fn hypervisor(&self) -> String {
        self.log("terrane.log")
    }

    /// Fails unless the command ended with `status`.
    pub fn expect_status(&self, status: i32) -> Result<()> {
        if self.status == status {
            return Ok(());
        }
        let output = self.log("output");
        let lines: Vec<&str> = output.lines().rev().take(3).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        bail!(
            "`terrane run` ended with {}, not {status}; its last words: {}",
            self.status,
            last.join(" | ")
        )
    }

    /// Fails unless the hypervisor wrote a line that begins with `line`.
    pub fn expect_line(&self, line: &str) -> Result<()> {
        let said = self.hypervisor();
        ensure!(
            said.lines().any(|said| said.starts_with(line)),
            "the hypervisor never said `{line}`"
        );
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        fs::read(self.folder.join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// Output of a `terrane` command that is no boot: status and stdout.
pub fn ask(command: &mut Command) -> Result<(i32, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot run the terrane command")?;
    let status = output
        .status
        .code()
        .context("the terrane command was ended by a signal")?;
    Ok((status, String::from_utf8_lossy(&output.stdout).into_owned()))
}

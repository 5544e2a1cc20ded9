//! A machine that is booted by QEMU's own means rather than by `terrane run`: Linux alone, or Terrane by its boot loader.
//! All consoles are one file then.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Context;
use crate::install::program;
use crate::manifest::Manifest;
use crate::run;

/// After this much time the machine is hung.
const LIMIT: Duration = Duration::from_secs(600);

/// Boots the machine of `manifest` with what `boot` adds until it is off; gives what came over its serial line, which is
/// kept in `folder` under `name`.
pub fn boot(
    context: &Context,
    manifest: &Manifest,
    folder: &Path,
    name: &str,
    boot: &[String],
) -> Result<String> {
    let console = folder.join(format!("{name}.log"));
    let mut command = Command::new(program(context.arch));
    command
        .args(manifest.machine())
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial"])
        .arg(format!("file:{}", console.display()))
        .args(boot);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join(format!("{name}.err")))?)
        .spawn()
        .with_context(|| format!("cannot run `{}`", run::line(&command)))?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("the machine hangs, see {}", console.display());
        }
        thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        bail!("`{}` ended with {status}", run::line(&command));
    }
    let said = fs::read(&console).context("the machine said nothing")?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

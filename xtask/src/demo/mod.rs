//! `cargo xtask demo`: an unmodified Debian Linux as direct-mapped hardware domain, to a shell.
//!
//! On a terminal the shell is the user's. Without one, lines of stdin go to the shell and our exit status is the guest's.

mod relay;

use std::io::{self, BufRead as _, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, bail};

use self::relay::Relay;
use crate::arch::Arch;
use crate::build;
use crate::fetch::guests::{self, Kernel};
use crate::initramfs::{Initramfs, drivers};
use crate::manifest::{Domain, Manifest};
use crate::paths;
use crate::run::step;

/// Ends the guest's input (ASCII "end of transmission").
const END: u8 = 0x04;

const ON_A_TERMINAL: &str = include_str!("terminal.sh");
const FROM_A_PIPE: &str = include_str!("pipe.sh");

/// Runs the demo; gives the exit status for the process.
pub fn demo(arch: Arch, kernel: Kernel) -> Result<u8> {
    let folder = paths::scratch(arch, "demo")?;
    let interactive = io::stdin().is_terminal();

    step("making the ramdisk");
    let files = guests::kernel(arch, kernel)?;
    let task = if interactive {
        ON_A_TERMINAL
    } else {
        FROM_A_PIPE
    };
    let ramdisk = folder.join("initrd.gz");
    Initramfs {
        arch,
        drivers: drivers(arch),
        task,
        programs: &[],
    }
    .write(&files, &ramdisk)?;

    let products = build::all(arch)?;
    let terrane = build::command()?;
    let manifest =
        manifest(arch, &files.image, ramdisk, interactive).write(&folder.join("demo.toml"))?;
    step(format_args!("terrane run {}", manifest.display()));
    let mut command = Command::new(terrane);
    command
        .arg("run")
        .arg("--plain")
        .arg(&manifest)
        .env("TERRANE_HYPERVISOR", products.hypervisor());
    if interactive {
        let status = command.status().context("cannot run the terrane command")?;
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1));
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    converse(child.context("cannot run the terrane command")?)
}

/// The contract's whole example, on a machine with a disk and a network card to try.
fn manifest(arch: Arch, kernel: &Path, ramdisk: PathBuf, interactive: bool) -> Manifest {
    let mut manifest = Manifest::plain(arch, 2, "2GiB");
    manifest
        .argument("-nic")
        .argument("user,model=virtio-net-pci");
    // Without a terminal only what the commands print is of interest.
    let cmdline = if interactive {
        "console=hvc0"
    } else {
        "console=hvc0 quiet loglevel=3"
    };
    manifest.domain(
        Domain::hardware("control", kernel)
            .ramdisk(ramdisk)
            .cmdline(cmdline),
    );
    manifest
}

/// Feeds our stdin to the guest's shell line by line and prints what it says, until the machine is off.
fn converse(mut child: Child) -> Result<u8> {
    let input = child
        .stdin
        .take()
        .context("no pipe to the terrane command")?;
    let output = child
        .stdout
        .take()
        .context("no pipe from the terrane command")?;
    let (wanted, asked) = channel();
    // Not joined: it may wait for a line of ours that never comes after the guest is off.
    thread::spawn(move || feed(input, &asked));
    let status = copy(output, &wanted)?;
    let ended = child
        .wait()
        .context("cannot wait for the terrane command")?;
    match status {
        Some(status) => Ok(status),
        None if ended.success() => bail!("the guest went off without telling its shell's status"),
        None => Ok(ended
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1)),
    }
}

/// One line for each request; the end of our stdin is passed on.
fn feed(mut guest: ChildStdin, asked: &Receiver<()>) -> io::Result<()> {
    let mut lines = io::stdin().lock();
    for () in asked {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            guest.write_all(&[END])?;
            guest.flush()?;
            break;
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        guest.write_all(&line)?;
        guest.flush()?;
    }
    // Held open until the machine is off: what reads the other end may take its closing for our going away.
    asked.iter().for_each(drop);
    Ok(())
}

/// Copies what the guest's commands print to stdout, and what came before them to stderr. Gives the shell's status.
fn copy(mut console: impl Read, wanted: &Sender<()>) -> Result<Option<u8>> {
    let mut relay = Relay::default();
    let mut chunk = [0; 4096];
    loop {
        let count = console
            .read(&mut chunk)
            .context("cannot read the console")?;
        if count == 0 {
            return Ok(relay.status());
        }
        for &byte in &chunk[..count] {
            relay.push(byte);
        }
        for () in relay.take_requests() {
            // A feeder that is gone has passed on the end of stdin already.
            let _ = wanted.send(());
        }
        io::stderr().write_all(&relay.take_before())?;
        io::stdout().write_all(&relay.take_output())?;
        io::stdout().flush()?;
    }
}

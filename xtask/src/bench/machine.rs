//! What is measured: a guest on a machine with something or nothing between. The machines themselves are in [`arm64`]
//! and [`pc`].

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{arm64, pc};
use crate::arch::Arch;
use crate::build::Products;
use crate::manifest::{Domain, Manifest};
use crate::run;

/// One instruction is one nanosecond of virtual time, and time starts the same in every run.
const COUNTED: &[&str] = &[
    "-icount",
    "shift=0,sleep=off",
    "-rtc",
    "base=2024-01-01,clock=vm",
];

/// No run takes nearly as long; one that does hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// What lies between the machine and the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Column {
    /// Nothing.
    Native,
    /// Debian's Xen, the guest as dom0: on x86-64 as PVH guest behind an emulated VT-d, without which it won't start.
    Xen,
    /// The same as PV guest, x86-64 only.
    XenPv,
    /// Terrane, the guest as direct-mapped hardware domain.
    Terrane,
}

impl Column {
    /// The columns of an architecture's table, in this order.
    pub const fn all(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::Aarch64 => &[Self::Native, Self::Xen, Self::Terrane],
            Arch::X86_64 => &[Self::Native, Self::Xen, Self::XenPv, Self::Terrane],
        }
    }

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Xen => "xen",
            Self::XenPv => "xen-pv",
            Self::Terrane => "terrane",
        }
    }
}

/// A guest to boot.
#[derive(Clone)]
pub struct Guest {
    /// The kernel, as its distribution packs it.
    pub kernel: PathBuf,
    /// The same without wrapping, for QEMU's own loader: what unpacks itself would do so in the guest's time.
    pub unwrapped: PathBuf,
    /// Its ramdisk.
    pub ramdisk: PathBuf,
    /// Boot arguments but for the console.
    pub arguments: String,
    /// MiB; `None` for all that the host's 2 GiB give.
    pub memory: Option<u64>,
    /// CPUs of the host, and of the guest.
    pub cpus: u32,
}

/// What makes the machines.
pub struct Bench {
    /// The architecture.
    pub arch: Arch,
    /// Hypervisor and guests.
    pub products: Products,
    /// The `terrane` command.
    pub command: PathBuf,
    /// For files that are made on the way.
    pub folder: PathBuf,
}

/// A machine that runs, until this is dropped.
pub struct Running {
    child: Child,
    console: Receiver<String>,
    begun: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// A command that boots `guest` under `column`.
    pub fn machine(&self, column: Column, guest: &Guest, counted: bool) -> Result<Command> {
        let mut command = match (column, self.arch) {
            (Column::Terrane, _) => self.terrane(guest)?,
            (_, Arch::Aarch64) => arm64::machine(column, guest)?,
            (_, Arch::X86_64) => pc::machine(column, guest)?,
        };
        if counted {
            command.args(COUNTED);
        }
        command.arg("-no-reboot");
        Ok(command)
    }

    fn terrane(&self, guest: &Guest) -> Result<Command> {
        let memory = guest
            .memory
            .map_or_else(|| "rest".to_owned(), |memory| format!("{memory}MiB"));
        let cpu = match self.arch {
            Arch::Aarch64 => self.arch.cpu(),
            Arch::X86_64 => pc::CPU,
        };
        let mut manifest = Manifest::new(self.arch, self.arch.machine(), cpu, guest.cpus, "2GiB");
        let domain = Domain::hardware("control", &guest.kernel)
            .ramdisk(&guest.ramdisk)
            .cmdline(&format!("console=hvc0 {}", guest.arguments))
            .key("memory", &format!("\"{memory}\""))
            .key("cpus", &guest.cpus.to_string());
        manifest.domain(domain);
        let manifest = manifest.write(&self.folder.join("bench.toml"))?;
        let folder = self.folder.join("image");
        let mut image = Command::new(&self.command);
        image.arg("image").arg(manifest).arg("-o").arg(&folder);
        image.env("TERRANE_HYPERVISOR", self.products.hypervisor());
        run::output(&mut image)?;
        let mut command = Command::new("sh");
        command.arg(folder.join("qemu.sh"));
        Ok(command)
    }
}

impl Running {
    /// Starts a machine.
    pub fn start(mut command: Command) -> Result<Self> {
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run `{}`", run::line(&command)))?;
        let output = child.stdout.take().context("no pipe from the machine")?;
        let (lines, console) = channel();
        // Ends with the machine, whose end closes the pipe. Who waits for a line can so stop waiting.
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                if lines
                    .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                    .is_err()
                {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self {
            child,
            console,
            begun,
        })
    }

    /// The console's next lines up to one that contains `marker`, that one included, and the time since the start.
    pub fn until(&mut self, marker: &str) -> Result<(Vec<String>, Duration)> {
        self.until_one_of(&[marker])
    }

    /// The same up to a line that contains any of `markers`.
    pub fn until_one_of(&mut self, markers: &[&str]) -> Result<(Vec<String>, Duration)> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self
                .console
                .recv_timeout(LIMIT.saturating_sub(self.begun.elapsed()))
            {
                Ok(line) => {
                    let found = markers.iter().any(|marker| line.contains(marker));
                    lines.push(line);
                    if found {
                        return Ok((lines, self.begun.elapsed()));
                    }
                }
                Err(why) => {
                    let why = if why == RecvTimeoutError::Timeout {
                        "hung"
                    } else {
                        "ended"
                    };
                    let last = lines.split_off(lines.len().saturating_sub(3)).join(" | ");
                    let markers = markers.join("` or `");
                    bail!("the machine {why} before it said `{markers}`; its last words: {last}");
                }
            }
        }
    }

    /// Types on the console.
    pub fn types(&mut self, keys: &[u8]) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no console")?;
        input
            .write_all(keys)
            .and_then(|()| input.flush())
            .context("cannot type")
    }
}

/// Boots and reads up to `marker`.
pub fn lines(command: Command, marker: &str) -> Result<Vec<String>> {
    Ok(Running::start(command)?.until(marker)?.0)
}

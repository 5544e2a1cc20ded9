//! The machine that is measured: QEMU's `virt` with a Cortex-A57, under Linux alone, Xen, or Terrane.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::build::Products;
use crate::fetch::guests;
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
    /// Debian's Xen, the guest as dom0.
    Xen,
    /// Terrane, the guest as direct-mapped hardware domain.
    Terrane,
}

/// The columns, in the order of the table.
pub const COLUMNS: [Column; 3] = [Column::Native, Column::Xen, Column::Terrane];

/// A guest to boot.
#[derive(Clone)]
pub struct Guest {
    /// An arm64 Image.
    pub kernel: PathBuf,
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
        let mut command = match column {
            Column::Native => native(guest),
            Column::Xen => xen(guest)?,
            Column::Terrane => self.terrane(guest)?,
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
        let mut manifest = Manifest::plain(Arch::Aarch64, guest.cpus, "2GiB");
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

fn qemu(machine: &str, memory: u64, cpus: u32) -> Command {
    let mut command = Command::new("qemu-system-aarch64");
    command.args([
        "-M",
        machine,
        "-cpu",
        "cortex-a57",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    command.args(["-m", &memory.to_string(), "-smp", &cpus.to_string()]);
    command
}

fn native(guest: &Guest) -> Command {
    let mut command = qemu(
        "virt,gic-version=3",
        guest.memory.unwrap_or(2048),
        guest.cpus,
    );
    command
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.ramdisk);
    command.args(["-append", &format!("console=ttyAMA0 {}", guest.arguments)]);
    command
}

fn xen(guest: &Guest) -> Result<Command> {
    let mut command = qemu("virt,virtualization=on,gic-version=3", 2048, guest.cpus);
    let memory = guest.memory.context("a dom0 has a size")?;
    let cpus = guest.cpus;
    command.arg("-kernel").arg(guests::xen(Arch::Aarch64)?).arg("-append").arg(format!(
        "dom0_mem={memory}M dom0_max_vcpus={cpus} bootscrub=0 console=dtuart dtuart=/pl011@9000000"
    ));
    let arguments = format!("console=hvc0 {}", guest.arguments).replace(',', ",,");
    command.arg("-device").arg(format!(
        "guest-loader,addr=0x50000000,kernel={},bootargs={arguments}",
        guest.kernel.display()
    ));
    command.arg("-device").arg(format!(
        "guest-loader,addr=0x54000000,initrd={}",
        guest.ramdisk.display()
    ));
    Ok(command)
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
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self
                .console
                .recv_timeout(LIMIT.saturating_sub(self.begun.elapsed()))
            {
                Ok(line) => {
                    let found = line.contains(marker);
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
                    bail!("the machine {why} before it said `{marker}`; its last words: {last}");
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

/// Writes a copy of the bare-metal `guest` that takes the same work to load as `kernel`: as long, and with the same
/// header fields. So what happens before a guest's first instruction can be counted in a guest that tells.
pub fn disguise(guest: &Path, kernel: &Path, as_file: &Path) -> Result<()> {
    const SIZES: std::ops::Range<usize> = 8..32; // text_offset, image_size, flags
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (mut bytes, kernel) = (read(guest)?, read(kernel)?);
    bytes.resize(kernel.len(), 0);
    let (Some(fields), Some(wanted)) = (bytes.get_mut(SIZES), kernel.get(SIZES)) else {
        bail!("{} is no arm64 Image", guest.display());
    };
    fields.copy_from_slice(wanted);
    std::fs::write(as_file, bytes).with_context(|| format!("cannot write {}", as_file.display()))
}

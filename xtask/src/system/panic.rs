//! A fault of the hypervisor itself. No guest can cause one, so QEMU's debugger breaks an instruction of it: the CPU that
//! comes there next reports, and the other stops too.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSymbol as _};

use super::boot::{Boot, Ran};
use super::{Context, Scenario, probe};
use crate::arch::Arch;
use crate::manifest::{Domain, Manifest};

/// The scenario, for the hypervisor that has exception vectors in its image.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    match arch {
        Arch::Aarch64 => vec![Scenario::new("panic-stops-all", stops_all)],
        Arch::X86_64 => Vec::new(),
    }
}

/// Where the vectors have synchronous exceptions from a guest (Arm ARM DDI 0487, D1.3.1).
const SYNCHRONOUS: u64 = 0x400;

/// One CPU's guest traps all the time; the other's sleeps.
fn stops_all(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 2, "512MiB");
    let attacker = Domain::new("attacker", &context.products.guest("attacker"))
        .key("memory", "\"64MiB\"")
        .key("direct-map", "true")
        .key("on-poweroff", "\"restart\"")
        .cmdline("seed=1 only=hypercalls");
    manifest
        .domain(probe::hardware(context, "end=hang").key("memory", "\"128MiB\""))
        .domain(attacker);
    // A socket's path must be short.
    let sockets = tempfile::tempdir().context("cannot make a folder for the debugger's socket")?;
    let socket = sockets.path().join("gdb");
    let server = format!("unix:{},server=on,wait=off", socket.display());
    let vectors = symbol(
        &context.products.hypervisor().with_extension("elf"),
        "exception_vectors",
    )?;
    let ran = thread::scope(|scope| {
        let breaker = scope.spawn(|| break_hypervisor(folder, &socket, vectors));
        let ran = Boot {
            qemu: &["-gdb", &server],
            enough: Some(stopped),
            ..Boot::new(&manifest)
        }
        .run(context, folder);
        breaker
            .join()
            .ok()
            .context("the debugger's thread panicked")??;
        ran
    })?;
    ran.expect_line("panic: synchronous exception at EL2")?;
    ran.expect_line("1 of 1 other CPUs stopped")
}

fn stopped(ran: &Ran) -> bool {
    ran.hypervisor().contains("other CPUs stopped")
}

/// Waits until both guests run, and overwrites the first instruction of the vector with one that is undefined.
fn break_hypervisor(folder: &Path, socket: &Path, vectors: u64) -> Result<()> {
    let log = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let mut tries = 0;
    while !log("control.log").contains("probe: pass") || log("attacker.log").is_empty() {
        tries += 1;
        ensure!(tries < 3000, "the guests don't come up");
        thread::sleep(Duration::from_millis(100));
    }
    let said = log("terrane.log");
    let image = said
        .split_once(" at 0x")
        .and_then(|(_, rest)| u64::from_str_radix(rest.split_once(',')?.0, 16).ok())
        .context("the hypervisor doesn't say where it is")?;
    let mut debugger = Debugger(UnixStream::connect(socket).context("no debugger")?);
    debugger.ask("Qqemu.PhyMemMode:1")?;
    debugger.ask(&format!("M{:x},4:00000000", image + vectors + SYNCHRONOUS))?;
    debugger.ask("D")
}

/// The value of a symbol in an ELF file.
fn symbol(file: &Path, name: &str) -> Result<u64> {
    let elf = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let elf = object::File::parse(elf.as_slice())?;
    let found = elf.symbols().find(|symbol| symbol.name() == Ok(name));
    Ok(found
        .with_context(|| format!("no symbol {name}"))?
        .address())
}

/// QEMU's end of GDB's remote protocol (GDB's manual, appendix E). The machine stands still while it is connected.
struct Debugger(UnixStream);

impl Debugger {
    /// Sends a packet that is answered by `OK`.
    fn ask(&mut self, packet: &str) -> Result<()> {
        let sum = packet.bytes().fold(0, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").context("the debugger went away")?;
        let mut answer = Vec::new();
        while !answer.contains(&b'#') {
            let mut byte = [0];
            self.0
                .read_exact(&mut byte)
                .context("the debugger went away")?;
            answer.push(byte[0]);
        }
        self.0
            .read_exact(&mut [0; 2])
            .context("the debugger went away")?;
        self.0.write_all(b"+").context("the debugger went away")?;
        ensure!(
            answer.ends_with(b"$OK#"),
            "the debugger answers `{packet}` by `{}`",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }
}

//! Traffic through a network card, to an echo on the other side.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::netlink;

/// QEMU's user network: the guest's own address.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: u8 = 24;
/// Where the harness puts an echo: `guestfwd=tcp:10.0.2.100:7-cmd:cat`.
const ECHO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 100), 7);
const BYTES: usize = 1 << 20;

/// `[INTERFACE]`: brings the interface up (default: the first that isn't `lo`), sends a mebibyte to the echo and compares
/// what comes back.
///
/// # Errors
/// No interface, no connection, or other data.
pub fn check(arguments: &[&str]) -> Result<String> {
    let name = match arguments.first() {
        Some(name) => (*name).to_owned(),
        None => first_interface()?,
    };
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .with_context(|| format!("no {name}"))?;
    netlink::bring_up(index.trim().parse().context("ifindex")?, OWN, PREFIX)?;
    let sent: Vec<u8> = (0..BYTES)
        .map(|index| u8::try_from(index % 251).unwrap_or(0))
        .collect();
    let back = echo(&sent)?;
    let difference = sent.iter().zip(&back).position(|(sent, back)| sent != back);
    ensure!(
        difference.is_none(),
        "byte {} differs",
        difference.unwrap_or_default()
    );
    let count = |direction| {
        fs::read_to_string(format!(
            "/sys/class/net/{name}/statistics/{direction}_packets"
        ))
        .unwrap_or_default()
        .trim()
        .to_owned()
    };
    Ok(format!(
        "{name} bytes={BYTES} tx={} rx={}",
        count("tx"),
        count("rx")
    ))
}

/// Waits 10 s for a driver to find its card.
fn first_interface() -> Result<String> {
    let begin = Instant::now();
    loop {
        let names = fs::read_dir("/sys/class/net").context("no network")?;
        let found = names
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false))
            .min();
        if let Some(name) = found {
            return Ok(name);
        }
        ensure!(begin.elapsed() < Duration::from_secs(10), "no interface");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Connects, with retries while the link comes up, and gives back as many bytes as it sends.
fn echo(data: &[u8]) -> Result<Vec<u8>> {
    let begin = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&SocketAddr::V4(ECHO), Duration::from_secs(2)) {
            Ok(stream) => break stream,
            Err(_) if begin.elapsed() < Duration::from_secs(15) => {
                thread::sleep(Duration::from_millis(100))
            }
            Err(error) => return Err(error).context("no echo"),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let mut writer = stream.try_clone()?;
    let mut back = vec![0; data.len()];
    thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(move || writer.write_all(data));
        stream
            .read_exact(&mut back)
            .context("the echo fell silent")?;
        sending
            .join()
            .ok()
            .context("a thread panicked")?
            .context("cannot send")?;
        Ok(())
    })?;
    // The other side may be gone first.
    let _ = stream.shutdown(Shutdown::Both);
    Ok(back)
}

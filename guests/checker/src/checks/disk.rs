//! Block devices, past the page cache.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, open};
use sha2::{Digest as _, Sha256};

const CHUNK: usize = 1 << 18;
const MIB: u64 = 1 << 20;

/// A chunk aligned as O_DIRECT wants it.
#[repr(C, align(4096))]
struct Buffer([u8; CHUNK]);

impl Buffer {
    fn new() -> Box<Self> {
        Box::new(Self([0; CHUNK]))
    }
}

/// Opens without cache. Drivers find their disks a while after they are loaded: waits 10 s for the node.
fn direct(path: &str, write: bool) -> Result<File> {
    let begin = Instant::now();
    while !Path::new(path).exists() {
        ensure!(begin.elapsed() < Duration::from_secs(10), "no {path}");
        thread::sleep(Duration::from_millis(20));
    }
    let access = if write {
        OFlags::RDWR | OFlags::DSYNC
    } else {
        OFlags::RDONLY
    };
    let file: OwnedFd = open(
        path,
        access | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("cannot open {path}"))?;
    Ok(file.into())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `DEVICE[:SHA256]`: the digest of the whole device, compared if one is given.
///
/// # Errors
/// A read that fails, or another digest.
pub fn checksum(arguments: &[&str]) -> Result<String> {
    let (path, expected) = match arguments {
        [path] => (path, None),
        [path, expected] => (path, Some(expected)),
        _ => bail!("arguments: DEVICE[:SHA256]"),
    };
    let mut file = direct(path, false)?;
    let mut buffer = Buffer::new();
    let mut digest = Sha256::new();
    let mut bytes = 0u64;
    loop {
        let count = file.read(&mut buffer.0).context("read")?;
        if count == 0 {
            break;
        }
        digest.update(buffer.0.get(..count).unwrap_or_default());
        bytes += count as u64;
    }
    let seen = hex(&digest.finalize());
    if let Some(expected) = expected {
        ensure!(
            seen.eq_ignore_ascii_case(expected),
            "{path} sha256={seen}, not {expected}"
        );
    }
    Ok(format!("{path} sha256={seen} bytes={bytes}"))
}

/// `DEVICE[:MIB]`: writes a pattern to the first MIB mebibytes (default 4) and reads it back. The pattern's 64-bit words
/// are their own offset times an odd constant, little-endian, so that the workstation can check the image too.
///
/// # Errors
/// A transfer that fails, or other data.
pub fn write(arguments: &[&str]) -> Result<String> {
    let (path, mebibytes) = match arguments {
        [path] => (path, 4),
        [path, count] => (path, count.parse().context("MIB")?),
        _ => bail!("arguments: DEVICE[:MIB]"),
    };
    let mut file = direct(path, true)?;
    let mut buffer = Buffer::new();
    let mut digest = Sha256::new();
    let chunks = mebibytes * MIB / CHUNK as u64;
    for chunk in 0..chunks {
        fill(&mut buffer.0, chunk);
        digest.update(buffer.0);
        file.write_all(&buffer.0).context("write")?;
    }
    let mut back = Buffer::new();
    for chunk in 0..chunks {
        fill(&mut buffer.0, chunk);
        file.read_exact_at(&mut back.0, chunk * CHUNK as u64)
            .context("read back")?;
        ensure!(
            back.0 == buffer.0,
            "{path} differs in chunk {chunk} of {CHUNK} bytes"
        );
    }
    Ok(format!(
        "{path} sha256={} bytes={}",
        hex(&digest.finalize()),
        chunks * CHUNK as u64
    ))
}

fn fill(buffer: &mut [u8], chunk: u64) {
    let start = chunk * CHUNK as u64;
    for (index, word) in (0u64..).zip(buffer.as_chunks_mut::<8>().0) {
        *word = (start + index * 8)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, fill, hex};

    #[test]
    fn the_pattern_differs_from_chunk_to_chunk() {
        let (mut first, mut second) = (vec![0; CHUNK], vec![0; CHUNK]);
        fill(&mut first, 0);
        fill(&mut second, 1);
        assert_ne!(first, second);
        assert_eq!(
            first[8..16],
            0x9e37_79b9_7f4a_7c15u64.wrapping_mul(8).to_le_bytes()
        );
    }

    #[test]
    fn digests_are_lower_case() {
        assert_eq!(hex(&[0xab, 0x01]), "ab01");
    }
}

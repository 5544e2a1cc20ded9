//! Where the compressed kernel lies in a bzImage.
//!
//! Source: Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"; for the size behind the payload
//! scripts/Makefile.lib, `size_append`, and its use for every compression but gzip, which has the same by itself
//! (RFC 1952, ISIZE).

const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The version of the boot protocol that first told where the payload lies.
const FIRST_WITH_PAYLOAD: u16 = 0x0208;
const SECTOR: usize = 512;

/// Whether the file is a bzImage.
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
        && bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// The compressed kernel, with the size behind it.
pub fn payload(bytes: &[u8]) -> Result<&[u8], &'static str> {
    const CUT: &str = "its header is cut short";
    let version = bytes.get(VERSION..VERSION + 2).ok_or(CUT)?;
    let version = u16::from_le_bytes(version.try_into().map_err(|_| CUT)?);
    if version < FIRST_WITH_PAYLOAD {
        return Err("it is older than Linux 2.6.26 and doesn't say where its kernel lies");
    }
    // Zero stands for four, as in the first kernels.
    let sectors = match bytes.get(SETUP_SECTORS).ok_or(CUT)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let offset = word(bytes, PAYLOAD_OFFSET).ok_or(CUT)?;
    let length = word(bytes, PAYLOAD_LENGTH).ok_or(CUT)?;
    let start = ((sectors + 1) * SECTOR).checked_add(offset);
    let range = start.and_then(|start| Some(start..start.checked_add(length)?));
    range
        .and_then(|range| bytes.get(range))
        .ok_or("its payload lies outside the file")
}

/// The size of what comes out, from the payload's last four bytes.
pub fn size_behind(payload: &[u8]) -> Option<u32> {
    payload.last_chunk().copied().map(u32::from_le_bytes)
}

fn word(bytes: &[u8], offset: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(offset..offset + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

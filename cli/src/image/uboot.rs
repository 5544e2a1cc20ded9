//! U-Boot's legacy image format around a script, as `mkimage -T script` writes it.
//!
//! Source: U-Boot, include/image.h (`struct legacy_img_hdr` and the `IH_*` numbers); a script's
//! data is a list of lengths ended by 0, then the text.

const MAGIC: u32 = 0x2705_1956;
const HEADER_BYTES: usize = 64;
const NAME_BYTES: usize = 32;
const OS_LINUX: u8 = 5;
const ARCH_ARM64: u8 = 22;
const TYPE_SCRIPT: u8 = 6;
const COMPRESSION_NONE: u8 = 0;

/// `boot.scr` for this text. `name` is shown by U-Boot; what is beyond 32 bytes is cut. `None` if
/// the text is 4 GiB or more.
pub fn script(name: &str, text: &str) -> Option<Vec<u8>> {
    let length = u32::try_from(text.len()).ok()?;
    let mut data = Vec::with_capacity(text.len() + 8);
    data.extend(length.to_be_bytes());
    data.extend(0u32.to_be_bytes());
    data.extend(text.as_bytes());
    let size = u32::try_from(data.len()).ok()?;

    let mut shown = [0u8; NAME_BYTES];
    for (place, byte) in shown.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    // The time is left 0, so that the same manifest gives the same file.
    let (time, load, entry) = (0u32, 0u32, 0u32);
    let header = |header_crc: u32| {
        let words = [MAGIC, header_crc, time, size, load, entry, crc32(&data)];
        let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        header.extend([OS_LINUX, ARCH_ARM64, TYPE_SCRIPT, COMPRESSION_NONE]);
        header.extend(shown);
        header
    };
    // The header's own checksum is taken with its field 0.
    let mut image = header(crc32(&header(0)));
    debug_assert_eq!(image.len(), HEADER_BYTES);
    image.append(&mut data);
    Some(image)
}

/// CRC-32 as in zlib: reflected, polynomial 0x04c11db7.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_header_has_its_fields_where_uboot_reads_them() {
        let image = script("terrane", "echo hi\n").unwrap();
        let word = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), MAGIC);
        assert_eq!(word(12), 16);
        assert_eq!(word(24), crc32(&image[64..]));
        assert_eq!(&image[28..32], &[5, 22, 6, 0]);
        assert_eq!(&image[32..40], b"terrane\0");
        assert_eq!(&image[64..], b"\0\0\0\x08\0\0\0\0echo hi\n");
        let mut header = image[..64].to_vec();
        header[4..8].fill(0);
        assert_eq!(word(4), crc32(&header));
    }

    #[test]
    fn a_long_name_is_cut() {
        let image = script(&"n".repeat(40), "").unwrap();
        assert_eq!(image.len(), 64 + 8);
        assert!(image[32..64].iter().all(|byte| *byte == b'n'));
    }
}

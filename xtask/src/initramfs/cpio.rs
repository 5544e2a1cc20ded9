//! Writing the archive that Linux unpacks as its first root: cpio in the "newc" form
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fmt::Write as _;

const DIRECTORY: u32 = 0o04_0755;
const PROGRAM: u32 = 0o10_0755;
const LINK: u32 = 0o12_0777;
const CHARACTER_DEVICE: u32 = 0o02_0600;

/// An archive being written. Folders must be added before what lies in them.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), data);
    }

    /// Adds a symbolic link to `target`.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device of this major and minor number.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries, // inode: distinct, so that nothing is taken for a hard link
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time of change
            length(data.len()),
            0, // the archive's own device
            0,
            device.0,
            device.1,
            length(path.len() + 1),
            0, // checksum, of the other form only
        ];
        let mut header = String::from("070701");
        for field in fields {
            write!(header, "{field:08x}").expect("writing into a string cannot fail");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a file of a test system is below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_of_110_bytes_name_and_data_each_padded_to_4() {
        let mut archive = Archive::default();
        archive.file("init", b"12345");
        let bytes = archive.finish();
        let second = 110 + 6 + 8; // "init\0" ends at 115, padded to 116; five bytes, padded to eight
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[second..second + 6], b"070701");
    }
}

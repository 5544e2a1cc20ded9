//! Where an ELF image lies in memory, by its program headers.

use layout::{MachineAddress, MachineRange};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// The machine addresses of its loaded segments, from the first byte of the lowest to the last of
/// the highest, what isn't in the file included.
pub fn range(bytes: &[u8]) -> Result<MachineRange, String> {
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(|error| error.to_string())?;
    let endian = header.endian().map_err(|error| error.to_string())?;
    let segments = header
        .program_headers(endian, bytes)
        .map_err(|error| error.to_string())?;
    let loaded = || {
        segments
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0)
    };
    let start = loaded().map(|segment| segment.p_paddr(endian)).min();
    let end = loaded()
        .map(|segment| segment.p_paddr(endian).checked_add(segment.p_memsz(endian)))
        .try_fold(0, |end, one| Some(u64::max(end, one?)));
    let start = start.ok_or("no segment is loaded")?;
    end.and_then(|end| MachineRange::new(MachineAddress::new(start), end - start))
        .ok_or_else(|| "a segment ends beyond 2^64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_elf_file_is_said() {
        assert!(range(b"").is_err());
        assert!(range(b"\x7fELF").is_err());
        assert!(range(&[0; 4096]).is_err());
    }
}

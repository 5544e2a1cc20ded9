//! A guest's own translation: from a virtual address to a guest physical one, by the tables that the
//! guest has made. For what the hypervisor reads on the guest's behalf: hypercall buffers and
//! instructions. The CPU's own walks are nested paging's business.
//!
//! Accessed and dirty bits are left as they are, and SMAP and protection keys aren't looked at: they
//! guard the guest from itself. APM volume 2, 5.2 to 5.6.

use crate::boot_info::Physical;

/// The registers that decide how an address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// What is about to be done at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// It is written.
    pub write: bool,
    /// An instruction is fetched.
    pub fetch: bool,
    /// With the rights of CPL 3.
    pub user: bool,
}

impl Access {
    /// The kernel reads.
    pub const READ: Self = Self {
        write: false,
        fetch: false,
        user: false,
    };
    /// The kernel writes.
    pub const WRITE: Self = Self {
        write: true,
        ..Self::READ
    };
}

const CR0_WRITE_PROTECT: u64 = 1 << 16;
const CR0_PAGING: u64 = 1 << 31;
const CR4_LARGE_PAGES: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_FIVE_LEVELS: u64 = 1 << 12;
const EFER_LONG_MODE: u64 = 1 << 10;
const EFER_NO_EXECUTE: u64 = 1 << 11;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const EXECUTE_NEVER: u64 = 1 << 63;

/// The address bits of a descriptor of 8 bytes.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The guest physical address behind a virtual one; `None` where the guest's own access would fault.
/// `memory` is the guest's, by guest physical address.
#[must_use]
pub fn translate(
    paging: &Paging,
    address: u64,
    access: Access,
    memory: &impl Physical,
) -> Option<u64> {
    if paging.cr0 & CR0_PAGING == 0 {
        return Some(address & 0xffff_ffff);
    }
    if paging.efer & EFER_LONG_MODE != 0 {
        let levels = if paging.cr4 & CR4_FIVE_LEVELS != 0 {
            5
        } else {
            4
        };
        let unused = 64 - (12 + 9 * levels);
        let canonical = (address << unused).cast_signed() >> unused;
        if canonical.cast_unsigned() != address {
            return None;
        }
        return wide(
            paging,
            address,
            access,
            memory,
            paging.cr3 & ADDRESS,
            levels,
        );
    }
    let address = address & 0xffff_ffff;
    if paging.cr4 & CR4_PAE == 0 {
        return narrow(paging, address, access, memory);
    }
    // The four entries at the top have neither permissions nor large pages.
    let pointer = (paging.cr3 & 0xffff_ffe0) + (address >> 30) * 8;
    let directory = word(memory, pointer)?;
    if directory & PRESENT == 0 {
        return None;
    }
    wide(paging, address, access, memory, directory & ADDRESS, 2)
}

/// How many of `bytes` bytes from an address on lie in the address's page: what follows is translated anew.
#[must_use]
pub fn in_page(address: u64, bytes: usize) -> usize {
    const PAGE: u64 = 4096;
    usize::try_from(PAGE - address % PAGE).map_or(bytes, |left| left.min(bytes))
}

/// Tables of 512 entries of 8 bytes.
fn wide(
    paging: &Paging,
    address: u64,
    access: Access,
    memory: &impl Physical,
    root: u64,
    levels: u32,
) -> Option<u64> {
    let mut table = root;
    let mut rights = USER | WRITABLE;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = word(memory, table + (address >> shift & 0x1ff) * 8)?;
        if entry & PRESENT == 0 {
            return None;
        }
        rights &= entry;
        let forbidden = paging.efer & EFER_NO_EXECUTE != 0 && entry & EXECUTE_NEVER != 0;
        if access.fetch && forbidden {
            return None;
        }
        if level == 0 || (level <= 2 && entry & LARGE != 0) {
            let within = (1 << shift) - 1;
            let allowed = allows(paging, rights, access);
            return allowed.then_some(entry & ADDRESS & !within | address & within);
        }
        table = entry & ADDRESS;
    }
    None
}

/// Two tables of 1024 entries of 4 bytes.
fn narrow(paging: &Paging, address: u64, access: Access, memory: &impl Physical) -> Option<u64> {
    let upper = half(memory, (paging.cr3 & 0xffff_f000) + (address >> 22) * 4)?;
    if upper & PRESENT == 0 {
        return None;
    }
    if upper & LARGE != 0 && paging.cr4 & CR4_LARGE_PAGES != 0 {
        // Bits 39:32 of the address are in bits 20:13.
        let base = upper & 0xffc0_0000 | (upper >> 13 & 0xff) << 32;
        return allows(paging, upper, access).then_some(base | address & 0x3f_ffff);
    }
    let lower = half(memory, (upper & 0xffff_f000) + (address >> 12 & 0x3ff) * 4)?;
    let present = lower & PRESENT != 0;
    (present && allows(paging, upper & lower, access))
        .then_some(lower & 0xffff_f000 | address & 0xfff)
}

/// Whether the rights that all levels have in common suffice.
const fn allows(paging: &Paging, rights: u64, access: Access) -> bool {
    let writable = rights & WRITABLE != 0 || !access.user && paging.cr0 & CR0_WRITE_PROTECT == 0;
    (!access.user || rights & USER != 0) && (!access.write || writable)
}

fn word(memory: &impl Physical, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    memory.read(address, &mut bytes)?;
    Some(u64::from_le_bytes(bytes))
}

fn half(memory: &impl Physical, address: u64) -> Option<u64> {
    let mut bytes = [0; 4];
    memory.read(address, &mut bytes)?;
    Some(u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
#[path = "guest_walk_tests.rs"]
mod tests;

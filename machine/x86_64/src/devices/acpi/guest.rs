//! The tables of a domain in the host's layout: a root pointer, an XSDT and a MADT of its own, everything else the host's
//! as it is, by an allow-list.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::{FIRST_ROOT_BYTES, HEADER_BYTES, Header, ROOT_SIGNATURE, Root, Table};
use super::{IoApic, Override};
use crate::devices::lapic::BASE_ADDRESS;

/// Tables that a domain sees where the host has them. The FADT (FACP) leads to DSDT and FACS.
///
/// Not among them: HPET; IOMMUs (DMAR, IVRS), which stay hidden; topology of all the host's CPUs and memory (SRAT, SLIT,
/// HMAT, PPTT); the UART that is the hypervisor's (SPCR, DBG2); machine checks (HEST, BERT, ERST, EINJ); watchdogs (WDAT,
/// WDRT); and whatever nobody has looked at.
const SHOWN: [[u8; 4]; 9] = [
    *b"FACP", *b"SSDT", *b"MCFG", *b"ECDT", *b"BGRT", *b"TPM2", *b"WAET", *b"BOOT", *b"VFCT",
];

/// Whether a domain sees the host's table with that signature.
#[must_use]
pub fn is_shown(signature: [u8; 4]) -> bool {
    SHOWN.contains(&signature)
}

/// What the tables of a domain are made of.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// The APIC IDs of its vCPUs in order, those of their CPUs.
    pub apic_ids: &'a [u32],
    /// The IO-APICs that it sees.
    pub io_apics: &'a [IoApic],
    /// The host's interrupt source overrides.
    pub overrides: &'a [Override],
    /// The host's tables.
    pub host: &'a [Table],
}

/// With 32 bits: a processor with an APIC ID from here on has a local x2APIC entry.
const FIRST_WIDE_ID: u32 = 0xff;

impl Guest<'_> {
    /// The bytes to lie at guest physical `address`, a multiple of 16: root pointer first, then the tables that are its own,
    /// the XSDT last. A domain without the host's FADT gets one that says what isn't there, and an empty DSDT.
    #[must_use]
    pub fn write(&self, address: u64) -> Vec<u8> {
        let shown = || self.host.iter().filter(|table| is_shown(table.signature));
        let mut entries: Vec<u64> = shown().map(|table| table.address).collect();
        let mut bytes = vec![0; size_of::<Root>().next_multiple_of(16)];
        let mut put = |table: &[u8]| {
            let at = address + bytes.len() as u64;
            bytes.extend_from_slice(table);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            at
        };
        entries.push(put(&self.madt()));
        if !shown().any(|table| table.signature == *b"FACP") {
            let dsdt = put(&table(*b"DSDT", 2, &[]));
            entries.push(put(&fadt(dsdt)));
        }
        let body: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
        let xsdt = put(&table(*b"XSDT", 1, &body));
        let root = root(xsdt);
        bytes[..root.len()].copy_from_slice(&root);
        bytes
    }

    /// Without PCAT_COMPAT: no 8259A.
    fn madt(&self) -> Vec<u8> {
        const ENABLED: [u8; 4] = 1_u32.to_le_bytes();
        let mut body = Vec::new();
        // The local APIC's address has 32 bits here.
        body.extend_from_slice(&BASE_ADDRESS.to_le_bytes()[..4]);
        body.extend_from_slice(&0_u32.to_le_bytes());
        for (uid, id) in (0_u32..).zip(self.apic_ids) {
            match (u8::try_from(uid), u8::try_from(*id)) {
                (Ok(uid), Ok(id)) if u32::from(id) < FIRST_WIDE_ID => {
                    body.extend_from_slice(&[0, 8, uid, id]);
                    body.extend_from_slice(&ENABLED);
                }
                _ => {
                    body.extend_from_slice(&[9, 16, 0, 0]);
                    body.extend_from_slice(&id.to_le_bytes());
                    body.extend_from_slice(&ENABLED);
                    body.extend_from_slice(&uid.to_le_bytes());
                }
            }
        }
        for chip in self.io_apics {
            body.extend_from_slice(&[1, 12, chip.id, 0]);
            body.extend_from_slice(&chip.address.to_le_bytes());
            body.extend_from_slice(&chip.first_interrupt.to_le_bytes());
        }
        for entry in self.overrides {
            body.extend_from_slice(&[2, 10, 0, entry.source]);
            body.extend_from_slice(&entry.interrupt.to_le_bytes());
            body.extend_from_slice(&entry.flags.to_le_bytes());
        }
        table(*b"APIC", 5, &body)
    }
}

/// The FADT of a domain without the PC's fixed hardware (ACPI 6.5, 5.2.9): hardware-reduced, no VGA, no RTC. Without it
/// Linux waits for a clock at port 0x70.
fn fadt(dsdt: u64) -> Vec<u8> {
    const BYTES: usize = 268;
    const BOOT: usize = 109;
    const FLAGS: usize = 112;
    const DSDT: usize = 140;
    const NO_VGA: u16 = 1 << 2;
    const NO_RTC: u16 = 1 << 5;
    const REDUCED: u32 = 1 << 20;
    let mut body = [0; BYTES - HEADER_BYTES];
    let mut put = |at: usize, value: &[u8]| {
        let at = at - HEADER_BYTES;
        body[at..at + value.len()].copy_from_slice(value);
    };
    put(BOOT, &(NO_VGA | NO_RTC).to_le_bytes());
    put(FLAGS, &REDUCED.to_le_bytes());
    put(DSDT, &dsdt.to_le_bytes());
    table(*b"FACP", 5, &body)
}

const OEM: [u8; 6] = *b"TERRAN";

/// A table with its header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + body.len();
    let header = Header {
        signature,
        length: count(length),
        revision,
        checksum: 0,
        oem: OEM,
        oem_table: *b"TERRANE ",
        oem_revision: U32::new(1),
        creator: *b"TRRN",
        creator_revision: U32::new(1),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes[core::mem::offset_of!(Header, checksum)] = checksum(&bytes);
    bytes
}

fn root(xsdt: u64) -> Vec<u8> {
    let mut root = Root {
        signature: ROOT_SIGNATURE,
        checksum: 0,
        oem: OEM,
        revision: 2,
        rsdt: U32::new(0),
        length: count(size_of::<Root>()),
        xsdt: U64::new(xsdt),
        extended_checksum: 0,
        reserved: [0; 3],
    };
    root.checksum = checksum(&root.as_bytes()[..FIRST_ROOT_BYTES]);
    root.extended_checksum = checksum(root.as_bytes());
    root.as_bytes().to_vec()
}

/// A length in bytes; a domain has no table of 4 GiB.
fn count(bytes: usize) -> U32 {
    U32::new(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// The byte that makes the sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

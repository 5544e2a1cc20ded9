//! Descriptors of VMSAv8-64 with a 4 KiB granule and 48-bit addresses: Arm ARM DDI 0487, D8.3.1. Stage 1 of EL2 and stage 2
//! of a domain differ in their attribute bits only ([`crate::stage1`], [`crate::stage2`]). The walking is `machine_paging`'s.

use machine_paging::{Format, LAST_LEVEL};

const VALID: u64 = 1;
/// Tells a table from a block, and is set in a page too.
const TABLE_OR_PAGE: u64 = 1 << 1;

/// The form of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vmsa;

impl Format for Vmsa {
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

    fn is_valid(self, entry: u64) -> bool {
        entry & VALID != 0
    }

    fn is_table(self, entry: u64) -> bool {
        entry & TABLE_OR_PAGE != 0
    }

    fn table(self, address: u64) -> u64 {
        address | VALID | TABLE_OR_PAGE
    }

    fn leaf(self, output: u64, attributes: u64, level: u8) -> u64 {
        let page = if level == LAST_LEVEL {
            TABLE_OR_PAGE
        } else {
            0
        };
        output | attributes | page | VALID
    }

    fn attributes(self, entry: u64, _level: u8) -> u64 {
        entry & !(Self::ADDRESS | TABLE_OR_PAGE | VALID)
    }

    fn first_leaf_level(self) -> u8 {
        // 1 GiB; level 0 holds tables only.
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{stage1, stage2};

    #[test]
    fn the_bits_of_the_manual() {
        let ram = stage2::Kind::Ram.attributes();
        assert_eq!(Vmsa.leaf(0x4000_0000, ram, 1), 0x4000_07fd);
        assert_eq!(Vmsa.leaf(0x4000_1000, ram, 3), 0x4000_17ff);
        let code = stage1::Kind::Code.attributes();
        assert_eq!(Vmsa.leaf(0x4020_0000, code, 2), 0x4020_07c5);
        assert_eq!(Vmsa.table(0x4000_3000), 0x4000_3003);
    }

    #[test]
    fn a_leafs_attributes_are_what_it_was_made_with() {
        for level in 1..=LAST_LEVEL {
            let device = stage2::Kind::Device.attributes();
            let entry = Vmsa.leaf(0xffff_c000_0000, device, level);
            assert!(Vmsa.is_valid(entry));
            assert_eq!(Vmsa.is_table(entry), level == LAST_LEVEL);
            assert_eq!(Vmsa.attributes(entry, level), device);
            assert_eq!(entry & Vmsa::ADDRESS, 0xffff_c000_0000);
        }
        assert!(!Vmsa.is_valid(0));
    }
}

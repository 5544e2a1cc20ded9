//! The interrupt translation service of the register file: it takes every command at once and remembers it.

use std::vec::Vec;

use super::Fake;
use crate::gic::registers::gits;
use crate::gic::{COMMAND, QUEUE_BYTES, Window};

pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const WINDOW: Window = Window {
    start: ITS,
    bytes: 2 * gits::FRAME,
};
/// Device table entries of 8 bytes, collection entries of 8, ITT entries of 12.
const TYPES: [u64; 3] = [1 << 56 | 7 << 48, 4 << 56 | 7 << 48, 2 << 56 | 7 << 48];
const BASER_FIXED: u64 = 7 << 56 | 0x1f << 48;
/// A command that the hardware stalls at: CLEAR for this event.
pub(crate) const STALLING_EVENT: u64 = 0xdead;

impl Fake {
    /// Sets the frame up as firmware leaves it: on, with a table of its own.
    pub(crate) fn preset_its(&self) {
        self.put64(
            ITS + gits::TYPER,
            1 | 11 << 4 | 15 << 8 | 15 << 13 | gits::TYPER_PTA | 1 << 37,
        );
        for (index, value) in (0..).zip(TYPES) {
            self.put64(ITS + gits::BASER + 8 * index, value);
        }
        self.put64(ITS + gits::BASER, TYPES[0] | gits::VALID | 0x7000_0000);
        self.put64(ITS + gits::CTLR, u64::from(gits::CTLR_ENABLED));
    }

    pub(crate) fn put64(&self, address: u64, value: u64) {
        self.preset(address, value & 0xffff_ffff);
        self.preset(address + 4, value >> 32);
    }

    pub(crate) fn get64(&self, address: u64) -> u64 {
        let memory = self.memory.borrow();
        let half = |address| memory.get(&(0, address)).copied().unwrap_or(0);
        half(address) | half(address + 4) << 32
    }

    /// What the frame does when a register has been written.
    pub(super) fn its_written(&self, address: u64, old: u64) {
        let Some(offset) = address
            .checked_sub(ITS)
            .filter(|&offset| offset < gits::FRAME)
        else {
            return;
        };
        let enabled = self.get64(ITS + gits::CTLR) as u32 & gits::CTLR_ENABLED != 0;
        match offset {
            gits::CTLR => {
                let quiescent = if enabled { 0 } else { gits::CTLR_QUIESCENT };
                self.preset(address, u64::from(quiescent) | u64::from(enabled));
            }
            gits::CBASER => self.put64(ITS + gits::CREADR, 0),
            gits::BASER..=gits::BASER_END => {
                // Read-only fields, and pages of 64 KiB only.
                let value = self.get64(address) & !(BASER_FIXED | 3 << 8);
                self.put64(address, value | old & BASER_FIXED | 2 << 8);
            }
            _ => {}
        }
        if enabled {
            self.its_run();
        }
    }

    fn its_run(&self) {
        let base = self.get64(ITS + gits::CBASER);
        let tail = self.get64(ITS + gits::CWRITER);
        let mut head = self.get64(ITS + gits::CREADR);
        if base & gits::VALID == 0 || head & gits::CREADR_STALLED != 0 {
            return;
        }
        let start = base & 0x000f_ffff_ffff_f000;
        while head != tail {
            let command: Vec<u64> = (0..4)
                .map(|word| self.get64(start + head + 8 * word))
                .collect();
            if command[1] == STALLING_EVENT {
                self.put64(ITS + gits::CREADR, head | gits::CREADR_STALLED);
                return;
            }
            self.commands
                .borrow_mut()
                .push([command[0], command[1], command[2], command[3]]);
            head = (head + COMMAND) % QUEUE_BYTES;
        }
        self.put64(ITS + gits::CREADR, head);
    }
}

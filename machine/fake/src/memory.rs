//! RAM: one atomic word for each 8 bytes, so that guests and hypervisor may change it at once without `unsafe`.

use std::sync::atomic::{AtomicU64, Ordering};

use layout::{FRAME_SIZE, MachineAddress, MfnRange};

/// The machine's RAM, one range of frames.
#[derive(Debug)]
pub struct Memory {
    frames: MfnRange,
    words: Vec<AtomicU64>,
}

impl Memory {
    /// RAM that holds zeroes.
    pub fn new(frames: MfnRange) -> Self {
        let words = frames.bytes().size() / 8;
        Self {
            frames,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Where it is.
    pub fn frames(&self) -> MfnRange {
        self.frames
    }

    /// The word that holds this byte; `None` if there is no RAM.
    pub fn word(&self, address: MachineAddress) -> Option<&AtomicU64> {
        let offset = address
            .raw()
            .checked_sub(self.frames.bytes().start().raw())?;
        self.words.get(usize::try_from(offset / 8).ok()?)
    }

    /// Reads a byte. Where there is no RAM it is all ones.
    pub fn byte(&self, address: MachineAddress) -> u8 {
        let shift = address.raw() % 8 * 8;
        self.word(address).map_or(0xff, |word| {
            word.load(Ordering::SeqCst).to_le_bytes()[(shift / 8) as usize]
        })
    }

    /// Writes a byte, and leaves its neighbours alone even if they change meanwhile.
    pub fn set_byte(&self, address: MachineAddress, value: u8) {
        let shift = address.raw() % 8 * 8;
        if let Some(word) = self.word(address) {
            let with = |old: u64| Some(old & !(0xff << shift) | u64::from(value) << shift);
            let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with);
        }
    }

    /// The bytes of some frames.
    pub fn bytes(&self, frames: MfnRange) -> Vec<u8> {
        let start = frames.bytes().start().raw();
        (start..start + frames.bytes().size())
            .map(|at| self.byte(MachineAddress::new(at)))
            .collect()
    }

    /// A sum over a frame's words that tells changes of a frame apart.
    pub fn digest(&self, frame: layout::Mfn) -> u64 {
        let start = frame.address().raw();
        (start..start + FRAME_SIZE)
            .step_by(8)
            .fold(0, |sum: u64, at| {
                let word = self
                    .word(MachineAddress::new(at))
                    .map_or(0, |word| word.load(Ordering::SeqCst));
                sum.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word
            })
    }
}

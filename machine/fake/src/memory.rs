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

    /// Reads bytes, word by word. Where there is no RAM they stay as they are.
    pub fn read(&self, address: MachineAddress, bytes: &mut [u8]) {
        let mut at = address.raw();
        let mut rest = bytes;
        while !rest.is_empty() {
            let skip = (at % 8) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(8 - skip));
            if let Some(word) = self.word(MachineAddress::new(at)) {
                now.copy_from_slice(
                    &word.load(Ordering::SeqCst).to_le_bytes()[skip..skip + now.len()],
                );
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Writes bytes, word by word; the neighbours of a part of a word are left alone even if they change meanwhile.
    pub fn write(&self, address: MachineAddress, bytes: &[u8]) {
        let mut at = address.raw();
        let mut rest = bytes;
        while !rest.is_empty() {
            let skip = (at % 8) as usize;
            let (now, later) = rest.split_at(rest.len().min(8 - skip));
            if let Some(word) = self.word(MachineAddress::new(at)) {
                let with = |old: u64| {
                    let mut new = old.to_le_bytes();
                    new[skip..skip + now.len()].copy_from_slice(now);
                    Some(u64::from_le_bytes(new))
                };
                let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with);
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    /// The bytes of some frames.
    pub fn bytes(&self, frames: MfnRange) -> Vec<u8> {
        let mut bytes = vec![0xff; usize::try_from(frames.bytes().size()).unwrap_or(0)];
        self.read(frames.bytes().start(), &mut bytes);
        bytes
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

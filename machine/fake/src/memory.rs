//! RAM: one atomic word for each 8 bytes, so that guests and hypervisor may change it at once
//! without `unsafe`.
//!
//! A frame comes into being when it is first touched, with what firmware left there: under Miri,
//! where each word costs, a test pays for what it uses.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use layout::{FRAME_SIZE, MachineAddress, Mfn, MfnRange};

/// Words of a frame.
const WORDS: usize = 512;
/// Every so many words of a frame firmware left something, so that frames can be told apart.
const TRACE: usize = 64;

type Frame = [AtomicU64; WORDS];

/// The machine's RAM, one range of frames.
#[derive(Debug)]
pub struct Memory {
    frames: MfnRange,
    words: Vec<OnceLock<Box<Frame>>>,
}

impl Memory {
    /// RAM as firmware leaves it.
    pub fn new(frames: MfnRange) -> Self {
        let words = (0..frames.frames()).map(|_| OnceLock::new()).collect();
        Self { frames, words }
    }

    /// The words of a frame; `None` if there is no RAM.
    pub fn frame(&self, mfn: Mfn) -> Option<&Frame> {
        let index = mfn.raw().checked_sub(self.frames.start().raw())?;
        let frame = self.words.get(usize::try_from(index).ok()?)?;
        Some(
            frame.get_or_init(|| {
                Box::new(std::array::from_fn(|word| AtomicU64::new(left(mfn, word))))
            }),
        )
    }

    /// The word that holds this byte; `None` if there is no RAM.
    pub fn word(&self, address: MachineAddress) -> Option<&AtomicU64> {
        let index = usize::try_from(address.offset_in_frame() / 8).ok()?;
        self.frame(address.frame())?.get(index)
    }

    /// Reads bytes, word by word. Where there is no RAM they stay as they are.
    pub fn read(&self, address: MachineAddress, bytes: &mut [u8]) {
        let mut at = address.raw();
        let mut rest = bytes;
        while !rest.is_empty() {
            let skip = (at % 8) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(8 - skip));
            if let Some(word) = self.word(MachineAddress::new(at)) {
                let word = word.load(Ordering::SeqCst).to_le_bytes();
                now.copy_from_slice(&word[skip..skip + now.len()]);
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Writes bytes, word by word; the neighbours of a part of a word are left alone even if they
    /// change meanwhile.
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

    /// Fills frames with zeroes.
    pub fn clear(&self, frames: MfnRange) {
        let numbers = (0..frames.frames()).map(|index| frames.start().offset(index));
        for word in numbers.filter_map(|mfn| self.frame(mfn)).flatten() {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// The bytes of some frames.
    pub fn bytes(&self, frames: MfnRange) -> Vec<u8> {
        let mut bytes = vec![0xff; usize::try_from(frames.bytes().size()).unwrap_or(0)];
        self.read(frames.bytes().start(), &mut bytes);
        bytes
    }

    /// A sum over a frame's words that tells changes of a frame apart. A frame that nobody has
    /// touched needs no summing: it is as firmware left it.
    pub fn digest(&self, mfn: Mfn) -> u64 {
        let index = mfn.raw().wrapping_sub(self.frames.start().raw());
        let touched = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index)?.get());
        let word = |index: usize| match touched {
            Some(frame) => frame[index].load(Ordering::SeqCst),
            None => left(mfn, index),
        };
        let add =
            |sum: u64, index| sum.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(index);
        (0..WORDS).fold(0, add)
    }
}

/// What firmware left in a word.
fn left(mfn: Mfn, word: usize) -> u64 {
    if word.is_multiple_of(TRACE) {
        (mfn.raw() * FRAME_SIZE + word as u64) | 0xf << 60
    } else {
        0
    }
}

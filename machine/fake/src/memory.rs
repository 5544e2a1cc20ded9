//! RAM: one atomic word for each 8 bytes, so that guests and hypervisor may change it at once
//! without `unsafe`.
//!
//! A frame comes into being when it is first touched, with what firmware left there: under Miri,
//! where each word costs, a test pays for what it uses.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// Frames that were cleared before anybody touched them.
    cleared: Vec<AtomicBool>,
}

impl Memory {
    /// RAM as firmware leaves it.
    pub fn new(frames: MfnRange) -> Self {
        let words = (0..frames.frames()).map(|_| OnceLock::new()).collect();
        let cleared = (0..frames.frames())
            .map(|_| AtomicBool::new(false))
            .collect();
        Self {
            frames,
            words,
            cleared,
        }
    }

    fn index(&self, mfn: Mfn) -> Option<usize> {
        let index = mfn.raw().checked_sub(self.frames.start().raw())?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.words.len())
    }

    /// The words of a frame; `None` if there is no RAM.
    pub fn frame(&self, mfn: Mfn) -> Option<&Frame> {
        let index = self.index(mfn)?;
        Some(self.words[index].get_or_init(|| {
            let frame = Box::new([const { AtomicU64::new(0) }; WORDS]);
            if !self.cleared[index].load(Ordering::SeqCst) {
                for word in (0..WORDS).step_by(TRACE) {
                    frame[word].store(left(mfn, word), Ordering::SeqCst);
                }
            }
            frame
        }))
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
        for index in (0..frames.frames()).filter_map(|skip| self.index(frames.start().offset(skip)))
        {
            self.cleared[index].store(true, Ordering::SeqCst);
            for word in self.words[index]
                .get()
                .into_iter()
                .flat_map(|frame| frame.iter())
            {
                word.store(0, Ordering::SeqCst);
            }
        }
    }

    /// The bytes of some frames.
    pub fn bytes(&self, frames: MfnRange) -> Vec<u8> {
        let mut bytes = vec![0xff; usize::try_from(frames.bytes().size()).unwrap_or(0)];
        self.read(frames.bytes().start(), &mut bytes);
        bytes
    }

    /// What a frame holds, touched or not; empty if there is no RAM.
    pub fn contents(&self, mfn: Mfn) -> Vec<u64> {
        let Some(index) = self.index(mfn) else {
            return Vec::new();
        };
        if let Some(frame) = self.words[index].get() {
            return frame
                .iter()
                .map(|word| word.load(Ordering::SeqCst))
                .collect();
        }
        let mut words = vec![0; WORDS];
        if !self.cleared[index].load(Ordering::SeqCst) {
            for word in (0..WORDS).step_by(TRACE) {
                words[word] = left(mfn, word);
            }
        }
        words
    }
}

/// What firmware left in one word of many: the frame's address, marked as garbage.
fn left(mfn: Mfn, word: usize) -> u64 {
    (mfn.raw() * FRAME_SIZE + word as u64) | 0xf << 60
}

//! The balloon beside busy CPUs: every block of memory that the hypervisor maps as one loses a page to the balloon while
//! threads use the rest of it.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use super::balloon;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / size_of::<u64>();
/// One page of so many goes back to Linux, which hands single pages to the balloon before it breaks up larger ones.
const HOLE_EVERY: usize = 64;
/// A walk in these steps is soon in every block of 2 MiB.
const STRIDE: usize = 509;

/// Memory of this program in single pages, each of which holds its number, with holes.
struct Memory(&'static [AtomicU64]);

impl Memory {
    fn new(pages: usize) -> Result<Self> {
        let bytes = pages * PAGE;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, rights, MapFlags::PRIVATE) }
                .context("no memory")?;
        // SAFETY: all of the mapping above, in which nothing lies yet.
        unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) }
            .context("cannot have single pages")?;
        // SAFETY: mapped above for the program's life and aligned to a page. Others that change it go by these atomics,
        // and the kernel that drops a hole leaves zeros there.
        let memory = Self(unsafe { std::slice::from_raw_parts(start.cast(), pages * WORDS) });
        for page in 0..pages {
            memory.number(page).store(page as u64, Ordering::Relaxed);
        }
        for hole in (0..pages).step_by(HOLE_EVERY) {
            let address = memory.number(hole).as_ptr();
            // SAFETY: a page of the mapping; what it holds is of no use any more.
            unsafe { madvise(address.cast(), PAGE, Advice::LinuxDontNeed) }
                .context("cannot give a page back")?;
        }
        Ok(memory)
    }

    fn number(&self, page: usize) -> &AtomicU64 {
        &self.0[page * WORDS]
    }

    /// Reads and writes one page after the other from `page` on, until told to stop.
    ///
    /// # Errors
    /// A page that doesn't hold its number.
    fn use_from(&self, mut page: usize, stop: &AtomicBool) -> Result<()> {
        let pages = self.0.len() / WORDS;
        while !stop.load(Ordering::Relaxed) {
            page = (page + STRIDE) % pages;
            if page.is_multiple_of(HOLE_EVERY) {
                continue;
            }
            let seen = self.number(page).fetch_or(0, Ordering::Relaxed);
            ensure!(seen == page as u64, "page {page} holds {seen:#x}");
        }
        Ok(())
    }
}

/// `MIB:BALLOON:CYCLES`: uses MIB of memory on all CPUs but one while the balloon takes BALLOON MiB and gives them back, so
/// many times.
///
/// # Errors
/// A target that isn't reached, memory that changed. An access that the hypervisor refuses ends the program or the kernel.
pub fn check(arguments: &[&str]) -> Result<String> {
    let [memory, balloon, cycles] = arguments else {
        anyhow::bail!("MIB:BALLOON:CYCLES");
    };
    let memory = Memory::new(memory.parse::<usize>()? * (1 << 20) / PAGE)?;
    let (balloon, cycles): (u64, u32) = (balloon.parse()?, cycles.parse()?);
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (memory, stop) = (&memory, &stop);
        let users: Vec<_> = (1..cpus)
            .map(|user| scope.spawn(move || memory.use_from(user, stop)))
            .collect();
        let balloons = (0..cycles).try_for_each(|_| balloon::cycle(balloon).map(drop));
        stop.store(true, Ordering::Relaxed);
        for user in users {
            user.join().ok().context("a thread panicked")??;
        }
        balloons
    })?;
    Ok(format!("users={} cycles={cycles}", cpus - 1))
}

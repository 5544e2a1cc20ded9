//! A vCPU: where it is pinned, how it is started, and its registers.

use core::sync::atomic::{AtomicBool, Ordering};

use hypervisor::Start;
use spin::Mutex;

use super::platform::VirtualApic;
use crate::guest_walk::Paging;

/// The machine's half of a vCPU.
pub struct Vcpu {
    /// Its index in its domain.
    pub index: usize,
    /// The CPU that it is pinned to, by index in the host map.
    pub cpu: usize,
    /// Its local APIC.
    pub apic: VirtualApic,
    start: Mutex<Option<Start>>,
    kicked: AtomicBool,
}

impl Vcpu {
    /// A vCPU that is off.
    pub fn new(index: usize, cpu: usize, apic: VirtualApic) -> Self {
        Self {
            index,
            cpu,
            apic,
            start: Mutex::new(None),
            kicked: AtomicBool::new(false),
        }
    }

    /// The registers that decide how its guest's addresses are translated.
    pub fn paging(&self) -> Paging {
        Paging::default()
    }

    /// Leaves word for its CPU to start it.
    pub fn request_start(&self, start: Start) {
        *self.start.lock() = Some(start);
    }

    /// Takes the word that `request_start` left.
    pub fn take_start(&self) -> Option<Start> {
        self.start.lock().take()
    }

    /// Leaves word for its CPU to ask the core what to do.
    pub fn request_kick(&self) {
        self.kicked.store(true, Ordering::Release);
    }

    /// Takes the word that `request_kick` left.
    pub fn take_kick(&self) -> bool {
        self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::Acquire)
    }
}

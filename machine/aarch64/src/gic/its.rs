//! The physical interrupt translation service: its command queue, which is the hypervisor's, and its registers.
//!
//! Which commands and tables it is given is decided in `vgic::its`.

use super::registers::{gicr, gits};
use super::{Cpu, Gic, Model, POLLS, Registers};

/// Bytes of a command.
pub(crate) const COMMAND: u64 = 32;
/// Bytes of the command queue: one page, 127 commands at a time.
pub const QUEUE_BYTES: u64 = 0x1000;

/// The command queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Machine address of its page.
    base: u64,
    /// Where the next command goes, in bytes.
    tail: u64,
    /// Whether the ITS sees the caches.
    coherent: bool,
}

/// The ITS stopped at a command, or never finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stalled;

impl<R: Registers> Gic<R> {
    /// The control frame of the ITS, if there is one.
    pub(crate) fn its_frame(&self) -> Option<u64> {
        match &self.facts.model {
            Model::V3 { its, .. } => its.map(|window| window.start),
            Model::V2 { .. } => None,
        }
    }

    /// Stops the ITS, takes its tables away and gives it an empty queue at `base`.
    pub(crate) fn reset_its(&self, frame: u64, base: u64) -> Queue {
        self.registers.write32(frame + gits::CTLR, 0);
        for _ in 0..POLLS {
            if self.registers.read32(frame + gits::CTLR) & gits::CTLR_QUIESCENT != 0 {
                break;
            }
        }
        for register in (gits::BASER..gits::BASER_END).step_by(8) {
            let value = self.registers.read64(frame + register);
            self.registers.write64(
                frame + register,
                value & !(gits::VALID | gits::BASER_INDIRECT),
            );
        }
        self.set_queue(frame, base)
    }

    /// Points a stopped ITS at the queue: the write sets CREADR to zero.
    fn set_queue(&self, frame: u64, base: u64) -> Queue {
        let pages = QUEUE_BYTES / 0x1000 - 1;
        let value = gits::VALID | gits::WRITE_BACK | gits::INNER_SHAREABLE | base | pages;
        self.registers.write64(frame + gits::CBASER, value);
        self.registers.write64(frame + gits::CWRITER, 0);
        let coherent = self.registers.read64(frame + gits::CBASER) & gits::SHAREABILITY != 0;
        Queue {
            base,
            tail: 0,
            coherent,
        }
    }

    /// Appends a command; submits and waits first if the queue is full.
    pub(crate) fn push_command(
        &self,
        frame: u64,
        queue: &mut Queue,
        command: [u64; 4],
    ) -> Result<(), Stalled> {
        let next = (queue.tail + COMMAND) % QUEUE_BYTES;
        if next == self.registers.read64(frame + gits::CREADR) & (QUEUE_BYTES - 1) {
            self.submit(frame, queue)?;
        }
        let address = queue.base + queue.tail;
        for (offset, word) in (0..COMMAND).step_by(8).zip(command) {
            self.registers.write64(address + offset, word.to_le());
        }
        if !queue.coherent {
            self.registers.clean(address);
        }
        queue.tail = next;
        Ok(())
    }

    /// Lets the ITS carry out what was appended, and waits for it. One that stalls gets an empty queue; what it hadn't
    /// carried out is lost.
    pub(crate) fn submit(&self, frame: u64, queue: &mut Queue) -> Result<(), Stalled> {
        self.registers.synchronize();
        self.registers.write64(frame + gits::CWRITER, queue.tail);
        for _ in 0..POLLS {
            let reader = self.registers.read64(frame + gits::CREADR);
            if reader == queue.tail {
                return Ok(());
            }
            if reader & gits::CREADR_STALLED != 0 {
                break;
            }
        }
        let control = self.registers.read32(frame + gits::CTLR);
        self.registers
            .write32(frame + gits::CTLR, control & !gits::CTLR_ENABLED);
        for _ in 0..POLLS {
            if self.registers.read32(frame + gits::CTLR) & gits::CTLR_QUIESCENT != 0 {
                break;
            }
        }
        *queue = self.set_queue(frame, queue.base);
        self.registers.write32(frame + gits::CTLR, control);
        Err(Stalled)
    }

    /// How commands name a CPU's redistributor: bits 50:16 of a word.
    pub(crate) fn redistributor_target(&self, frame: u64, cpu: &Cpu) -> u64 {
        if self.registers.read64(frame + gits::TYPER) & gits::TYPER_PTA != 0 {
            cpu.redistributor
        } else {
            ((cpu.typer >> 8) & 0xffff) << 16
        }
    }

    /// Asks a redistributor to take LPIs or none; whether it does as asked.
    pub(crate) fn enable_lpis(&self, cpu: &Cpu, enable: bool) -> bool {
        let address = cpu.redistributor + gicr::CTLR;
        let old = self.registers.read32(address) & !gicr::CTLR_ENABLE_LPIS;
        let bit = if enable { gicr::CTLR_ENABLE_LPIS } else { 0 };
        self.registers.write32(address, old | bit);
        self.wait_redistributor(cpu);
        self.registers.read32(address) & gicr::CTLR_ENABLE_LPIS == bit
    }
}

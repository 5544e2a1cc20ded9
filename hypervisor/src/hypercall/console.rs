//! `console_io`, and the console of each domain: its line under way, its input, and who has the
//! focus.

use core::sync::atomic::Ordering;

use abi::console::{READ, WRITE};
use abi::event_channel::VIRQ_CONSOLE;
use abi::{Errno, Handle};
use arrayvec::ArrayVec;

use super::{Args, Flow};
use crate::caller::Caller;
use crate::domain::Domain;
use crate::machine::Machine;
use crate::system::System;

/// Bytes of one batch of output, and of what one call reads.
const BATCH: usize = 128;
/// The longest line of a domain without focus; longer ones are broken.
const LINE: usize = 200;
/// Input that a domain hasn't read yet.
const INPUT: usize = 256;
/// Ctrl-a, which takes the focus to the next domain when typed three times.
const SWITCH: u8 = 1;
/// How many times.
const SWITCH_COUNT: u8 = 3;

/// A domain's side of the console.
#[derive(Debug, Default)]
pub(crate) struct DomainConsole {
    line: ArrayVec<u8, LINE>,
    input: ArrayVec<u8, INPUT>,
}

impl DomainConsole {
    /// Takes up to `room.len()` bytes of input.
    fn take(&mut self, room: &mut [u8]) -> usize {
        let count = room.len().min(self.input.len());
        for (place, byte) in room.iter_mut().zip(self.input.drain(..count)) {
            *place = byte;
        }
        count
    }
}

impl<M: Machine> Caller<'_, M> {
    pub(super) fn console_io(&self, args: &Args) -> Flow {
        // The count is an `unsigned int`.
        let count = args[1] & 0xffff_ffff;
        match args[0] {
            WRITE => self.console_write(args, count, args[2]),
            READ => Flow::Done(self.console_read(count, args[2])),
            _ => Flow::Done(Err(Errno::Enosys)),
        }
    }

    fn console_write(&self, args: &Args, count: u64, buffer: Handle) -> Flow {
        let mut bytes = [0; BATCH];
        let now = usize::try_from(count).map_or(BATCH, |count| count.min(BATCH));
        let (bytes, _) = bytes.split_at_mut(now);
        if let Err(error) = self.read_bytes(buffer, bytes) {
            return Flow::Done(Err(error));
        }
        self.system.output(self.domain, bytes);
        if now as u64 == count {
            return Flow::Done(Ok(0));
        }
        let mut again = *args;
        again[1] = count - now as u64;
        again[2] = buffer.wrapping_add(now as u64);
        Flow::Again(again)
    }

    fn console_read(&self, count: u64, buffer: Handle) -> Result<u64, Errno> {
        let mut bytes = [0; BATCH];
        let wanted = usize::try_from(count).map_or(BATCH, |count| count.min(BATCH));
        let (room, _) = bytes.split_at_mut(wanted);
        let taken = self.domain.console.lock().take(room);
        let (bytes, _) = bytes.split_at(taken);
        self.write_bytes(buffer, bytes)?;
        Ok(taken as u64)
    }

    /// Bytes that the guest sent through its virtual UART.
    pub fn uart_output(&self, bytes: &[u8]) {
        self.system.output(self.domain, bytes);
    }
}

impl<M: Machine> System<M> {
    /// A byte that was typed on the console.
    pub fn console_input(&self, byte: u8) {
        if byte == SWITCH {
            let typed = self.switch_typed.fetch_add(1, Ordering::Relaxed) + 1;
            if typed >= SWITCH_COUNT {
                self.switch_typed.store(0, Ordering::Relaxed);
                self.move_focus();
            }
            return;
        }
        // Fewer than three were meant for the domain.
        for _ in 0..self.switch_typed.swap(0, Ordering::Relaxed) {
            self.input(SWITCH);
        }
        self.input(byte);
    }

    /// What the guest says: as it is if it has the focus, in whole lines with its name otherwise.
    fn output(&self, domain: &Domain<M>, bytes: &[u8]) {
        let console = self.machine.console();
        let uart = |bytes: &[u8]| self.machine.console_write(bytes);
        let mut side = domain.console.lock();
        if self.focus.load(Ordering::Relaxed) == domain.index.0 {
            if !side.line.is_empty() {
                let begun = core::mem::take(&mut side.line);
                console.raw(&uart, &begun);
            }
            console.raw(&uart, bytes);
            return;
        }
        for &byte in bytes {
            if byte != b'\n' {
                side.line.push(byte);
            }
            if byte == b'\n' || side.line.is_full() {
                console.domain_line(&uart, domain.name(), &side.line);
                side.line.clear();
            }
        }
    }

    /// Writes out what a domain has said of a line that it won't finish.
    pub(crate) fn end_line(&self, domain: &Domain<M>) {
        let mut side = domain.console.lock();
        if !side.line.is_empty() {
            let uart = |bytes: &[u8]| self.machine.console_write(bytes);
            self.machine
                .console()
                .domain_line(&uart, domain.name(), &side.line);
        }
        *side = DomainConsole::default();
    }

    /// Gives a byte to the domain that has the focus; it is lost if nothing there takes it.
    fn input(&self, byte: u8) {
        let Some(domain) = self
            .domains
            .get(usize::from(self.focus.load(Ordering::Relaxed)))
        else {
            return;
        };
        if self.machine.uart_input(&domain.machine, &[byte]) > 0 {
            return;
        }
        // A full buffer means that the guest doesn't read; it has been told already.
        let _ = domain.console.lock().input.try_push(byte);
        self.send_virq(domain, VIRQ_CONSOLE, 0);
    }

    fn move_focus(&self) {
        let Ok(count) = u16::try_from(self.domains.len()) else {
            return;
        };
        let next = (self.focus.load(Ordering::Relaxed) + 1) % count.max(1);
        self.focus.store(next, Ordering::Relaxed);
        if let Some(domain) = self.domains.get(usize::from(next)) {
            let name = domain.name();
            self.log(format_args!(
                "console: {name} (ctrl-a three times for the next)"
            ));
        }
    }
}

//! The user's terminal while a guest console is on it.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, OutputModes, Termios};

/// Key that ends `terrane run` on a terminal: Ctrl-], as `xl console` and `virsh console` have it.
pub const ESCAPE: u8 = 0x1d;

/// Standard input in raw mode; dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw, so that every key reaches the guest. `None` if it isn't a terminal.
    ///
    /// # Errors
    /// The terminal's settings can't be read or changed.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Lines that this program writes end in a line feed alone.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

//! Tells apart what a guest's console carries in a demo without a terminal: what came before the commands, what the
//! commands print, the requests for lines, and the status at the end.

use crate::initramfs::STATUS;

/// The guest asks for the first line, or for the next one, by this byte (ASCII "acknowledge").
const NEXT: u8 = 0x06;

/// The console's bytes, sorted.
#[derive(Default)]
pub struct Relay {
    /// Bytes that may become [`STATUS`].
    held: Vec<u8>,
    /// The digits behind [`STATUS`], once it was seen; complete at the end of their line.
    digits: Option<String>,
    ended: bool,
    begun: bool,
    requests: usize,
    before: Vec<u8>,
    output: Vec<u8>,
}

impl Relay {
    /// Takes the console's next byte.
    pub fn push(&mut self, byte: u8) {
        if byte == NEXT {
            self.begun = true;
            self.requests += 1;
        } else if let Some(digits) = &mut self.digits {
            self.ended |= !byte.is_ascii_digit();
            if !self.ended && digits.len() < 3 {
                digits.push(char::from(byte));
            }
        } else if byte != b'\r' {
            self.held.push(byte);
            self.let_go();
        }
    }

    /// Hands on what can't be the beginning of [`STATUS`] any more.
    fn let_go(&mut self) {
        while !STATUS.as_bytes().starts_with(&self.held) {
            let byte = self.held.remove(0);
            if self.begun {
                self.output.push(byte)
            } else {
                self.before.push(byte)
            }
        }
        if self.held.len() == STATUS.len() {
            self.held.clear();
            self.digits = Some(String::new());
        }
    }

    /// What was printed before the guest asked for the first line, since the last call.
    pub fn take_before(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.before)
    }

    /// What the commands have printed since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// One item for each line that the guest has asked for since the last call.
    pub fn take_requests(&mut self) -> impl Iterator<Item = ()> + use<> {
        std::iter::repeat_n((), std::mem::take(&mut self.requests))
    }

    /// The status with which the shell ended, if the guest has said it.
    pub fn status(&self) -> Option<u8> {
        self.digits.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_requests_and_status_are_told_apart() {
        let mut relay = Relay::default();
        for &byte in
            b"booting\r\n\x06hello\r\n\x06terrane\r\nno newlineterrane-guest: status 37\r\n[ 12.5] rest"
        {
            relay.push(byte);
        }
        assert_eq!(relay.take_before(), b"booting\n");
        assert_eq!(relay.take_output(), b"hello\nterrane\nno newline");
        assert_eq!(relay.take_requests().count(), 2);
        assert_eq!(relay.status(), Some(37));
    }

    #[test]
    fn without_a_status_there_is_none() {
        let mut relay = Relay::default();
        relay.push(b'x');
        assert_eq!(relay.status(), None);
    }
}

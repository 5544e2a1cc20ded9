//! The console's line discipline: one UART, several speakers.
//!
//! One domain has the focus: its bytes go out as they are. Everybody else, the hypervisor included,
//! speaks in whole lines that begin with a name in parentheses. If such a line comes while the
//! focus domain's is unfinished, a newline goes first, so a prefix always stands at the start of a
//! line. A line feed becomes carriage return and line feed.
//!
//! No heap and no formatting buffer: this works before there is a system, and while one breaks
//! down.

use core::fmt::{self, Write};

use spin::Mutex;

/// The name under which the hypervisor speaks.
pub const HYPERVISOR: &str = "terrane";

/// What the UART has seen last.
struct State {
    /// The last byte that went out.
    last: u8,
}

/// The line discipline. One for a machine, shared by all CPUs.
pub struct Console {
    state: Mutex<State>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// A console at the start of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(State { last: b'\n' }),
        }
    }

    /// A line of the hypervisor: `(terrane) text`.
    pub fn line(&self, output: &dyn Fn(&[u8]), text: fmt::Arguments<'_>) {
        self.speak(output, HYPERVISOR, |line| {
            // Writing to the UART can't fail, so an error is a `Display` that gave up: the line
            // ends there.
            let _ = line.write_fmt(text);
        });
    }

    /// A line of a domain that doesn't have the focus: `(name) text`. `text` holds no line feed;
    /// bytes that would move the cursor are left out.
    pub fn domain_line(&self, output: &dyn Fn(&[u8]), name: &str, text: &[u8]) {
        self.speak(output, name, |line| {
            for piece in text.split(|&byte| byte.is_ascii_control() && byte != b'\t') {
                line.put(piece);
            }
        });
    }

    /// Bytes of the domain that has the focus.
    pub fn raw(&self, output: &dyn Fn(&[u8]), bytes: &[u8]) {
        self.state.lock().put(output, bytes);
    }

    fn speak(&self, output: &dyn Fn(&[u8]), name: &str, text: impl FnOnce(&mut Line<'_>)) {
        let mut state = self.state.lock();
        if state.last != b'\n' {
            state.put(output, b"\n");
        }
        let mut line = Line {
            state: &mut state,
            output,
        };
        line.put(b"(");
        line.put(name.as_bytes());
        line.put(b") ");
        text(&mut line);
        line.put(b"\n");
    }
}

impl State {
    /// Puts bytes out, with a carriage return before each line feed that has none.
    fn put(&mut self, output: &dyn Fn(&[u8]), bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if let [text @ .., b'\n'] = piece {
                output(text);
                let returned = text.last().copied().unwrap_or(self.last) == b'\r';
                output(if returned { b"\n" } else { b"\r\n" });
            } else {
                output(piece);
            }
            self.last = piece.last().copied().unwrap_or(self.last);
        }
    }
}

/// A prefixed line under way.
struct Line<'a> {
    state: &'a mut State,
    output: &'a dyn Fn(&[u8]),
}

impl Line<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.state.put(self.output, bytes);
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use core::cell::RefCell;

    fn heard(speak: impl FnOnce(&Console, &dyn Fn(&[u8]))) -> String {
        let heard = RefCell::new(String::new());
        let console = Console::new();
        speak(&console, &|bytes| {
            heard
                .borrow_mut()
                .push_str(core::str::from_utf8(bytes).unwrap())
        });
        heard.into_inner()
    }

    #[test]
    fn a_prefixed_line_never_continues_a_raw_one() {
        let text = heard(|console, output| {
            console.raw(output, b"login: ");
            console.line(output, format_args!("{} domains", 2));
            console.raw(output, b"root\r\n");
            console.domain_line(output, "net", b"up");
        });
        assert_eq!(
            text,
            "login: \r\n(terrane) 2 domains\r\nroot\r\n(net) up\r\n"
        );
    }

    #[test]
    fn a_line_feed_gets_its_carriage_return_once() {
        let text = heard(|console, output| {
            console.raw(output, b"a\nb\r\nc\r");
            console.raw(output, b"\n");
        });
        assert_eq!(text, "a\r\nb\r\nc\r\n");
    }

    #[test]
    fn a_domain_without_focus_cannot_forge_a_line() {
        let text = heard(|console, output| {
            console.domain_line(output, "evil", b"x\r(terrane) all\x1b[2J")
        });
        assert_eq!(text, "(evil) x(terrane) all[2J\r\n");
    }
}

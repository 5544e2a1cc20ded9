//! Tells whose words a console byte is.
//!
//! One serial line carries every domain. The hypervisor writes `(terrane) text` and `(NAME) text` as whole lines; all
//! other bytes belong to the domain that has the focus. A [`Splitter`] turns that stream into pieces with an owner and
//! knows nothing of terminals or files. A domain with the focus can write a line that looks like another's: the stream
//! itself can't tell, so what is derived from it is for people and tests, not a security boundary.

/// The hypervisor's own label.
pub const HYPERVISOR: &str = "terrane";

/// A piece of the console stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the line that is being written; `first` at the line's beginning.
    Text {
        /// Index into the splitter's labels.
        owner: usize,
        /// True for the first piece of a line.
        first: bool,
        /// At least one byte, no line feed.
        bytes: &'a [u8],
    },
    /// The line has ended. A line without text has had no `Text` before it.
    End {
        /// Index into the splitter's labels.
        owner: usize,
        /// True if the line had no text.
        empty: bool,
    },
}

/// Cuts the console stream into pieces.
#[derive(Debug)]
pub struct Splitter {
    labels: Vec<String>,
    /// `(LABEL) ` for each label, in their order.
    prefixes: Vec<Vec<u8>>,
    focus: usize,
    /// Bytes at the start of a line that may yet become a prefix.
    undecided: Vec<u8>,
    /// The owner of the line being written, once it is known.
    owner: Option<usize>,
    /// Whether the line being written has had text.
    started: bool,
    /// Carriage returns that were read last: they are dropped before a line feed and kept before anything else.
    carriage_returns: usize,
}

impl Splitter {
    /// A splitter for the hypervisor (label 0) and these domains (labels 1 and up); `focus` is the index of the domain
    /// that owns unprefixed bytes.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a str>, focus: usize) -> Self {
        let labels: Vec<String> = std::iter::once(HYPERVISOR)
            .chain(domains)
            .map(str::to_owned)
            .collect();
        let prefixes = labels
            .iter()
            .map(|label| format!("({label}) ").into_bytes())
            .collect();
        // A system without a domain has no focus: what is written is the hypervisor's.
        let focus = (focus + 1).min(labels.len() - 1);
        Self {
            labels,
            prefixes,
            focus,
            undecided: Vec::new(),
            owner: None,
            started: false,
            carriage_returns: 0,
        }
    }

    /// The names that pieces refer to.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The label of unprefixed bytes.
    pub fn focus(&self) -> usize {
        self.focus
    }

    /// Takes bytes from the console and hands out pieces in order.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Piece<'_>)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(sink),
                b'\r' if self.owner.is_none() && self.undecided.is_empty() => {}
                b'\r' => self.carriage_returns += 1,
                _ => self.text(byte, sink),
            }
        }
    }

    /// Hands out what was held back: to be called when the console has been quiet for a moment and at its end, so that
    /// a prompt is seen even if it begins like a prefix.
    pub fn flush(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        if !self.undecided.is_empty() {
            self.decide(self.focus, 0, sink);
        }
    }

    /// Whether [`Splitter::flush`] would hand out something.
    pub fn holds_back(&self) -> bool {
        !self.undecided.is_empty()
    }

    fn text(&mut self, byte: u8, sink: &mut dyn FnMut(Piece<'_>)) {
        for _ in 0..std::mem::take(&mut self.carriage_returns) {
            self.push(b'\r', sink);
        }
        self.push(byte, sink);
    }

    fn push(&mut self, byte: u8, sink: &mut dyn FnMut(Piece<'_>)) {
        if let Some(owner) = self.owner {
            let first = !std::mem::replace(&mut self.started, true);
            sink(Piece::Text {
                owner,
                first,
                bytes: &[byte],
            });
            return;
        }
        self.undecided.push(byte);
        if let Some(owner) = self
            .prefixes
            .iter()
            .position(|prefix| *prefix == self.undecided)
        {
            let length = self.undecided.len();
            self.decide(owner, length, sink);
        } else if !self
            .prefixes
            .iter()
            .any(|prefix| prefix.starts_with(&self.undecided))
        {
            self.decide(self.focus, 0, sink);
        }
    }

    /// Gives the line to `owner`, without the first `skip` of the bytes held back.
    fn decide(&mut self, owner: usize, skip: usize, sink: &mut dyn FnMut(Piece<'_>)) {
        self.owner = Some(owner);
        let held = std::mem::take(&mut self.undecided);
        if let Some(bytes) = held.get(skip..).filter(|bytes| !bytes.is_empty()) {
            self.started = true;
            sink(Piece::Text {
                owner,
                first: true,
                bytes,
            });
        }
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        self.carriage_returns = 0;
        self.flush(sink);
        sink(Piece::End {
            owner: self.owner.unwrap_or(self.focus),
            empty: !self.started,
        });
        self.owner = None;
        self.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces as text: `label|text` per line, an unfinished line without a line feed.
    fn split(chunks: &[&[u8]], flush: bool) -> String {
        let mut splitter = Splitter::new(["control", "net"], 0);
        let labels = splitter.labels().to_vec();
        let mut text = String::new();
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Text {
                owner,
                first,
                bytes,
            } => {
                if first {
                    text += &format!("{}|", labels[owner]);
                }
                text += &String::from_utf8_lossy(bytes);
            }
            Piece::End { owner, empty } => {
                if empty {
                    text += &format!("{}|", labels[owner]);
                }
                text.push('\n');
            }
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut sink);
        }
        if flush {
            splitter.flush(&mut sink);
        }
        text
    }

    #[test]
    fn prefixed_lines_lose_their_prefix_and_the_rest_is_the_focus_domains() {
        let stream = b"(terrane) hello\r\nLinux\r\n(net) up\n\n";
        assert_eq!(
            split(&[stream], false),
            "terrane|hello\ncontrol|Linux\nnet|up\ncontrol|\n"
        );
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_lines() {
        let stream = b"(terrane) a\r\n(ter minal\r\n(net) b\r\n(netx) c\rd\r\n";
        let whole = split(&[stream], true);
        for cut in 0..stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(split(&[left, right], true), whole, "cut at {cut}");
        }
        assert_eq!(
            whole,
            "terrane|a\ncontrol|(ter minal\nnet|b\ncontrol|(netx) c\rd\n"
        );
    }

    #[test]
    fn carriage_returns_inside_a_line_are_all_kept() {
        assert_eq!(
            split(&[b"a\r\r", b"\rb\r\r\n\rc\n"], false),
            "control|a\r\r\rb\ncontrol|c\n"
        );
    }

    #[test]
    fn a_prompt_is_seen_before_its_line_ends() {
        assert_eq!(split(&[b"/ # "], false), "control|/ # ");
        assert_eq!(split(&[b"(ter"], false), "");
        assert_eq!(split(&[b"(ter"], true), "control|(ter");
        assert_eq!(split(&[b"(initramfs) "], false), "control|(initramfs) ");
    }

    #[test]
    fn without_domains_everything_is_the_hypervisors() {
        let mut splitter = Splitter::new([], 0);
        let mut owners = Vec::new();
        splitter.feed(b"x\n", &mut |piece| {
            if let Piece::End { owner, .. } = piece {
                owners.push(owner);
            }
        });
        assert_eq!(owners, [0]);
    }
}

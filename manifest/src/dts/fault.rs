//! What is wrong with a source.

use super::text::{Place, Span, Texts};

/// Errors that are collected; further ones are most likely their consequence.
pub(super) const MAX_FAULTS: usize = 100;

/// Something that is wrong, with its place in bytes.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) span: Span,
    pub(super) what: String,
    pub(super) why: String,
    pub(super) help: String,
    pub(super) other: Option<(Span, String)>,
}

/// Something that is wrong with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// Where.
    pub place: Place,
    /// What stands there, in a few words.
    pub what: String,
    /// Why that can't be, in one sentence.
    pub why: String,
    /// The mend; empty if none is known.
    pub help: String,
    /// What it clashes with.
    pub other: Option<(Place, String)>,
}

/// The list of them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    /// Reading has stopped: what is missing from then on is no fault.
    is_closed: bool,
}

impl Faults {
    pub(super) fn add(
        &mut self,
        span: Span,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Fault {
            span,
            what: what.into(),
            why: why.into(),
            help: help.into(),
            other: None,
        });
    }

    pub(super) fn push(&mut self, fault: Fault) {
        // One place, one error: what follows from it is found there too.
        let known = self.list.iter().any(|other| other.span == fault.span);
        if !known && !self.is_full() && !self.is_closed {
            self.list.push(fault);
        }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FAULTS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// With places for people, in the order of the files.
    pub(super) fn into_errors(mut self, texts: &Texts) -> Vec<SourceError> {
        self.list
            .sort_by_key(|fault| (fault.span.file, fault.span.start));
        let errors = self.list.into_iter().map(|fault| SourceError {
            place: texts.place(fault.span),
            what: fault.what,
            why: fault.why,
            help: fault.help,
            other: fault.other.map(|(span, what)| (texts.place(span), what)),
        });
        errors.collect()
    }
}

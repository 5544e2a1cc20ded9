//! Progress for people, on standard error, in the look of cargo.

use std::io::Write;

/// One step: a verb and what it is done to. Nothing depends on it, so that it may get lost.
pub fn step(verb: &str, object: impl std::fmt::Display) {
    let style = annotate_snippets::renderer::AnsiColor::Green
        .on_default()
        .bold();
    let _ = writeln!(anstream::stderr(), "{style}{verb:>12}{style:#} {object}");
}

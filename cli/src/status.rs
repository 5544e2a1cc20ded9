//! Progress for people, on standard error, in the look of cargo.

use anstream::eprintln;

/// One step: a verb and what it is done to.
pub fn step(verb: &str, object: impl std::fmt::Display) {
    let style = annotate_snippets::renderer::AnsiColor::Green
        .on_default()
        .bold();
    eprintln!("{style}{verb:>12}{style:#} {object}");
}

/// The last word about something that went wrong, where no file is to blame.
pub fn error(message: impl std::fmt::Display) {
    let style = annotate_snippets::renderer::DEFAULT_ERROR_STYLE;
    eprintln!("{style}error{style:#}: {message}");
}

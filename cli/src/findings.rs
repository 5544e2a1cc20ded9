//! What is found on the way to a plan, with the texts that it points into.

use std::io;

use layout::{Conflict, Origin};
use manifest::origin::{Origins, Position, WhichTree};

use crate::diagnostics::{self, Diagnostic, Form, Place, Severity, Side, Sources};
use crate::exit::Exit;
use crate::stream::Stream;
use crate::tree_words::in_tree_words;

/// All findings of one command.
#[derive(Debug, Default)]
pub struct Findings {
    diagnostics: Vec<Diagnostic>,
    sources: Sources,
    /// The manifest is a device tree.
    is_tree: bool,
}

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, found: Diagnostic) {
        self.diagnostics.push(found);
    }

    /// Adds the one that makes going on pointless.
    pub fn give_up(&mut self, found: Diagnostic, exit: Exit) -> Exit {
        self.give_up_by(vec![found], exit)
    }

    /// Adds those that make going on pointless.
    pub fn give_up_by(&mut self, wrong: Vec<Diagnostic>, exit: Exit) -> Exit {
        self.diagnostics.extend(wrong);
        exit
    }

    /// Adds a file's text, so that its lines can be shown.
    pub fn add_source(&mut self, name: String, text: String) {
        self.sources.insert(name, text);
    }

    /// From now on what a conflict proposes is told in the words of Xen's binding.
    pub fn speak_of_a_tree(&mut self) {
        self.is_tree = true;
    }

    /// Adds conflicts whose origins are in this table.
    pub fn conflicts(&mut self, conflicts: &[Conflict], origins: &Origins) {
        for conflict in conflicts {
            let mut sides: Vec<Side> = Vec::new();
            for side in &conflict.sides {
                sides.push(Side {
                    what: side.what.clone(),
                    place: self.place(side.origin, origins),
                });
                let by = brought_in_by(side.origin, origins);
                if let Some(origin) = by
                    && conflict.sides.iter().all(|other| other.origin != origin)
                {
                    sides.push(Side {
                        what: "the partial tree that passes it through".to_owned(),
                        place: self.place(origin, origins),
                    });
                }
            }
            let found = Diagnostic {
                code: conflict.code.as_str().to_owned(),
                severity: match conflict.severity {
                    layout::Severity::Error => Severity::Error,
                    layout::Severity::Warning => Severity::Warning,
                },
                message: conflict.why.clone(),
                sides,
                help: Some(self.help(&said_of_tree(conflict, origins)))
                    .filter(|help| !help.is_empty()),
            };
            self.diagnostics.push(found);
        }
    }

    fn help(&self, said: &str) -> String {
        if self.is_tree {
            in_tree_words(said)
        } else {
            said.to_owned()
        }
    }

    /// The place behind an origin.
    pub fn place(&self, origin: Origin, origins: &Origins) -> Option<Place> {
        match origins.get(origin)? {
            Position::Text { file, span, start } => Some(Place::at(
                origins.files().get(*file)?.clone(),
                *start,
                span.clone(),
            )),
            Position::Node {
                tree: WhichTree::Partial(module),
                path,
                ..
            } => Some(Place::without_lines(match origins.module(*module) {
                Some((file, _)) => format!("{file} {}", in_tree(path)),
                None => origins.describe(origin)?,
            })),
            Position::Node { path, .. } if origins.trees().is_some() => {
                let file = origins.trees().unwrap_or_default();
                Some(Place::without_lines(format!("{file} {}", in_tree(path))))
            }
            position => Some(Place::without_lines(position.to_string())),
        }
    }

    /// Whether something is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|found| found.severity == Severity::Error)
    }

    /// Code and message of each error.
    pub fn errors(&self) -> Vec<(String, String)> {
        let all = self.diagnostics.iter();
        let errors = all.filter(|found| found.severity == Severity::Error);
        errors
            .map(|found| (found.code.clone(), found.message.clone()))
            .collect()
    }

    /// Writes all of them in the order of their places; those without one come last.
    ///
    /// # Errors
    /// The stream can't be written.
    pub fn emit(&mut self, json: bool, stream: Stream) -> io::Result<()> {
        self.diagnostics.sort_by_key(|found| {
            let place = found.sides.first().and_then(|side| side.place.as_ref());
            place.map_or((usize::MAX, 0), |place| (place.line, place.column))
        });
        let form = if json { Form::Json } else { Form::Text };
        diagnostics::emit(&self.diagnostics, &self.sources, form, stream)
    }
}

/// The help of a conflict, where a device is left out of what names it: a domain's `devices` or its partial tree. It is the
/// first side's, or the last's where a domain is named too.
fn said_of_tree(conflict: &Conflict, origins: &Origins) -> String {
    let mut help = conflict.help.clone();
    let sides = [conflict.sides.first(), conflict.sides.last()];
    let words = [
        ("out of devices", "out of the partial tree"),
        ("out of the devices of", "out of the partial tree of"),
    ];
    for (side, (devices, tree)) in sides.into_iter().zip(words) {
        let position = side.and_then(|side| origins.get(side.origin));
        let is_partial = |position| {
            matches!(
                position,
                &Position::Node {
                    tree: WhichTree::Partial(_),
                    ..
                }
            )
        };
        if position.is_some_and(is_partial) {
            help = help.replace(devices, tree);
        }
    }
    help
}

/// Who brings in the partial tree that something stands in.
fn brought_in_by(origin: Origin, origins: &Origins) -> Option<Origin> {
    match origins.get(origin)? {
        Position::Node {
            tree: WhichTree::Partial(module),
            ..
        } => Some(origins.module(*module)?.1),
        _ => None,
    }
}

/// "/chosen/net, cells 0 to 3 of xen,static-mem" for "/chosen/net:xen,static-mem[0..16]".
fn in_tree(path: &str) -> String {
    let Some((node, property)) = path.split_once(':') else {
        return path.to_owned();
    };
    let Some((name, bytes)) = property.split_once('[') else {
        return format!("{node}, {property}");
    };
    let bytes = bytes.trim_end_matches(']').split_once("..");
    let bytes = bytes
        .and_then(|(start, end)| Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?)));
    match bytes {
        Some((start, end)) if start > 0 && start % 4 == 0 && end > start => {
            let (first, last) = (start / 4, (end - 1) / 4);
            if first == last {
                format!("{node}, cell {first} of {name}")
            } else {
                format!("{node}, cells {first} to {last} of {name}")
            }
        }
        _ => format!("{node}, {name}"),
    }
}

#[cfg(test)]
mod tests {
    use layout::Code;

    use super::*;

    #[test]
    fn a_device_is_left_out_of_what_names_it() {
        let mut origins = Origins::new();
        let partial = origins.add(Position::Node {
            tree: WhichTree::Partial(0x5000_0000),
            path: "/passthrough/uart".to_owned(),
            manifest: None,
        });
        let help = |first: Origin, last: Origin, help: &str| {
            let sides = [first, last].map(|origin| layout::Side {
                what: String::new(),
                origin,
                domain: None,
            });
            let conflict = Conflict {
                code: Code::DeviceTwice,
                severity: layout::Severity::Error,
                sides: sides.to_vec(),
                why: String::new(),
                help: help.to_owned(),
            };
            said_of_tree(&conflict, &origins)
        };
        let (own, both) = (
            "leave it out of devices",
            "leave it out of the devices of `b`",
        );
        let (own_tree, both_tree) = (
            "leave it out of the partial tree",
            "leave it out of the partial tree of `b`",
        );
        assert_eq!(help(partial, Origin::NONE, own), own_tree);
        assert_eq!(help(Origin::NONE, partial, own), own);
        assert_eq!(help(Origin::NONE, partial, both), both_tree);
        assert_eq!(help(partial, Origin::NONE, both), both);
    }
}

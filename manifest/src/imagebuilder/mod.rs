//! Configurations of ImageBuilder, Xen's generator of boot scripts, turned into manifests.
//!
//! A configuration is a shell script of assignments; it is read (`shell`), never run. What the manifest has a word for is
//! translated (`convert`), the rest is kept as comments and said. Nothing is planned here, and files are looked into only
//! where the configuration leaves to them what a manifest says itself.
//!
//! Source: ImageBuilder's README.md, "scripts/uboot-script-gen", and its defaults as the script has them.

mod convert;
mod document;
mod shell;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use layout::Severity;

use crate::origin::LineColumn;
use crate::toml::line_column;
use convert::Converter;
use shell::Assignment;

/// What is wrong, or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Something that isn't an assignment of a literal.
    NotLiteral,
    /// A value that can't be meant.
    Invalid,
    /// A variable that must be there.
    Missing,
    /// A variable that Terrane has no word for.
    NoWord,
    /// A variable that ImageBuilder doesn't read.
    Unread,
}

impl Code {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotLiteral => "config-not-literal",
            Self::Invalid => "config-invalid",
            Self::Missing => "config-missing",
            Self::NoWord => "config-no-word",
            Self::Unread => "config-unread",
        }
    }
}

/// Something to be said about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// With an error there is no manifest.
    pub severity: Severity,
    /// What stands there.
    pub what: String,
    /// Why that can't be, or isn't taken over.
    pub why: String,
    /// The nearest change that works; empty if none is known.
    pub help: String,
    /// The bytes that are meant; empty for what is missing.
    pub span: Range<usize>,
    /// Where they begin.
    pub start: LineColumn,
}

/// What came of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The manifest's text; `None` if there was an error.
    pub manifest: Option<String>,
    /// All that is to be said, in the configuration's order.
    pub findings: Vec<Finding>,
}

/// How a configuration is read.
pub struct Reading<'a> {
    /// The configuration's name, for comments.
    pub name: &'a str,
    /// The folder that its relative paths count from, as the manifest is to write it: itself relative to the manifest's
    /// folder, or absolute.
    pub folder: &'a Path,
    /// The contents of a file that the configuration names; `None` if it can't be read.
    pub file: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

/// The manifest of a configuration.
#[must_use]
pub fn import(text: &str, reading: &Reading<'_>) -> Imported {
    let (assignments, wrong) = shell::read(text);
    let mut config = Config {
        text,
        variables: BTreeMap::new(),
        unread: BTreeSet::new(),
        findings: Vec::new(),
    };
    for one in wrong {
        config.unread.extend(one.variable);
        let what = text.get(one.span.clone()).unwrap_or_default().to_owned();
        let why = format!(
            "a configuration is read, not run, and this is no literal: {}",
            one.why
        );
        let help = "write `NAME=\"value\"` or `NAME[number]=\"value\"`";
        config.find(Code::NotLiteral, Severity::Error, one.span, what, why, help);
    }
    // As in the shell the last one counts.
    for one in assignments {
        config.variables.insert((one.name.clone(), one.index), one);
    }
    let document = Converter::new(&mut config, reading).convert();
    let mut findings = config.findings;
    findings.sort_by_key(|finding| finding.span.start);
    let refused = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    Imported {
        manifest: (!refused).then(|| document.to_string()),
        findings,
    }
}

/// The variables, and what was found about them.
struct Config<'t> {
    text: &'t str,
    variables: BTreeMap<(String, u32), Assignment>,
    /// Those whose values are no literals, which has been said.
    unread: BTreeSet<(String, u32)>,
    findings: Vec<Finding>,
}

impl Config<'_> {
    /// A variable that has a value. An empty one is as good as none to ImageBuilder.
    fn get(&self, name: &str, index: u32) -> Option<&Assignment> {
        let found = self.variables.get(&(name.to_owned(), index))?;
        (!found.value.is_empty()).then_some(found)
    }

    fn find(
        &mut self,
        code: Code,
        severity: Severity,
        span: Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.findings.push(Finding {
            code,
            severity,
            what: what.into(),
            why: why.into(),
            help: help.into(),
            start: line_column(self.text, span.start),
            span,
        });
    }

    fn line(&self, variable: &Assignment) -> u32 {
        line_column(self.text, variable.span.start).line
    }
}

/// The variable as the configuration writes it: an index only where it is one of several.
fn label(variable: &Assignment) -> String {
    if words::is_list(&variable.name) {
        format!("{}[{}]", variable.name, variable.index)
    } else {
        variable.name.clone()
    }
}

#[cfg(test)]
mod tests;

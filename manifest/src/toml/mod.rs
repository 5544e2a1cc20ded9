//! The TOML manifest: one file that describes one machine and its domains.
//!
//! Reading goes on after an error, so that all are seen at once, and each has its line and column.
//! What comes out is the planner's request without modules; [`Manifest::load_files`] reads those
//! and makes the container. The contract of the keys is in docs/manifest.md.

mod domain;
mod file;
mod files;
mod host;
mod links;
mod mend;
mod number;
mod reader;
mod syntax;

pub use domain::DomainFiles;
pub use files::{BuildError, Loaded};
pub use host::{HostSource, HostSpec, QemuSpec};
pub use number::parse as parse_number;
pub use syntax::SyntaxError;

use std::fmt;
use std::io;
use std::path::Path;

use layout::{Code, Conflict, SystemRequest};
use toml::de::DeTable;

use crate::origin::Origins;
pub(crate) use reader::line_column;
use reader::{Reader, Value, value};

/// The version of the manifest's keys that this reads.
pub const VERSION: u32 = 1;

const KEYS: [&str; 4] = ["manifest-version", "host", "hypervisor", "domain"];

/// A manifest that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file's text.
    pub text: String,
    /// The machine; `None` if what is said of it can't be used, which is among the problems.
    pub host: Option<HostSpec>,
    /// What is asked for. Kernels, ramdisks and partial trees are absent: see `files`.
    pub request: SystemRequest,
    /// The files of each domain, in the request's order.
    pub files: Vec<DomainFiles>,
    /// Where things were said. File 0 is the manifest.
    pub origins: Origins,
    /// What is wrong so far.
    pub problems: Vec<Conflict>,
}

/// A file that is no manifest at all.
#[derive(Debug)]
pub enum LoadError {
    /// It can't be read, isn't UTF-8, or is larger than [`MAX_TEXT`](crate::files::MAX_TEXT).
    Read(io::Error),
    /// It isn't TOML.
    Syntax {
        /// What is wrong, by line.
        errors: Vec<SyntaxError>,
        /// The file's text.
        text: String,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Syntax { errors, .. } => {
                for (index, SyntaxError { start, message, .. }) in errors.iter().enumerate() {
                    let between = if index == 0 { "" } else { "; " };
                    write!(f, "{between}{}:{}: {message}", start.line, start.column)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the manifest in the file `path`, under which name its positions are shown.
///
/// # Errors
/// See [`LoadError`]; everything else that is wrong is in [`Manifest::problems`].
pub fn load(path: &Path) -> Result<Manifest, LoadError> {
    let text = crate::files::read_text(path).map_err(LoadError::Read)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&path.display().to_string(), text, folder)
}

/// Reads a manifest from its text. `name` is the file's in positions; relative paths in it count
/// from `folder`.
///
/// # Errors
/// [`LoadError::Syntax`].
pub fn parse(name: &str, text: String, folder: &Path) -> Result<Manifest, LoadError> {
    let document = match syntax::read(&text) {
        Ok(document) => document,
        Err(errors) => return Err(LoadError::Syntax { errors, text }),
    };
    let mut reader = Reader::new(name, &text);
    let document = &document;
    reader.check_keys(document, &KEYS, "a manifest");
    reader.version(document);
    let host = reader.host(document, folder);
    let mut request = SystemRequest {
        hypervisor: reader.hypervisor(document),
        ..SystemRequest::default()
    };
    let mut files = Vec::new();
    let domains = value(document, "domain");
    if domains.as_ref().is_none_or(Value::is_empty_list) {
        reader.without_domains();
    }
    let domains = domains.map(|domains| reader.list(&domains));
    for (index, item) in domains.iter().flatten().enumerate() {
        reader.domain = Some(index);
        if let Some(table) = reader.table(item) {
            let (domain, named) = reader.domain(table, item.span(), folder);
            request.domains.push(domain);
            files.push(named);
        }
    }
    let Reader {
        origins, problems, ..
    } = reader;
    Ok(Manifest {
        host,
        request,
        files,
        origins,
        problems,
        text,
    })
}

impl Reader<'_> {
    fn without_domains(&mut self) {
        let why = "nothing would be started";
        let help = "add [[domain]] with name, memory and kernel";
        self.problem(Code::KeyMissing, 0..0, "no [[domain]]", why, help);
    }

    fn version(&mut self, document: &DeTable<'_>) {
        let Some(at) = value(document, "manifest-version") else {
            let why = "a manifest says which version of the keys it is written in";
            let help = format!("begin the file with `manifest-version = {VERSION}`");
            self.problem(Code::KeyMissing, 0..0, "no `manifest-version`", why, help);
            return;
        };
        if let Some(version) = self.count(&at)
            && version != VERSION
        {
            let why = format!("this program reads version {VERSION}");
            let help = format!("write `manifest-version = {VERSION}`");
            self.problem(
                Code::ValueInvalid,
                at.span(),
                format!("version {version}"),
                why,
                help,
            );
        }
    }
}

#[cfg(test)]
mod tests;

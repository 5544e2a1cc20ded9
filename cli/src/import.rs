//! `terrane import`: a manifest from another tool's configuration.
//!
//! The translation is `manifest`'s; this knows the files and what is said about them.

use std::io;
use std::path::{Path, PathBuf};

use manifest::files;
use manifest::imagebuilder::{self, Finding, Reading};
use manifest::tree::blob::MAX_BYTES;

use crate::args::ImagebuilderArgs;
use crate::diagnostics::{self, Diagnostic, Place, Severity, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::output::Output;
use crate::stream::Stream;

/// `terrane import imagebuilder`.
pub fn imagebuilder(args: &ImagebuilderArgs) -> io::Result<Exit> {
    let mut findings = Findings::default();
    let manifest = convert(args, &mut findings);
    findings.emit(args.json, Stream::Stderr)?;
    match manifest {
        Ok(manifest) => {
            let (output, inputs) = (args.output.as_deref(), [args.config.clone()]);
            Output { json: args.json }.put(manifest.as_bytes(), output, &inputs)
        }
        Err(exit) => Ok(exit),
    }
}

fn convert(args: &ImagebuilderArgs, findings: &mut Findings) -> Result<String, Exit> {
    let text = files::read_text(&args.config).map_err(|error| {
        findings.give_up(
            diagnostics::unreadable(&args.config, &error),
            Exit::Unreadable,
        )
    })?;
    let name = args.config.display().to_string();
    let folder = args
        .directory
        .as_deref()
        .unwrap_or_else(|| folder_of(&args.config));
    let seen_from = args.output.as_deref().map_or(folder, folder_of);
    let file = |path: &str| files::read(&folder.join(path), MAX_BYTES as u64).ok();
    let reading = Reading {
        name: &name,
        folder: &seen(folder, seen_from),
        file: &file,
    };
    let imported = imagebuilder::import(&text, &reading);
    for finding in imported.findings {
        findings.add(diagnostic(&name, finding));
    }
    findings.add_source(name, text);
    imported.manifest.ok_or(Exit::Conflicts)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// `folder` as a manifest in the folder `from` names it: relative if it lies in or below that, else absolute.
fn seen(folder: &Path, from: &Path) -> PathBuf {
    let real = |path: &Path| {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        path.canonicalize()
    };
    match (real(folder), real(from)) {
        (Ok(folder), Ok(from)) => match folder.strip_prefix(&from) {
            Ok(below) => below.to_owned(),
            Err(_) => folder,
        },
        _ => folder.to_owned(),
    }
}

fn diagnostic(name: &str, finding: Finding) -> Diagnostic {
    Diagnostic {
        code: finding.code.as_str().to_owned(),
        severity: match finding.severity {
            layout::Severity::Error => Severity::Error,
            layout::Severity::Warning => Severity::Warning,
        },
        message: finding.why,
        sides: vec![Side {
            what: finding.what,
            place: Some(Place::at(name.to_owned(), finding.start, finding.span)),
        }],
        help: Some(finding.help).filter(|help| !help.is_empty()),
    }
}

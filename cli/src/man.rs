//! `terrane man`: manual pages, one for each command.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::exit::Exit;
use crate::{diagnostics, output, status};

/// `terrane man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory to write every page to; it is made if it isn't there. Without it the first page
    /// goes to standard output
    #[arg(short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Runs it.
pub fn man(args: &ManArgs) -> io::Result<Exit> {
    let Some(folder) = &args.output else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page)?;
        return output::put(&page, None);
    };
    match write(folder) {
        Ok(()) => {
            status::step("Wrote", folder.display());
            Ok(Exit::Good)
        }
        Err(error) => output::fail(diagnostics::unwritable(folder, &error), Exit::Unreadable),
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn pages() -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("pages")).unwrap();
        let entries = fs::read_dir(folder.path().join("pages")).unwrap();
        let pages = entries.map(|entry| entry.unwrap().path()).collect();
        (folder, pages)
    }

    #[test]
    fn every_command_has_a_page() {
        let (_folder, pages) = pages();
        let names: Vec<String> = pages
            .iter()
            .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(names.contains(&"terrane.1".to_owned()));
        for command in Cli::command().get_subcommands() {
            let page = format!("terrane-{}.1", command.get_name());
            assert!(names.contains(&page), "{page}: {names:?}");
        }
    }

    /// groff finds nothing to warn of, where it is installed.
    #[test]
    fn groff_reads_them_without_a_warning() {
        let (_folder, pages) = pages();
        for page in pages {
            let groff = Command::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-z"])
                .arg(&page)
                .output();
            match groff {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success() && said.is_empty(), "{said}");
                }
                Err(error) => return eprintln!("skipped: groff isn't here ({error})"),
            }
        }
    }
}

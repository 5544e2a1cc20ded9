//! `terrane man`: manual pages, one for each command.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::diagnostics::{self, Diagnostic};
use crate::exit::Exit;
use crate::writing::{self, NewFile};
use crate::{output, status};

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
        Err(found) => output::fail(found, Exit::Unreadable),
    }
}

fn write(folder: &Path) -> Result<(), Diagnostic> {
    let unwritable = |error| diagnostics::unwritable(folder, &error);
    let mut root = Cli::command().disable_help_subcommand(true);
    // Gives each command below it its full name.
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, folder, &mut pages).map_err(unwritable)?;
    fs::create_dir_all(folder).map_err(unwritable)?;
    writing::write(&pages).map(|_| ())
}

/// The pages of a command and of those below it.
fn add_pages(command: &Command, folder: &Path, pages: &mut Vec<NewFile<'_>>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        add_pages(below, folder, pages)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    pages.push(NewFile::data(folder.join(man.get_filename()), page));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process;

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

    #[test]
    fn a_page_that_cannot_be_written_leaves_the_others_as_they_were() {
        let (folder, pages) = pages();
        let folder = folder.path().join("pages");
        let [first, .., last] = pages.as_slice() else {
            panic!("{pages:?}")
        };
        fs::write(first, "before").unwrap();
        fs::remove_file(last).unwrap();
        std::os::unix::fs::symlink("/dev/full", last).unwrap();
        assert!(write(&folder).is_err());
        assert_eq!(fs::read_to_string(first).unwrap(), "before");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), pages.len());
    }

    /// groff finds nothing to warn of, where it is installed.
    #[test]
    fn groff_reads_them_without_a_warning() {
        let (_folder, pages) = pages();
        for page in pages {
            let groff = process::Command::new("groff")
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

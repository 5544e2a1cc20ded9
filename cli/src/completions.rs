//! `terrane completions`: what a shell needs to complete the command line.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output;

/// `terrane completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
    /// Write them to a file instead of standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs it.
pub fn completions(args: &CompletionsArgs) -> io::Result<Exit> {
    output::put(&script(args.shell), args.output.as_deref())
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "terrane", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(script(*shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {command}");
            }
        }
    }

    /// Shells that are here read their script; of those that aren't nothing is known.
    #[test]
    fn shells_can_read_them() {
        for (shell, program) in [
            (Shell::Bash, "bash"),
            (Shell::Zsh, "zsh"),
            (Shell::Fish, "fish"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), script(shell)).unwrap();
            match Command::new(program).arg("-n").arg(file.path()).output() {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(
                        output.status.success() && said.is_empty(),
                        "{program}: {said}"
                    );
                }
                Err(error) => eprintln!("skipped: {program} isn't here ({error})"),
            }
        }
    }
}

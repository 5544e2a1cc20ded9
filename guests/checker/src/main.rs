//! Linux's side of the system tests: one static program that runs checks by name and prints a line for each.
//!
//! As process 1 it is a whole init: it mounts, loads modules, runs what the kernel command line asks for and powers off.
//! It looks at the system from inside and knows nothing of the hypervisor but what Linux shows. docs/guests.md has the
//! checks and their arguments.

mod checks;
mod counter;
mod init;
mod power;

use std::env;
use std::process::ExitCode;

use rustix::process::{Pid, getpid};

fn main() -> ExitCode {
    let first = counter::now();
    if getpid() == Pid::INIT {
        return match init::run(first) {
            Ok(never) => match never {},
            Err(error) => {
                println!("check init: fail {error:#}");
                power::off_or_panic()
            }
        };
    }
    let words: Vec<String> = env::args().skip(1).collect();
    if words.is_empty() {
        eprintln!(
            "usage: checker CHECK[:ARGUMENT...]... | poweroff | reboot | halt | crash | never"
        );
        return ExitCode::from(2);
    }
    if let [word] = words.as_slice()
        && let Some(end) = power::End::named(word)
    {
        eprintln!("checker: {:#}", power::end(end));
        return ExitCode::FAILURE;
    }
    let failed = words.iter().filter(|word| !checks::run(word, first));
    match failed.count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

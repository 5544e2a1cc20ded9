//! The checks by name. Each gives the rest of its line: what it saw, or why it failed.

mod balloon;
mod busy;
mod costs;
mod disk;
mod edu;
mod facts;
mod net;
mod netlink;
mod pci;
pub mod swiotlb;
mod threads;

use anyhow::{Result, bail};

use crate::counter;

/// Runs the check `NAME[:ARGUMENT...]` and prints `check NAME: pass WHAT` or `check NAME: fail WHY`. Says whether it
/// passed. `first` is the counter as the program read it first.
pub fn run(word: &str, first: u64) -> bool {
    let mut parts = word.split(':');
    let name = parts.next().unwrap_or_default();
    let arguments: Vec<&str> = parts.collect();
    match dispatch(name, &arguments, first) {
        Ok(saw) => {
            println!("check {name}: pass {saw}");
            true
        }
        Err(error) => {
            println!("check {name}: fail {error:#}");
            false
        }
    }
}

fn dispatch(name: &str, arguments: &[&str], first: u64) -> Result<String> {
    match name {
        "init-mark" => Ok(format!("cntvct={first} cntfrq={}", counter::frequency())),
        "edu-dma" => edu::check(),
        "edu-astray" => edu::astray(arguments),
        "checksum" => disk::checksum(arguments),
        "write" => disk::write(arguments),
        "net-traffic" => net::check(arguments),
        "features" => facts::features(arguments),
        "facts" => facts::print(),
        "costs" => costs::print(),
        "swiotlb" => swiotlb::check(),
        "balloon" => balloon::check(arguments),
        "balloon-busy" => busy::check(arguments),
        "cpus" => threads::check(arguments),
        _ => bail!("there is no such check"),
    }
}

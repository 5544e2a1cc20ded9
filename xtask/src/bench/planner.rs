//! `cargo xtask bench --planner`: how long the workstation takes to plan a large machine.
//!
//! The one benchmark that counts time: the planner's promise is in milliseconds. It needs a machine
//! that does nothing else.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::paths;
use crate::run;

/// Builds layout's example `scale` for release and runs it.
pub fn planner() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::workspace()).args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "terrane-layout",
        "--example",
        "scale",
    ]);
    print!("{}", run::output(&mut command)?);
    Ok(())
}

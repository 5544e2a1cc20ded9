//! Where things lie: the workspace, its build products, and the cache that all clones share.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::arch::Arch;

/// The root of the workspace that this xtask was built from.
pub fn workspace() -> PathBuf {
    let room = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    room.parent()
        .map_or_else(|| room.clone(), Path::to_path_buf)
}

/// Cargo's build folder: `CARGO_TARGET_DIR`, else `target/` in the workspace.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The products of one architecture, `target/terrane/ARCH/`, made if it isn't there.
pub fn products(arch: Arch) -> Result<PathBuf> {
    made(target().join("terrane").join(arch.name()))
}

/// A folder for what a command makes while it runs (ramdisks, manifests, logs), made if it isn't there.
pub fn scratch(arch: Arch, name: &str) -> Result<PathBuf> {
    made(products(arch)?.join(name))
}

/// `${XDG_CACHE_HOME:-~/.cache}/terrane`, made if it isn't there.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache")
        }
    };
    made(base.join("terrane"))
}

fn made(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

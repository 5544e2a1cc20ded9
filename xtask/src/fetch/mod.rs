//! What is fetched into the cache: Debian's packages for guests and for comparison, unpacked and never installed.
//!
//! The cache is shared by clones, so every change to it happens under one lock, and a package's folder appears under its
//! name only when it is whole.

mod apt;
pub mod guests;
mod host;

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::paths;
use crate::run::step;

pub use self::apt::KEYRING;
pub use self::host::HostLists;

/// The cache's lock, held until it is dropped.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other xtask changes the cache.
    pub fn take() -> Result<Self> {
        let path = paths::cache()?.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            step(format_args!(
                "waiting for another xtask that holds {}",
                path.display()
            ));
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self { _file: file })
    }
}

/// Unless `folder` is there: fills a folder beside it by `fill`, then gives it the name in one step.
fn once(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let _lock = Lock::take()?;
    if folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().context("a cache entry has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    fill(partial.path())?;
    let whole = partial.keep();
    set_readable(&whole)?;
    fs::rename(&whole, folder).with_context(|| format!("cannot name {}", folder.display()))
}

/// `tempfile` makes folders private; what clones share is readable.
fn set_readable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot set permissions of {}", folder.display()))
}

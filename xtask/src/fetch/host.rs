//! Package lists of our own for installing on the host: a suite can be used that the user's sources don't name, and
//! those stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{KEYRING, MIRROR};
use crate::paths;
use crate::run;

/// A Debian release with its security updates and its backports.
pub struct HostLists {
    folder: PathBuf,
}

impl HostLists {
    /// Writes the sources of `release`, a code name.
    pub fn open(release: &str) -> Result<Self> {
        let folder = paths::cache()?.join("apt").join("host");
        let lists = folder.join("lists/partial");
        fs::create_dir_all(&lists).with_context(|| format!("cannot make {}", lists.display()))?;
        let sources = folder.join("sources.list");
        let text = format!(
            "deb [signed-by={KEYRING}] {MIRROR} {release} main\n\
             deb [signed-by={KEYRING}] {MIRROR} {release}-backports main\n\
             deb [signed-by={KEYRING}] {MIRROR}-security {release}-security main\n"
        );
        fs::write(&sources, text).with_context(|| format!("cannot write {}", sources.display()))?;
        Ok(Self { folder })
    }

    /// What makes apt-get read these lists in place of the user's.
    pub fn options(&self) -> Vec<String> {
        let folder = self.folder.display();
        let mut words = Vec::new();
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::Lists={folder}/lists"),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        words
    }

    /// Fetches the lists.
    pub fn update(&self) -> Result<()> {
        let mut command = Command::new("apt-get");
        run::check(
            command
                .args(self.options())
                .args(["-o", "APT::Sandbox::User=", "-q", "update"]),
        )
    }
}

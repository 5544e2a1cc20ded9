//! A private apt: own sources, lists and architecture, so that the user's apt never hears of it.
//!
//! Signatures are checked by apt against Debian's archive keyring. Nothing is installed: packages are downloaded and
//! unpacked with `dpkg-deb`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::paths;
use crate::run::{self, step};

/// Debian's archive keyring, from the package `debian-archive-keyring`.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
pub const MIRROR: &str = "http://deb.debian.org/debian";

/// One suite of Debian for one architecture, under `apt/SUITE-ARCH/` in the cache.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes the state of `suite` for Debian's architecture `arch` and fetches its lists if they aren't there.
    pub fn open(suite: &str, arch: &str) -> Result<Self> {
        let folder = paths::cache()?.join("apt").join(format!("{suite}-{arch}"));
        for part in [
            "lists/partial",
            "archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
        ] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let apt = Self { folder };
        apt.write("status", "")?;
        apt.write(
            "sources.list",
            &format!("deb [arch={arch} signed-by={KEYRING}] {MIRROR} {suite} main\n"),
        )?;
        let root = apt.folder.display();
        apt.write(
            "apt.conf",
            &format!(
                "APT::Architecture \"{arch}\";\n\
                 #clear APT::Architectures;\n\
                 APT::Architectures {{ \"{arch}\"; }};\n\
                 APT::Sandbox::User \"\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Retries \"3\";\n\
                 Dir::State \"{root}\";\n\
                 Dir::State::Lists \"{root}/lists\";\n\
                 Dir::State::status \"{root}/status\";\n\
                 Dir::Cache \"{root}\";\n\
                 Dir::Cache::archives \"{root}/archives\";\n\
                 Dir::Etc \"{root}/etc\";\n\
                 Dir::Etc::sourcelist \"{root}/sources.list\";\n\
                 Dir::Etc::sourceparts \"-\";\n"
            ),
        )?;
        Ok(apt)
    }

    /// Fetches the lists, so that what is downloaded next is what the archive offers now.
    pub fn update(&self) -> Result<()> {
        run::check(self.command("apt-get").args(["-q", "update"]))
    }

    /// The package that a meta package stands for: its first dependency whose name begins with `prefix`.
    pub fn dependency(&self, meta: &str, prefix: &str) -> Result<String> {
        let said = run::output(
            self.command("apt-cache")
                .args(["depends", "--important", meta]),
        )?;
        said.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{meta} depends on no {prefix}*"))
    }

    /// Downloads `package` and unpacks it into `root`; gives its version.
    pub fn unpack(&self, package: &str, root: &Path) -> Result<String> {
        step(format_args!("downloading {package}"));
        let archives = tempfile::Builder::new()
            .prefix("download-")
            .tempdir_in(&self.folder)?;
        run::check(
            self.command("apt-get")
                .args(["-q", "download", package])
                .current_dir(archives.path()),
        )?;
        let mut files = fs::read_dir(archives.path())?.collect::<std::io::Result<Vec<_>>>()?;
        let Some(file) = files.pop().filter(|_| files.is_empty()) else {
            bail!("apt-get download {package} left {} files", files.len());
        };
        step(format_args!("unpacking {package}"));
        run::check(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(file.path())
                .arg(root),
        )?;
        let version = run::output(
            Command::new("dpkg-deb")
                .arg("-f")
                .arg(file.path())
                .arg("Version"),
        )?;
        Ok(version.trim().to_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

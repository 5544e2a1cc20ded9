//! A kernel's modules: found by name, unwrapped, and put in the order in which they can be loaded.
//!
//! A package that is only unpacked has no `modules.dep` (depmod makes it at installation), so dependencies are read from
//! the modules themselves.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

/// A module, ready for `insmod`.
pub struct Module {
    /// Its name as the kernel shows it, with `_`.
    pub name: String,
    /// The ELF file.
    pub data: Vec<u8>,
}

/// The modules `wanted` and all that they need, dependencies first. What is built into the kernel is left out.
pub fn collect(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let folder =
        fs::canonicalize(folder).with_context(|| format!("no modules at {}", folder.display()))?;
    let mut search = Search {
        files: HashMap::new(),
        builtin: builtin(&folder)?,
        seen: HashSet::new(),
        found: Vec::new(),
    };
    index(&folder.join("kernel"), &mut search.files)?;
    for name in wanted {
        search.add(name)?;
    }
    Ok(search.found)
}

struct Search {
    files: HashMap<String, PathBuf>,
    builtin: HashSet<String>,
    seen: HashSet<String>,
    found: Vec<Module>,
}

impl Search {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            bail!("this kernel has no module {name}");
        };
        let data = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for needed in dependencies(&data)? {
            self.add(&needed)?;
        }
        self.found.push(Module {
            name: name.to_owned(),
            data,
        });
        Ok(())
    }
}

/// File and module names differ in `-` and `_`; the kernel takes them as equal.
fn module_name(file: &str) -> Option<String> {
    let stem = file
        .strip_suffix(".ko")
        .or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn builtin(folder: &Path) -> Result<HashSet<String>> {
    let list = fs::read_to_string(folder.join("modules.builtin"))
        .context("no list of built-in modules")?;
    Ok(list
        .lines()
        .filter_map(|line| module_name(line.rsplit('/').next()?))
        .collect())
}

fn index(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let data = fs::read(path)?;
    if path.extension().is_some_and(|extension| extension == "xz") {
        let mut plain = Vec::new();
        liblzma::read::XzDecoder::new(data.as_slice()).read_to_end(&mut plain)?;
        return Ok(plain);
    }
    Ok(data)
}

/// What a module's `.modinfo` says it depends on.
fn dependencies(data: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(data)?;
    let Some(section) = file.section_by_name(".modinfo") else {
        bail!("a module without .modinfo");
    };
    let info = section.data()?;
    let names = info
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    Ok(names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

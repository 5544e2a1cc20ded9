//! The files that a boot loader puts where a tree for Xen has its modules: `--module ADDRESS=FILE`.
//!
//! A tree names places and sizes. What is in a file is read when somebody asks for it; that names and places fit together
//! is checked once the tree has been read.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use layout::{Architecture, Located, MachineRange, SystemRequest};
use manifest::container;
use manifest::files;
use manifest::image::HEADER_BYTES;
use manifest::kernel;
use manifest::origin::Origins;
use manifest::toml::{DomainFiles, parse_number};
use manifest::tree::blob::Tree;
use manifest::tree::system::{Contents, Module, Role};

use crate::diagnostics::{Diagnostic, Severity, Side};
use crate::findings::Findings;
use crate::xen_tree::assumed_header;

/// A file and the machine address of the module that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    address: u64,
    file: PathBuf,
}

impl ModuleFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Reads `ADDRESS=FILE`.
    ///
    /// # Errors
    /// It isn't that, in the words of the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=');
        let parts = parts.and_then(|(address, file)| Some((parse_number(address)?, file)));
        match parts.filter(|(_, file)| !file.is_empty()) {
            Some((address, file)) => Ok(Self {
                address,
                file: PathBuf::from(file),
            }),
            None => Err("not an address and a file such as 0x5000_0000=vmlinuz".to_owned()),
        }
    }
}

/// What the files are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Their places; whoever reads them says what is wrong in them.
    Places,
    /// What is in them too.
    All,
}

/// The files that were named.
#[derive(Default)]
pub struct ModuleFiles(Vec<Named>);

struct Named {
    said: ModuleFile,
    /// One for all modules that are the same file.
    file: Rc<File>,
}

/// A file, of which everything is looked up once.
struct File {
    /// In bytes; or why it can't be read.
    length: Result<u64, String>,
    bytes: OnceCell<Vec<u8>>,
    kernel: OnceCell<Result<KernelFile, String>>,
}

/// What there is to know of a kernel's file.
struct KernelFile {
    header: [u8; HEADER_BYTES],
    /// It isn't the kernel itself.
    is_packed: bool,
}

impl ModuleFiles {
    /// Looks whether the files are there.
    pub fn find(said: &[ModuleFile]) -> Self {
        let mut found: Vec<Named> = Vec::new();
        for said in said {
            let known = found.iter().find(|named| named.said.file == said.file);
            let file = match known {
                Some(named) => Rc::clone(&named.file),
                None => Rc::new(File::find(&said.file)),
            };
            let said = said.clone();
            found.push(Named { said, file });
        }
        Self(found)
    }

    /// Whether no file was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the file of this module was named.
    pub fn has(&self, module: &Module) -> bool {
        self.at(module.range).is_some()
    }

    fn at(&self, module: MachineRange) -> Option<&Named> {
        let address = module.start().raw();
        self.0.iter().find(|named| named.said.address == address)
    }

    /// Tells the table of positions which file each of these modules is.
    pub fn name(&self, modules: &[Module], origins: &mut Origins) {
        for module in modules {
            if let Some(named) = self.at(module.range) {
                let name = named.path().display().to_string();
                origins.name_module(named.said.address, name, module.origin);
            }
        }
    }

    /// The files of each domain of a request, as far as they are named. A partial tree that is none is left out: the
    /// tree's reader has said so.
    pub fn of_domains(&self, request: &SystemRequest, modules: &[Module]) -> Vec<DomainFiles> {
        let mut files = vec![DomainFiles::default(); request.domains.len()];
        for module in modules {
            let domain = module.domain.and_then(|domain| files.get_mut(domain));
            let Some((domain, named)) = domain.zip(self.at(module.range)) else {
                continue;
            };
            let file = Some(Located::new(named.said.file.clone(), module.origin));
            match module.role {
                Role::Kernel => domain.kernel = file,
                Role::Ramdisk => domain.ramdisk = file,
                Role::PartialTree => {
                    let is_tree = Tree::read(named.bytes()).is_ok();
                    domain.partial_tree = file.filter(|_| is_tree);
                }
            }
        }
        files
    }

    /// Says where files and modules don't fit together.
    pub fn check(&self, tree: &Read<'_>, scope: Scope, findings: &mut Findings) {
        for (index, named) in self.0.iter().enumerate() {
            let before = self.0.iter().take(index);
            let first = before
                .rev()
                .find(|other| other.said.address == named.said.address);
            let modules = tree.modules.iter();
            let mut modules = modules
                .filter(|module| module.range.start().raw() == named.said.address)
                .peekable();
            if let Some(first) = first {
                findings.add(named.twice(first, modules.next(), tree, findings));
            } else if modules.peek().is_none() {
                findings.add(named.unknown(tree, findings));
            } else {
                for module in modules {
                    named.check(module, tree, scope, findings);
                }
            }
        }
    }
}

impl Contents for ModuleFiles {
    fn header(&self, module: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        let kernel = self.at(module).map(Named::kernel);
        // What can't be used is said once, by the check of the files.
        match kernel {
            Some(Ok(kernel)) => Some(kernel.header),
            Some(Err(_)) | None => assumed_header(module),
        }
    }

    fn partial_tree(&self, module: MachineRange) -> Option<&[u8]> {
        let named = self.at(module)?;
        named.file.length.is_ok().then(|| named.bytes())
    }
}

/// A tree for Xen that has been read.
pub struct Read<'a> {
    /// Its modules.
    pub modules: &'a [Module],
    /// Its domains.
    pub request: &'a SystemRequest,
    /// Where things are said in it.
    pub origins: &'a Origins,
}

impl Read<'_> {
    fn side(&self, module: &Module, what: String, findings: &Findings) -> Side {
        Side {
            what,
            place: findings.place(module.origin, self.origins),
        }
    }

    /// A module as it is called.
    fn name(&self, module: &Module) -> String {
        let domain = module
            .domain
            .and_then(|domain| self.request.domains.get(domain));
        let role = match module.role {
            Role::Kernel => "kernel",
            Role::Ramdisk => "ramdisk",
            Role::PartialTree => "partial tree",
        };
        match domain {
            Some(domain) => format!("domain \"{}\", {role}", domain.name.value),
            None => role.to_owned(),
        }
    }

    /// Adds each of these modules to a finding, and how its file is named.
    pub fn list(&self, found: &mut Diagnostic, modules: &[&Module], findings: &Findings) {
        let mut flags: Vec<String> = Vec::new();
        for module in modules {
            let (address, size) = (module.range.start().raw(), module.range.size());
            let what = format!("{} of {size:#x} bytes", self.name(module));
            found.sides.push(self.side(module, what, findings));
            let flag = format!("--module {address:#x}=FILE");
            if !flags.contains(&flag) {
                flags.push(flag);
            }
        }
        found.help = Some(format!("name the files: {}", flags.join(" ")));
    }
}

impl File {
    fn find(path: &Path) -> Self {
        let length = files::open(path).and_then(|file| Ok(file.metadata()?.len()));
        Self {
            length: length.map_err(|error| error.to_string()),
            bytes: OnceCell::new(),
            kernel: OnceCell::new(),
        }
    }
}

impl Named {
    /// All of it; nothing if it can't be read.
    fn bytes(&self) -> &[u8] {
        let read = || files::read(self.path(), container::MAX_BYTES).unwrap_or_default();
        self.file.bytes.get_or_init(read)
    }

    fn kernel(&self) -> &Result<KernelFile, String> {
        self.file.kernel.get_or_init(|| {
            // Xen has the binding on Arm alone.
            let kernel = kernel::unwrap_image(self.bytes().to_vec(), Architecture::Aarch64);
            let kernel = kernel.map_err(|error| error.to_string())?;
            let header = kernel.bytes.first_chunk().copied();
            Ok(KernelFile {
                header: header.ok_or("it is shorter than a header")?,
                is_packed: !kernel.wrappers.is_empty(),
            })
        })
    }

    fn path(&self) -> &Path {
        &self.said.file
    }

    fn flag(&self) -> String {
        format!(
            "--module {:#x}={}",
            self.said.address,
            self.path().display()
        )
    }

    fn twice(
        &self,
        first: &Self,
        module: Option<&Module>,
        tree: &Read<'_>,
        findings: &Findings,
    ) -> Diagnostic {
        let message = format!(
            "the module at {:#x} is {} and {}: it can be one file",
            self.said.address,
            first.path().display(),
            self.path().display()
        );
        let mut found = Diagnostic::error("module-twice", message)
            .with_help(format!("leave {} out", self.flag()));
        let what = |module: &Module| tree.side(module, tree.name(module), findings);
        found.sides.extend(module.map(what));
        found
    }

    /// No module is there.
    fn unknown(&self, tree: &Read<'_>, findings: &Findings) -> Diagnostic {
        let address = self.said.address;
        let message = format!("no module of a domain begins at {address:#x}");
        let found = Diagnostic::error("module-unknown", message);
        let mut modules: Vec<&Module> = tree.modules.iter().collect();
        modules.sort_by_key(|module| module.range.start().raw().abs_diff(address));
        let Some(nearest) = modules.first() else {
            return found.with_help(format!("leave {} out", self.flag()));
        };
        let start = nearest.range.start().raw();
        let file = self.path().display();
        let help = format!("the nearest that there is: --module {start:#x}={file}");
        let what = format!("{} at {start:#x}", tree.name(nearest));
        Diagnostic {
            sides: vec![tree.side(nearest, what, findings)],
            ..found.with_help(help)
        }
    }

    fn check(&self, module: &Module, tree: &Read<'_>, scope: Scope, findings: &mut Findings) {
        let file = self.path().display();
        let name = tree.name(module);
        let (message, code) = match &self.file.length {
            Err(_) if scope == Scope::Places => return,
            Err(error) => (format!("can't read {file}: {error}"), "file-unreadable"),
            Ok(length) if *length != module.range.size() => {
                let size = module.range.size();
                let message = format!("{file} has {length:#x} bytes, and its module {size:#x}");
                (message, "module-size")
            }
            Ok(_) => return self.check_kernel(module, tree, scope, findings),
        };
        let help = match &self.file.length {
            Ok(length) => reg(module, *length),
            Err(_) => format!(
                "name the file that is put there: --module {:#x}=FILE",
                self.said.address
            ),
        };
        let side = tree.side(module, name, findings);
        findings.add(Diagnostic {
            sides: vec![side],
            ..Diagnostic::error(code, message).with_help(help)
        });
    }

    fn check_kernel(
        &self,
        module: &Module,
        tree: &Read<'_>,
        scope: Scope,
        findings: &mut Findings,
    ) {
        if module.role != Role::Kernel || scope == Scope::Places {
            return;
        }
        let file = self.path().display();
        let (severity, message, help) = match self.kernel() {
            Ok(kernel) if !kernel.is_packed => return,
            Ok(_) => (
                Severity::Warning,
                format!("{file} is packed: `terrane image` unpacks it, and no boot loader does"),
                "booted as Xen is, put the kernel there that is in it",
            ),
            Err(error) => (
                Severity::Error,
                format!("{file} can't be started: {error}"),
                "name an arm64 Image, plain, compressed or as an EFI zboot image",
            ),
        };
        let side = tree.side(module, tree.name(module), findings);
        findings.add(Diagnostic {
            severity,
            sides: vec![side],
            ..Diagnostic::error("kernel-file", message).with_help(help)
        });
    }
}

/// The `reg` of a module for a file of this length.
fn reg(module: &Module, length: u64) -> String {
    let cells = |number: u64, count: usize| match count {
        1 => format!("{:#x}", number & 0xffff_ffff),
        _ => format!("{:#x} {:#x}", number >> 32, number & 0xffff_ffff),
    };
    let (address, size) = module.cells;
    let start = cells(module.range.start().raw(), address);
    format!("reg = <{start} {}>;", cells(length, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_file() {
        let parsed = ModuleFile::parse("0x5000_0000=a=b");
        let expected = ModuleFile {
            address: 0x5000_0000,
            file: PathBuf::from("a=b"),
        };
        assert_eq!(parsed, Ok(expected));
        for bad in ["", "0x5000_0000", "0x5000_0000=", "=a", "a=0x5000_0000"] {
            assert!(ModuleFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_is_several_modules_is_one() {
        let said = [(1, "a"), (2, "b"), (3, "a")].map(|(address, file)| ModuleFile {
            address,
            file: PathBuf::from(file),
        });
        let files = ModuleFiles::find(&said).0;
        let [first, other, again] = files.as_slice() else {
            panic!()
        };
        assert!(Rc::ptr_eq(&first.file, &again.file));
        assert!(!Rc::ptr_eq(&first.file, &other.file));
    }

    #[test]
    fn a_module_gets_the_files_length() {
        use layout::{MachineAddress, Origin};
        let module = |cells| Module {
            domain: Some(0),
            role: Role::Ramdisk,
            range: MachineRange::saturating(MachineAddress::new(0x1_5000_0000), 0x1000),
            cells,
            origin: Origin::NONE,
        };
        assert_eq!(
            reg(&module((2, 2)), 0x123),
            "reg = <0x1 0x50000000 0x0 0x123>;"
        );
        assert_eq!(reg(&module((2, 1)), 0x123), "reg = <0x1 0x50000000 0x123>;");
    }
}

//! The files that a manifest names, and the container that they make.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use layout::{
    Architecture, Code, Conflict, DomainRequest, KernelRequest, Located, MachineAddress,
    MachineRange, ModuleRequest, Origin, Severity, Side, SystemRequest,
};

use super::file::{Content, File, read};
use super::{Manifest, mend};
use crate::container::{self, Arrangement, ContainerError, Shape};
use crate::image::HEADER_BYTES;
use crate::origin::Position;
use crate::tree::blob::{Tree, TreeError};
use crate::tree::system::{self, Contents, HostDescription, Modules, System};
use crate::tree::writer::TooLarge;

/// A manifest with the files that it names, and their places in the container.
#[derive(Debug)]
pub struct Loaded {
    manifest: Manifest,
    payloads: Vec<Payload>,
    arrangement: Arrangement,
}

/// A container that can't be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildError {
    /// The system tree is too large.
    Tree(TooLarge),
    /// The container is too large.
    Container(ContainerError),
    /// What was written can't be read again.
    Unreadable(TreeError),
    /// A file that was there can't be read now, or has another length: its path, and why.
    File(PathBuf, String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Container(error) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
            Self::File(path, why) => write!(f, "can't read {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for BuildError {}

/// What a file is to its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Kernel,
    Ramdisk,
    PartialTree,
}

/// One file in the container.
#[derive(Debug)]
struct Payload {
    domain: usize,
    role: Role,
    /// Several domains may name one file.
    file: Rc<File>,
    origin: Origin,
}

impl Manifest {
    /// Reads every file that the manifest names; kernels are unwrapped, for a host of this
    /// architecture. What can't be used is among the problems, and absent.
    ///
    /// # Errors
    /// The files don't fit into a container.
    pub fn load_files(mut self, architecture: Architecture) -> Result<Loaded, BuildError> {
        let mut payloads = Vec::new();
        let mut files_read = FilesRead::new();
        for domain in 0..self.files.len() {
            let Some(files) = self.files.get(domain).cloned() else {
                continue;
            };
            let named = [
                (Role::Kernel, files.kernel),
                (Role::Ramdisk, files.ramdisk),
                (Role::PartialTree, files.partial_tree),
            ];
            for (role, path) in named {
                let Some(path) = path else { continue };
                let known = files_read.entry((role, path.value.clone()));
                let file = known.or_insert_with_key(|(role, path)| {
                    read(*role, path, architecture).map(Rc::new)
                });
                match file.clone() {
                    Ok(file) => payloads.push(Payload {
                        domain,
                        role,
                        file,
                        origin: path.origin,
                    }),
                    Err((code, why)) => {
                        let help = self.file_help(code, role, architecture, &path);
                        self.problems
                            .push(file_problem(code, domain, &path, why, help));
                    }
                }
            }
        }
        let arrangement = arrange(&self, &payloads, 0)?;
        Ok(Loaded {
            manifest: self,
            payloads,
            arrangement,
        })
    }

    /// The request with modules at their offsets from `start`.
    fn request_at(
        &self,
        payloads: &[Payload],
        arrangement: &Arrangement,
        start: u64,
    ) -> SystemRequest {
        let mut request = self.request.clone();
        for (payload, offset) in payloads.iter().zip(&arrangement.offsets) {
            let Some(domain) = request.domains.get_mut(payload.domain) else {
                continue;
            };
            let address = MachineAddress::new(start.saturating_add(*offset));
            let module = MachineRange::saturating(address, payload.file.shape.file_size);
            let origin = payload.origin;
            match payload.role {
                Role::Kernel => domain.kernel = payload.kernel_request(module),
                Role::Ramdisk => domain.ramdisk = Some(ModuleRequest { module, origin }),
                Role::PartialTree => domain.partial_tree = Some(ModuleRequest { module, origin }),
            }
        }
        request
    }

    fn tree(
        &self,
        payloads: &[Payload],
        arrangement: &Arrangement,
        digest: Option<&str>,
    ) -> Result<Vec<u8>, TooLarge> {
        let request = self.request_at(payloads, arrangement, 0);
        let reserved = self.host.as_ref().map(|host| host.reserved.as_slice());
        system::write(
            &request,
            reserved.unwrap_or_default(),
            0,
            digest,
            &self.origins,
        )
    }
}

/// Gives the payloads their places. The tree names them, so that its length is known only with
/// them: room for it grows until it fits.
fn arrange(
    manifest: &Manifest,
    payloads: &[Payload],
    base: u64,
) -> Result<Arrangement, BuildError> {
    let shapes: Vec<Shape> = payloads.iter().map(|payload| payload.file.shape).collect();
    let mut room = 0;
    loop {
        let arrangement = container::arrange(room, &shapes, base).map_err(BuildError::Container)?;
        let tree = manifest
            .tree(payloads, &arrangement, None)
            .map_err(BuildError::Tree)?;
        let length = tree.len() as u64;
        if length <= room {
            return Ok(arrangement);
        }
        room = length;
    }
}

impl Payload {
    fn kernel_request(&self, module: MachineRange) -> Option<KernelRequest> {
        self.file.kernel.as_ref().map(|kernel| KernelRequest {
            module,
            origin: self.origin,
            ..kernel.clone()
        })
    }
}

/// What each file holds, or why it can't be used: unwrapping a kernel takes half a second, and many domains may name it.
type FilesRead = BTreeMap<(Role, PathBuf), Result<Rc<File>, (Code, String)>>;

fn file_problem(
    code: Code,
    domain: usize,
    path: &Located<PathBuf>,
    why: String,
    help: String,
) -> Conflict {
    Conflict {
        code,
        severity: Severity::Error,
        sides: vec![Side {
            what: "named here".to_owned(),
            origin: path.origin,
            domain: Some(domain),
        }],
        why,
        help,
    }
}

impl Manifest {
    /// What to do about a file that can't be used.
    fn file_help(
        &self,
        code: Code,
        role: Role,
        architecture: Architecture,
        path: &Located<PathBuf>,
    ) -> String {
        let form = match (code, role, architecture) {
            (Code::KernelFile, _, Architecture::X86_64) => {
                "name a Linux bzImage or vmlinux, or an ELF64 file with a PVH note, plain or compressed"
            }
            (Code::KernelFile, _, Architecture::Aarch64) => {
                "name an arm64 Image, plain, compressed or as an EFI zboot image"
            }
            (Code::KernelFile, _, Architecture::Riscv64) => {
                "name a riscv64 Image, plain, compressed or as an EFI zboot image"
            }
            (Code::TreeInvalid, ..) => "name a device tree blob, as dtc writes it",
            _ => return self.help_for_missing(path, role),
        };
        match role {
            Role::PartialTree => format!("{form}, or leave `dtb` out"),
            Role::Kernel | Role::Ramdisk => form.to_owned(),
        }
    }

    fn help_for_missing(&self, path: &Located<PathBuf>, role: Role) -> String {
        let or = match role {
            Role::Kernel => "",
            Role::Ramdisk => ", or leave `ramdisk` out",
            Role::PartialTree => ", or leave `dtb` out",
        };
        format!("{}{or}", self.nearest_file(path))
    }

    /// The help for a file that isn't there: the nearest that is.
    #[must_use]
    pub fn nearest_file(&self, path: &Located<PathBuf>) -> String {
        let written = match self.origins.get(path.origin) {
            Some(Position::Text { span, .. }) => self.text.get(span.clone()).unwrap_or_default(),
            _ => "",
        };
        let written = written.trim_matches(['"', '\'']);
        match mend::file_near(&path.value, written) {
            Some(near) => format!("the nearest that is there is \"{near}\""),
            None => "a relative path counts from the manifest's folder".to_owned(),
        }
    }
}

impl Loaded {
    /// The manifest, with the problems of its files.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, for whoever adds origins.
    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// The container's length in bytes; neither its place nor the digest changes it.
    #[must_use]
    pub fn container_bytes(&self) -> u64 {
        self.arrangement.total
    }

    /// Arranges the container anew for a place that is known beforehand, so that a kernel with bounds lies where it
    /// runs. [`Self::container_bytes`] holds after it.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn arrange_at(&mut self, base: u64) -> Result<(), BuildError> {
        self.arrangement = arrange(&self.manifest, &self.payloads, base)?;
        Ok(())
    }

    /// The container, which carries the digest of the plan.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn container(&self, digest: Option<&str>) -> Result<Vec<u8>, BuildError> {
        let tree = self
            .manifest
            .tree(&self.payloads, &self.arrangement, digest)
            .map_err(BuildError::Tree)?;
        let mut unread = None;
        let payloads = self.payloads.iter().map_while(|payload| {
            let bytes = payload.file.content.bytes();
            bytes.map_err(|error| unread = Some(error)).ok()
        });
        let container = container::assemble(&tree, payloads, &self.arrangement);
        match unread {
            Some(error) => Err(error),
            None => container.map_err(BuildError::Container),
        }
    }

    /// What the hypervisor reads from this container at machine address `start` on a host with
    /// this description (a live tree, or a PC's): by its own reader, so that the plan is the same.
    /// Only the origins are the manifest's.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn system<'r, 'h: 'r>(
        &mut self,
        start: u64,
        host: impl Into<HostDescription<'r, 'h>>,
    ) -> Result<System, BuildError> {
        let blob = self
            .manifest
            .tree(&self.payloads, &self.arrangement, None)
            .map_err(BuildError::Tree)?;
        let tree = Tree::read(&blob).map_err(BuildError::Unreadable)?;
        let said = self
            .manifest
            .request_at(&self.payloads, &self.arrangement, start);
        let contents = InContainer {
            payloads: &self.payloads,
            arrangement: &self.arrangement,
            start,
        };
        let origins = &mut self.manifest.origins;
        let mut system = system::read(&tree, Modules::Container(start), host, &contents, origins);
        self.name_partial_trees(start);
        give_partial_tree_origins(&mut system, &said);
        give_origins(&mut system.request, &said);
        if let Some(console) = &said.hypervisor.console {
            give_console_origin(&mut system.problems, console);
        }
        let reserved = self.manifest.host.iter().flat_map(|host| &host.reserved);
        for (read, said) in system.reserved.iter_mut().zip(reserved) {
            read.origin = said.origin;
        }
        Ok(system)
    }

    /// Tells the table of positions which file each partial tree of the container at `start` is.
    fn name_partial_trees(&mut self, start: u64) {
        for (payload, offset) in self.payloads.iter().zip(&self.arrangement.offsets) {
            let files = self.manifest.files.get(payload.domain);
            let file = files.and_then(|files| files.partial_tree.as_ref());
            if let (Role::PartialTree, Some(file)) = (payload.role, file) {
                let address = start.saturating_add(*offset);
                let name = file.value.display().to_string();
                let origins = &mut self.manifest.origins;
                origins.name_module(address, name, payload.origin);
            }
        }
    }
}

/// The payloads where the container at machine address `start` has them.
struct InContainer<'a> {
    payloads: &'a [Payload],
    arrangement: &'a Arrangement,
    start: u64,
}

impl InContainer<'_> {
    fn at(&self, module: MachineRange) -> Option<&Payload> {
        let offset = module.start().raw().checked_sub(self.start)?;
        let mut placed = self.payloads.iter().zip(&self.arrangement.offsets);
        // An empty file lies where the next one does.
        let (payload, _) = placed.find(|(payload, other)| {
            **other == offset && payload.file.shape.file_size == module.size()
        })?;
        Some(payload)
    }
}

impl Contents for InContainer<'_> {
    fn header(&self, module: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        self.at(module)?.file.header
    }

    fn partial_tree(&self, module: MachineRange) -> Option<&[u8]> {
        match &self.at(module)?.file.content {
            Content::Read(bytes) => Some(bytes),
            Content::InFile(..) => None,
        }
    }
}

/// What was found in a partial tree was brought in by a line of the manifest.
fn give_partial_tree_origins(system: &mut System, said: &SystemRequest) {
    for (read, said) in system.request.domains.iter().zip(&said.domains) {
        let Some((read, said)) = read.partial_tree.as_ref().zip(said.partial_tree.as_ref()) else {
            continue;
        };
        let sides = system.problems.iter_mut().flat_map(|it| &mut it.sides);
        for side in sides.filter(|side| side.origin == read.origin) {
            side.origin = said.origin;
        }
    }
}

/// Gives each part of `read` the origin that the same part of `said` has.
fn give_origins(read: &mut SystemRequest, said: &SystemRequest) {
    if let (Some(read), Some(said)) = (&mut read.hypervisor.console, &said.hypervisor.console) {
        read.origin = said.origin;
    }
    for (read, said) in read.domains.iter_mut().zip(&said.domains) {
        domain_origins(read, said);
    }
}

/// A console that the host doesn't have is found by the tree's reader; it was named in the manifest.
fn give_console_origin(problems: &mut [Conflict], console: &Located<String>) {
    for problem in problems {
        if let (Code::DeviceUnknown, [side]) = (problem.code, problem.sides.as_mut_slice())
            && side.domain.is_none()
        {
            side.what = format!("console = \"{}\"", console.value);
            side.origin = console.origin;
            problem.help = "leave `console` out for the host's own".to_owned();
        }
    }
}

fn domain_origins(read: &mut DomainRequest, said: &DomainRequest) {
    fn optional<T, U>(read: &mut Option<Located<T>>, said: &Option<Located<U>>) {
        if let (Some(read), Some(said)) = (read, said) {
            read.origin = said.origin;
        }
    }
    fn module(read: &mut Option<ModuleRequest>, said: &Option<ModuleRequest>) {
        if let (Some(read), Some(said)) = (read, said) {
            read.origin = said.origin;
        }
    }
    // The tree doesn't carry them yet.
    read.shared_memory.clone_from(&said.shared_memory);
    read.event_channels.clone_from(&said.event_channels);
    read.name.origin = said.name.origin;
    read.capabilities.origin = said.capabilities.origin;
    read.cpus.origin = said.cpus.origin;
    read.memory.origin = said.memory.origin;
    optional(&mut read.kind, &said.kind);
    optional(&mut read.direct_map, &said.direct_map);
    optional(&mut read.affinity, &said.affinity);
    optional(&mut read.memory_below, &said.memory_below);
    module(&mut read.ramdisk, &said.ramdisk);
    module(&mut read.partial_tree, &said.partial_tree);
    if let (Some(read), Some(said)) = (&mut read.kernel, &said.kernel) {
        read.origin = said.origin;
    }
    for (read, said) in read.static_mem.iter_mut().zip(&said.static_mem) {
        read.origin = said.origin;
    }
    for (read, said) in read.devices.iter_mut().zip(&said.devices) {
        read.origin = said.origin;
    }
    for (read, said) in read.shared_memory.iter_mut().zip(&said.shared_memory) {
        read.origin = said.origin;
    }
    for (read, said) in read.event_channels.iter_mut().zip(&said.event_channels) {
        read.origin = said.origin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_several_domains_name_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
        let mut kernel = vec![0; HEADER_BYTES];
        kernel[56..60].copy_from_slice(b"ARM\x64");
        kernel[16..24].copy_from_slice(&0x1_0000u64.to_le_bytes());
        put("kernel", &kernel).unwrap();
        put("ramdisk", b"files").unwrap();
        let domain = |name: &str, more: &str| {
            format!(
                "[[domain]]\nname = \"{name}\"\nmemory = \"64MiB\"\nkernel = \"kernel\"\n{more}\n"
            )
        };
        let text = [
            "manifest-version = 1\n[host]\ndescription = \"board.dtb\"\n".to_owned(),
            domain("a", "ramdisk = \"ramdisk\""),
            domain("b", "ramdisk = \"ramdisk\""),
            // What a kernel's file is as a ramdisk is another thing.
            domain("c", "ramdisk = \"kernel\""),
        ];
        let manifest = super::super::parse("m.toml", text.concat(), folder.path()).unwrap();
        let loaded = manifest.load_files(Architecture::Aarch64).unwrap();
        assert_eq!(loaded.manifest.problems, []);
        let mut files: Vec<*const File> = Vec::new();
        files.extend(loaded.payloads.iter().map(|it| Rc::as_ptr(&it.file)));
        assert_eq!(files.len(), 6);
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn a_ramdisk_is_read_for_the_container_alone_and_must_be_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
        let mut kernel = vec![0; HEADER_BYTES + 1];
        kernel[56..60].copy_from_slice(b"ARM\x64");
        kernel[16..24].copy_from_slice(&0x1_0000u64.to_le_bytes());
        put("kernel", &kernel).unwrap();
        put("ramdisk", b"before").unwrap();
        let text = "manifest-version = 1\n[host]\ndescription = \"board.dtb\"\n[[domain]]\n\
            name = \"a\"\nmemory = \"64MiB\"\nkernel = \"kernel\"\nramdisk = \"ramdisk\"\n";
        let manifest = super::super::parse("m.toml", text.to_owned(), folder.path()).unwrap();
        let loaded = manifest.load_files(Architecture::Aarch64).unwrap();
        assert_eq!(loaded.manifest.problems, []);
        put("ramdisk", b"behind").unwrap();
        let container = loaded.container(None).unwrap();
        let holds = |bytes: &[u8]| container.windows(bytes.len()).any(|it| it == bytes);
        assert!(holds(b"behind") && holds(&kernel));
        put("ramdisk", b"longer than before").unwrap();
        let path = folder.path().join("ramdisk");
        let why = "it had 6 bytes, and has 18 now".to_owned();
        assert_eq!(loaded.container(None), Err(BuildError::File(path, why)));
    }
}

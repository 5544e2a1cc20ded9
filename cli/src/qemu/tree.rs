//! The device trees of a QEMU machine.
//!
//! Two trees matter: the one that is handed to QEMU (`-dtb`), and the one that the hypervisor then
//! finds in memory, which QEMU has edited and enlarged. The second is taken from QEMU too, so that
//! nothing here has to imitate it.

use std::path::Path;
use std::{env, fs, io};

use manifest::files;
use manifest::tree::blob::Tree;

use super::arguments::is_of_family;
use super::{Failure, Machine, cache};
use crate::arch::Firmware;
use crate::diagnostics::{self, Diagnostic};
use crate::host_tree::{self, EditError};

impl Machine {
    /// The machine's own device tree, packed, with room for the container's place and for a seed
    /// in `/chosen`: what is handed over by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn host_tree(&self) -> Result<Vec<u8>, Failure> {
        let name = self.tree_name(b"host, seed, firmware");
        cache::cached(&name, is_tree, || {
            let tree = self.dump(None)?;
            let tree = host_tree::with_container(&tree, 0, 0);
            tree.and_then(|tree| host_tree::with_seed(&tree))
                .and_then(|tree| self.with_firmware(tree))
                .map_err(|error| {
                    Failure::Io(Diagnostic::error(
                        "tree-invalid",
                        format!("QEMU's device tree can't be read: {error}"),
                    ))
                })
        })
    }

    fn with_firmware(&self, tree: Vec<u8>) -> Result<Vec<u8>, EditError> {
        let ours = |firmware: &Firmware| is_of_family(&self.spec.machine, firmware.family);
        match self.arch.firmware.filter(ours) {
            Some(Firmware { start, size, .. }) => host_tree::with_reservation(&tree, start, size),
            None => Ok(tree),
        }
    }

    /// What the hypervisor finds in memory when `tree` is handed to QEMU by `-dtb`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn live_tree(&self, tree: &[u8]) -> Result<Vec<u8>, Failure> {
        cache::cached(&self.tree_name(tree), is_tree, || self.dump(Some(tree)))
    }

    fn tree_name(&self, input: &[u8]) -> String {
        let arguments = self.arguments();
        // The machine's own tree is then what the user's file says.
        let files = self.files().into_iter();
        let files = files.filter_map(|path| files::read(&path, files::MAX_TEXT).ok());
        let trees: Vec<Vec<u8>> = files.filter(|bytes| is_tree(bytes)).collect();
        let arguments = arguments.iter().map(|word| word.as_encoded_bytes());
        let program = self.qemu.identity.as_bytes();
        let parts = [program, input].into_iter().chain(arguments);
        cache::key(parts.chain(trees.iter().map(Vec::as_slice))) + ".dtb"
    }

    fn dump(&self, tree: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        let folder = tempfile::Builder::new().prefix("terrane-").tempdir();
        let folder = folder.map_err(|error| unwritable(&env::temp_dir(), &error))?;
        let (input, output) = (folder.path().join("in.dtb"), folder.path().join("out.dtb"));
        let mut command = self.qemu.command();
        command
            .args(self.arguments_with(&format!(",dumpdtb={}", super::escaped(&output))))
            .args(["-display", "none"]);
        if let Some(tree) = tree {
            fs::write(&input, tree).map_err(|error| unwritable(&input, &error))?;
            command.arg("-dtb").arg(&input);
        }
        let said = self.qemu.ask(&mut command, super::late)?;
        match (said.status.success(), fs::read(&output)) {
            (true, Ok(bytes)) => Ok(bytes),
            _ => Err(super::refused(&said.stderr)),
        }
    }
}

fn is_tree(bytes: &[u8]) -> bool {
    Tree::read(bytes).is_ok()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Io(diagnostics::unwritable(path, error))
}

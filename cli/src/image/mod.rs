//! All that a boot loader needs, in one directory: `terrane image`.

mod scripts;
mod uboot;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use crate::diagnostics::{self, Diagnostic};
use crate::qemu;
use crate::run::Files;
use crate::system::{Host, System};

/// Writes the directory; what was there under the same names is replaced.
///
/// # Errors
/// A file that can't be written.
pub fn write(system: &System, directory: &Path) -> Result<(), Diagnostic> {
    fs::create_dir_all(directory).map_err(|error| diagnostics::unwritable(directory, &error))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|error| diagnostics::unwritable(&path, &error))
    };
    if let Some(hypervisor) = &system.hypervisor {
        put(scripts::HYPERVISOR, &hypervisor.bytes)?;
    }
    put(scripts::CONTAINER, &system.container()?)?;
    put(scripts::TREE, &system.host_tree)?;

    let script = scripts::uboot(&system.places);
    put("boot.cmd", script.as_bytes())?;
    if let Some(image) = uboot::script("terrane", &script) {
        put("boot.scr", &image)?;
    }
    if let Host::Qemu { qemu, machine } = &system.host {
        let files = Files {
            hypervisor: Path::new(scripts::HYPERVISOR),
            tree: Path::new(scripts::TREE),
            container: Path::new(scripts::CONTAINER),
            address: system.places.container.start().raw(),
        };
        let arguments: Vec<OsString> = qemu::arguments(machine)
            .into_iter()
            .chain([OsString::from("-nographic")])
            .chain(files.arguments())
            .collect();
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let program = qemu.program().display().to_string();
        let path = directory.join("qemu.sh");
        put("qemu.sh", scripts::qemu(&program, &arguments).as_bytes())?;
        executable(&path).map_err(|error| diagnostics::unwritable(&path, &error))?;
    }
    Ok(())
}

fn executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

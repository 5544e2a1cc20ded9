//! ImageBuilder's variables, and what becomes of those that a manifest has no word for.

/// What becomes of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is translated.
    Translated,
    /// It shapes what ImageBuilder itself writes: a comment says so.
    Script,
    /// There is no word for it, for this reason: a comment and a warning.
    NoWord(&'static str),
}

use Fate::{NoWord, Script, Translated};

const COLOURS: Fate = NoWord("Terrane doesn't colour caches");
const POOLS: Fate = NoWord("there are no pools of CPUs; `affinity` names a domain's CPUs");
const SHARED: Fate = NoWord("shared memory isn't built yet");
const DISK: Fate = NoWord("Terrane writes no images of disks");
const LOADER: Fate = NoWord("it is the boot loader's to load");
const PARTIAL: Fate =
    NoWord("Terrane makes no partial trees; `devices` names what is passed through");
const OVERLAY: Fate = NoWord("the tree that `description` names must have it applied");
const WITHOUT_XEN: Fate = NoWord("it is for booting without a hypervisor");

/// Every variable that ImageBuilder reads.
const VARIABLES: &[(&str, Fate)] = &[
    (
        "APPEND_EXTRA_CMDS",
        NoWord("`terrane image` writes its own boot script"),
    ),
    ("BITSTREAM", LOADER),
    ("BOOT_AUX_FILE", LOADER),
    ("BOOT_CMD", Script),
    ("CPUPOOL", POOLS),
    ("DEVICE_TREE", Translated),
    ("DOM0_CMD", Translated),
    ("DOM0_COLORS", COLOURS),
    ("DOM0_KERNEL", Translated),
    ("DOM0_MEM", Translated),
    ("DOM0_RAMDISK", Translated),
    ("DOM0_ROOTFS", DISK),
    ("DOM0_VCPUS", Translated),
    ("DOMU_CMD", Translated),
    ("DOMU_COLORS", COLOURS),
    ("DOMU_CPUPOOL", POOLS),
    ("DOMU_DIRECT_MAP", Translated),
    (
        "DOMU_DRIVER_DOMAIN",
        NoWord("it is for a domain that the tools of dom0 start"),
    ),
    ("DOMU_ENHANCED", Translated),
    ("DOMU_GRANT_FRAMES", Translated),
    ("DOMU_KERNEL", Translated),
    ("DOMU_MEM", Translated),
    ("DOMU_NOBOOT", Translated),
    ("DOMU_PASSTHROUGH_DTB", Translated),
    ("DOMU_PASSTHROUGH_PATHS", Translated),
    ("DOMU_RAMDISK", Translated),
    ("DOMU_ROOTFS", DISK),
    ("DOMU_SHARED_MEM", SHARED),
    ("DOMU_SHARED_MEM_ID", SHARED),
    ("DOMU_STATIC_MEM", Translated),
    ("DOMU_VCPUS", Translated),
    ("DOMU_VPL011", Translated),
    ("DT_OVERLAY", OVERLAY),
    (
        "EFI",
        NoWord("`terrane image` decides how U-Boot starts the hypervisor"),
    ),
    ("FDTEDIT", Script),
    ("FIT", Script),
    ("FIT_ENC_KEY_DIR", Script),
    ("FIT_ENC_UB_DTB", Script),
    ("GPT", DISK),
    ("LINUX", WITHOUT_XEN),
    ("LINUX_CMD", WITHOUT_XEN),
    ("LINUX_RAMDISK", WITHOUT_XEN),
    ("LOAD_CMD", Script),
    ("LOPPER_CMD", PARTIAL),
    ("LOPPER_PATH", PARTIAL),
    ("MEMORY_END", Translated),
    ("MEMORY_START", Translated),
    ("NUM_BOOT_AUX_FILE", LOADER),
    ("NUM_CPUPOOLS", POOLS),
    ("NUM_DOMUS", Translated),
    ("NUM_DT_OVERLAY", OVERLAY),
    ("PASSTHROUGH_DTS_REPO", PARTIAL),
    ("UBOOT_SCRIPT", Script),
    ("UBOOT_SOURCE", Script),
    ("XEN", Script),
    ("XEN_CMD", Translated),
    ("XEN_COLORS", COLOURS),
    (
        "XEN_PASSTHROUGH_PATHS",
        NoWord("what no domain names in `devices` is the hardware domain's"),
    ),
    (
        "XEN_POLICY",
        NoWord("there are no security policies of Xen's kind"),
    ),
    (
        "XEN_STATIC_HEAP",
        NoWord("the planner chooses the hypervisor's memory"),
    ),
];

/// What becomes of a variable; `None` if ImageBuilder has none of this name.
pub(super) fn fate(name: &str) -> Option<Fate> {
    let place = VARIABLES
        .binary_search_by_key(&name, |(known, _)| known)
        .ok()?;
    VARIABLES.get(place).map(|(_, fate)| *fate)
}

/// The variable whose name is most like this one.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(name, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(6) / 3)
        .map(|(_, known)| known)
}

/// Whether its index tells domains or files apart.
pub(super) fn is_list(name: &str) -> bool {
    is_of_domain(name) || matches!(name, "BOOT_AUX_FILE" | "CPUPOOL" | "DT_OVERLAY")
}

/// Whether its index is a domain's number.
pub(super) fn is_of_domain(name: &str) -> bool {
    name.starts_with("DOMU_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_in_order() {
        assert!(VARIABLES.is_sorted_by(|one, next| one.0 < next.0));
        assert_eq!(fate("DOMU_MEM"), Some(Translated));
        assert_eq!(fate("DOMU_ME"), None);
        assert_eq!(nearest("DOMU_ME"), Some("DOMU_MEM"));
        assert_eq!(nearest("HOME"), None);
    }
}

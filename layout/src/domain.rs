//! What a domain is, and the three questions about its memory.
//!
//! The questions are separate functions of [`Identity`], and none is another under a second
//! name: a caller asks the one that it means. Only [`DirectMap`] turns a guest frame into a
//! machine frame or back.

use crate::address::{Gfn, GfnRange, Mfn, MfnRange};

/// How the domain's CPU and memory are virtualised.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// x86 paravirtualised: no second stage, the guest's page tables hold machine frames.
    Pv,
    /// Auto-translated, without emulated devices. Every Arm and RISC-V domain is of this kind.
    Pvh,
    /// x86 auto-translated, with an emulated PC.
    Hvm,
}

impl Kind {
    /// Whether second-stage translation stands between the guest and the machine.
    pub const fn is_auto_translated(self) -> bool {
        !matches!(self, Self::Pv)
    }

    /// The manifest's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        }
    }
}

bitflags::bitflags! {
    /// The roles that a domain holds. The bits are those of the device-tree property
    /// `capabilities` of Xen's dom0less binding (public/bootfdt.h, `DOMAIN_CAPS_*`).
    #[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct Capabilities: u32 {
        /// May manage other domains.
        const CONTROL = 1;
        /// Drives the machine's devices that no other domain has. At most one domain.
        const HARDWARE = 2;
        /// Serves the XenStore.
        const XENSTORE = 4;
    }
}

/// The bit of `XENVER_get_features` that tells a guest how its frames relate to the machine's
/// (public/features.h).
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum MemoryFeature {
    /// `XENFEAT_not_direct_mapped`: a guest frame number is no address for a device.
    NotDirectMapped = 16,
    /// `XENFEAT_direct_mapped`: it is.
    DirectMapped = 17,
}

impl MemoryFeature {
    /// The bit's number in feature word 0.
    pub const fn bit(self) -> u32 {
        self as u32
    }
}

/// How `XENMEM_populate_physmap` finds the machine frame for a guest frame.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
pub enum PopulateRule {
    /// Any free frame.
    Ordinary,
    /// The frame whose MFN equals the GFN, and only if the domain owns it.
    SameFrameIfOwned,
    /// A frame of the domain's static memory if it has any, else any free frame.
    OrdinaryOrStatic,
}

/// What decides the three questions: kind, roles, and whether direct mapping was chosen.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
pub struct Identity {
    /// How the domain is virtualised.
    pub kind: Kind,
    /// Its roles.
    pub capabilities: Capabilities,
    /// Whether direct mapping was chosen, by the manifest or by default. Means nothing for
    /// [`Kind::Pv`]: ask [`Identity::is_direct_mapped`].
    pub direct_map: bool,
}

impl Identity {
    /// The identity that a request asks for. Without a word about `direct-map` an
    /// auto-translated hardware domain is direct-mapped and any other isn't.
    pub fn new(kind: Kind, capabilities: Capabilities, direct_map: Option<bool>) -> Self {
        let hardware = capabilities.contains(Capabilities::HARDWARE);
        let by_default = kind.is_auto_translated() && hardware;
        Self {
            kind,
            capabilities,
            direct_map: direct_map.unwrap_or(by_default),
        }
    }

    /// Whether the domain's every RAM frame has GFN == MFN. A PV domain is never direct-mapped.
    pub fn is_direct_mapped(&self) -> bool {
        self.kind.is_auto_translated() && self.direct_map
    }

    /// Whether the domain finds RAM, interrupt controller and devices at the host's addresses.
    /// A PV domain never does, the hardware domain included; an auto-translated one does if it
    /// is direct-mapped or the hardware domain.
    pub fn uses_host_layout(&self) -> bool {
        self.kind.is_auto_translated() && (self.direct_map || self.is_hardware())
    }

    /// Which feature the domain reads. PV reports [`MemoryFeature::DirectMapped`] without
    /// being direct-mapped: its page tables hold machine frames.
    pub fn memory_feature(&self) -> MemoryFeature {
        if self.kind == Kind::Pv || self.is_direct_mapped() {
            MemoryFeature::DirectMapped
        } else {
            MemoryFeature::NotDirectMapped
        }
    }

    /// Where `populate_physmap` takes a frame from.
    pub fn populate_rule(&self) -> PopulateRule {
        if self.is_direct_mapped() {
            PopulateRule::SameFrameIfOwned
        } else if self.kind.is_auto_translated() && !self.is_hardware() {
            PopulateRule::OrdinaryOrStatic
        } else {
            PopulateRule::Ordinary
        }
    }

    /// Whether it is the hardware domain.
    pub fn is_hardware(&self) -> bool {
        self.capabilities.contains(Capabilities::HARDWARE)
    }
}

/// The right to turn a guest frame into the machine frame of the same number. Only a
/// direct-mapped domain has it.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct DirectMap(());

impl DirectMap {
    /// The right, if a domain with this identity has it.
    pub fn of(identity: &Identity) -> Option<Self> {
        identity.is_direct_mapped().then_some(Self(()))
    }

    /// The machine frame behind a guest frame.
    pub fn machine(self, gfn: Gfn) -> Mfn {
        Mfn::new(gfn.raw())
    }

    /// The guest frame before a machine frame.
    pub fn guest(self, mfn: Mfn) -> Gfn {
        Gfn::new(mfn.raw())
    }

    /// The machine frames behind guest frames.
    pub fn machine_range(self, range: GfnRange) -> MfnRange {
        MfnRange::between(self.machine(range.start()), self.machine(range.end()))
    }

    /// The guest frames before machine frames.
    pub fn guest_range(self, range: MfnRange) -> GfnRange {
        GfnRange::between(self.guest(range.start()), self.guest(range.end()))
    }
}

/// The table of the three questions, row by row.
#[cfg(test)]
mod tests {
    use super::*;
    use MemoryFeature::{DirectMapped, NotDirectMapped};
    use PopulateRule::{Ordinary, OrdinaryOrStatic, SameFrameIfOwned};

    fn identity(kind: Kind, hardware: bool, direct: bool) -> Identity {
        let role = if hardware {
            Capabilities::HARDWARE
        } else {
            Capabilities::empty()
        };
        Identity::new(kind, role, Some(direct))
    }

    fn answers(identity: &Identity) -> (bool, bool, MemoryFeature, PopulateRule) {
        (
            identity.is_direct_mapped(),
            identity.uses_host_layout(),
            identity.memory_feature(),
            identity.populate_rule(),
        )
    }

    #[test]
    fn pv_in_any_role() {
        for roles in 0..=Capabilities::all().bits() {
            for direct in [None, Some(false), Some(true)] {
                let roles = Capabilities::from_bits_truncate(roles);
                let pv = Identity::new(Kind::Pv, roles, direct);
                assert_eq!(answers(&pv), (false, false, DirectMapped, Ordinary));
                assert_eq!(DirectMap::of(&pv), None);
            }
        }
    }

    #[test]
    fn auto_translated_hardware_direct() {
        for kind in [Kind::Pvh, Kind::Hvm] {
            let hardware = identity(kind, true, true);
            let expected = (true, true, DirectMapped, SameFrameIfOwned);
            assert_eq!(answers(&hardware), expected);
        }
    }

    #[test]
    fn auto_translated_hardware_not_direct() {
        for kind in [Kind::Pvh, Kind::Hvm] {
            let hardware = identity(kind, true, false);
            let expected = (false, true, NotDirectMapped, Ordinary);
            assert_eq!(answers(&hardware), expected);
        }
    }

    #[test]
    fn auto_translated_other_direct() {
        for kind in [Kind::Pvh, Kind::Hvm] {
            let other = identity(kind, false, true);
            let expected = (true, true, DirectMapped, SameFrameIfOwned);
            assert_eq!(answers(&other), expected);
        }
    }

    #[test]
    fn auto_translated_other_not_direct() {
        for kind in [Kind::Pvh, Kind::Hvm] {
            let other = identity(kind, false, false);
            let expected = (false, false, NotDirectMapped, OrdinaryOrStatic);
            assert_eq!(answers(&other), expected);
            assert_eq!(DirectMap::of(&other), None);
        }
    }

    #[test]
    fn only_the_hardware_role_counts() {
        for roles in [Capabilities::CONTROL, Capabilities::XENSTORE] {
            let other = Identity::new(Kind::Pvh, roles, None);
            assert!(!other.is_direct_mapped() && !other.uses_host_layout());
        }
        assert!(Identity::new(Kind::Pvh, Capabilities::HARDWARE, None).is_direct_mapped());
        assert!(!Identity::new(Kind::Pv, Capabilities::HARDWARE, None).is_direct_mapped());
    }

    #[test]
    fn the_features_have_xens_numbers() {
        let bits = [NotDirectMapped.bit(), DirectMapped.bit()];
        assert_eq!(bits, [16, 17]);
    }

    #[test]
    fn direct_mapping_keeps_the_number() {
        let direct = DirectMap::of(&identity(Kind::Pvh, false, true)).unwrap();
        assert_eq!(direct.machine(Gfn::new(7)), Mfn::new(7));
        assert_eq!(direct.guest(Mfn::new(7)), Gfn::new(7));
        let range = GfnRange::between(Gfn::new(3), Gfn::new(9));
        assert_eq!(direct.guest_range(direct.machine_range(range)), range);
    }
}

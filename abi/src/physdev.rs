//! `physdev_op` (`physdev.h`): the operations that a Linux hardware domain makes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `PHYSDEVOP_manage_pci_add`: a PCI device appeared.
pub const MANAGE_PCI_ADD: u64 = 15;
/// `PHYSDEVOP_manage_pci_remove`: it went.
pub const MANAGE_PCI_REMOVE: u64 = 16;
/// `PHYSDEVOP_manage_pci_add_ext`: a PCI function appeared.
pub const MANAGE_PCI_ADD_EXT: u64 = 20;
/// `PHYSDEVOP_setup_gsi`: [`SetupGsi`].
pub const SETUP_GSI: u64 = 21;
/// `PHYSDEVOP_pci_mmcfg_reserved`: where configuration space lies.
pub const PCI_MMCFG_RESERVED: u64 = 24;
/// `PHYSDEVOP_pci_device_add`: a PCI device appeared.
pub const PCI_DEVICE_ADD: u64 = 25;
/// `PHYSDEVOP_pci_device_remove`: it went.
pub const PCI_DEVICE_REMOVE: u64 = 26;
/// `PHYSDEVOP_pci_device_reset`: it was reset.
pub const PCI_DEVICE_RESET: u64 = 32;

/// `struct physdev_setup_gsi`: how a device signals an interrupt line.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupGsi {
    /// The global system interrupt.
    pub gsi: u32,
    /// 0: by edge, 1: by level.
    pub triggering: u8,
    /// 0: active high, 1: active low.
    pub polarity: u8,
    /// Padding.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<SetupGsi>() == 8);

//! `physdev_op` (`physdev.h`): the operations that a Linux hardware domain makes.

/// `PHYSDEVOP_manage_pci_add`: a PCI device appeared.
pub const MANAGE_PCI_ADD: u64 = 15;
/// `PHYSDEVOP_manage_pci_remove`: it went.
pub const MANAGE_PCI_REMOVE: u64 = 16;
/// `PHYSDEVOP_manage_pci_add_ext`: a PCI function appeared.
pub const MANAGE_PCI_ADD_EXT: u64 = 20;
/// `PHYSDEVOP_pci_mmcfg_reserved`: where configuration space lies.
pub const PCI_MMCFG_RESERVED: u64 = 24;
/// `PHYSDEVOP_pci_device_add`: a PCI device appeared.
pub const PCI_DEVICE_ADD: u64 = 25;
/// `PHYSDEVOP_pci_device_remove`: it went.
pub const PCI_DEVICE_REMOVE: u64 = 26;
/// `PHYSDEVOP_pci_device_reset`: it was reset.
pub const PCI_DEVICE_RESET: u64 = 32;

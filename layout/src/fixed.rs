//! Addresses that every machine or guest of an architecture has, in bytes.
//!
//! Arm: those of a domain that doesn't use the host's layout (Xen, public/arch-arm.h, `GUEST_*`).

/// The distributor.
pub const GICD: u64 = 0x0300_1000;
/// Bytes of a GICv2's distributor.
pub const GICD_V2_BYTES: u64 = 0x1000;
/// Bytes of a GICv3's.
pub const GICD_V3_BYTES: u64 = 0x1_0000;
/// A GICv2's CPU interface.
pub const GICC: u64 = 0x0300_2000;
/// Its bytes.
pub const GICC_BYTES: u64 = 0x2000;
/// A GICv3's redistributors.
pub const GICR: u64 = 0x0302_0000;
/// 128 of them.
pub const GICR_BYTES: u64 = 0x0100_0000;
/// The virtual PL011.
pub const VPL011: u64 = 0x2200_0000;
/// Its bytes.
pub const VPL011_BYTES: u64 = 0x1000;
/// Its interrupt.
pub const VPL011_INTID: u32 = 32;
/// Where grant tables are mapped.
pub const GRANT_TABLE: u64 = 0x3800_0000;
/// Bytes for them.
pub const GRANT_TABLE_BYTES: u64 = 0x0100_0000;
/// RAM, first byte and bytes, lowest first: 3 GiB at 1 GiB, 1016 GiB at 8 GiB.
pub const RAM: [(u64, u64); 2] = [(0x4000_0000, 0xc000_0000), (0x2_0000_0000, 0xfe_0000_0000)];

/// x86: the local APIC of each CPU, on the machine and in each domain (AMD64 Architecture Programmer's Manual, volume 2,
/// "APIC Base Address Register": where it is after a reset).
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Its bytes.
pub const LOCAL_APIC_BYTES: u64 = 0x1000;
/// Bytes from there on at which a write that comes from a device is an interrupt (PCI's message-signalled interrupts).
pub const MESSAGE_BYTES: u64 = 0x10_0000;

//! Bits of feature word 0 (`features.h`), as masks.

/// Page tables are writable in place (`XENFEAT_writable_page_tables`, bit 0).
pub const WRITABLE_PAGE_TABLES: u32 = 1 << 0;
/// The domain is behind second-stage translation (bit 2).
pub const AUTO_TRANSLATED_PHYSMAP: u32 = 1 << 2;
/// x86: the upcall comes by a vector that the guest chooses (bit 8).
pub const HVM_CALLBACK_VECTOR: u32 = 1 << 8;
/// x86: the clock in shared memory may be used (bit 9).
pub const HVM_SAFE_PVCLOCK: u32 = 1 << 9;
/// The domain is the initial domain: console by `console_io`, the host's clock (bit 11).
pub const DOM0: u32 = 1 << 11;
/// `memory_op` takes virtual NUMA nodes (bit 13).
pub const MEMORY_OP_VNODE_SUPPORTED: u32 = 1 << 13;
/// Arm: hypercalls of the SMC calling convention work (bit 14).
pub const ARM_SMCCC_SUPPORTED: u32 = 1 << 14;
/// GFN and MFN differ: addresses told to a device need an IOMMU or a copy (bit 16).
pub const NOT_DIRECT_MAPPED: u32 = 1 << 16;
/// GFN equals MFN for all RAM of the domain (bit 17).
pub const DIRECT_MAPPED: u32 = 1 << 17;
/// `VCPUOP_register_runstate_phys_area` is there (bit 18).
pub const RUNSTATE_PHYS_AREA: u32 = 1 << 18;
/// `VCPUOP_register_vcpu_time_phys_area` is there (bit 19).
pub const VCPU_TIME_PHYS_AREA: u32 = 1 << 19;
/// x86: a device model sees all writes to an MSI-X table (bit 20).
pub const DM_MSIX_ALL_WRITES: u32 = 1 << 20;

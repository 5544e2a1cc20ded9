//! `memory_op` (`memory.h`).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomainId, Handle};

/// The sub-operation is in the low bits of the first argument; the hypervisor may keep its place in
/// an array in the bits from here upwards (`MEMOP_EXTENT_SHIFT`).
pub const CONTINUATION_SHIFT: u32 = 6;
/// The bits of the sub-operation.
pub const OPERATION_MASK: u64 = (1 << CONTINUATION_SHIFT) - 1;

/// `XENMEM_increase_reservation`: more frames, no addresses.
pub const INCREASE_RESERVATION: u64 = 0;
/// `XENMEM_decrease_reservation`: gives pages back.
pub const DECREASE_RESERVATION: u64 = 1;
/// `XENMEM_maximum_ram_page`: the highest frame number of the machine's RAM.
pub const MAXIMUM_RAM_PAGE: u64 = 2;
/// `XENMEM_current_reservation`: pages that the domain has.
pub const CURRENT_RESERVATION: u64 = 3;
/// `XENMEM_maximum_reservation`: pages that it may have.
pub const MAXIMUM_RESERVATION: u64 = 4;
/// `XENMEM_populate_physmap`: puts frames behind guest pages.
pub const POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_add_to_physmap`: puts a special frame at a guest page.
pub const ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_memory_map`: the domain's E820.
pub const MEMORY_MAP: u64 = 9;
/// `XENMEM_machine_memory_map`: the machine's E820.
pub const MACHINE_MEMORY_MAP: u64 = 10;
/// `XENMEM_exchange`: trades pages for contiguous ones.
pub const EXCHANGE: u64 = 11;
/// `XENMEM_maximum_gpfn`: the highest page that is mapped.
pub const MAXIMUM_GPFN: u64 = 14;
/// `XENMEM_remove_from_physmap`: takes one page out.
pub const REMOVE_FROM_PHYSMAP: u64 = 15;
/// `XENMEM_get_sharing_freed_pages`: pages saved by sharing.
pub const GET_SHARING_FREED_PAGES: u64 = 18;
/// `XENMEM_get_sharing_shared_pages`: pages that are shared.
pub const GET_SHARING_SHARED_PAGES: u64 = 19;
/// `XENMEM_add_to_physmap_batch`: several of one space.
pub const ADD_TO_PHYSMAP_BATCH: u64 = 23;
/// `XENMEM_claim_pages`: sets memory aside for a domain.
pub const CLAIM_PAGES: u64 = 24;
/// `XENMEM_acquire_resource`: maps a resource of another domain.
pub const ACQUIRE_RESOURCE: u64 = 28;

/// `XENMAPSPACE_shared_info`: the domain's shared page.
pub const SPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`: a frame of its grant table.
pub const SPACE_GRANT_TABLE: u32 = 1;
/// `XENMAPSPACE_gmfn`: one of its own pages.
pub const SPACE_GMFN: u32 = 2;
/// `XENMAPSPACE_gmfn_range`: several of them.
pub const SPACE_GMFN_RANGE: u32 = 3;
/// `XENMAPSPACE_gmfn_foreign`: a page of another domain.
pub const SPACE_GMFN_FOREIGN: u32 = 4;
/// `XENMAPSPACE_dev_mmio`: device registers, 1:1.
pub const SPACE_DEVICE: u32 = 5;
/// Bit of the index that means a frame of status words (version 2 tables).
pub const GRANT_TABLE_STATUS: u64 = 0x8000_0000;

/// `struct xen_memory_reservation`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reservation {
    /// An array of page numbers, one per extent.
    pub extents: Handle,
    /// How many.
    pub count: u64,
    /// log2 of the pages in each extent.
    pub order: u32,
    /// `XENMEMF_*`: where the frames should lie.
    pub flags: u32,
    /// The domain that gains or loses.
    pub domain: DomainId,
    /// Padding.
    pub reserved: [u16; 3],
}

/// `struct xen_add_to_physmap`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose page table.
    pub domain: DomainId,
    /// `XENMAPSPACE_gmfn_range` only: how many pages.
    pub size: u16,
    /// `SPACE_*`.
    pub space: u32,
    /// Index in that space.
    pub index: u64,
    /// The guest page where it is to appear.
    pub gpfn: u64,
}

/// `struct xen_add_to_physmap_batch`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmapBatch {
    /// Whose page table.
    pub domain: DomainId,
    /// `SPACE_*`.
    pub space: u16,
    /// Entries of the three arrays.
    pub size: u16,
    /// The foreign domain, or 0.
    pub extra: u16,
    /// Array of `u64` indices.
    pub indices: Handle,
    /// Array of `u64` guest pages.
    pub gpfns: Handle,
    /// Array of `i32` results.
    pub errors: Handle,
}

/// `struct xen_remove_from_physmap`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveFromPhysmap {
    /// Whose page table.
    pub domain: DomainId,
    /// Padding.
    pub reserved: [u16; 3],
    /// The page to take out.
    pub gpfn: u64,
}

/// `struct xen_memory_map`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMap {
    /// In: entries that the buffer has room for. Out: how many there are.
    pub count: u32,
    /// Padding.
    pub reserved: u32,
    /// An array of [`MapEntry`], or 0 to ask for their number alone.
    pub buffer: Handle,
}

/// An entry of that array: the BIOS's "e820" entry, which has no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct MapEntry {
    /// The first byte's address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// What it is, in the BIOS's numbers: 1 is memory, 2 reserved.
    pub kind: u32,
}

const _: () = {
    assert!(size_of::<MemoryMap>() == 16);
    assert!(offset_of!(MemoryMap, buffer) == 8);
    assert!(size_of::<MapEntry>() == 20);
    assert!(size_of::<Reservation>() == 32);
    assert!(offset_of!(Reservation, domain) == 24);
    assert!(size_of::<AddToPhysmap>() == 24);
    assert!(offset_of!(AddToPhysmap, index) == 8);
    assert!(size_of::<AddToPhysmapBatch>() == 32);
    assert!(offset_of!(AddToPhysmapBatch, errors) == 24);
    assert!(size_of::<RemoveFromPhysmap>() == 16);
};

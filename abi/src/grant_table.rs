//! `grant_table_op` (`grant_table.h`), version 1 tables.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomainId, Handle};

/// `GNTTABOP_map_grant_ref`: [`Map`].
pub const MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref`: [`Unmap`].
pub const UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_setup_table`: [`SetupTable`].
pub const SETUP_TABLE: u64 = 2;
/// `GNTTABOP_dump_table`: for debugging.
pub const DUMP_TABLE: u64 = 3;
/// `GNTTABOP_transfer`: gives a frame away.
pub const TRANSFER: u64 = 4;
/// `GNTTABOP_copy`: [`Copy`].
pub const COPY: u64 = 5;
/// `GNTTABOP_query_size`: [`QuerySize`].
pub const QUERY_SIZE: u64 = 6;
/// `GNTTABOP_unmap_and_replace`: PV only.
pub const UNMAP_AND_REPLACE: u64 = 7;
/// `GNTTABOP_set_version`: [`SetVersion`].
pub const SET_VERSION: u64 = 8;
/// `GNTTABOP_get_status_frames`: version 2 only.
pub const GET_STATUS_FRAMES: u64 = 9;
/// `GNTTABOP_get_version`: [`GetVersion`].
pub const GET_VERSION: u64 = 10;
/// `GNTTABOP_swap_grant_ref`: exchanges two entries.
pub const SWAP_GRANT_REF: u64 = 11;
/// `GNTTABOP_cache_flush`: [`CacheFlush`].
pub const CACHE_FLUSH: u64 = 12;
/// The sub-operation's bits; the hypervisor may keep its place in an array above them.
pub const OPERATION_MASK: u64 = 0xfff;
/// The lowest bit of that place.
pub const CONTINUATION_SHIFT: u32 = 12;

/// Bytes of a version 1 entry.
pub const ENTRY_SIZE: u64 = 8;
/// Entries of a frame.
pub const ENTRIES_PER_FRAME: u64 = 512;

/// `GTF_type_mask`, in the entry's flags.
pub const GTF_TYPE_MASK: u16 = 3;
/// `GTF_permit_access`.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
pub const GTF_READONLY: u16 = 1 << 2;
/// `GTF_reading`: the page is mapped.
pub const GTF_READING: u16 = 1 << 3;
/// `GTF_writing`: it is mapped writable.
pub const GTF_WRITING: u16 = 1 << 4;
/// `GTF_sub_page`: version 2 only.
pub const GTF_SUB_PAGE: u16 = 1 << 8;

/// `GNTMAP_device_map`: for a device.
pub const MAP_DEVICE: u32 = 1 << 0;
/// `GNTMAP_host_map`: for the CPU.
pub const MAP_HOST: u32 = 1 << 1;
/// `GNTMAP_readonly`.
pub const MAP_READONLY: u32 = 1 << 2;
/// `GNTMAP_application_map`: PV only.
pub const MAP_APPLICATION: u32 = 1 << 3;
/// `GNTMAP_contains_pte`: PV only.
pub const MAP_CONTAINS_PTE: u32 = 1 << 4;

/// `GNTCOPY_source_gref`: the source is a grant.
pub const COPY_SOURCE_GREF: u16 = 1;
/// `GNTCOPY_dest_gref`: the destination is.
pub const COPY_DEST_GREF: u16 = 2;

/// `GNTTAB_CACHE_CLEAN`.
pub const CACHE_CLEAN: u32 = 1 << 0;
/// `GNTTAB_CACHE_INVAL`.
pub const CACHE_INVALIDATE: u32 = 1 << 1;
/// `GNTTAB_CACHE_SOURCE_GREF`: the address is a grant reference.
pub const CACHE_SOURCE_GREF: u32 = 1 << 31;

/// The status that each entry of an array gets (`GNTST_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Status {
    /// Done.
    Okay = 0,
    /// Not done, for no reason that has a number.
    GeneralError = -1,
    /// No such domain.
    BadDomain = -2,
    /// No such grant.
    BadGrant = -3,
    /// No such mapping.
    BadHandle = -4,
    /// The address isn't one for a mapping.
    BadVirtualAddress = -5,
    /// No room for another mapping.
    NoDeviceSpace = -7,
    /// Not allowed.
    PermissionDenied = -8,
    /// The page can't be granted.
    BadPage = -9,
    /// The copy crosses a page boundary.
    BadCopyArgument = -10,
    /// Not done this time.
    TryAgain = -12,
    /// A bound is reached.
    NoSpace = -13,
}

/// `struct gnttab_map_grant_ref`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Map {
    /// In: where it is to appear; a guest-physical address for auto-translated guests.
    pub host_address: u64,
    /// In: `MAP_*`.
    pub flags: u32,
    /// In: the entry.
    pub reference: u32,
    /// In: whose.
    pub domain: DomainId,
    /// Out: [`Status`].
    pub status: i16,
    /// Out: names the mapping.
    pub handle: u32,
    /// Out: the address for a device: the machine address.
    pub device_address: u64,
}

/// `struct gnttab_unmap_grant_ref`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unmap {
    /// In: as for the mapping.
    pub host_address: u64,
    /// In: as the mapping gave it, or 0.
    pub device_address: u64,
    /// In: the mapping.
    pub handle: u32,
    /// Out: [`Status`].
    pub status: i16,
    /// Padding.
    pub reserved: u16,
}

/// `struct gnttab_setup_table`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupTable {
    /// In: whose.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// In: how many frames.
    pub frames: u32,
    /// Out: [`Status`].
    pub status: i16,
    /// Padding.
    pub reserved2: [u16; 3],
    /// In: an array of `u64` frame numbers, to be filled.
    pub list: Handle,
}

/// `struct gnttab_copy_ptr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyPointer {
    /// A grant reference (lower half) or a page of the caller.
    pub page: u64,
    /// Whose.
    pub domain: DomainId,
    /// Where in the page.
    pub offset: u16,
    /// Padding.
    pub reserved: u32,
}

/// `struct gnttab_copy`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Copy {
    /// From.
    pub source: CopyPointer,
    /// To.
    pub destination: CopyPointer,
    /// Bytes.
    pub length: u16,
    /// `COPY_*`.
    pub flags: u16,
    /// Out: [`Status`].
    pub status: i16,
    /// Padding.
    pub reserved: u16,
}

/// `struct gnttab_query_size`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuerySize {
    /// In: whose.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// Out: frames that are set up.
    pub frames: u32,
    /// Out: the most that it may have.
    pub max_frames: u32,
    /// Out: [`Status`].
    pub status: i16,
    /// Padding.
    pub reserved2: u16,
}

/// `struct gnttab_set_version`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetVersion {
    /// In: the version wanted; out: the version in use.
    pub version: u32,
}

/// `struct gnttab_get_version`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetVersion {
    /// In: whose.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// Out: the version.
    pub version: u32,
}

/// `struct gnttab_cache_flush`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CacheFlush {
    /// A machine address.
    pub address: u64,
    /// Where in its page.
    pub offset: u16,
    /// Bytes, not beyond the page.
    pub length: u16,
    /// `CACHE_*`.
    pub operation: u32,
}

const _: () = {
    assert!(size_of::<Map>() == 32);
    assert!(offset_of!(Map, handle) == 20);
    assert!(size_of::<Unmap>() == 24);
    assert!(size_of::<SetupTable>() == 24);
    assert!(offset_of!(SetupTable, list) == 16);
    assert!(size_of::<CopyPointer>() == 16);
    assert!(size_of::<Copy>() == 40);
    assert!(size_of::<QuerySize>() == 16);
    assert!(size_of::<GetVersion>() == 8);
    assert!(size_of::<CacheFlush>() == 16);
};

//! `xen_version` (`version.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XENVER_version`: major << 16 | minor.
pub const VERSION: u64 = 0;
/// `XENVER_extraversion`: a string of [`EXTRAVERSION_LENGTH`] bytes.
pub const EXTRAVERSION: u64 = 1;
/// `XENVER_compile_info`: [`CompileInfo`].
pub const COMPILE_INFO: u64 = 2;
/// `XENVER_capabilities`: a string of [`CAPABILITIES_LENGTH`] bytes.
pub const CAPABILITIES: u64 = 3;
/// `XENVER_changeset`: a string of [`CHANGESET_LENGTH`] bytes.
pub const CHANGESET: u64 = 4;
/// `XENVER_platform_parameters`: [`PlatformParameters`].
pub const PLATFORM_PARAMETERS: u64 = 5;
/// `XENVER_get_features`: [`FeatureInfo`].
pub const GET_FEATURES: u64 = 6;
/// `XENVER_pagesize`: the page size, as the result.
pub const PAGESIZE: u64 = 7;
/// `XENVER_guest_handle`: the domain's UUID, 16 bytes.
pub const GUEST_HANDLE: u64 = 8;
/// `XENVER_commandline`: a string of [`COMMANDLINE_LENGTH`] bytes.
pub const COMMANDLINE: u64 = 9;
/// `XENVER_build_id`: a length and as many bytes.
pub const BUILD_ID: u64 = 10;
/// `XENVER_extraversion2`: a [`VariableBuffer`] and the string, not terminated.
pub const EXTRAVERSION2: u64 = 11;
/// `XENVER_capabilities2`, likewise.
pub const CAPABILITIES2: u64 = 12;
/// `XENVER_changeset2`, likewise.
pub const CHANGESET2: u64 = 13;
/// `XENVER_commandline2`, likewise.
pub const COMMANDLINE2: u64 = 14;

/// `sizeof(xen_extraversion_t)`.
pub const EXTRAVERSION_LENGTH: usize = 16;
/// `sizeof(xen_capabilities_info_t)`.
pub const CAPABILITIES_LENGTH: usize = 1024;
/// `sizeof(xen_changeset_info_t)`.
pub const CHANGESET_LENGTH: usize = 64;
/// `sizeof(xen_commandline_t)`.
pub const COMMANDLINE_LENGTH: usize = 1024;

/// `struct xen_compile_info`: four terminated strings.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CompileInfo {
    /// The compiler and its version.
    pub compiler: [u8; 64],
    /// Who compiled.
    pub by: [u8; 16],
    /// Where.
    pub domain: [u8; 32],
    /// When.
    pub date: [u8; 32],
}

/// `struct xen_platform_parameters`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlatformParameters {
    /// The first virtual address that a PV guest leaves to the hypervisor.
    pub virtual_start: u64,
}

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureInfo {
    /// In: which word of features; only word 0 exists.
    pub index: u32,
    /// Out: the word.
    pub word: u32,
}

/// `struct xen_varbuf` and `struct xen_build_id`: the length that precedes the bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VariableBuffer {
    /// In: room after this word in bytes.
    pub length: u32,
}

const _: () = {
    assert!(size_of::<CompileInfo>() == 144);
    assert!(size_of::<FeatureInfo>() == 8);
};

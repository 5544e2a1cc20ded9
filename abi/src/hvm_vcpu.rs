//! The registers with which `VCPUOP_initialise` gives an auto-translated x86 vCPU its start
//! (`hvm/hvm_vcpu.h`).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `VCPU_HVM_MODE_32B`: the registers are [`Registers32`].
pub const MODE_32: u32 = 0;
/// `VCPU_HVM_MODE_64B`: the registers are [`Registers64`], the vCPU starts in long mode.
pub const MODE_64: u32 = 1;

/// `struct vcpu_hvm_context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Context {
    /// `MODE_*`.
    pub mode: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The union of the two forms.
    pub registers: [u64; 15],
}

impl Context {
    /// The registers of a start in 32-bit mode; `None` if the context is of the other form.
    #[must_use]
    pub fn registers_32(&self) -> Option<Registers32> {
        (self.mode == MODE_32).then(|| zerocopy::transmute!(self.registers))
    }

    /// The registers of a start in long mode; `None` if the context is of the other form.
    #[must_use]
    pub fn registers_64(&self) -> Option<Registers64> {
        let [registers @ .., _] = self.registers;
        (self.mode == MODE_64).then(|| zerocopy::transmute!(registers))
    }
}

/// `struct vcpu_hvm_x86_32`.
///
/// The attributes of a segment are bits 40 to 47 and 52 to 55 of its descriptor, one after the
/// other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names of registers say it all")]
pub struct Registers32 {
    pub eax: u32,
    pub ecx: u32,
    pub edx: u32,
    pub ebx: u32,
    pub esp: u32,
    pub ebp: u32,
    pub esi: u32,
    pub edi: u32,
    pub eip: u32,
    pub eflags: u32,
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    pub reserved1: u32,
    pub efer: u64,
    pub cs_base: u32,
    pub ds_base: u32,
    pub ss_base: u32,
    pub es_base: u32,
    pub tr_base: u32,
    pub cs_limit: u32,
    pub ds_limit: u32,
    pub ss_limit: u32,
    pub es_limit: u32,
    pub tr_limit: u32,
    pub cs_attributes: u16,
    pub ds_attributes: u16,
    pub ss_attributes: u16,
    pub es_attributes: u16,
    pub tr_attributes: u16,
    pub reserved2: [u16; 3],
}

/// `struct vcpu_hvm_x86_64`. Segments are those of long mode.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names of registers say it all")]
pub struct Registers64 {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

const _: () = {
    assert!(size_of::<Context>() == 128);
    assert!(size_of::<Registers32>() == 120);
    assert!(offset_of!(Registers32, efer) == 56);
    assert!(offset_of!(Registers32, cs_attributes) == 104);
    assert!(size_of::<Registers64>() == 112);
    assert!(offset_of!(Registers64, efer) == 104);
};

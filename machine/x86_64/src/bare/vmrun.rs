//! Into the guest and out again. APM volume 2, 15.5 (VMRUN), 15.5.2 (VMSAVE and VMLOAD), 15.6 (VMEXIT), 15.17 (GIF).
//!
//! FS, GS, LDTR, TR and the registers behind SYSCALL and SYSENTER stay the guest's while its CPU is in the hypervisor,
//! which uses none of them: they are loaded once, when a vCPU starts. So are XCR0, the x87, SSE and AVX registers (the
//! hypervisor is built without), DR0 to DR3, SPEC_CTRL and TSC_AUX. A CPU has one vCPU.

use core::arch::{asm, global_asm};

use crate::svm::field::Field64;
use crate::svm::vmcb::Vmcb;

/// The general registers in the order in which instructions number them. RAX and RSP have no meaning here: they are in
/// the VMCB.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Registers(pub [Field64; 16]);

global_asm!(
    // rdi: the registers; rsi: machine address of the VMCB.
    "vmrun:",
    "    pushq %rbx",
    "    pushq %rbp",
    "    pushq %r12",
    "    pushq %r13",
    "    pushq %r14",
    "    pushq %r15",
    "    pushq %rdi",
    "    movq %rsi, %rax",
    "    movq 8(%rdi), %rcx",
    "    movq 16(%rdi), %rdx",
    "    movq 24(%rdi), %rbx",
    "    movq 40(%rdi), %rbp",
    "    movq 48(%rdi), %rsi",
    "    movq 64(%rdi), %r8",
    "    movq 72(%rdi), %r9",
    "    movq 80(%rdi), %r10",
    "    movq 88(%rdi), %r11",
    "    movq 96(%rdi), %r12",
    "    movq 104(%rdi), %r13",
    "    movq 112(%rdi), %r14",
    "    movq 120(%rdi), %r15",
    "    movq 56(%rdi), %rdi",
    // The host's IF lets physical interrupts end the guest; GIF keeps them out until then.
    "    clgi",
    "    sti",
    "    vmrun %rax",
    "    cli",
    "    stgi",
    "    movq (%rsp), %rax",
    "    movq %rcx, 8(%rax)",
    "    movq %rdx, 16(%rax)",
    "    movq %rbx, 24(%rax)",
    "    movq %rbp, 40(%rax)",
    "    movq %rsi, 48(%rax)",
    "    movq %rdi, 56(%rax)",
    "    movq %r8, 64(%rax)",
    "    movq %r9, 72(%rax)",
    "    movq %r10, 80(%rax)",
    "    movq %r11, 88(%rax)",
    "    movq %r12, 96(%rax)",
    "    movq %r13, 104(%rax)",
    "    movq %r14, 112(%rax)",
    "    movq %r15, 120(%rax)",
    "    popq %rdi",
    "    popq %r15",
    "    popq %r14",
    "    popq %r13",
    "    popq %r12",
    "    popq %rbp",
    "    popq %rbx",
    "    retq",
    options(att_syntax),
);

unsafe extern "C" {
    fn vmrun(registers: &Registers, block: u64);
}

/// Runs the guest until it exits.
///
/// # Safety
/// `block` is the machine address of a [`Vmcb`] whose nested tables reach nothing of the hypervisor's, whose maps and
/// intercepts keep the guest from the hypervisor's state, and which is this CPU's own. SVM is on, and the host save area
/// is set.
pub unsafe fn run(registers: &Registers, block: u64) {
    // SAFETY: the caller vouches for the block; the function keeps the registers that C keeps.
    unsafe { vmrun(registers, block) };
}

/// Loads FS, GS, LDTR, TR and the registers behind SYSCALL and SYSENTER from a block at this machine address.
///
/// # Safety
/// It is a [`Vmcb`]'s, SVM is on, and the hypervisor uses none of these registers on this CPU from here on.
pub unsafe fn load(block: u64) {
    const _: () = assert!(align_of::<Vmcb>() == 4096);
    // SAFETY: by the caller; the instruction reads the block only.
    unsafe { asm!("vmload rax", in("rax") block, options(readonly, nostack, preserves_flags)) };
}

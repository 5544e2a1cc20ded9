//! The first instructions: from PVH's 32-bit mode to long mode, stack, then the guest's main.
//!
//! The protocol is that of Xen's docs/misc/pvh.pandoc: flat 32-bit segments, paging off, EBX points to the start
//! structure. The image lies where it is linked.

use core::arch::global_asm;

use crate::{Boot, boot, call, console, cpu, exception, memory, terrane_guest_main};

/// Bytes of a CPU's stack, which is aligned to as many: its lowest words are the CPU's record (see `exception`).
pub(crate) const STACK: usize = 16 * 1024;

// Kept until `start`: EBX, the start structure.
global_asm!(
    r#"
    .section .text.header, "ax"
    .code32
    .global terrane_guest_start
terrane_guest_start:
    cli
    cld
    rdtsc
    movl    %eax, terrane_guest_first_tsc
    movl    %edx, terrane_guest_first_tsc + 4

    movl    $__bss_start, %edi
    movl    $__bss_end, %ecx
    subl    %edi, %ecx
    shrl    $2, %ecx
    xorl    %eax, %eax
    rep stosl

    // The first 4 GiB at themselves, in pages of 2 MiB that ring 3 may use too; the last of them uncached.
    movl    $terrane_guest_tables, %esi
    leal    4096+7(%esi), %eax
    movl    %eax, (%esi)
    leal    8192+7(%esi), %eax
    leal    4096(%esi), %edi
    movl    $4, %ecx
.Ltables:
    movl    %eax, (%edi)
    addl    $4096, %eax
    addl    $8, %edi
    loop    .Ltables
    movl    $0x87, %eax
    leal    8192(%esi), %edi
    movl    $2048, %ecx
.Lpages:
    movl    %eax, (%edi)
    addl    $0x200000, %eax
    cmpl    $0xc0000087, %eax
    jne     .Lcached
    orl     $0x18, %eax
.Lcached:
    addl    $8, %edi
    loop    .Lpages

    movl    $0x20, %eax                     // PAE
    movl    %eax, %cr4
    movl    %esi, %cr3
    movl    $0xc0000080, %ecx               // EFER.LME
    rdmsr
    orl     $0x100, %eax
    wrmsr
    movl    $0x80000011, %eax               // PG, ET, PE
    movl    %eax, %cr0
    lgdt    terrane_guest_gdt_pointer
    movl    $terrane_guest_stacks + {stack}, %esp
    ljmpl   $8, $.Llong

    .code64
.Llong:
    movl    $16, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss
    movl    %ebx, %edi
    call    {start}
    ud2

// Another CPU, in long mode already with the boot CPU's tables; anywhere else it has the segments of its starter.
    .section .text.secondary, "ax"
    .global terrane_guest_secondary
terrane_guest_secondary:
    cli
    cld
    lgdt    terrane_guest_gdt_pointer(%rip)
    movl    $16, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss
    movq    terrane_guest_next_stack(%rip), %rsp
    pushq   $8
    leaq    .Lsecondary(%rip), %rax
    pushq   %rax
    lretq
.Lsecondary:
    call    {secondary}
    ud2

// A CPU after its STARTUP interrupt, in real mode at the start of this page: straight to long mode. `smp` fills in what
// stands behind the code.
    .section .rodata.trampoline, "a"
    .balign 16
    .global terrane_guest_trampoline
terrane_guest_trampoline:
    .code16
    cli
    cld
    movw    %cs, %ax
    movw    %ax, %ds
    lgdtl   .Lpointer - terrane_guest_trampoline
    movl    $0x20, %eax
    movl    %eax, %cr4
    movl    .Ltop - terrane_guest_trampoline, %eax
    movl    %eax, %cr3
    movl    $0xc0000080, %ecx
    rdmsr
    orl     $0x100, %eax
    wrmsr
    movl    $0x80000011, %eax
    movl    %eax, %cr0
    ljmpl   *(.Ltarget - terrane_guest_trampoline)
    .code64
    .balign 8
    .global terrane_guest_trampoline_data
terrane_guest_trampoline_data:
.Ltop:
    .long   0
.Ltarget:
    .long   0
    .short  8
.Lpointer:
    .short  0
    .long   0
    .balign 8
    .global terrane_guest_trampoline_end
terrane_guest_trampoline_end:

    .section .data.entry, "aw"
    .balign 8
    .global terrane_guest_first_tsc
terrane_guest_first_tsc:
    .quad   0
    .global terrane_guest_next_stack
terrane_guest_next_stack:
    .quad   0
    .balign 16
    .global terrane_guest_gdt
terrane_guest_gdt:
    .quad   0
    .quad   0x00af9b000000ffff              // 0x08: code, ring 0
    .quad   0x00cf93000000ffff              // 0x10: data, ring 0
    .quad   0x00affb000000ffff              // 0x18: code, ring 3
    .quad   0x00cff3000000ffff              // 0x20: data, ring 3
    .global terrane_guest_gdt_task
terrane_guest_gdt_task:
    .quad   0, 0                            // 0x28: the task state, whose stack ring 3 comes back to
terrane_guest_gdt_end:
    .balign 8
    .global terrane_guest_gdt_pointer
terrane_guest_gdt_pointer:
    .short  terrane_guest_gdt_end - terrane_guest_gdt - 1
    .quad   terrane_guest_gdt

    .section .bss.entry, "aw", @nobits
    .balign 4096
    .global terrane_guest_tables
terrane_guest_tables:
    .skip   6 * 4096
    .balign {stack}
    .global terrane_guest_stacks
terrane_guest_stacks:
    .skip   {stack} * {cpus}
    "#,
    start = sym start,
    secondary = sym super::smp::secondary,
    stack = const STACK,
    cpus = const super::smp::MOST,
    options(att_syntax),
);

unsafe extern "C" {
    static terrane_guest_first_tsc: u64;
}

/// Where Rust begins on the boot CPU. `start_info` is the address that was in EBX.
extern "C" fn start(start_info: u64) -> ! {
    // SAFETY: written by the first instructions, and never again.
    let first_tsc = unsafe { terrane_guest_first_tsc };
    exception::begin(0);
    memory::widen();
    let facts = boot::read(start_info);
    if facts.xen.is_none() {
        // A PC's 8259As, which firmware has left at the vectors of exceptions. A PVH domain has none.
        cpu::out8(0x21, 0xff);
        cpu::out8(0xa1, 0xff);
    }
    console::choose(facts.xen.is_some(), Some(crate::uart::COM1));
    terrane_guest_main(Boot { facts, first_tsc });
    call::power_off()
}

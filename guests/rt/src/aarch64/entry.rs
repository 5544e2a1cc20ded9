//! The first instructions: arm64 Image header, down to EL1, relocation, stack, vectors, then the guest's main.
//!
//! The header is that of Linux's Documentation/arch/arm64/booting.rst. The image may be put at any multiple of 2 MiB.

use core::arch::global_asm;

use crate::{Boot, call, console, memory, terrane_guest_main};

// The counters are read before anything else, since the benchmark counts from here. Registers kept until `start`:
// x19 tree, x20 CNTVCT, x21 CNTPCT, x22 the exception level entered at.
global_asm!(
    r#"
    .section .text.header, "ax"
    .global _start
_start:
    b       1f
    .long   0
    .quad   0                       // text_offset
    .quad   __image_end - _start
    .quad   0xa                     // little endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0
1:  mrs     x20, cntvct_el0
    mrs     x21, cntpct_el0
    msr     daifset, #0xf
    mov     x19, x0
    mrs     x22, currentel
    lsr     x22, x22, #2
    bl      to_el1

    // Apply the RELATIVE relocations: *(base + offset) = base + addend. The image is linked at 0.
    adrp    x0, _start
    add     x0, x0, :lo12:_start
    adrp    x1, __relocations_start
    add     x1, x1, :lo12:__relocations_start
    adrp    x2, __relocations_end
    add     x2, x2, :lo12:__relocations_end
2:  cmp     x1, x2
    b.hs    3f
    ldp     x3, x4, [x1], #16
    ldr     x5, [x1], #8
    cmp     w4, #1027               // R_AARCH64_RELATIVE
    b.ne    2b
    add     x5, x5, x0
    str     x5, [x0, x3]
    b       2b

3:  adrp    x1, __bss_start
    adrp    x2, __bss_end
4:  cmp     x1, x2
    b.hs    5f
    stp     xzr, xzr, [x1], #16
    b       4b

5:  adrp    x1, __stack_end
    mov     sp, x1
    msr     tpidr_el1, xzr          // this is CPU 0
    adrp    x1, terrane_guest_vectors
    add     x1, x1, :lo12:terrane_guest_vectors
    msr     vbar_el1, x1
    isb
    mov     x0, x19
    mov     x1, x20
    mov     x2, x21
    mov     x3, x22
    b       {start}

// Another CPU, by PSCI CPU_ON: x0 points to its `smp::Start`.
    .global terrane_guest_secondary
terrane_guest_secondary:
    msr     daifset, #0xf
    mov     x19, x0
    bl      to_el1
    ldp     x1, x2, [x19]           // stack, number
    mov     sp, x1
    msr     tpidr_el1, x2
    adrp    x1, terrane_guest_vectors
    add     x1, x1, :lo12:terrane_guest_vectors
    msr     vbar_el1, x1
    isb
    b       {secondary}

// At EL2 (a machine started with virtualization on, and no hypervisor): leave EL1 all its rights and go down to it.
to_el1:
    mrs     x9, currentel
    cmp     x9, #(2 << 2)
    b.ne    6f
    mov     x9, #(1 << 31)          // HCR_EL2.RW: EL1 is AArch64
    msr     hcr_el2, x9
    mov     x9, #3                  // EL1 may use the physical counter and timer
    msr     cnthctl_el2, x9
    msr     cntvoff_el2, xzr
    mov     x9, #0x33ff             // CPTR_EL2: nothing trapped
    msr     cptr_el2, x9
    mrs     x9, midr_el1
    msr     vpidr_el2, x9
    mrs     x9, mpidr_el1
    msr     vmpidr_el2, x9
    mrs     x9, id_aa64pfr0_el1
    tst     x9, #(0xf << 24)        // the GIC's system registers
    b.eq    5f
    mov     x9, #0xf
    msr     S3_4_C12_C9_5, x9       // ICC_SRE_EL2: use them, also from EL1
    isb
5:  mov     x9, #0x0800             // SCTLR_EL1: the bits that are one by the architecture, MMU and caches off
    movk    x9, #0x30d0, lsl #16
    msr     sctlr_el1, x9
    mov     x9, #0x3c5              // EL1h, all interrupts masked
    msr     spsr_el2, x9
    msr     elr_el2, x30
    eret
6:  ret
    "#,
    start = sym start,
    secondary = sym super::smp::secondary,
);

/// Where Rust begins on the boot CPU. `tree` is the address that the boot loader gave in x0.
extern "C" fn start(tree: u64, first_virtual: u64, first_physical: u64, entered_at: u64) -> ! {
    let facts = memory::read_tree(tree);
    call::set_conduit(facts.conduit);
    console::choose(facts.xen.is_some(), facts.pl011.map(|range| range.start));
    memory::turn_on(facts);
    terrane_guest_main(Boot {
        tree: facts,
        first_virtual,
        first_physical,
        entered_at: if entered_at == 2 { 2 } else { 1 },
    });
    call::power_off()
}

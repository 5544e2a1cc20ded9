// The image's first instructions, on the boot CPU and on every other.
//
// Entered with the MMU off. Linux's boot protocol: Documentation/arch/arm64/booting.rst.

    .section .head, "ax"
    .global _start
_start:
    b       enter_boot_cpu
    nop
    .quad   0                       // text_offset
    .quad   __image_size            // with bss and stacks
    .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

    // Where the image was relocated to: 0 until then, as it is linked there. A copy has its source's.
    .section .data.rel.ro, "aw"
    .balign 8
relocated_to:
    .quad   0

    .text

// x0: host tree. x1: zero from a boot loader; where the boot loader had put the image if the image
// moved itself here.
enter_boot_cpu:
    msr     daifset, #0xf
    mov     x20, x0
    mov     x21, x1
    adrp    x19, __image_start
    bl      prepare_el2
    mov     x22, x0

    // Relative relocations are the only kind that a -pie link without symbols leaves. They are packed (ELF's
    // RELR): the words hold addresses, to which the distance is added by which the image has moved.
    adrp    x9, relocated_to
    ldr     x11, [x9, :lo12:relocated_to]
    str     x19, [x9, :lo12:relocated_to]
    sub     x11, x19, x11
    adrp    x9, __relr_start
    add     x9, x9, :lo12:__relr_start
    adrp    x10, __relr_end
    add     x10, x10, :lo12:__relr_end
1:  cmp     x9, x10
    b.hs    5f
    ldr     x13, [x9], #8
    tbnz    x13, #0, 2f
    // The place of one word.
    add     x12, x19, x13
    ldr     x14, [x12]
    add     x14, x14, x11
    str     x14, [x12], #8
    b       1b
    // A bit for each of the 63 words behind.
2:  add     x15, x12, #(63 * 8)
3:  lsr     x13, x13, #1
    tbz     x13, #0, 4f
    ldr     x14, [x12]
    add     x14, x14, x11
    str     x14, [x12]
4:  add     x12, x12, #8
    cmp     x12, x15
    b.lo    3b
    b       1b

5:  adrp    x9, __bss_start
    adrp    x10, __bss_end
    add     x10, x10, :lo12:__bss_end
6:  cmp     x9, x10
    b.hs    7f
    stp     xzr, xzr, [x9], #16
    b       6b

7:  adrp    x9, boot_stack
    add     x9, x9, :lo12:boot_stack
    mov     x10, #{stack_bytes}
    add     sp, x9, x10
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    mov     x1, x19
    mov     x2, x21
    mov     x3, x22
    b       {start}

// Puts EL2 into a known state. Returns 0 in x0, or why that can't be done: 1 if not at EL2, 2 if
// HCR_EL2.E2H can't be cleared.
prepare_el2:
    mrs     x0, CurrentEL
    cmp     x0, #8
    mov     x0, #1
    b.ne    5f
    // SCTLR before HCR: what the bits of the one mean depends on the other.
    mov     x9, #{sctlr_off_low}
    movk    x9, #{sctlr_off_high}, lsl #16
    msr     sctlr_el2, x9
    isb
    mov     x9, #(1 << 31)          // RW: EL1 is AArch64
    msr     hcr_el2, x9
    isb
    mrs     x9, hcr_el2
    mov     x0, #2
    tbnz    x9, #34, 5f
    msr     mdcr_el2, xzr
    msr     cptr_el2, xzr
    msr     tpidr_el2, xzr          // no record of this CPU yet
    isb
    mov     x0, #0
5:  ret

// Entered by PSCI CPU_ON with the address of this CPU's `Secondary` record in x0.
    .global enter_secondary_cpu
enter_secondary_cpu:
    msr     daifset, #0xf
    mov     x20, x0
    bl      prepare_el2
    cbnz    x0, 6f
    ldp     x9, x10, [x20]          // ttbr0, tcr
    ldp     x11, x12, [x20, #16]    // mair, sctlr
    ldp     x13, x0, [x20, #32]     // stack pointer, argument
    msr     ttbr0_el2, x9
    msr     tcr_el2, x10
    msr     mair_el2, x11
    tlbi    alle2
    dsb     nsh
    isb
    msr     sctlr_el2, x12
    isb
    mov     sp, x13
    mov     x29, xzr
    mov     x30, xzr
    b       {start_secondary}
6:  wfi
    b       6b

// x0: new image, x1: host tree, x2: where the boot loader had put the image. The new copy was cleaned
// to the point of coherency; from here on nothing is written until it runs.
    .global leave_for_copy
leave_for_copy:
    mov     x9, #{sctlr_off_low}
    movk    x9, #{sctlr_off_high}, lsl #16
    mov     x10, x0
    mov     x0, x1
    mov     x1, x2
    mov     x2, xzr
    mov     x3, xzr
    msr     sctlr_el2, x9
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    br      x10

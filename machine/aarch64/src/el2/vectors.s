// The exception vectors, and the way into a guest.
//
// A trap from a guest finds SP_EL2 where `enter_guest` or the last trap left it: below it goes the
// frame with the guest's general registers (struct Frame). The hypervisor's own exceptions are fatal.
//
// There is a table for CPUs that need nothing more, and one for each workaround that the firmware may offer against branch
// predictors that the guest has trained: called before the first branch whose target isn't in the instruction. It changes
// X0 to X3 at most (SMCCC 1.1), which are saved.

    .macro from_guest handler, workaround
    .balign 128
    sub     sp, sp, #256
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    .if \workaround
    mov     w0, #(\workaround & 0xffff)
    movk    w0, #(\workaround >> 16), lsl #16
    smc     #0
    .endif
    mov     x0, sp
    bl      \handler
    b       return_to_guest
    .endm

    .macro own_fault kind
    .balign 128
    mov     x0, #\kind
    b       own_exception
    .endm

    .macro table name, workaround
    .balign 2048
    .global \name
\name:
    own_fault 0
    own_fault 1
    own_fault 2
    own_fault 3
    own_fault 4
    own_fault 5
    own_fault 6
    own_fault 7
    from_guest {synchronous}, \workaround
    from_guest {interrupt}, \workaround
    from_guest {interrupt}, \workaround
    from_guest {error}, \workaround
    from_guest {synchronous}, \workaround
    from_guest {interrupt}, \workaround
    from_guest {interrupt}, \workaround
    from_guest {error}, \workaround
    .endm

    .section .text.vectors, "ax"
    table exception_vectors, 0
    table exception_vectors_workaround_1, {workaround_1}
    table exception_vectors_workaround_3, {workaround_3}

    .balign 128
// The stack may be what failed: another one.
own_exception:
    adrp    x9, emergency_stack
    add     x9, x9, :lo12:emergency_stack
    add     sp, x9, #4096
    b       {own}

// x0: a frame on the stack of this CPU.
    .global enter_guest
enter_guest:
    mov     sp, x0
return_to_guest:
    ldr     x30, [sp, #240]
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #256
    eret
    // No speculation past the return.
    dsb     nsh
    isb

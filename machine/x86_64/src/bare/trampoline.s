// The way of another CPU into the image. A start-up message makes it begin in real mode at a page below 1 MiB, where
// `smp.rs` has put a copy of this; it goes to long mode by the tables of `entry.s` and leaves the page.
//
// AMD APM volume 2, 16.5 (start-up message), 14.6 (long mode).

    .pushsection .rodata.trampoline, "a"
    .balign 16
    .global trampoline
trampoline:
    .code16
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    // EBX: where the copy lies.
    movzwl %ax, %ebx
    shll $4, %ebx
    addl %ebx, trampoline_gdt_pointer - trampoline + 2
    addl %ebx, trampoline_to_32 - trampoline
    addl %ebx, trampoline_to_64 - trampoline
    lgdtl trampoline_gdt_pointer - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl *(trampoline_to_32 - trampoline)

    .code32
trampoline_32:
    movl ${data_selector}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl (trampoline_tables - trampoline)(%ebx), %eax
    movl %eax, %cr3
    movl $0x20, %eax            // PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx      // EFER: LME, NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax      // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmpl *(trampoline_to_64 - trampoline)(%ebx)

    .code64
trampoline_64:
    // The upper half is undefined after the switch.
    movl %ebx, %ebx
    movq (trampoline_stack - trampoline)(%rbx), %rsp
    movq (trampoline_root - trampoline)(%rbx), %rcx
    movq (trampoline_argument - trampoline)(%rbx), %rdi
    movq (trampoline_entry - trampoline)(%rbx), %rax
    jmpq *%rax

    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // code, 64-bit, accessed: as in entry.s
    .quad 0x00cf93000000ffff    // data, accessed
    .quad 0x00cf9b000000ffff    // code, 32-bit, accessed
trampoline_gdt_end:
trampoline_gdt_pointer:
    .short trampoline_gdt_end - trampoline_gdt - 1
    .long trampoline_gdt - trampoline
    .balign 4
trampoline_to_32:
    .long trampoline_32 - trampoline
    .short 24
    .balign 4
trampoline_to_64:
    .long trampoline_64 - trampoline
    .short {code_selector}

// What `smp.rs` fills in, in the order of its `Words`.
    .balign 8
    .global trampoline_words
trampoline_words:
trampoline_tables:
    .quad 0
trampoline_root:
    .quad 0
trampoline_stack:
    .quad 0
trampoline_entry:
    .quad 0
trampoline_argument:
    .quad 0
    .global trampoline_end
trampoline_end:
    .popsection

// RCX: the hypervisor's own tables. RDI: for the first Rust code.
    .pushsection .text.secondary, "ax"
    .global secondary
secondary:
    movq %rcx, %cr3
    leaq secondary_gdt(%rip), %rax
    subq $16, %rsp
    movw $(secondary_gdt_end - secondary_gdt - 1), (%rsp)
    movq %rax, 2(%rsp)
    lgdt (%rsp)
    addq $16, %rsp
    movl ${data_selector}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    xorl %ebp, %ebp
    call {begin}
    ud2
    .popsection

    .pushsection .rodata.secondary_gdt, "a"
    .balign 16
secondary_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
secondary_gdt_end:
    .quad 0                     // this CPU's record: none yet (see cpu.rs)
    .popsection

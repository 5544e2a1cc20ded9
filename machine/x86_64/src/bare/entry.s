// The way in: 32-bit protected mode without paging, as multiboot1 and the PVH entry hand over,
// to long mode with the first 4 GiB mapped at themselves.
//
// multiboot1: EBX holds the information structure (Multiboot Specification 0.6.96, 3.2).
// PVH: EBX holds the start info structure (Xen, docs/misc/pvh.pandoc).

    .pushsection .head, "ax"
    .code32

// The address fields (bit 16) make a loader copy the file flat, so that it may be ELF64.
    .balign 4
multiboot1_header:
    .long 0x1badb002
    .long 0x00010003
    .long -(0x1badb002 + 0x00010003)
    .long multiboot1_header
    .long __image_start
    .long __file_end
    .long __image_end
    .long enter_multiboot1

    .global enter_multiboot1
enter_multiboot1:
    movl $1, %ebp
    jmp enter

    .global enter_pvh
enter_pvh:
    movl $2, %ebp

enter:
    cli
    cld
    movl $(boot_stack + {stack_bytes}), %esp
    movl %ebx, %esi

    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc no_long_mode
    // CPUID has changed EBX only; the structure's address is in ESI.

    xorl %eax, %eax
    movl $boot_tables, %edi
    movl $(2 * 4096 / 4), %ecx
    rep stosl

    // One entry in the top table, four below it: 4 GiB in pages of 2 MiB.
    movl $(boot_tables + 4096 + 3), boot_tables
    movl $(boot_tables + 2 * 4096 + 3), %eax
    movl $(boot_tables + 4096), %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $0x83, %eax
    xorl %edx, %edx
    movl $(boot_tables + 2 * 4096), %edi
    movl $(4 * 512), %ecx
2:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

    movl $boot_tables, %eax
    movl %eax, %cr3
    movl $0x20, %eax            // PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx      // EFER.LME
    rdmsr
    btsl $8, %eax
    wrmsr
    movl $0x80010033, %eax      // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    pushl ${code_selector}
    pushl $enter_long
    lretl

no_long_mode:
    movl $no_long_mode_text, %esi
    movw $0x3f8, %dx
3:  lodsb
    testb %al, %al
    jz 4f
    outb %al, %dx
    jmp 3b
4:  hlt
    jmp 4b

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // code, 64-bit, accessed
    .quad 0x00cf93000000ffff    // data, accessed
boot_gdt_end:
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
no_long_mode_text:
    .asciz "(terrane) error[no-long-mode]: this CPU has no 64-bit mode\r\n"

    .code64
enter_long:
    movl ${data_selector}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    // The upper halves are undefined after the switch.
    movl %esp, %esp
    movl %esi, %edx

    movl $__bss_start, %edi
    movl $__bss_end, %ecx
    subl %edi, %ecx
    shrl $3, %ecx
    rep stosq

    movl %ebp, %edi
    movl %edx, %esi
    xorl %ebp, %ebp
    call {start}
    ud2

    .popsection

// QEMU reads eight bytes whatever the note says of its size.
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad enter_pvh
    .popsection

// The way in: 32-bit protected mode without paging, as every boot protocol hands over, to long mode
// at the image's own addresses, with the first 4 GiB mapped at themselves beside it.
//
// EBX holds the protocol's information structure:
// multiboot1: Multiboot Specification 0.6.96, 3.2. PVH: Xen, docs/misc/pvh.pandoc.
// multiboot2: Multiboot2 Specification 2.0, 3.3 and 3.6.
//
// multiboot1 and PVH load the image where it is linked; a multiboot2 loader may put it elsewhere and
// says where. So nothing here counts on an absolute address before the switch to long mode.

    .pushsection .head, "ax"
    .code32
head:

// The address fields (bit 16) make a loader copy the file flat, so that it may be ELF64.
    .balign 8
    .long 0x1badb002
    .long 0x00010003
    .long -(0x1badb002 + 0x00010003)
    .long machine_multiboot1_header
    .long machine_image_start
    .long machine_file_end
    .long machine_image_end
    .long machine_enter_multiboot1

    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0                     // i386, protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    // Entry address.
    .short 3, 0
    .long 12
    .long machine_enter_multiboot2
    .balign 8
    // Modules on pages.
    .short 6, 0
    .long 8
    // Relocatable: anywhere below 4 GiB on 2 MiB, the lowest place first.
    .short 10, 0
    .long 24
    .long {load}
    .long 0xffffffff
    .long 0x200000
    .long 1
    // End.
    .short 0, 0
    .long 8
multiboot2_header_end:

    .global enter_multiboot1
enter_multiboot1:
    movl $1, %ebp
    movl ${load}, %edi
    jmp enter

    .global enter_pvh
enter_pvh:
    movl $2, %ebp
    movl ${load}, %edi
    jmp enter

    .global enter_multiboot2
enter_multiboot2:
    movl $3, %ebp
    movl ${load}, %edi
    leal 8(%ebx), %edx
    // The tag of the load base (21). Tags begin at multiples of 8; type 0 is the last.
1:  movl (%edx), %eax
    testl %eax, %eax
    jz enter
    cmpl $21, %eax
    jne 2f
    movl 8(%edx), %edi
    jmp enter
2:  movl 4(%edx), %eax
    addl $7, %eax
    andl $-8, %eax
    jz enter
    addl %eax, %edx
    jmp 1b

// EBP: protocol. EBX: its structure. EDI: where the image lies.
enter:
    cli
    cld
    movl %ebx, %esi
    movl $0x80000001, %eax
    cpuid
    movl %edi, %ebx
    btl $29, %edx
    jnc no_long_mode

    // Seven pages are cleared of the eight, as the last is written whole.
    xorl %eax, %eax
    leal boot_tables_offset(%ebx), %edi
    movl $(7 * 4096 / 4), %ecx
    rep stosl

    // Top table: the lowest 512 GiB, and the highest.
    leal boot_tables_offset(%ebx), %edx
    leal (4096 + 3)(%edx), %eax
    movl %eax, (%edx)
    leal (6 * 4096 + 3)(%edx), %eax
    movl %eax, (511 * 8)(%edx)
    // Of the highest, the gigabyte that begins 2 GiB below the end.
    leal (7 * 4096 + 3)(%edx), %eax
    movl %eax, (6 * 4096 + 510 * 8)(%edx)
    // Of the lowest, four gigabytes.
    leal (2 * 4096 + 3)(%edx), %eax
    leal 4096(%edx), %edi
    movl $4, %ecx
3:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 3b
    // Pages of 2 MiB: the four gigabytes at themselves,
    movl $0x83, %eax
    leal (2 * 4096)(%edx), %edi
    movl $(4 * 512), %ecx
4:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 4b
    // and the image at its own addresses, which begin {load} above that gigabyte.
    leal (0x83 - {load})(%ebx), %eax
    leal (7 * 4096)(%edx), %edi
    movl $512, %ecx
5:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 5b

    movl %edx, %cr3
    movl $0x20, %eax            // PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx      // EFER.LME
    rdmsr
    btsl $8, %eax
    wrmsr
    movl $0x80010033, %eax      // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    leal (boot_gdt - head)(%ebx), %eax
    movl %eax, (boot_gdt_pointer - head + 2)(%ebx)
    lgdt (boot_gdt_pointer - head)(%ebx)
    leal (boot_stack_offset + {stack_bytes})(%ebx), %esp
    pushl ${code_selector}
    leal (enter_long - head)(%ebx), %eax
    pushl %eax
    lretl

no_long_mode:
    leal (no_long_mode_text - head)(%ebx), %esi
    movw $0x3f8, %dx
6:  lodsb
    testb %al, %al
    jz 7f
    outb %al, %dx
    jmp 6b
7:  hlt
    jmp 7b

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // code, 64-bit, accessed
    .quad 0x00cf93000000ffff    // data, accessed
boot_gdt_end:
    .quad 0                     // this CPU's record: none yet (see cpu.rs)
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
no_long_mode_text:
    .asciz "(terrane) error[no-long-mode]: this CPU has no 64-bit mode\r\n"

    .code64
enter_long:
    // The upper halves are undefined after the switch.
    movl %ebx, %edx
    movl %ebp, %r8d
    movl %esi, %esi
    xorl %r9d, %r9d
    movabsq $enter_image, %rax
    jmpq *%rax

    .popsection

    .pushsection .text.enter_image, "ax"
// Goes on in a copy of the image, whose first tables are at RDI: RDX and R9 as below, protocol 0. The
// copy has these instructions at the same addresses.
    .global leave_for_copy
leave_for_copy:
    movq %rsi, %r9
    xorl %r8d, %r8d
    xorl %esi, %esi
    movq %rdi, %cr3
// R8D: protocol. RSI: its structure. RDX: where the image lies. R9: what an image that has moved
// itself leaves for its copy, else 0.
enter_image:
    // From here on nothing is used by its machine address.
    leaq boot_gdt(%rip), %rax
    movq %rax, boot_gdt_pointer + 2(%rip)
    lgdt boot_gdt_pointer(%rip)
    movl ${data_selector}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    leaq boot_stack + {stack_bytes}(%rip), %rsp

    leaq __bss_start(%rip), %rdi
    leaq __bss_end(%rip), %rcx
    subq %rdi, %rcx
    shrq $3, %rcx
    rep stosq

    movl %r8d, %edi
    movq %r9, %rcx
    xorl %ebp, %ebp
    call {start}
    ud2

    .popsection

// QEMU reads eight bytes whatever the note says of its size.
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad machine_enter_pvh
    .popsection

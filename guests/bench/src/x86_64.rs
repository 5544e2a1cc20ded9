//! The rows on x86-64, each a loop of one instruction, less the loop.
//!
//! A tick of the time stamp counter is an instruction: QEMU's counter runs at 1 GHz under `-icount`.

use core::arch::asm;

use rt::{Boot, cpu, exception, say};

rt::entry!(run);

/// Turns of each loop.
const TURNS: u64 = 10_000;

/// Defines a function that runs `$body` [`TURNS`] times and gives the ticks that passed. It may change RAX, RBX, RCX,
/// RDX, RSI, RDI and R8 to R11.
macro_rules! turns {
    ($name:ident, $body:literal) => {
        fn $name() -> u64 {
            let before = cpu::counter();
            // SAFETY: each body below reads registers and ports, or asks the hypervisor for something that writes no
            // memory; what it changes is given as changed, RBX is put back.
            unsafe {
                asm!("mov {saved}, rbx", "2:", $body, "sub {turns}, 1", "jnz 2b", "mov rbx, {saved}",
                    saved = out(reg) _,
                    turns = inout(reg) TURNS => _,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                    options(nostack));
            }
            cpu::counter() - before
        }
    };
}

turns!(nothing, "");
turns!(one_move, "xor ecx, ecx");
turns!(two_moves, "xor ecx, ecx\nxor eax, eax");
turns!(three_moves, "xor ecx, ecx\nxor eax, eax\nxor edx, edx");
turns!(
    hypercall,
    "mov eax, 17\nxor edi, edi\nxor esi, esi\nvmmcall"
);
turns!(
    unknown_hypercall,
    "mov eax, 63\nxor edi, edi\nxor esi, esi\nvmmcall"
);
turns!(cpuid, "xor ecx, ecx\nmov eax, 1\ncpuid");
// The interrupt mask of the first 8259A, which no PVH domain has.
turns!(port, "in al, 0x21");
// PCI's address register.
turns!(pci_port, "mov edx, 0xcf8\nin eax, dx");
// IA32_APIC_BASE, and the local APIC's number.
turns!(apic_base, "mov ecx, 0x1b\nrdmsr");
turns!(apic_id, "mov ecx, 0x802\nrdmsr");
// FS.base, which isn't trapped.
turns!(untrapped_msr, "mov ecx, 0xc0000100\nrdmsr");
turns!(counter, "rdtsc");

/// Prints the cost of one turn of `loops`, less that of `overhead`, rounded.
fn row(name: &str, loops: fn() -> u64, overhead: fn() -> u64) {
    // What a first turn does once (a translation, an entry of a table) isn't the cost of one more.
    loops();
    overhead();
    let cost = loops().saturating_sub(overhead());
    say!("bench {name} {}", (cost + TURNS / 2) / TURNS);
}

fn run(boot: Boot) {
    say!("bench: begin");
    say!("bench: first-tsc={}", boot.first_tsc);
    row("loop", nothing, || 0);
    if boot.facts.xen.is_some() {
        row("hypercall", hypercall, three_moves);
        row("hypercall-unknown", unknown_hypercall, three_moves);
    }
    row("cpuid", cpuid, two_moves);
    row("port-io", port, nothing);
    row("port-pci", pci_port, one_move);
    row("rdtsc", counter, nothing);
    row("msr", untrapped_msr, one_move);
    row("msr-apic-base", apic_base, one_move);
    if rt::apic::start(false) && rt::apic::is_by_msr() && exception::read_msr(0x802).is_ok() {
        row("msr-apic-id", apic_id, one_move);
    }
    say!("bench: last-tsc={}", cpu::counter());
    say!("bench: done");
}

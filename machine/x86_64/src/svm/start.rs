//! How a vCPU begins: as a PVH kernel expects it, or as INIT and start-up leave a CPU.
//!
//! Xen, docs/misc/pvh.pandoc; APM volume 2, 14.1.3 (state after INIT) and 15.27.

use super::vmcb::{State, Vmcb, clean, interrupt};
use super::{PAT_AT_RESET, cr0, efer, rflags};

/// A writable data segment, present, of 16 bits.
const DATA: u16 = 0x093;
/// The same of 32 bits, its limit in pages.
const DATA_32: u16 = 0xc93;
/// A readable code segment, present, of 16 bits.
const CODE: u16 = 0x09b;
/// The same of 32 bits, its limit in pages.
const CODE_32: u16 = 0xc9b;
/// A local descriptor table.
const LDT: u16 = 0x082;
/// A busy task state segment of 16 bits.
const TASK: u16 = 0x083;
/// A busy task state segment of 32 bits.
const TASK_32: u16 = 0x08b;

const DR6_AT_RESET: u64 = 0xffff_0ff0;
const DR7_AT_RESET: u64 = 0x400;
/// What a segment's limit is after INIT.
const LIMIT_AT_RESET: u32 = 0xffff;

/// The first state of a PVH domain's first vCPU: 32-bit protected mode without paging, flat segments, interrupts off.
/// EBX, the address of the start information, is the caller's to set; all other registers are zero.
pub fn pvh(vmcb: &Vmcb, entry: u32) {
    let state = &vmcb.state;
    common(vmcb);
    state.cr0.set(cr0::PE | cr0::ET);
    // The selectors count for nothing: there is no descriptor table.
    state.cs.set(0, CODE_32, u32::MAX, 0);
    for segment in [&state.ds, &state.es, &state.ss, &state.fs, &state.gs] {
        segment.set(0, DATA_32, u32::MAX, 0);
    }
    state.gdtr.set(0, 0, 0, 0);
    state.idtr.set(0, 0, 0, 0);
    state.ldtr.set(0, LDT, 0, 0);
    state.tr.set(0, TASK_32, 0x67, 0);
    state.rip.set(u64::from(entry));
}

/// The state of a CPU that start-up with `page` in its vector lets go: real mode at the begin of that page.
pub fn real_mode(vmcb: &Vmcb, page: u8) {
    let state = &vmcb.state;
    common(vmcb);
    state.cr0.set(cr0::ET);
    let (selector, base) = (u16::from(page) << 8, u64::from(page) << 12);
    state.cs.set(selector, CODE, LIMIT_AT_RESET, base);
    for segment in [&state.ds, &state.es, &state.ss, &state.fs, &state.gs] {
        segment.set(0, DATA, LIMIT_AT_RESET, 0);
    }
    state.gdtr.set(0, 0, LIMIT_AT_RESET, 0);
    state.idtr.set(0, 0, LIMIT_AT_RESET, 0);
    state.ldtr.set(0, LDT, LIMIT_AT_RESET, 0);
    state.tr.set(0, TASK, LIMIT_AT_RESET, 0);
    state.rip.set(0);
}

/// What both have in common. Nothing that the CPU has cached of the block is good any more.
fn common(vmcb: &Vmcb) {
    let State {
        cpl,
        efer: extended,
        cr2,
        cr3,
        cr4,
        dr6,
        dr7,
        rflags: flags,
        pat,
        ..
    } = &vmcb.state;
    cpl.set(0);
    extended.set(efer::SVME);
    for zero in [cr2, cr3, cr4] {
        zero.set(0);
    }
    dr6.set(DR6_AT_RESET);
    dr7.set(DR7_AT_RESET);
    flags.set(rflags::ONE);
    pat.set(PAT_AT_RESET);
    let state = &vmcb.state;
    for zero in [
        &state.rax,
        &state.rsp,
        &state.star,
        &state.lstar,
        &state.cstar,
        &state.sfmask,
        &state.kernel_gs_base,
        &state.sysenter_cs,
        &state.sysenter_esp,
        &state.sysenter_eip,
    ] {
        zero.set(0);
    }
    let control = &vmcb.control;
    control.event.set(0);
    control.interrupted_event.set(0);
    control.shadow.set(0);
    control
        .interrupt
        .set(control.interrupt.get() & !(interrupt::REQUEST | interrupt::TASK_PRIORITY));
    control.clean.set(control.clean.get() & !clean::ALL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pvh_state() {
        let vmcb = Vmcb::zeroed();
        pvh(&vmcb, 0x100_0000);
        let state = &vmcb.state;
        assert_eq!(state.rip.get(), 0x100_0000);
        assert_eq!(state.cr0.get(), 0x11);
        assert_eq!(state.cr4.get(), 0);
        assert_eq!(state.efer.get(), efer::SVME);
        assert_eq!(state.rflags.get(), 2);
        assert_eq!(state.cs.attributes.get(), 0xc9b);
        assert_eq!(state.ss.limit.get(), u32::MAX);
    }

    #[test]
    fn start_up_at_a_page() {
        let vmcb = Vmcb::zeroed();
        vmcb.control.clean.set(clean::ALL);
        vmcb.control
            .interrupt
            .set(interrupt::MASKING | interrupt::PENDING | 7 | 0xec << 32);
        real_mode(&vmcb, 0x9a);
        let state = &vmcb.state;
        assert_eq!(
            (state.cs.selector.get(), state.cs.base.get()),
            (0x9a00, 0x9a000)
        );
        assert_eq!(state.cr0.get() & cr0::PE, 0);
        assert_eq!(vmcb.control.interrupt.get(), interrupt::MASKING);
        assert_eq!(vmcb.control.clean.get(), 0);
    }
}

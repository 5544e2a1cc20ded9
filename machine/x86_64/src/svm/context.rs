//! A vCPU's start with registers that a hypercall gave (`VCPUOP_initialise`; public/hvm/hvm_vcpu.h).

use abi::hvm_vcpu::{Context, Registers32, Registers64};

use super::start;
use super::vmcb::{Segment, Vmcb};
use super::{cr0, efer, rflags};

/// A context that the CPU can start with, as far as that is known without the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Protected mode of 32 bits, or long mode's compatibility mode.
    Bits32(Registers32),
    /// Long mode.
    Bits64(Registers64),
}

/// The EFER bits that a context may set.
const EFER_BITS: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;
const CR4_PAE: u64 = 1 << 5;
/// The RFLAGS bits that a context may set: status flags, TF, IF, DF, IOPL, NT, AC, ID; not VM.
const FLAG_BITS: u64 = 0x24_7fd5;
/// The attributes of long mode's code segment: present, code, 64 bits.
const CODE_64: u16 = 0xa9b;
const DATA: u16 = 0xc93;
const BUSY_TASK: u16 = 0x8b;

/// Looks whether a vCPU can start like this; `None` if it can't.
#[must_use]
pub fn check(context: &Context) -> Option<Wanted> {
    if context.reserved != 0 {
        return None;
    }
    if let Some(wanted) = context.registers_32() {
        let is_good = are_controls(u64::from(wanted.cr0), u64::from(wanted.cr4), wanted.efer)
            && wanted.reserved1 == 0
            && wanted.reserved2 == [0; 3];
        return is_good.then_some(Wanted::Bits32(wanted));
    }
    let wanted = context.registers_64()?;
    let long = efer::LME | efer::LMA;
    let is_good = are_controls(wanted.cr0, wanted.cr4, wanted.efer)
        && wanted.efer & long == long
        && wanted.cr0 & cr0::PG != 0;
    is_good.then_some(Wanted::Bits64(wanted))
}

/// Whether VMRUN takes control registers (APM volume 2, 15.5.1): paging needs protected mode, long mode PAE.
const fn are_controls(control: u64, extension: u64, extended: u64) -> bool {
    let paging = control & cr0::PG != 0;
    let protected = control & cr0::PE != 0;
    let active = paging && extended & efer::LME != 0;
    control >> 32 == 0
        && extended & !EFER_BITS == 0
        && protected
        && (control & cr0::NW == 0 || control & cr0::CD != 0)
        && (extended & efer::LMA != 0) == active
        && (!active || extension & CR4_PAE != 0)
}

/// Fills the state of a vCPU that starts with these registers. Gives the general ones, in the order in which instructions
/// number them; those from R8 on are zero.
#[must_use]
pub fn apply(vmcb: &Vmcb, wanted: &Wanted) -> [u64; 8] {
    let state = &vmcb.state;
    start::pvh(vmcb, 0);
    match wanted {
        Wanted::Bits32(wanted) => {
            let place = |segment: &Segment, attributes, limit, base| {
                segment.set(0, attributes, limit, u64::from(base));
            };
            place(
                &state.cs,
                wanted.cs_attributes,
                wanted.cs_limit,
                wanted.cs_base,
            );
            place(
                &state.ds,
                wanted.ds_attributes,
                wanted.ds_limit,
                wanted.ds_base,
            );
            place(
                &state.ss,
                wanted.ss_attributes,
                wanted.ss_limit,
                wanted.ss_base,
            );
            place(
                &state.es,
                wanted.es_attributes,
                wanted.es_limit,
                wanted.es_base,
            );
            place(
                &state.tr,
                wanted.tr_attributes,
                wanted.tr_limit,
                wanted.tr_base,
            );
            state.cpl.set((wanted.ss_attributes >> 5 & 3) as u8);
            state.cr0.set(u64::from(wanted.cr0) | cr0::ET);
            state.cr3.set(u64::from(wanted.cr3));
            state.cr4.set(u64::from(wanted.cr4));
            state.efer.set(wanted.efer | efer::SVME);
            state.rip.set(u64::from(wanted.eip));
            state
                .rflags
                .set(u64::from(wanted.eflags) & FLAG_BITS | rflags::ONE);
            [
                wanted.eax, wanted.ecx, wanted.edx, wanted.ebx, wanted.esp, wanted.ebp, wanted.esi,
                wanted.edi,
            ]
            .map(u64::from)
        }
        Wanted::Bits64(wanted) => {
            state.cs.set(0, CODE_64, u32::MAX, 0);
            for segment in [&state.ds, &state.es, &state.ss] {
                segment.set(0, DATA, u32::MAX, 0);
            }
            state.tr.set(0, BUSY_TASK, 0x67, 0);
            state.cr0.set(wanted.cr0 | cr0::ET);
            state.cr3.set(wanted.cr3);
            state.cr4.set(wanted.cr4);
            state.efer.set(wanted.efer | efer::SVME);
            state.rip.set(wanted.rip);
            state.rflags.set(wanted.rflags & FLAG_BITS | rflags::ONE);
            [
                wanted.rax, wanted.rcx, wanted.rdx, wanted.rbx, wanted.rsp, wanted.rbp, wanted.rsi,
                wanted.rdi,
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use abi::hvm_vcpu::{MODE_32, MODE_64};
    use zerocopy::FromBytes;

    use super::*;

    fn context(mode: u32, words: &[(usize, u64)]) -> Context {
        let mut context = Context::read_from_bytes(&[0; 128]).unwrap();
        context.mode = mode;
        for &(at, word) in words {
            context.registers[at] = word;
        }
        context
    }

    #[test]
    fn a_flat_kernel() {
        // EIP is the ninth, CR0 the eleventh word of 32 bits.
        let context = context(MODE_32, &[(4, 0x10_0000), (5, 0x11)]);
        let wanted = check(&context).unwrap();
        let vmcb = Vmcb::zeroed();
        assert_eq!(apply(&vmcb, &wanted), [0; 8]);
        assert_eq!(vmcb.state.rip.get(), 0x10_0000);
        assert_eq!(vmcb.state.cr0.get(), 0x11);
        assert_eq!(vmcb.state.efer.get(), efer::SVME);
    }

    #[test]
    fn long_mode() {
        let paging = 0x8000_0011;
        let good = [
            (8, 0x1234),
            (10, paging),
            (11, 0x1000),
            (12, 0x20),
            (13, 0xd00),
        ];
        let wanted = check(&context(MODE_64, &good)).unwrap();
        let vmcb = Vmcb::zeroed();
        let _ = apply(&vmcb, &wanted);
        assert_eq!(vmcb.state.rip.get(), 0x1234);
        assert_eq!(vmcb.state.efer.get(), 0xd00 | efer::SVME);
        // No PAE; no paging; SVME; a mode that isn't there.
        for bad in [(12, 0), (10, 0x11), (13, 0x1d00)] {
            let mut words = good.to_vec();
            words.push(bad);
            assert_eq!(check(&context(MODE_64, &words)), None, "{bad:?}");
        }
        assert_eq!(check(&context(2, &good)), None);
    }
}

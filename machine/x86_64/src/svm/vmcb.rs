//! The virtual machine control block: what the CPU reads at VMRUN and writes at VMEXIT.
//!
//! AMD APM volume 2, appendix B; every offset is asserted below.

use core::mem::offset_of;

use super::field::{Field8, Field16, Field32, Field64};

/// What of the VMCB has changed since the last VMEXIT: a set bit in the clean field lets the CPU use what it has cached.
/// APM volume 2, 15.15.3.
pub mod clean {
    /// Intercepts, TSC offset, PAUSE filter.
    pub const INTERCEPTS: u32 = 1 << 0;
    /// Addresses of the permission maps.
    pub const PERMISSIONS: u32 = 1 << 1;
    /// The address space identifier.
    pub const ASID: u32 = 1 << 2;
    /// Everything at offset 60h.
    pub const INTERRUPT: u32 = 1 << 3;
    /// Nested paging: its CR3 and the guest's PAT.
    pub const NESTED: u32 = 1 << 4;
    /// CR0, CR3, CR4 and EFER.
    pub const CONTROL: u32 = 1 << 5;
    /// DR6 and DR7.
    pub const DEBUG: u32 = 1 << 6;
    /// GDTR and IDTR.
    pub const TABLES: u32 = 1 << 7;
    /// CS, DS, SS, ES and CPL.
    pub const SEGMENTS: u32 = 1 << 8;
    /// CR2.
    pub const CR2: u32 = 1 << 9;
    /// Last-branch records.
    pub const BRANCHES: u32 = 1 << 10;
    /// All of them.
    pub const ALL: u32 = 0x7ff;
}

/// `TLB_CONTROL`, APM volume 2, 15.16.2.
pub mod flush {
    /// Nothing.
    pub const NOTHING: u8 = 0;
    /// Every address space, the host's included: all that a CPU without flush-by-ASID has.
    pub const ALL: u8 = 1;
    /// The guest's address space.
    pub const GUEST: u8 = 3;
}

/// Offset 60h: the virtual interrupt, APM volume 2, 15.21.
pub mod interrupt {
    /// The guest's CR8, bits 3:0.
    pub const TASK_PRIORITY: u64 = 0xf;
    /// A virtual interrupt is pending: the CPU clears it as it delivers.
    pub const PENDING: u64 = 1 << 8;
    /// The guest's GIF, where that is virtual.
    pub const GIF: u64 = 1 << 9;
    /// Where the interrupt's priority is.
    pub const PRIORITY_SHIFT: u32 = 16;
    /// IF and CR8 are the guest's own, the host's IF masks physical interrupts.
    pub const MASKING: u64 = 1 << 24;
    /// Where the interrupt's vector is.
    pub const VECTOR_SHIFT: u32 = 32;
    /// Everything about the pending interrupt.
    pub const REQUEST: u64 = PENDING | 0x1f << PRIORITY_SHIFT | 0xff << VECTOR_SHIFT;

    /// The word with which an interrupt is offered to the guest, or none, and its CR8 is `task_priority`, 0 to 15. The CPU
    /// delivers the interrupt once the guest takes it: the priority is the vector's class.
    #[must_use]
    pub fn offer(word: u64, vector: Option<u8>, task_priority: u8) -> u64 {
        let request = vector.map_or(0, |vector| {
            let vector = u64::from(vector);
            PENDING | vector >> 4 << PRIORITY_SHIFT | vector << VECTOR_SHIFT
        });
        word & !(REQUEST | TASK_PRIORITY) | request | u64::from(task_priority) & TASK_PRIORITY
    }

    /// The vector that a word offers.
    #[must_use]
    pub const fn offered(word: u64) -> Option<u8> {
        if word & PENDING != 0 {
            Some((word >> VECTOR_SHIFT & 0xff) as u8)
        } else {
            None
        }
    }

    /// Whether the CPU has delivered what was offered, by the word at entry and at exit.
    #[must_use]
    pub const fn delivered(before: u64, after: u64) -> bool {
        before & PENDING != 0 && after & PENDING == 0
    }
}

/// Offset 68h: the next instruction is in the shadow of STI or MOV SS.
pub const SHADOW: u64 = 1;

/// Offset 90h: nested paging.
pub const NESTED_PAGING: u64 = 1;

/// A segment register as the VMCB has it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// The selector.
    pub selector: Field16,
    /// Bits 55:52 and 47:40 of the descriptor, put together.
    pub attributes: Field16,
    /// The limit in bytes, less one.
    pub limit: Field32,
    /// The base.
    pub base: Field64,
}

impl Segment {
    /// Gives it all of its parts.
    pub fn set(&self, selector: u16, attributes: u16, limit: u32, base: u64) {
        self.selector.set(selector);
        self.attributes.set(attributes);
        self.limit.set(limit);
        self.base.set(base);
    }
}

/// The control area, offsets 0 to 3ffh. APM volume 2, table B-1.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// CR reads in the lower half, writes in the upper.
    pub cr_intercepts: Field32,
    /// DR reads and writes likewise.
    pub dr_intercepts: Field32,
    /// Exceptions by vector.
    pub exception_intercepts: Field32,
    /// See [`super::intercept::first`].
    pub first_intercepts: Field32,
    /// See [`super::intercept::second`].
    pub second_intercepts: Field32,
    reserved_14: [u8; 0x28],
    /// PAUSE filter threshold.
    pub pause_threshold: Field16,
    /// PAUSE filter count.
    pub pause_count: Field16,
    /// Machine address of the port permission map.
    pub port_map: Field64,
    /// Machine address of the MSR permission map.
    pub msr_map: Field64,
    /// Added to the TSC that the guest reads.
    pub tsc_offset: Field64,
    /// The guest's address space identifier, not 0.
    pub asid: Field32,
    /// See [`flush`].
    pub tlb_control: Field8,
    reserved_5d: [u8; 3],
    /// See [`interrupt`].
    pub interrupt: Field64,
    /// See [`SHADOW`].
    pub shadow: Field64,
    /// Why the guest was left: [`super::intercept::code`].
    pub exit_code: Field64,
    /// Depends on the reason.
    pub exit_info_1: Field64,
    /// Depends on the reason.
    pub exit_info_2: Field64,
    /// The event that was being delivered: [`super::event`].
    pub interrupted_event: Field64,
    /// See [`NESTED_PAGING`].
    pub nested_paging: Field64,
    reserved_98: [u8; 0x10],
    /// An event to deliver: [`super::event`].
    pub event: Field64,
    /// Machine address of the top nested table.
    pub nested_root: Field64,
    /// Virtual last-branch records and VMLOAD/VMSAVE.
    pub virtualization: Field64,
    /// See [`clean`].
    pub clean: Field32,
    reserved_c4: [u8; 4],
    /// Where the next instruction begins, if the CPU has that feature.
    pub next_rip: Field64,
    /// How many bytes follow, if the CPU has decode assists.
    pub instruction_length: Field8,
    /// The bytes of the instruction that exited.
    pub instruction: [Field8; 15],
    reserved_e0: [u8; 0x320],
}

/// The state save area, offsets 400h on. APM volume 2, table B-2.
#[derive(Debug)]
#[repr(C)]
pub struct State {
    /// ES.
    pub es: Segment,
    /// CS.
    pub cs: Segment,
    /// SS.
    pub ss: Segment,
    /// DS.
    pub ds: Segment,
    /// FS; loaded by VMLOAD, like GS, LDTR, TR and the registers from STAR to SYSENTER_EIP.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// GDTR: base and limit.
    pub gdtr: Segment,
    /// LDTR.
    pub ldtr: Segment,
    /// IDTR: base and limit.
    pub idtr: Segment,
    /// TR.
    pub tr: Segment,
    reserved_a0: [u8; 0x2b],
    /// The privilege level.
    pub cpl: Field8,
    reserved_cc: [u8; 4],
    /// EFER, SVME set.
    pub efer: Field64,
    reserved_d8: [u8; 0x70],
    /// CR4.
    pub cr4: Field64,
    /// CR3.
    pub cr3: Field64,
    /// CR0.
    pub cr0: Field64,
    /// DR7.
    pub dr7: Field64,
    /// DR6.
    pub dr6: Field64,
    /// RFLAGS.
    pub rflags: Field64,
    /// RIP.
    pub rip: Field64,
    reserved_180: [u8; 0x58],
    /// RSP.
    pub rsp: Field64,
    reserved_1e0: [u8; 0x18],
    /// RAX.
    pub rax: Field64,
    /// STAR.
    pub star: Field64,
    /// LSTAR.
    pub lstar: Field64,
    /// CSTAR.
    pub cstar: Field64,
    /// SFMASK.
    pub sfmask: Field64,
    /// KernelGSBase.
    pub kernel_gs_base: Field64,
    /// SYSENTER_CS.
    pub sysenter_cs: Field64,
    /// SYSENTER_ESP.
    pub sysenter_esp: Field64,
    /// SYSENTER_EIP.
    pub sysenter_eip: Field64,
    /// CR2.
    pub cr2: Field64,
    reserved_248: [u8; 0x20],
    /// The guest's PAT.
    pub pat: Field64,
    reserved_270: [u8; 0x990],
}

/// A page that VMRUN, VMLOAD and VMSAVE take.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What the hypervisor wants and learns.
    pub control: Control,
    /// The guest's registers.
    pub state: State,
}

macro_rules! at {
    ($type:ty: $($field:ident $offset:literal),+ $(,)?) => {
        $(const _: () = assert!(offset_of!($type, $field) == $offset);)+
    };
}

const _: () = assert!(size_of::<Vmcb>() == 4096 && size_of::<Segment>() == 16);
at!(Vmcb: control 0, state 0x400);
at!(Control:
    cr_intercepts 0, dr_intercepts 4, exception_intercepts 8, first_intercepts 0xc,
    second_intercepts 0x10, pause_threshold 0x3c, pause_count 0x3e, port_map 0x40, msr_map 0x48,
    tsc_offset 0x50, asid 0x58, tlb_control 0x5c, interrupt 0x60, shadow 0x68, exit_code 0x70,
    exit_info_1 0x78, exit_info_2 0x80, interrupted_event 0x88, nested_paging 0x90, event 0xa8,
    nested_root 0xb0, virtualization 0xb8, clean 0xc0, next_rip 0xc8, instruction_length 0xd0,
    instruction 0xd1,
);
at!(State:
    es 0, cs 0x10, ss 0x20, ds 0x30, fs 0x40, gs 0x50, gdtr 0x60, ldtr 0x70, idtr 0x80, tr 0x90,
    cpl 0xcb, efer 0xd0, cr4 0x148, cr3 0x150, cr0 0x158, dr7 0x160, dr6 0x168, rflags 0x170,
    rip 0x178, rsp 0x1d8, rax 0x1f8, star 0x200, lstar 0x208, cstar 0x210, sfmask 0x218,
    kernel_gs_base 0x220, sysenter_cs 0x228, sysenter_esp 0x230, sysenter_eip 0x238, cr2 0x240,
    pat 0x268,
);

impl Vmcb {
    /// A block of zeroes, which VMRUN refuses.
    #[must_use]
    pub fn zeroed() -> Self {
        let segment = Segment::default;
        let word = Field64::default;
        Self {
            control: Control {
                cr_intercepts: Field32::new(0),
                dr_intercepts: Field32::new(0),
                exception_intercepts: Field32::new(0),
                first_intercepts: Field32::new(0),
                second_intercepts: Field32::new(0),
                reserved_14: [0; 0x28],
                pause_threshold: Field16::new(0),
                pause_count: Field16::new(0),
                port_map: word(),
                msr_map: word(),
                tsc_offset: word(),
                asid: Field32::new(0),
                tlb_control: Field8::new(0),
                reserved_5d: [0; 3],
                interrupt: word(),
                shadow: word(),
                exit_code: word(),
                exit_info_1: word(),
                exit_info_2: word(),
                interrupted_event: word(),
                nested_paging: word(),
                reserved_98: [0; 0x10],
                event: word(),
                nested_root: word(),
                virtualization: word(),
                clean: Field32::new(0),
                reserved_c4: [0; 4],
                next_rip: word(),
                instruction_length: Field8::new(0),
                instruction: [const { Field8::new(0) }; 15],
                reserved_e0: [0; 0x320],
            },
            state: State {
                es: segment(),
                cs: segment(),
                ss: segment(),
                ds: segment(),
                fs: segment(),
                gs: segment(),
                gdtr: segment(),
                ldtr: segment(),
                idtr: segment(),
                tr: segment(),
                reserved_a0: [0; 0x2b],
                cpl: Field8::new(0),
                reserved_cc: [0; 4],
                efer: word(),
                reserved_d8: [0; 0x70],
                cr4: word(),
                cr3: word(),
                cr0: word(),
                dr7: word(),
                dr6: word(),
                rflags: word(),
                rip: word(),
                reserved_180: [0; 0x58],
                rsp: word(),
                reserved_1e0: [0; 0x18],
                rax: word(),
                star: word(),
                lstar: word(),
                cstar: word(),
                sfmask: word(),
                kernel_gs_base: word(),
                sysenter_cs: word(),
                sysenter_esp: word(),
                sysenter_eip: word(),
                cr2: word(),
                reserved_248: [0; 0x20],
                pat: word(),
                reserved_270: [0; 0x990],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::interrupt::{MASKING, delivered, offer, offered};

    #[test]
    fn the_virtual_interrupt() {
        let word = offer(MASKING | 3, Some(0xf3), 1);
        assert_eq!(word, 0xf3_010f_0101);
        assert_eq!((offered(word), delivered(word, word)), (Some(0xf3), false));
        assert!(delivered(word, word & !0x100));
        // An offer that is taken back, or replaced.
        assert_eq!(offer(word, None, 1), MASKING | 1);
        assert_eq!(offer(word, Some(0x41), 0), 0x41_0104_0100);
        assert_eq!(
            (offered(MASKING), delivered(MASKING, MASKING)),
            (None, false)
        );
    }
}

//! What each CPU keeps for itself, and how it is set up to run its vCPU.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use hypervisor::Caller;

use super::instructions::{ThisCpu, XSAVE, read_msr, write_msr};
use super::machine::Pc;
use super::{mmu, panic};
use crate::features::{Cpuid, Features};
use crate::svm::efer;
use crate::svm::vmcb::flush;

const EFER: u32 = 0xc000_0080;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const CR4_OSXSAVE: u32 = 1 << 18;

/// One CPU with the vCPU that is pinned to it. Made once, by the CPU itself, and never changed.
pub struct Cpu {
    /// The way into the core for its vCPU.
    pub caller: Caller<'static, Pc>,
    /// What it has.
    pub features: Features,
    /// Machine address of its vCPU's control block.
    pub block: u64,
    /// Translations of the guest's that it may hold are void.
    stale: AtomicBool,
}

/// Where VMRUN keeps the hypervisor's state (APM volume 2, 15.30.4).
#[repr(C, align(4096))]
struct SaveArea([u8; 4096]);

impl Cpu {
    /// Has the next entry into the guest drop what this CPU holds of its translations.
    pub fn forget_translations(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// What TLB_CONTROL has to be for the next entry. `stale` says whether the nested tables have changed.
    pub fn flush(&self, stale: bool) -> u8 {
        let own = self.stale.load(Ordering::Relaxed);
        if !stale && !own {
            return flush::NOTHING;
        }
        self.stale.store(false, Ordering::Relaxed);
        if self.features.flush_by_asid {
            flush::GUEST
        } else {
            flush::ALL
        }
    }
}

/// A descriptor table of one CPU, and behind it the address of its record: SGDT finds both. No segment register is free
/// for that, as FS and GS stay the guest's while its CPU is in the hypervisor.
#[repr(C, align(16))]
struct Descriptors {
    null: u64,
    code: u64,
    data: u64,
    record: u64,
}

/// As in `entry.s`.
const CODE: u64 = 0x00af_9b00_0000_ffff;
/// As in `entry.s`.
const DATA: u64 = 0x00cf_9300_0000_ffff;
const DESCRIPTORS_LIMIT: u16 = 3 * 8 - 1;

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

fn record() -> u64 {
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: SGDT writes ten bytes, which `Pointer` has.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    let base = pointer.base as *const Descriptors;
    // SAFETY: the table is that of `entry.s` or of `start`; both have a word for the record behind the descriptors.
    unsafe { (*base).record }
}

/// This CPU's record. Only after [`start`] has run on it.
pub fn this() -> &'static Cpu {
    // SAFETY: the word holds the address of a leaked record from `start` on; only code that runs for a vCPU comes here.
    unsafe { &*(record() as *const Cpu) }
}

/// This CPU's record, if [`start`] has run on it.
pub fn try_this() -> Option<&'static Cpu> {
    (record() != 0).then(this)
}

/// Sets this CPU up to run its vCPU. From here on FS, GS and what VMLOAD loads are the guest's.
pub fn start(caller: Caller<'static, Pc>, features: Features) -> &'static Cpu {
    let vcpu = caller.vcpu.machine();
    let save_area: &'static SaveArea = Box::leak(Box::new(SaveArea([0; 4096])));
    // SAFETY: every CPU in long mode has this register.
    let extended = unsafe { read_msr(EFER) };
    // SAFETY: the CPU has SVM (`Features::read`), which changes nothing until VMRUN.
    unsafe { write_msr(EFER, extended | efer::SVME) };
    // SAFETY: the area is this CPU's for good.
    unsafe { write_msr(VM_HSAVE_PA, mmu::machine_address(&raw const *save_area)) };
    if ThisCpu.leaf(1, 0).ecx & XSAVE != 0 {
        // SAFETY: the CPU has XSAVE; the bit allows XSETBV, nothing else that the hypervisor does.
        unsafe {
            asm!("mov {0}, cr4", "or {0}, {bit}", "mov cr4, {0}", out(reg) _, bit = const CR4_OSXSAVE,
                options(nostack));
        }
    }
    let cpu: &'static Cpu = Box::leak(Box::new(Cpu {
        caller,
        features,
        block: vcpu.block_address(),
        stale: AtomicBool::new(true),
    }));
    let descriptors: &'static Descriptors = Box::leak(Box::new(Descriptors {
        null: 0,
        code: CODE,
        data: DATA,
        record: (&raw const *cpu) as u64,
    }));
    let pointer = Pointer {
        limit: DESCRIPTORS_LIMIT,
        base: (&raw const *descriptors) as u64,
    };
    // SAFETY: the same descriptors as those in use, at the same selectors; the table lives for good.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
    vcpu.prepare(caller.domain.machine());
    panic::watch();
    cpu
}

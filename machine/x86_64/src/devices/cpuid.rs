//! What CPUID says to a guest: an allow-list over what the CPU says, and Xen's own leaves.
//!
//! A feature is shown if it needs nothing of the hypervisor, or if the hypervisor provides it (x2APIC, TSC deadline).
//! Whatever isn't listed reads as "not there". Vendor and topology are the CPU's: a vCPU stays on its CPU, and Linux
//! chooses VMMCALL by the vendor.
//!
//! AMD APM vol. 3, appendix E; Intel SDM vol. 2A, CPUID; Xen's `arch-x86/cpuid.h`.

use crate::features::{Cpuid, Leaf};

/// Where Xen's leaves begin. A parent hypervisor's are hidden: what they offer, such as a clock in memory that it writes or
/// hypercalls of its own, is an agreement with us, not with the domain.
pub const XEN_BASE: u32 = 0x4000_0000;

/// The leaves of one vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The vCPU's number, which Xen's leaf reports.
    pub vcpu: u32,
    /// The domain's number, likewise.
    pub domain: u16,
    /// The vCPU's APIC ID, that of its CPU.
    pub apic_id: u32,
    /// Xen's version, major in the upper half.
    pub xen_version: u32,
    /// The TSC's frequency in kHz, 0 if unknown.
    pub tsc_khz: u32,
    /// As in the vCPU's time record: nanoseconds are (TSC shifted left by `tsc_shift`, negative: right) times this,
    /// divided by 2^32.
    pub tsc_multiplier: u32,
    /// See `tsc_multiplier`.
    pub tsc_shift: i8,
}

const HIGHEST_BASIC: u32 = 0x16;
const HIGHEST_EXTENDED: u32 = 0x8000_0021;
const EXTENDED: u32 = 0x8000_0000;

const fn bits<const N: usize>(list: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < N {
        mask |= 1 << list[index];
        index += 1;
    }
    mask
}

const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
const APIC: u32 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;

/// Without MONITOR (3), VMX, SMX, thermal and debug interfaces, PDCM (15).
const LEAF1_ECX: u32 = bits([0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Without MCE (7) and MCA (14), debug store, thermal interfaces.
const LEAF1_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26, 28,
]);
/// Without TSC adjust (1), SGX (2), resource control (12, 15), MPX (14), processor trace (25).
const LEAF7_EBX: u32 = bits([
    0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31,
]);
/// Without protection keys (3) and shadow stacks (7), whose state the hypervisor doesn't allow, and 57-bit addresses (16).
const LEAF7_ECX: u32 = bits([1, 2, 6, 8, 9, 10, 11, 12, 14, 22]);
/// Fast short REP MOV, AVX-512 VP2INTERSECT, speculation control.
const LEAF7_EDX: u32 = bits([4, 8, 26, 27, 31]);
/// Without SVM (2), extended APIC space (3), OSVW (9), IBS (10), SKINIT (12), watchdog (13), LWP (15), node ID (19), counters
/// (23, 24, 28), breakpoint extension (26), MWAITX (29).
const EXT1_ECX: u32 = bits([0, 1, 4, 5, 6, 7, 8, 11, 16, 17, 21, 22]);
/// Leaf 1's, and SYSCALL, NX, MMX extensions, FFXSR, 1 GiB pages, RDTSCP, long mode, 3DNow!.
const EXT1_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29, 30, 31,
]);
/// The TSC runs at one rate in every state.
const EXT7_EDX: u32 = bits([8]);
/// CLZERO, error pointers, WBNOINVD, speculation control.
const EXT8_EBX: u32 = bits([0, 2, 9, 12, 14, 15, 16, 17, 18, 24, 26]);
/// LFENCE serialises, null selectors clear the base.
const EXT21_EAX: u32 = bits([2, 6]);

/// State components of XCR0 that a guest may turn on: x87, SSE, AVX, AVX-512.
pub const XCR0_ALLOWED: u32 = 0b1110_0111;
/// XSAVEOPT, XSAVEC, XGETBV with ECX 1; not XSAVES, whose MSR isn't there.
const LEAF13_1_EAX: u32 = 0b111;
/// The legacy region and the header.
const XSAVE_LEAST: u32 = 576;

impl Policy {
    /// CPUID with `leaf` in EAX and `subleaf` in ECX. `host` is what the CPU says, executed with the guest's XCR0;
    /// `cr4` is the guest's.
    pub fn answer(&self, leaf: u32, subleaf: u32, cr4: u64, host: &impl Cpuid) -> Leaf {
        match leaf {
            0..=HIGHEST_BASIC => {
                if leaf > host.leaf(0, 0).eax {
                    return Leaf::default();
                }
                self.basic(leaf, subleaf, cr4, host)
            }
            XEN_BASE..=0x4fff_ffff => self.xen(leaf - XEN_BASE, subleaf),
            EXTENDED..=HIGHEST_EXTENDED => {
                if leaf > host.leaf(EXTENDED, 0).eax {
                    return Leaf::default();
                }
                extended(leaf, subleaf, host)
            }
            _ => Leaf::default(),
        }
    }

    fn basic(&self, leaf: u32, subleaf: u32, cr4: u64, host: &impl Cpuid) -> Leaf {
        let cpu = host.leaf(leaf, subleaf);
        match leaf {
            0 => Leaf {
                eax: cpu.eax.min(HIGHEST_BASIC),
                ..cpu
            },
            1 => {
                let osxsave = cr4 & CR4_OSXSAVE != 0 && cpu.ecx & XSAVE != 0;
                Leaf {
                    ebx: cpu.ebx & 0x00ff_ffff | self.apic_id << 24,
                    ecx: cpu.ecx & LEAF1_ECX
                        | X2APIC
                        | TSC_DEADLINE
                        | HYPERVISOR
                        | if osxsave { OSXSAVE } else { 0 },
                    edx: cpu.edx & LEAF1_EDX | APIC,
                    ..cpu
                }
            }
            // Caches and TLBs; AMD has neither, Intel both.
            2 | 4 => cpu,
            // The APIC timer doesn't stop in idle states: it is software's.
            6 => Leaf {
                eax: 1 << 2,
                ..Leaf::default()
            },
            7 if subleaf == 0 => Leaf {
                eax: 0,
                ebx: cpu.ebx & LEAF7_EBX,
                ecx: cpu.ecx & LEAF7_ECX,
                edx: cpu.edx & LEAF7_EDX,
            },
            // Topology: EDX is the x2APIC ID of the CPU.
            0xb => Leaf {
                edx: self.apic_id,
                ..cpu
            },
            0xd => state(subleaf, cpu, host),
            // The TSC's and the CPU's frequency.
            0x15 | 0x16 => cpu,
            _ => Leaf::default(),
        }
    }

    fn xen(&self, index: u32, subleaf: u32) -> Leaf {
        // Virtualised xAPIC and x2APIC: Linux then leaves MSI alone and uses no event channels for it. The IDs are valid.
        // Upcalls can have a vector for each vCPU, but that isn't said (bit 6): Linux would end each at its local APIC then,
        // an exit more.
        const FEATURES: u32 = bits([0, 1, 3, 4]);
        // The TSC is never emulated, and the host's can be relied on.
        const TSC_MODE: u32 = 2;
        const TSC_RELIABLE: u32 = 1 << 1;
        match (index, subleaf) {
            (0, _) => Leaf {
                eax: XEN_BASE + 4,
                ebx: u32::from_le_bytes(*b"XenV"),
                ecx: u32::from_le_bytes(*b"MMXe"),
                edx: u32::from_le_bytes(*b"nVMM"),
            },
            (1, _) => Leaf {
                eax: self.xen_version,
                ..Leaf::default()
            },
            (2, _) => Leaf {
                eax: 1,
                ebx: super::msr::MSR_HYPERCALL_PAGE,
                ..Leaf::default()
            },
            (3, 0) => Leaf {
                eax: TSC_RELIABLE,
                ebx: TSC_MODE,
                ecx: self.tsc_khz,
                edx: 0,
            },
            // The offset between guest's and host's is zero.
            (3, 1) => Leaf {
                ecx: self.tsc_multiplier,
                edx: i32::from(self.tsc_shift).cast_unsigned(),
                ..Leaf::default()
            },
            (3, 2) => Leaf {
                eax: self.tsc_khz,
                ..Leaf::default()
            },
            (4, _) => Leaf {
                eax: FEATURES,
                ebx: self.vcpu,
                ecx: u32::from(self.domain),
                edx: 0,
            },
            _ => Leaf::default(),
        }
    }
}

/// Leaf 13: extended state.
fn state(subleaf: u32, cpu: Leaf, host: &impl Cpuid) -> Leaf {
    match subleaf {
        0 => {
            let components = cpu.eax & XCR0_ALLOWED;
            let size = (2..8)
                .filter(|component| components & 1 << component != 0)
                .map(|component| host.leaf(0xd, component))
                .map(|place| place.ebx.saturating_add(place.eax))
                .fold(XSAVE_LEAST, u32::max);
            Leaf {
                eax: components,
                ebx: cpu.ebx,
                ecx: size,
                edx: 0,
            }
        }
        1 => Leaf {
            eax: cpu.eax & LEAF13_1_EAX,
            ebx: cpu.ebx,
            ..Leaf::default()
        },
        2..8 if XCR0_ALLOWED & 1 << subleaf != 0 => cpu,
        _ => Leaf::default(),
    }
}

/// The leaves from 0x80000000 on.
fn extended(leaf: u32, subleaf: u32, host: &impl Cpuid) -> Leaf {
    let cpu = host.leaf(leaf, subleaf);
    match leaf & 0xff {
        0 => Leaf {
            eax: cpu.eax.min(HIGHEST_EXTENDED),
            ..cpu
        },
        1 => {
            // On Intel's CPUs bit 9 and those below mean nothing here.
            let apic = if cpu.edx & 1 != 0 { APIC } else { 0 };
            Leaf {
                ecx: cpu.ecx & EXT1_ECX,
                edx: cpu.edx & EXT1_EDX | apic,
                ..cpu
            }
        }
        // Name, caches, TLBs; from 0x19 on TLBs for 1 GiB, hints, cache properties, topology.
        2..=6 | 0x19 | 0x1a | 0x1d | 0x1e => cpu,
        7 => Leaf {
            edx: cpu.edx & EXT7_EDX,
            ..Leaf::default()
        },
        8 => Leaf {
            ebx: cpu.ebx & EXT8_EBX,
            edx: 0,
            ..cpu
        },
        0x21 => Leaf {
            eax: cpu.eax & EXT21_EAX,
            ..Leaf::default()
        },
        _ => Leaf::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        vcpu: 1,
        domain: 0,
        apic_id: 3,
        xen_version: 4 << 16 | 20,
        tsc_khz: 2_500_000,
        tsc_multiplier: 0xcccc_cccc,
        tsc_shift: -1,
    };

    struct Cpu<F>(F);

    impl<F: Fn(u32, u32) -> Leaf> Cpuid for Cpu<F> {
        fn leaf(&self, leaf: u32, subleaf: u32) -> Leaf {
            self.0(leaf, subleaf)
        }
    }

    /// A CPU with every feature there could be.
    const ALL: &Cpu<fn(u32, u32) -> Leaf> = &Cpu(all);

    fn all(leaf: u32, subleaf: u32) -> Leaf {
        let ones = Leaf {
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
        };
        match (leaf, subleaf) {
            (0, _) => Leaf { eax: 0x20, ..ones },
            (EXTENDED, _) => Leaf {
                eax: 0x8000_00ff,
                ..ones
            },
            (0xd, 2) => Leaf {
                eax: 256,
                ebx: 576,
                ..Leaf::default()
            },
            (0xd, 5..=7) => Leaf {
                eax: 64,
                ebx: 1088 + 64 * (subleaf - 5),
                ..Leaf::default()
            },
            (0xd, 9) => Leaf {
                eax: 8,
                ebx: 2688,
                ..Leaf::default()
            },
            _ => ones,
        }
    }

    #[test]
    fn what_the_hypervisor_has_or_provides() {
        let one = POLICY.answer(1, 0, 0, ALL);
        assert_eq!(one.ecx & 1 << 3, 0, "MONITOR");
        assert_eq!(one.ecx & 1 << 5, 0, "VMX");
        assert_ne!(one.ecx & X2APIC, 0);
        assert_ne!(one.ecx & TSC_DEADLINE, 0);
        assert_ne!(one.ecx & HYPERVISOR, 0);
        assert_eq!(one.ebx >> 24, 3);
        assert_eq!(POLICY.answer(0x8000_0001, 0, 0, ALL).ecx & 1 << 2, 0, "SVM");
        assert_eq!(POLICY.answer(0x8000_000a, 0, 0, ALL), Leaf::default());
        assert_eq!(POLICY.answer(0x8000_001f, 0, 0, ALL), Leaf::default());
        assert_eq!(
            POLICY.answer(0x8000_0007, 0, 0, ALL).edx,
            1 << 8,
            "invariant TSC"
        );
        assert_eq!(POLICY.answer(5, 0, 0, ALL), Leaf::default());
        assert_eq!(POLICY.answer(0xa, 0, 0, ALL), Leaf::default());
        assert_eq!(POLICY.answer(0xb, 1, 0, ALL).edx, 3);
        // A CPU that has nothing still gets what is software's.
        let old = Cpu(|leaf, _| Leaf {
            eax: if leaf == 0 { 1 } else { 0 },
            ..Leaf::default()
        });
        let one = POLICY.answer(1, 0, CR4_OSXSAVE, &old);
        assert_eq!(one.ecx, X2APIC | TSC_DEADLINE | HYPERVISOR);
        assert_eq!(one.edx, APIC);
    }

    #[test]
    fn osxsave_follows_the_guests_cr4() {
        assert_eq!(POLICY.answer(1, 0, 0, ALL).ecx & OSXSAVE, 0);
        assert_ne!(POLICY.answer(1, 0, CR4_OSXSAVE, ALL).ecx & OSXSAVE, 0);
    }

    #[test]
    fn the_xsave_area_has_the_size_of_what_is_allowed() {
        let state = POLICY.answer(0xd, 0, 0, ALL);
        assert_eq!(state.eax, XCR0_ALLOWED);
        assert_eq!(state.ecx, 1088 + 2 * 64 + 64);
        assert_eq!(POLICY.answer(0xd, 9, 0, ALL), Leaf::default());
        assert_ne!(POLICY.answer(0xd, 2, 0, ALL), Leaf::default());
    }

    #[test]
    fn xens_leaves_are_where_a_parents_would_be() {
        let leaf = POLICY.answer(XEN_BASE, 0, 0, ALL);
        let name = (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx);
        assert_eq!(name, (XEN_BASE + 4, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e));
        for elsewhere in (XEN_BASE + 0x100..XEN_BASE + 0x1_0000).step_by(0x100) {
            assert_eq!(POLICY.answer(elsewhere, 0, 0, ALL), Leaf::default());
        }
        assert_eq!(POLICY.answer(XEN_BASE + 1, 0, 0, ALL).eax, 0x4_0014);
        assert_eq!(POLICY.answer(XEN_BASE + 2, 0, 0, ALL).ebx, 0x4000_0000);
        assert_eq!(POLICY.answer(XEN_BASE + 3, 1, 0, ALL).edx, u32::MAX);
        let features = POLICY.answer(XEN_BASE + 4, 0, 0, ALL);
        assert_eq!((features.eax, features.ebx), (0b001_1011, 1));
    }

    proptest! {
        /// Nothing is shown of a leaf that nobody looked at, nor a feature that the CPU lacks and software doesn't give.
        #[test]
        fn leaves_out_of_range_are_empty(leaf: u32, subleaf: u32, cr4: u64) {
            let answer = POLICY.answer(leaf, subleaf, cr4, ALL);
            let known = leaf <= HIGHEST_BASIC
                || (XEN_BASE..XEN_BASE + 5).contains(&leaf)
                || (EXTENDED..=HIGHEST_EXTENDED).contains(&leaf);
            prop_assert!(known || answer == Leaf::default());
        }

        #[test]
        fn masks_only_take_away(leaf in prop::sample::select(vec![7_u32, 0x8000_0001, 0x8000_0007, 0x8000_0008]), value: u32) {
            let cpu = Cpu(|asked, _| match asked {
                0 => Leaf { eax: 0xd, ..Leaf::default() },
                EXTENDED => Leaf { eax: 0x8000_0021, ..Leaf::default() },
                _ => Leaf { eax: 0, ebx: value, ecx: value, edx: value },
            });
            let answer = POLICY.answer(leaf, 0, 0, &cpu);
            let apic = if leaf == 0x8000_0001 { APIC } else { 0 };
            prop_assert_eq!(answer.ebx & !value, 0);
            prop_assert_eq!(answer.ecx & !value, 0);
            prop_assert_eq!(answer.edx & !(value | apic), 0);
        }
    }
}

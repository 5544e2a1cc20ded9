//! What the hypervisor needs and likes of a CPU, read from CPUID. AMD64 Architecture Programmer's
//! Manual (APM) volume 3, appendix E.

/// The registers that CPUID answers in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// A CPU's answers to CPUID.
pub trait Cpuid {
    /// The answer for EAX = `leaf`, ECX = `subleaf`.
    fn leaf(&self, leaf: u32, subleaf: u32) -> Leaf;
}

/// Why the hypervisor can't run on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// CPUID 8000_0001 ECX.SVM is clear.
    Svm,
    /// CPUID 8000_000A EDX.NP is clear.
    NestedPaging,
    /// CPUID 8000_0001 EDX.NX is clear.
    NoExecute,
}

impl Missing {
    /// The code and the sentence on the console.
    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Svm => ("no-svm", "this CPU has no SVM; QEMU: -cpu EPYC, or +svm"),
            Self::NestedPaging => (
                "no-nested-paging",
                "this CPU's SVM has no nested paging; QEMU: +npt",
            ),
            Self::NoExecute => ("no-nx", "this CPU can't forbid execution of a page"),
        }
    }
}

/// What a CPU that the hypervisor can run on has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Pages of 1 GiB, in the hypervisor's tables and in nested ones.
    pub gigabyte_pages: bool,
    /// Width of a machine address in bits.
    pub address_bits: u8,
    /// VMEXIT stores the address of the next instruction.
    pub next_rip: bool,
    /// TLB_CONTROL can drop one address space only.
    pub flush_by_asid: bool,
    /// VMEXIT stores the bytes of the instruction, and which segment it uses.
    pub decode_assists: bool,
}

impl Features {
    /// Reads the features.
    ///
    /// # Errors
    /// The first thing that is [`Missing`].
    pub fn read(cpu: &impl Cpuid) -> Result<Self, Missing> {
        let last = cpu.leaf(0x8000_0000, 0).eax;
        let extended = |leaf| {
            if leaf <= last {
                cpu.leaf(leaf, 0)
            } else {
                Leaf::default()
            }
        };
        let basic = extended(0x8000_0001);
        if basic.ecx & 1 << 2 == 0 {
            return Err(Missing::Svm);
        }
        let svm = extended(0x8000_000a);
        if svm.edx & 1 == 0 {
            return Err(Missing::NestedPaging);
        }
        if basic.edx & 1 << 20 == 0 {
            return Err(Missing::NoExecute);
        }
        // Without the leaf an address has 36 bits; tables of four levels reach 48.
        let bits = extended(0x8000_0008).eax & 0xff;
        let address_bits = match bits {
            0 => 36,
            wide => wide.min(48) as u8,
        };
        Ok(Self {
            gigabyte_pages: basic.edx & 1 << 26 != 0,
            address_bits,
            next_rip: svm.edx & 1 << 3 != 0,
            flush_by_asid: svm.edx & 1 << 6 != 0,
            decode_assists: svm.edx & 1 << 7 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        basic: (u32, u32),
        svm: u32,
    }

    impl Cpuid for Fake {
        fn leaf(&self, leaf: u32, _: u32) -> Leaf {
            let mut answer = Leaf::default();
            match leaf {
                0x8000_0000 => answer.eax = 0x8000_000a,
                0x8000_0001 => (answer.ecx, answer.edx) = self.basic,
                0x8000_0008 => answer.eax = 0x3028,
                0x8000_000a => answer.edx = self.svm,
                _ => {}
            }
            answer
        }
    }

    #[test]
    fn the_first_missing_feature_is_named() {
        let mut cpu = Fake {
            basic: (0, 0),
            svm: 0,
        };
        assert_eq!(Features::read(&cpu), Err(Missing::Svm));
        cpu.basic = (1 << 2, 0);
        assert_eq!(Features::read(&cpu), Err(Missing::NestedPaging));
        cpu.svm = 1;
        assert_eq!(Features::read(&cpu), Err(Missing::NoExecute));
        cpu.basic = (1 << 2, 1 << 20);
        let expected = Features {
            gigabyte_pages: false,
            address_bits: 40,
            next_rip: false,
            flush_by_asid: false,
            decode_assists: false,
        };
        assert_eq!(Features::read(&cpu), Ok(expected));
    }
}

//! System registers that `aarch64-cpu` doesn't name.

/// Reads a system register whose read has no side effect.
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register has no side effect, and whoever reads it knows that the CPU
        // has it.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value,
                options(nomem, nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register that controls the guest or what of it traps, and nothing of EL2's own
/// memory or control flow.
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register affects EL1 and EL0 only, by the rule above; whoever writes it knows
        // that the CPU has it.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value,
                options(nostack, preserves_flags))
        };
    }};
}

pub(crate) use {read_register, write_register};

/// The ID registers of this CPU, by CRm * 8 + op2.
pub fn host_id_registers() -> [u64; 64] {
    let mut all = [0; 64];
    macro_rules! read {
        ($($place:literal $name:literal)*) => { $( all[$place] = read_register!($name); )* };
    }
    // All of op0 3, op1 0, CRn 0, CRm 1 to 7 is readable: what isn't allocated reads as zero.
    read!(
        8 "s3_0_c0_c1_0" 9 "s3_0_c0_c1_1" 10 "s3_0_c0_c1_2" 11 "s3_0_c0_c1_3"
        12 "s3_0_c0_c1_4" 13 "s3_0_c0_c1_5" 14 "s3_0_c0_c1_6" 15 "s3_0_c0_c1_7"
        16 "s3_0_c0_c2_0" 17 "s3_0_c0_c2_1" 18 "s3_0_c0_c2_2" 19 "s3_0_c0_c2_3"
        20 "s3_0_c0_c2_4" 21 "s3_0_c0_c2_5" 22 "s3_0_c0_c2_6" 23 "s3_0_c0_c2_7"
        24 "s3_0_c0_c3_0" 25 "s3_0_c0_c3_1" 26 "s3_0_c0_c3_2" 28 "s3_0_c0_c3_4"
        29 "s3_0_c0_c3_5" 30 "s3_0_c0_c3_6"
        32 "s3_0_c0_c4_0" 33 "s3_0_c0_c4_1" 36 "s3_0_c0_c4_4" 37 "s3_0_c0_c4_5"
        40 "s3_0_c0_c5_0" 41 "s3_0_c0_c5_1"
        48 "s3_0_c0_c6_0" 49 "s3_0_c0_c6_1" 50 "s3_0_c0_c6_2" 51 "s3_0_c0_c6_3"
        56 "s3_0_c0_c7_0" 57 "s3_0_c0_c7_1" 58 "s3_0_c0_c7_2" 59 "s3_0_c0_c7_3"
        60 "s3_0_c0_c7_4"
    );
    all
}

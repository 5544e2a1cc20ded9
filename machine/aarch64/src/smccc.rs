//! Numbers of the SMC Calling Convention (DEN 0028) and PSCI (DEN 0022), as guests call them.

/// The 64-bit form of a function that also has a 32-bit form.
pub const SMC64: u32 = 1 << 30;

/// SMCCC_VERSION.
pub const VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const ARCH_FEATURES: u32 = 0x8000_0001;
/// SMCCC_ARCH_WORKAROUND_1.
pub const WORKAROUND_1: u32 = 0x8000_8000;
/// SMCCC_ARCH_WORKAROUND_2.
pub const WORKAROUND_2: u32 = 0x8000_7fff;
/// SMCCC_ARCH_WORKAROUND_3.
pub const WORKAROUND_3: u32 = 0x8000_3fff;

/// PSCI_VERSION.
pub const PSCI_VERSION: u32 = 0x8400_0000;
/// CPU_SUSPEND.
pub const CPU_SUSPEND: u32 = 0x8400_0001;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_ON.
pub const CPU_ON: u32 = 0x8400_0003;
/// AFFINITY_INFO.
pub const AFFINITY_INFO: u32 = 0x8400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES.
pub const PSCI_FEATURES: u32 = 0x8400_000a;
/// SYSTEM_RESET2.
pub const SYSTEM_RESET2: u32 = 0x8400_0012;

/// SMCCC 1.1, and PSCI 1.1: the same number.
pub const VERSION_1_1: u64 = 0x1_0001;
/// No error.
pub const SUCCESS: u64 = 0;
/// Unknown function, or a feature that isn't there.
pub const NOT_SUPPORTED: u64 = (-1i64).cast_unsigned();
/// INVALID_PARAMETERS.
pub const INVALID_PARAMETERS: u64 = (-2i64).cast_unsigned();
/// ALREADY_ON.
pub const ALREADY_ON: u64 = (-4i64).cast_unsigned();
/// INTERNAL_FAILURE.
pub const INTERNAL_FAILURE: u64 = (-6i64).cast_unsigned();
/// INVALID_ADDRESS.
pub const INVALID_ADDRESS: u64 = (-9i64).cast_unsigned();
/// AFFINITY_INFO: the CPU is on.
pub const AFFINITY_ON: u64 = 0;
/// AFFINITY_INFO: the CPU is off.
pub const AFFINITY_OFF: u64 = 1;
/// MIGRATE_INFO_TYPE: no trusted OS that would have to migrate.
pub const NO_MIGRATION: u64 = 2;

/// SMCCC_ARCH_FEATURES: the workaround is there, but this CPU doesn't need it.
pub const NOT_REQUIRED: u64 = 1;

/// The workaround that a CPU needs before it runs the hypervisor's branches with predictors that a guest has trained, by
/// what the firmware's SMCCC_ARCH_FEATURES says of each on this CPU. The third does what the first does, and more.
pub fn branch_workaround(feature: impl Fn(u32) -> u64) -> Option<u32> {
    let needed = |&function: &u32| feature(function) == SUCCESS;
    [WORKAROUND_3, WORKAROUND_1].into_iter().find(needed)
}

/// What SMCCC_ARCH_FEATURES says to a guest of a function that it may ask for, given the firmware's answer. Loads never pass
/// stores whose address isn't known: the hypervisor has that on for good, so no guest needs the second workaround.
pub fn guest_feature(function: u32, firmware: u64) -> u64 {
    match (function, firmware) {
        (WORKAROUND_2, SUCCESS) => NOT_REQUIRED,
        (_, SUCCESS) => SUCCESS,
        (_, NOT_REQUIRED) => NOT_REQUIRED,
        _ => NOT_SUPPORTED,
    }
}

/// What PSCI_FEATURES says of a function: the functions that have no 64-bit form are known by the
/// 32-bit number only (DEN 0022, 5.1).
pub fn psci_feature(function: u64) -> u64 {
    let known = match u32::try_from(function) {
        Ok(
            VERSION | PSCI_VERSION | PSCI_FEATURES | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF
            | SYSTEM_RESET,
        ) => true,
        Ok(function) => matches!(
            function & !SMC64,
            CPU_ON | AFFINITY_INFO | CPU_SUSPEND | SYSTEM_RESET2
        ),
        Err(_) => false,
    };
    if known { SUCCESS } else { NOT_SUPPORTED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_workaround_goes_first_and_none_if_none_is_needed() {
        let offers = |offered: &'static [(u32, u64)]| {
            move |function| {
                let found = offered.iter().find(|(known, _)| *known == function);
                found.map_or(NOT_SUPPORTED, |&(_, answer)| answer)
            }
        };
        let all = offers(&[(WORKAROUND_1, SUCCESS), (WORKAROUND_3, SUCCESS)]);
        assert_eq!(branch_workaround(all), Some(WORKAROUND_3));
        let one = offers(&[(WORKAROUND_1, SUCCESS), (WORKAROUND_3, NOT_REQUIRED)]);
        assert_eq!(branch_workaround(one), Some(WORKAROUND_1));
        let none = offers(&[(WORKAROUND_1, NOT_REQUIRED), (WORKAROUND_2, SUCCESS)]);
        assert_eq!(branch_workaround(none), None);
        assert_eq!(branch_workaround(offers(&[])), None);
    }

    #[test]
    fn guests_hear_the_firmwares_answer_but_cant_have_the_second_workaround_off() {
        assert_eq!(guest_feature(WORKAROUND_1, SUCCESS), SUCCESS);
        assert_eq!(guest_feature(WORKAROUND_3, NOT_REQUIRED), NOT_REQUIRED);
        assert_eq!(guest_feature(WORKAROUND_1, 0xffff_ffff), NOT_SUPPORTED);
        assert_eq!(guest_feature(WORKAROUND_2, SUCCESS), NOT_REQUIRED);
        assert_eq!(guest_feature(WORKAROUND_2, NOT_SUPPORTED), NOT_SUPPORTED);
    }

    #[test]
    fn features_know_both_forms_where_there_are_two() {
        for function in [CPU_ON, AFFINITY_INFO, CPU_SUSPEND, SYSTEM_RESET2] {
            assert_eq!(psci_feature(function.into()), SUCCESS);
            assert_eq!(psci_feature((function | SMC64).into()), SUCCESS);
        }
        for function in [PSCI_VERSION, CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, VERSION] {
            assert_eq!(psci_feature(function.into()), SUCCESS);
            assert_eq!(psci_feature((function | SMC64).into()), NOT_SUPPORTED);
        }
        // MIGRATE, SYSTEM_SUSPEND, MEM_PROTECT, TRNG_VERSION, and more than a W register holds.
        for function in [0x8400_0005, 0x8400_000e, 0x8400_0013, 0x8400_0050, 1 << 40] {
            assert_eq!(psci_feature(function), NOT_SUPPORTED);
        }
    }
}

use super::fake::{self, DISTRIBUTOR, REDISTRIBUTORS};
use super::list::ListRegister;
use super::registers::{gicd, gicr};
use super::*;
use proptest::prelude::*;

#[test]
fn a_cpu_without_redistributor_is_an_error() {
    let (fake, gic) = fake::controller(false, 2);
    let mut facts = gic.facts().clone();
    facts.cpus.push(7);
    assert_eq!(
        Gic::new(fake, facts).err(),
        Some(Error::NoRedistributor { cpu: 2 })
    );
}

#[test]
fn a_gicv2_serves_eight_cpus() {
    let (fake, gic) = fake::controller(true, 2);
    let mut facts = gic.facts().clone();
    facts.cpus = (0..9).collect();
    assert_eq!(Gic::new(fake, facts).err(), Some(Error::TooManyCpus));
}

#[test]
fn redistributors_with_four_frames_are_walked() {
    let (fake, _) = fake::controller(false, 2);
    let base = REDISTRIBUTORS;
    let typer = fake.load(base + gicr::TYPER);
    fake.preset(base + gicr::TYPER, u64::from(typer) | gicr::TYPER_VLPIS);
    fake.preset(base + gicr::STRIDE_V4 + gicr::TYPER, 0);
    fake.preset(base + gicr::STRIDE_V4 + gicr::TYPER + 4, 1);
    let regions = [Window {
        start: base,
        bytes: 2 * gicr::STRIDE_V4,
    }];
    let found = v3::find_redistributor(&fake, &regions, 1);
    assert_eq!(found.map(|found| found.0), Some(base + gicr::STRIDE_V4));
}

#[test]
fn nothing_but_the_hypervisors_own_is_enabled_at_start() {
    for v2 in [false, true] {
        let (fake, gic) = fake::controller(v2, 2);
        gic.own(33, 1).expect("an SPI that nobody has");
        for intid in 0..288 {
            let own = [KICK, fake::MAINTENANCE, 33].contains(&intid);
            assert_eq!(fake.bit(gicd::ISENABLER, intid), own, "{intid}");
            let priority = if intid >= 32 {
                fake.read8(DISTRIBUTOR + gicd::IPRIORITYR + u64::from(intid))
            } else {
                continue;
            };
            assert_eq!(priority, if own { PRIORITY_OWN } else { PRIORITY_GUEST });
        }
    }
}

#[test]
fn an_spi_has_one_owner() {
    let (_, gic) = fake::controller(false, 1);
    assert_eq!(gic.own(40, 0), Ok(()));
    assert_eq!(gic.claim(40), Err(Error::NotFree { intid: 40 }));
    assert_eq!(gic.claim(31), Err(Error::NotFree { intid: 31 }));
    assert_eq!(gic.claim(288), Err(Error::NotFree { intid: 288 }));
    gic.release(40);
    assert_eq!(gic.claim(40), Ok(()));
}

#[test]
fn a_kick_names_the_cpu_by_its_affinity() {
    assert_eq!(
        v3::sgi(0, 0x0102_0305),
        (1 << 48) | (2 << 32) | (3 << 16) | (1 << 5)
    );
    // Aff0 above 15 takes the range selector.
    assert_eq!(v3::sgi(3, 0x25), (3 << 24) | (2 << 44) | (1 << 5));
}

#[test]
fn a_gicv2_software_interrupt_keeps_its_sender() {
    let acknowledged = Acknowledged::v2(0x1c05);
    assert_eq!(acknowledged.intid() & 0x3ff, 5);
    assert_eq!(acknowledged.v2_raw(), 0x1c05);
}

proptest! {
    #[test]
    fn list_registers_survive_gicv2s_format(intid in 0_u32..1020, priority in any::<u8>(), source in 0_u8..8) {
        let priority = priority & 0xf8;
        for lr in [ListRegister::software(intid, priority, source), ListRegister::hardware(intid, priority)] {
            prop_assert_eq!(ListRegister::from_v2(lr.to_v2()), lr);
            prop_assert_eq!(lr.intid(), intid);
            prop_assert_eq!(lr.priority(), priority);
            prop_assert!(lr.is_pending() && !lr.is_active());
        }
    }
}

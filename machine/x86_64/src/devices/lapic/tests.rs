use super::*;
use core::cell::{Cell, RefCell};
use proptest::prelude::*;

const TICK: u32 = 4;

#[derive(Default)]
struct Bed {
    now: Cell<u64>,
    kicked: RefCell<Vec<usize>>,
    ended: RefCell<Vec<u8>>,
}

impl Platform for Bed {
    fn tsc(&self) -> u64 {
        self.now.get()
    }
    fn kick(&self, vcpu: usize) {
        self.kicked.borrow_mut().push(vcpu);
    }
    fn level_ended(&self, _vcpu: usize, vector: u8) {
        self.ended.borrow_mut().push(vector);
    }
}

fn msr(offset: u32) -> u32 {
    MSR_X2APIC_FIRST + offset / 16
}

/// vCPU 0 of a domain, enabled, in x2APIC mode.
fn x2apic(apics: &Apics) -> LocalApic<'_> {
    let mut apic = LocalApic::new(apics, 0, TICK).unwrap();
    apic.set_base(apic.base() | 1 << 10).unwrap();
    apic.msr_write(msr(0xf0), 0x1ff, &Bed::default()).unwrap();
    apic
}

impl LocalApic<'_> {
    /// The CPU takes `vector` at once, if it is the next; whether it was.
    fn acknowledge(&mut self, vector: u8) -> bool {
        if self.next() != Some(vector) {
            return false;
        }
        self.offer();
        self.accept(vector);
        true
    }
}

/// All other vCPUs enable theirs.
fn enable(apics: &Apics, vcpus: impl IntoIterator<Item = usize>) {
    for vcpu in vcpus {
        let mut apic = LocalApic::new(apics, vcpu, TICK).unwrap();
        apic.mmio_write(0xf0, 0x1ff, &Bed::default());
    }
}

#[test]
fn reset_values_are_the_architectures() {
    let apics = Apics::new(&[7]);
    let bed = Bed::default();
    let mut apic = LocalApic::new(&apics, 0, TICK).unwrap();
    assert_eq!(apic.base(), 0xfee0_0900);
    assert_eq!(apic.mmio_read(0x20, &bed), 7 << 24);
    assert_eq!(apic.mmio_read(0x30, &bed), 0x0005_0014);
    assert_eq!(apic.mmio_read(0xe0, &bed), u32::MAX);
    assert_eq!(apic.mmio_read(0xf0, &bed), 0xff);
    for lvt in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        assert_eq!(apic.mmio_read(lvt, &bed), LVT_MASKED);
    }
    assert!(LocalApic::new(&apics, 1, TICK).is_none());
}

#[test]
fn a_higher_class_goes_first_and_interrupts() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    let inbox = apics.inbox(0).unwrap();
    inbox.post(0x31, false);
    inbox.post(0x52, false);
    assert_eq!(apic.next(), Some(0x52));
    assert!(apic.acknowledge(0x52));
    assert_eq!(apic.next(), None);
    inbox.post(0x5f, false);
    assert_eq!(apic.next(), None, "the same class waits");
    inbox.post(0x61, false);
    assert_eq!(apic.next(), Some(0x61));
    assert!(apic.acknowledge(0x61));
    assert_eq!(apic.processor_priority(), 0x60);
    apic.end_of_interrupt(&bed);
    apic.end_of_interrupt(&bed);
    assert_eq!(apic.next(), Some(0x5f));
    assert!(!apic.acknowledge(0x40), "it isn't pending");
}

#[test]
fn the_task_priority_holds_back_its_class_and_those_below() {
    let apics = Apics::new(&[0]);
    let mut apic = x2apic(&apics);
    apics.inbox(0).unwrap().post(0x4f, false);
    apic.set_cr8(4);
    assert_eq!(apic.next(), None);
    assert_eq!(
        apic.msr_read(msr(0x80), &Bed::default()),
        Ok(0x40),
        "CR8 is the upper half"
    );
    apic.set_cr8(3);
    assert_eq!(apic.next(), Some(0x4f));
}

#[test]
fn the_end_of_a_level_interrupt_is_told_and_that_of_an_edge_is_not() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    let inbox = apics.inbox(0).unwrap();
    inbox.post(0x40, true);
    assert!(apic.acknowledge(0x40));
    apic.msr_write(msr(0xb0), 0, &bed).unwrap();
    assert_eq!(*bed.ended.borrow(), [0x40]);
    inbox.post(0x40, false);
    assert!(apic.acknowledge(0x40));
    apic.msr_write(msr(0xb0), 0, &bed).unwrap();
    assert_eq!(*bed.ended.borrow(), [0x40]);
    apic.msr_write(msr(0xb0), 0, &bed).unwrap();
}

#[test]
fn a_disabled_apic_takes_no_vector_but_nmi_init_and_start_up() {
    let apics = Apics::new(&[0, 1]);
    let inbox = apics.inbox(1).unwrap();
    assert!(inbox.post(0x40, false));
    assert_eq!((inbox.highest(), inbox.has_events()), (None, false));
    inbox.post_start_up(1);
    inbox.post_nmi();
    inbox.post_init();
    inbox.post_start_up(0x9a);
    assert!(inbox.has_events());
    let expected = Events {
        nmi: true,
        init: true,
        start_up: Some(0x9a),
    };
    assert_eq!(inbox.take_events(), expected);
    assert_eq!(inbox.take_events(), Events::default());
    assert!(!inbox.post(15, false), "no legal vector");
}

#[test]
fn what_arrives_after_an_offer_waits_anew() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    let inbox = apics.inbox(0).unwrap();
    inbox.post(0x41, true);
    assert_eq!(apic.offer(), Some(0x41));
    assert_eq!(apic.next(), None);
    apic.withdraw(0x41);
    assert_eq!(apic.offer(), Some(0x41), "not taken: pending again");
    inbox.post(0x41, true);
    apic.accept(0x41);
    assert_eq!(apic.next(), None, "the same class waits");
    apic.end_of_interrupt(&bed);
    assert_eq!(apic.next(), Some(0x41));
    assert_eq!(bed.ended.into_inner(), [0x41]);
}

#[test]
fn the_cpu_itself_looks_at_the_task_priority() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    apics.inbox(0).unwrap().post(0x41, false);
    apic.set_cr8(4);
    assert_eq!(apic.next(), None);
    assert_eq!(apic.offer(), Some(0x41));
    apic.withdraw(0x41);
    apic.set_cr8(0);
    assert!(apic.acknowledge(0x41));
    apic.end_of_interrupt(&bed);
    assert_eq!(apic.offer(), None);
}

#[test]
fn an_upcall_waits_for_the_apic() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let inbox = apics.inbox(0).unwrap();
    let mut apic = LocalApic::new(&apics, 0, TICK).unwrap();
    inbox.post_upcall(0xf3);
    inbox.post_upcall(3);
    apic.init();
    assert_eq!(apic.next(), None);
    assert_eq!(apic.mmio_read(0x270, &bed), 0, "the request register");
    apic.mmio_write(0xf0, 0x1ff, &bed);
    assert_eq!(apic.mmio_read(0x270, &bed), 1 << 19);
    assert_eq!(apic.next(), Some(0xf3));
    assert!(apic.acknowledge(0xf3));
    assert_eq!(apic.next(), None);
    apic.mmio_write(0xf0, 0xff, &bed);
    inbox.post_upcall(0xf3);
    apic.reset();
    apic.mmio_write(0xf0, 0x1ff, &bed);
    assert_eq!(apic.next(), None, "a reset forgets it");
}

#[test]
fn commands_reach_whom_they_name() {
    let ids = [0, 1, 2, 0x15];
    // (low word, destination, who gets the vector)
    let cases: [(u32, u32, &[usize]); 12] = [
        (0x0_0040, 2, &[2]),
        (0x0_0040, 0x15, &[3]),
        (0x0_0040, 3, &[]),
        (0x0_0040, u32::MAX, &[0, 1, 2, 3]),
        (0x0_0840, 0b110, &[1, 2]),
        (0x0_0940, 0b110, &[1]),
        (0x0_0840, 1 << 16 | 1 << 5, &[3]),
        (0x4_0040, 9, &[0]),
        (0x8_0040, 9, &[0, 1, 2, 3]),
        (0xc_0040, 9, &[1, 2, 3]),
        (0x0_0240, 1, &[]),
        (0x0_0740, 1, &[]),
    ];
    for (low, destination, expected) in cases {
        let apics = Apics::new(&ids);
        enable(&apics, 1..4);
        for vcpu in 1..4 {
            let mut other = LocalApic::new(&apics, vcpu, TICK).unwrap();
            other.set_base(other.base() | 1 << 10).unwrap();
        }
        let bed = Bed::default();
        let mut apic = x2apic(&apics);
        let value = u64::from(destination) << 32 | u64::from(low);
        apic.msr_write(msr(0x300), value, &bed).unwrap();
        let got: Vec<_> = (0..4)
            .filter(|vcpu| apics.inbox(*vcpu).unwrap().highest() == Some(0x40))
            .collect();
        assert_eq!(got, expected, "{low:#x} to {destination:#x}");
        let kicked: Vec<_> = expected.iter().copied().filter(|v| *v != 0).collect();
        assert_eq!(*bed.kicked.borrow(), kicked);
        assert_eq!(apic.msr_read(msr(0x300), &bed), Ok(value));
    }
}

#[test]
fn xapic_destinations_are_eight_bits_flat_or_in_clusters() {
    let apics = Apics::new(&[0, 1, 2]);
    let bed = Bed::default();
    enable(&apics, 0..3);
    let mut apics_of: Vec<_> = (0..3)
        .map(|v| LocalApic::new(&apics, v, TICK).unwrap())
        .collect();
    for (vcpu, apic) in apics_of.iter_mut().enumerate() {
        apic.mmio_write(0xd0, 1 << (24 + vcpu), &bed);
    }
    let first = |destination| apics.first(destination).map(|target| target.vcpu);
    assert_eq!(first(Destination::narrow(0b100, true)), Some(2));
    assert_eq!(first(Destination::narrow(0b1000, true)), None);
    assert_eq!(first(Destination::narrow(0xff, true)), Some(0));
    assert_eq!(first(Destination::Logical(0x1_0001)), None);
    for apic in &mut apics_of {
        apic.mmio_write(0xe0, 0x0fff_ffff, &bed);
    }
    apics_of[2].mmio_write(0xd0, 0x32 << 24, &bed);
    assert_eq!(first(Destination::narrow(0x36, true)), Some(2));
    assert_eq!(first(Destination::narrow(0x26, true)), None);
    apics_of[0].mmio_write(0x310, 1 << 24, &bed);
    apics_of[0].mmio_write(0x300, 0x500, &bed);
    assert!(apics.inbox(1).unwrap().take_events().init);
    apics_of[0].mmio_write(0x300, 0x8500, &bed);
    assert!(
        !apics.inbox(1).unwrap().take_events().init,
        "a de-asserted INIT does nothing"
    );
    apics_of[0].mmio_write(0x300, 0x4608, &bed);
    assert_eq!(apics.inbox(1).unwrap().take_events().start_up, Some(8));
}

use crate::devices::interrupt::{Destination, Directory};

#[test]
fn modes_change_as_the_architecture_allows() {
    let (off, xapic, x2apic, wrong) = (0, 1 << 11, 3 << 10, 1 << 10);
    let apics = Apics::new(&[0]);
    let mut apic = LocalApic::new(&apics, 0, TICK).unwrap();
    let base = |mode: u64| BASE_ADDRESS | 1 << 8 | mode;
    assert_eq!(apic.set_base(base(wrong)), Err(GeneralProtection));
    assert_eq!(apic.set_base(base(x2apic) + 0x1000), Err(GeneralProtection));
    assert_eq!(
        apic.set_base(base(x2apic) & !(1 << 8)),
        Err(GeneralProtection)
    );
    assert_eq!(apic.set_base(base(x2apic)), Ok(()));
    assert_eq!(apic.set_base(base(xapic)), Err(GeneralProtection));
    assert_eq!(apic.set_base(base(off)), Ok(()));
    assert_eq!(apic.mode(), Mode::Disabled);
    assert_eq!(apic.set_base(base(x2apic)), Err(GeneralProtection));
    assert_eq!(apic.set_base(base(xapic)), Ok(()));
    assert_eq!(apic.base(), base(xapic));
}

#[test]
fn reserved_bits_and_registers_are_a_general_protection_fault() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    let faults = [
        (0x20, 0),
        (0x30, 0),
        (0x80, 0x100),
        (0xb0, 1),
        (0xd0, 0),
        (0xe0, 0),
        (0xf0, 0x1000),
        (0x280, 1),
        (0x300, 1 << 12),
        (0x310, 0),
        (0x320, 1 << 19),
        (0x370, 1 << 8),
        (0x380, 1 << 32),
        (0x390, 0),
        (0x3e0, 4),
        (0x3f0, 0x100),
        (0x400, 0),
    ];
    for (offset, value) in faults {
        let result = apic.msr_write(msr(offset), value, &bed);
        assert_eq!(result, Err(GeneralProtection), "{offset:#x}");
    }
    for offset in [0x90, 0xb0, 0xc0, 0xe0, 0x310, 0x3f0, 0x2f0, 0x400] {
        let result = apic.msr_read(msr(offset), &bed);
        assert_eq!(result, Err(GeneralProtection), "{offset:#x}");
    }
    apic.set_base(apic.base() & !(3 << 10)).unwrap();
    assert_eq!(apic.msr_read(msr(0x20), &bed), Err(GeneralProtection));
}

#[test]
fn the_one_shot_timer_counts_down_once() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    apic.msr_write(msr(0x320), 0x44, &bed).unwrap();
    apic.msr_write(msr(0x3e0), 0b11, &bed).unwrap(); // by 16
    apic.msr_write(msr(0x380), 100, &bed).unwrap();
    assert_eq!(apic.deadline(), Some(100 * 16 * u64::from(TICK)));
    bed.now.set(60 * 16 * u64::from(TICK));
    assert_eq!(apic.msr_read(msr(0x390), &bed), Ok(40));
    apic.expire(&bed);
    assert_eq!(apic.next(), None);
    bed.now.set(100 * 16 * u64::from(TICK));
    apic.expire(&bed);
    assert_eq!(apic.next(), Some(0x44));
    assert_eq!(apic.deadline(), None);
    assert_eq!(apic.msr_read(msr(0x390), &bed), Ok(0));
}

#[test]
fn a_late_periodic_timer_fires_once_and_keeps_its_phase() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    apic.msr_write(msr(0x3e0), 0b1011, &bed).unwrap(); // by 1
    apic.msr_write(msr(0x320), 1 << 17 | 0x44, &bed).unwrap();
    apic.msr_write(msr(0x380), 25, &bed).unwrap();
    bed.now.set(350);
    apic.expire(&bed);
    assert!(apic.acknowledge(0x44));
    assert_eq!(apic.deadline(), Some(400));
    apic.expire(&bed);
    assert!(!apic.acknowledge(0x44));
}

#[test]
fn the_deadline_timer_has_a_register_of_its_own() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    apic.set_tsc_deadline(5);
    assert_eq!(apic.tsc_deadline(), 0, "not in this mode");
    apic.msr_write(msr(0x320), 2 << 17 | 0x44, &bed).unwrap();
    apic.msr_write(msr(0x380), 5, &bed).unwrap();
    assert_eq!(apic.deadline(), None, "the count is ignored");
    apic.set_tsc_deadline(1000);
    assert_eq!(apic.tsc_deadline(), 1000);
    bed.now.set(1000);
    apic.expire(&bed);
    assert_eq!((apic.tsc_deadline(), apic.next()), (0, Some(0x44)));
    apic.set_tsc_deadline(2000);
    apic.msr_write(msr(0x320), 0x44, &bed).unwrap();
    assert_eq!(apic.deadline(), None, "another mode disarms");
}

#[test]
fn errors_gather_until_the_status_is_written() {
    let apics = Apics::new(&[0]);
    let bed = Bed::default();
    let mut apic = x2apic(&apics);
    apic.msr_write(msr(0x370), 0xfe, &bed).unwrap();
    apic.msr_write(msr(0x300), 0x4_0003, &bed).unwrap();
    assert_eq!(apic.next(), Some(0xfe));
    assert_eq!(apic.msr_read(msr(0x280), &bed), Ok(0));
    apic.msr_write(msr(0x280), 0, &bed).unwrap();
    assert_eq!(apic.msr_read(msr(0x280), &bed), Ok(1 << 5));
    apic.msr_write(msr(0x280), 0, &bed).unwrap();
    assert_eq!(apic.msr_read(msr(0x280), &bed), Ok(0));
}

proptest! {
    /// Whatever arrives, in whatever order it is ended: each vector is taken once, higher ones first, and level
    /// interrupts are told of once each.
    #[test]
    fn every_vector_is_taken_once(posts in prop::collection::btree_map(16_u8.., any::<bool>(), 0..40)) {
        let apics = Apics::new(&[0]);
        let bed = Bed::default();
        let mut apic = x2apic(&apics);
        let inbox = apics.inbox(0).unwrap();
        for (vector, level) in &posts {
            inbox.post(*vector, *level);
            inbox.post(*vector, *level);
        }
        let mut taken = Vec::new();
        while let Some(vector) = apic.next() {
            prop_assert!(apic.acknowledge(vector));
            apic.end_of_interrupt(&bed);
            taken.push(vector);
        }
        let expected: Vec<u8> = posts.keys().rev().copied().collect();
        prop_assert_eq!(taken, expected);
        let levels: Vec<u8> = posts.iter().rev().filter(|(_, level)| **level).map(|(v, _)| *v).collect();
        prop_assert_eq!(bed.ended.into_inner(), levels);
    }

    /// No sequence of accesses by either way breaks what the rest relies on.
    #[test]
    fn no_access_breaks_the_state(
        accesses in prop::collection::vec((0_u8..8, 0_u32..0x1100, any::<u64>(), any::<u32>()), 0..120)
    ) {
        let apics = Apics::new(&[0, 1, 5]);
        let bed = Bed::default();
        let mut apic = LocalApic::new(&apics, 0, TICK).unwrap();
        for (what, place, value, step) in accesses {
            bed.now.set(bed.now.get().saturating_add(u64::from(step)));
            match what {
                0 => apic.mmio_write(place & !0xf, value as u32, &bed),
                1 => { apic.mmio_read(place, &bed); }
                2 => { let _ = apic.msr_write(MSR_X2APIC_FIRST + place / 16, value, &bed); }
                3 => { let _ = apic.msr_write(MSR_X2APIC_FIRST + place / 16, value & 0xf_00ff, &bed); }
                4 => { let _ = apic.msr_read(MSR_X2APIC_FIRST + place / 16, &bed); }
                5 => { let _ = apic.set_base(BASE_ADDRESS | 1 << 8 | (value & 3) << 10); }
                6 => { apic.set_tsc_deadline(value); apic.expire(&bed); }
                _ => if let Some(vector) = apic.next() { apic.acknowledge(vector); },
            }
            let inbox = apics.inbox(0).unwrap();
            prop_assert_eq!(inbox.pending(0) & 0xffff, 0, "no vector below 16");
            prop_assert!(apic.next().is_none_or(|v| v >> 4 > apic.processor_priority() >> 4));
            prop_assert!(apic.deadline().is_none_or(|d| d > 0));
            prop_assert_eq!(apic.base() & !(3 << 10), BASE_ADDRESS | 1 << 8);
        }
    }
}

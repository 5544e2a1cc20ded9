use super::*;
use crate::gic::fake::{self, DISTRIBUTOR, Fake, REDISTRIBUTORS};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::vec;

const UPCALL: u32 = 31;
const TIMER: u32 = 27;

struct Bed {
    fake: Rc<Fake>,
    gic: &'static Gic<Rc<Fake>>,
    domain: VirtualGic<'static, Rc<Fake>>,
}

/// A domain with vCPU n on CPU `first + n`, in the host's layout, all vCPUs on and the distributor enabled.
fn domain(
    gic: &'static Gic<Rc<Fake>>,
    fake: &Fake,
    first: usize,
    cpus: usize,
    spis: Vec<u32>,
) -> VirtualGic<'static, Rc<Fake>> {
    let window = |start, bytes| Window { start, bytes };
    let layout = if gic.is_v2() {
        Layout::V2 {
            distributor: window(DISTRIBUTOR, 0x1000),
        }
    } else {
        Layout::V3 {
            distributor: window(DISTRIBUTOR, 0x1_0000),
            redistributors: vec![window(REDISTRIBUTORS, 8 * gicr::STRIDE)],
        }
    };
    let vcpus = (0..cpus)
        .map(|index| VcpuConfig {
            cpu: first + index,
            affinity: index as u64,
        })
        .collect();
    let config = Config {
        layout,
        vcpus,
        spis,
        virtual_spis: vec![34],
        forwarded_ppis: 1 << TIMER | 1 << 30,
        virtual_ppis: 1 << UPCALL,
    };
    let domain = VirtualGic::new(gic, config).expect("the SPIs are free");
    for index in 0..cpus {
        fake.cpu.set(first + index);
        domain.power_on(index);
    }
    fake.cpu.set(first);
    domain
}

fn bed(v2: bool, cpus: usize) -> Bed {
    let (fake, gic) = fake::controller(v2, cpus + 1);
    let gic: &'static _ = Box::leak(Box::new(gic));
    gic.own(33, 0).expect("the hypervisor's UART");
    // The last CPU is another domain's.
    let domain = domain(
        gic,
        &fake,
        0,
        cpus,
        vec![32, 40, 41, 42, 43, 44, 45, 46, 47, 48, 100],
    );
    let bed = Bed { fake, gic, domain };
    bed.word(gicd::CTLR, if v2 { 1 } else { 2 });
    bed
}

impl Bed {
    fn access(&self, offset: u64, size: Size, write: Option<u64>) -> Outcome {
        self.domain
            .mmio(self.fake.cpu.get(), DISTRIBUTOR + offset, size, write)
    }

    fn word(&self, offset: u64, value: u32) {
        assert_eq!(
            self.access(offset, Size::Word, Some(u64::from(value))),
            Outcome::Done
        );
    }

    fn read(&self, offset: u64) -> u32 {
        match self.access(offset, Size::Word, None) {
            Outcome::Value(value) => value as u32,
            other => panic!("{offset:#x}: {other:?}"),
        }
    }

    /// Offset and base of an SGI-frame register for word 0, of a distributor's otherwise.
    fn enable(&self, intid: u32) {
        let address = if intid < 32 && !self.gic.is_v2() {
            REDISTRIBUTORS
                + self.fake.cpu.get() as u64 * gicr::STRIDE
                + gicr::SGI_FRAME
                + gicd::ISENABLER
        } else {
            DISTRIBUTOR + gicd::ISENABLER + u64::from(intid / 32 * 4)
        };
        let outcome = self.domain.mmio(
            self.fake.cpu.get(),
            address,
            Size::Word,
            Some(1 << (intid % 32)),
        );
        assert_eq!(outcome, Outcome::Done);
    }

    fn priority(&self, intid: u32, priority: u8) {
        let done = self.access(
            gicd::IPRIORITYR + u64::from(intid),
            Size::Byte,
            Some(priority.into()),
        );
        assert_eq!(done, Outcome::Done);
    }

    fn fire(&self, intid: u32) -> bool {
        let fired = self.fake.fire(intid);
        if let Some(acknowledged) = fired {
            self.domain.physical(self.fake.cpu.get(), acknowledged);
        }
        fired.is_some()
    }

    /// The guest of the running CPU ends an interrupt, and EL2 takes the maintenance interrupt.
    fn end(&self, intid: u32, source: u8) {
        self.fake.guest_end(intid, source);
        if self.fake.maintenance() {
            self.domain.flush(self.fake.cpu.get());
            assert!(
                !self.fake.maintenance(),
                "the maintenance interrupt must fall"
            );
        }
    }

    fn sgi(&self, from: usize, intid: u32, targets: u64) {
        if self.gic.is_v2() {
            self.word(gicd::SGIR, (targets as u32) << 16 | intid);
        } else {
            self.domain.sgi1r(from, u64::from(intid) << 24 | targets);
        }
    }
}

#[test]
fn a_level_interrupt_is_active_until_the_guest_ends_it() {
    for v2 in [false, true] {
        let bed = bed(v2, 1);
        assert!(!bed.fire(40), "disabled");
        bed.enable(40);
        bed.enable(TIMER);
        for intid in [40, TIMER] {
            assert!(bed.fire(intid));
            assert!(!bed.fire(intid), "active: can't come again");
            assert_eq!(bed.fake.guest_acknowledge(), Some((intid, 0)));
            bed.end(intid, 0);
            assert!(bed.fire(intid));
            assert_eq!(bed.fake.guest_acknowledge(), Some((intid, 0)));
            bed.end(intid, 0);
        }
    }
}

#[test]
fn an_interrupt_of_nobody_doesnt_stay_active() {
    let bed = bed(false, 1);
    bed.gic.own(90, 0).expect("free");
    let acknowledged = bed.fake.fire(90).expect("enabled");
    bed.domain.physical(0, acknowledged);
    assert_eq!(bed.fake.guest_acknowledge(), None);
    assert!(
        bed.fake
            .system
            .borrow()
            .contains(&(0, crate::gic::CpuRegister::Dir, 90))
    );
}

#[test]
fn more_interrupts_than_list_registers_arrive_once_each_in_order_of_priority() {
    for v2 in [false, true] {
        let bed = bed(v2, 1);
        let all: Vec<u32> = (40..49).collect();
        for (index, &intid) in all.iter().enumerate() {
            bed.enable(intid);
            // The last ones are the most urgent: they push out what came first.
            bed.priority(intid, 0xf0 - 8 * index as u8);
        }
        all.iter().for_each(|&intid| assert!(bed.fire(intid)));
        let mut seen = vec![];
        while let Some((intid, source)) = bed.fake.guest_acknowledge() {
            bed.end(intid, source);
            seen.push(intid);
        }
        assert_eq!(
            seen.iter().copied().collect::<BTreeSet<_>>().len(),
            all.len()
        );
        assert_eq!(&seen[..3], [48, 47, 46]);
        all.iter()
            .for_each(|&intid| assert!(!bed.fake.bit(gicd::ISACTIVER, intid)));
    }
}

#[test]
fn software_interrupts_reach_their_targets() {
    for v2 in [false, true] {
        let bed = bed(v2, 3);
        for cpu in 0..3 {
            bed.fake.cpu.set(cpu);
            bed.enable(5);
        }
        bed.fake.cpu.set(1);
        bed.fake.take_kicks();
        bed.sgi(1, 5, 0b11);
        assert_eq!(bed.fake.take_kicks(), 1, "only CPU 0 needs one");
        let sender = if v2 { 1 } else { 0 };
        assert_eq!(bed.fake.guest_acknowledge(), Some((5, sender)));
        // Once more while it is active: pending and active.
        bed.sgi(1, 5, 0b10);
        bed.end(5, sender);
        assert_eq!(bed.fake.guest_acknowledge(), Some((5, sender)));
        bed.end(5, sender);
        assert_eq!(bed.fake.guest_acknowledge(), None);
        bed.fake.cpu.set(0);
        bed.domain.flush(0);
        assert_eq!(bed.fake.guest_acknowledge(), Some((5, sender)));
        bed.fake.cpu.set(2);
        bed.domain.flush(2);
        assert_eq!(bed.fake.guest_acknowledge(), None);
    }
}

#[test]
fn a_disabled_software_interrupt_waits() {
    let bed = bed(false, 1);
    bed.sgi(0, 3, 1);
    assert_eq!(bed.fake.guest_acknowledge(), None);
    assert!(!bed.domain.has_pending(0));
    bed.enable(3);
    assert!(bed.domain.has_pending(0));
    assert_eq!(bed.fake.guest_acknowledge(), Some((3, 0)));
}

#[test]
fn each_sender_of_a_gicv2_software_interrupt_counts() {
    let bed = bed(true, 3);
    bed.enable(1);
    for sender in [1, 2, 1] {
        bed.fake.cpu.set(sender);
        bed.sgi(sender, 1, 0b1);
    }
    bed.fake.cpu.set(0);
    bed.domain.flush(0);
    let mut senders = vec![];
    while let Some((intid, sender)) = bed.fake.guest_acknowledge() {
        assert_eq!(intid, 1);
        bed.end(intid, sender);
        senders.push(sender);
    }
    senders.sort_unstable();
    assert_eq!(senders, [1, 2]);
}

#[test]
fn a_sender_that_came_twice_while_it_was_taken_leaves_nothing() {
    let bed = bed(true, 2);
    bed.enable(1);
    // What the race leaves: pending, and no sender.
    bed.domain.vcpus[0].pending.insert(1);
    bed.domain.flush(0);
    assert_eq!(bed.fake.guest_acknowledge(), None);
    assert!(!bed.domain.has_pending(0));
}

#[test]
fn the_upcall_and_a_virtual_spi_are_delivered() {
    for v2 in [false, true] {
        let bed = bed(v2, 2);
        bed.enable(UPCALL);
        bed.enable(34);
        bed.domain.raise(0, UPCALL, Some(0));
        assert_eq!(bed.fake.guest_acknowledge(), Some((UPCALL, 0)));
        bed.end(UPCALL, 0);
        // From another CPU: a kick, and the next look delivers.
        bed.fake.take_kicks();
        bed.domain.raise(0, 34, None);
        assert_eq!(bed.fake.take_kicks(), 1);
        bed.domain.flush(0);
        assert_eq!(bed.fake.guest_acknowledge(), Some((34, 0)));
        bed.end(34, 0);
        bed.domain.raise(0, 34, Some(0));
        bed.domain.lower(0, 34, Some(0));
        assert_eq!(bed.fake.guest_acknowledge(), None);
        // An interrupt that isn't software's can't be raised.
        bed.domain.raise(0, 40, Some(0));
        assert_eq!(bed.fake.guest_acknowledge(), None);
    }
}

#[test]
fn targets_follow_the_guest() {
    let v3 = bed(false, 3);
    assert_eq!(
        v3.access(gicd::IROUTER + 8 * 40, Size::Double, Some(2)),
        Outcome::Done
    );
    assert_eq!(
        v3.access(gicd::IROUTER + 8 * 40, Size::Double, None),
        Outcome::Value(2)
    );
    assert_eq!(v3.fake.load(DISTRIBUTOR + gicd::IROUTER + 8 * 40), 2);
    // CPU 3 is another domain's; 33 is the hypervisor's.
    assert_eq!(
        v3.access(gicd::IROUTER + 8 * 40, Size::Double, Some(3)),
        Outcome::Done
    );
    assert_eq!(
        v3.access(gicd::IROUTER + 8 * 33, Size::Double, Some(2)),
        Outcome::Done
    );
    assert_eq!(v3.fake.load(DISTRIBUTOR + gicd::IROUTER + 8 * 40), 2);
    assert_eq!(v3.fake.load(DISTRIBUTOR + gicd::IROUTER + 8 * 33), 0);

    let v2 = bed(true, 3);
    v2.word(gicd::ITARGETSR + 40, 0xff);
    assert_eq!(v2.read(gicd::ITARGETSR + 40), 0b111);
    assert_eq!(v2.read(gicd::ITARGETSR), 0x0101_0101);
    assert_eq!(
        v2.fake.load(DISTRIBUTOR + gicd::ITARGETSR + 40) & 0xff,
        0b111
    );
}

#[test]
fn an_offered_interrupt_goes_back_when_it_is_disabled_or_its_vcpu_stops() {
    for v2 in [false, true] {
        let bed = bed(v2, 1);
        bed.word(gicd::ICFGR + 4 * (40 / 16), 0b10 << (2 * (40 % 16)));
        bed.enable(40);
        assert!(bed.fire(40));
        bed.word(gicd::ICENABLER + 4, 1 << 8);
        assert_eq!(bed.fake.guest_acknowledge(), None);
        assert!(bed.fake.bit(gicd::ISPENDR, 40), "an edge is remembered");
        assert!(!bed.fake.bit(gicd::ISACTIVER, 40));
        bed.enable(40);
        assert!(bed.fire(40));
        bed.domain.power_off(0);
        assert!(bed.fake.bit(gicd::ISPENDR, 40));
        assert!(!bed.fake.bit(gicd::ISACTIVER, 40));
        assert_eq!(bed.fake.guest_acknowledge(), None);
    }
}

#[test]
fn a_domain_leaves_nothing_behind() {
    for v2 in [false, true] {
        let bed = bed(v2, 1);
        for intid in [40, 41, TIMER] {
            bed.enable(intid);
        }
        bed.fire(40);
        bed.domain.power_off(0);
        bed.domain.reset().expect("no LPIs");
        for intid in [40, 41, TIMER] {
            assert!(!bed.fake.bit(gicd::ISENABLER, intid));
            assert!(!bed.fake.bit(gicd::ISACTIVER, intid));
        }
        assert!(bed.fake.bit(gicd::ISENABLER, 33), "the hypervisor's own");
    }
}

#[test]
fn a_clash_takes_nothing() {
    let bed = bed(false, 1);
    let config = Config {
        layout: bed.domain.layout.clone(),
        vcpus: vec![],
        spis: vec![200, 201, 33],
        virtual_spis: vec![],
        forwarded_ppis: 0,
        virtual_ppis: 0,
    };
    assert_eq!(
        VirtualGic::new(bed.gic, config).err(),
        Some(Error::NotFree { intid: 33 })
    );
    assert_eq!(bed.gic.claim(200), Ok(()));
    assert_eq!(bed.gic.claim(201), Ok(()));
}

#[test]
fn identification_registers_say_what_is_there() {
    let bed = bed(false, 2);
    assert_eq!(bed.read(gicd::TYPER), 8 | 1 << 5 | 9 << 19 | 1 << 25);
    assert_eq!(bed.read(gicd::CTLR), 0x12);
    assert_eq!(bed.read(gicd::V3_PIDR2) >> 4 & 0xf, 3);
    let typer = |cpu: u64| {
        bed.domain.mmio(
            0,
            REDISTRIBUTORS + cpu * gicr::STRIDE + 8,
            Size::Double,
            None,
        )
    };
    assert_eq!(typer(0), Outcome::Value(0));
    assert_eq!(
        typer(1),
        Outcome::Value(1 << 32 | 1 << 8 | gicr::TYPER_LAST)
    );
    assert_eq!(typer(2), Outcome::Value(0), "no vCPU has it");
    assert_eq!(
        bed.domain.mmio(0, DISTRIBUTOR - 4, Size::Word, None),
        Outcome::NotMine
    );
    assert_eq!(
        bed.access(gicd::TYPER + 1, Size::Word, None),
        Outcome::Fault
    );
    assert_eq!(bed.access(gicd::TYPER, Size::Byte, None), Outcome::Fault);
    assert_eq!(
        bed.access(gicd::ISENABLER + 4, Size::Double, Some(0)),
        Outcome::Fault
    );
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        Just(Size::Byte),
        Just(Size::Half),
        Just(Size::Word),
        Just(Size::Double)
    ]
}

/// What the guest does, on which of its CPUs.
#[derive(Debug, Clone)]
enum Step {
    Access(u64, Size, Option<u64>),
    Sgi(u64),
    Fire(u32),
    Acknowledge,
    Upcall(usize),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let interesting = prop_oneof![
        0_u64..0x1000,
        0x6000_u64..0x6900,
        (0_u64..3, 0_u64..0x1000).prop_map(|(cpu, offset)| REDISTRIBUTORS - DISTRIBUTOR
            + cpu * gicr::STRIDE
            + gicr::SGI_FRAME
            + offset),
        0_u64..0x20_0000,
    ];
    let value = prop_oneof![Just(u64::MAX), Just(0), any::<u64>(), 0_u64..8];
    prop_oneof![
        6 => (interesting, size(), prop::option::weighted(0.8, value), any::<bool>()).prop_map(|(offset, size, write, align)| {
            let mask = if align { size.bytes() - 1 } else { 0 };
            Step::Access(offset & !mask, size, write)
        }),
        1 => any::<u64>().prop_map(Step::Sgi),
        2 => prop::sample::select(vec![27, 30, 32, 40, 41, 42, 43, 44, 45, 100]).prop_map(Step::Fire),
        2 => Just(Step::Acknowledge),
        1 => (0_usize..3).prop_map(Step::Upcall),
        1 => Just(Step::Flush),
    ]
}

/// The bits at an address that domain 0 (vCPUs on CPUs 0 to 1) may change.
fn changeable(domain: &VirtualGic<'_, Rc<Fake>>, v2: bool, bank: usize, address: u64) -> u32 {
    let spi = |intid: u64| {
        intid < 1024 && domain.physical[intid as usize / 32] & (1 << (intid % 32)) != 0
    };
    let offset = match address {
        DISTRIBUTOR..0x0801_0000 => address - DISTRIBUTOR,
        // The virtual interface of its own CPUs.
        fake::GICH..fake::GICV => return if bank < 2 { u32::MAX } else { 0 },
        REDISTRIBUTORS.. => {
            let offset = address - REDISTRIBUTORS;
            if offset / gicr::STRIDE >= 2 || offset % gicr::STRIDE < gicr::SGI_FRAME {
                return 0;
            }
            offset % gicr::SGI_FRAME
        }
        _ => return 0,
    };
    let private = address >= REDISTRIBUTORS;
    match offset {
        0x100..0x400 if private && offset & 0x7f < 4 => domain.physical[0],
        0x100..0x400 if v2 && offset & 0x7f < 4 && bank < 2 => domain.physical[0],
        0x100..0x400 if private || (v2 && offset & 0x7f < 4) => 0,
        0x100..0x400 => domain.physical[(offset & 0x7f) as usize / 4],
        0x820..0xc00 if v2 => (0..4)
            .filter(|byte| spi(offset - 0x800 + byte))
            .fold(0, |mask, byte| mask | 0x3 << (8 * byte)),
        0xc08..0xd00 if !private => {
            let first = (offset - 0xc00) * 4;
            (0..16)
                .filter(|bit| spi(first + bit))
                .fold(0, |mask, bit| mask | 3 << (2 * bit))
        }
        gicd::IROUTER.. if !v2 && !private && spi((offset - gicd::IROUTER) / 8) => 1,
        gicd::SGIR if v2 => 0b11 << 16,
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]
    #[test]
    fn no_access_changes_what_isnt_the_guests(v2: bool, steps in prop::collection::vec((0_usize..2, step()), 1..60)) {
        let bed = bed(v2, 2);
        // Another domain, with an interrupt that has fired and is in its list register.
        let other = domain(bed.gic, &bed.fake, 2, 1, vec![50, 101]);
        other.mmio(0, DISTRIBUTOR + gicd::CTLR, Size::Word, Some(3));
        other.mmio(0, DISTRIBUTOR + gicd::ISENABLER + 4, Size::Word, Some(1 << 18));
        let fired = bed.fake.fire(50).expect("enabled");
        other.physical(0, fired);
        bed.fake.cpu.set(0);
        bed.fake.system.borrow_mut().clear();
        let before = bed.fake.memory.borrow().clone();
        let lists: Vec<_> = bed.fake.lists.borrow().iter().filter(|((cpu, _), _)| *cpu == 2).map(|(_, lr)| *lr).collect();

        for (cpu, step) in steps {
            bed.fake.cpu.set(cpu);
            match step {
                Step::Access(offset, size, write) => {
                    let outcome = bed.domain.mmio(cpu, DISTRIBUTOR + offset, size, write);
                    let fits = match outcome {
                        Outcome::Value(value) => write.is_none() && (size == Size::Double || value >> (8 * size.bytes()) == 0),
                        Outcome::Done => write.is_some(),
                        Outcome::NotMine | Outcome::Fault => true,
                    };
                    prop_assert!(fits, "{outcome:?}");
                }
                Step::Sgi(value) => bed.domain.sgi1r(cpu, value),
                Step::Fire(intid) => { bed.fire(intid); }
                Step::Acknowledge => {
                    if let Some((intid, source)) = bed.fake.guest_acknowledge() {
                        bed.fake.guest_end(intid, source);
                    }
                }
                Step::Upcall(vcpu) => bed.domain.raise(vcpu, UPCALL, Some(cpu)),
                Step::Flush => bed.domain.flush(cpu),
            }
            // No interrupt stands in two list registers, and each is the domain's own.
            let valid: Vec<_> = (0..4).map(|index| bed.fake.list(index)).filter(|lr| lr.is_valid()).collect();
            let names: BTreeSet<_> = valid.iter().map(|lr| (lr.intid(), lr.source())).collect();
            prop_assert_eq!(names.len(), valid.len());
            for lr in valid {
                let word = lr.intid() as usize / 32;
                let bit = 1 << (lr.intid() % 32);
                let mine = if lr.is_physical() { bed.domain.physical[word] } else { bed.domain.software[word] };
                prop_assert!(mine & bit != 0, "{lr:?}");
                prop_assert!(!(lr.is_physical() && lr.is_pending() && lr.is_active()));
            }
        }

        let after = bed.fake.memory.borrow().clone();
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
        for key in keys {
            let old = before.get(&key).copied().unwrap_or(0) as u32;
            let new = after.get(&key).copied().unwrap_or(0) as u32;
            let foreign = !changeable(&bed.domain, v2, key.0, key.1);
            prop_assert_eq!(old & foreign, new & foreign, "{:x?} {:#x} -> {:#x}", key, old, new);
        }
        // No physical software interrupt but kicks to its own CPUs, and nobody else's interface touched.
        for (cpu, register, value) in bed.fake.system.borrow().iter() {
            prop_assert!(*cpu < 2);
            if *register == crate::gic::CpuRegister::Sgi1r {
                prop_assert!(value & !0b11 == 0, "{value:#x}");
            }
        }
        let lists_after: Vec<_> = bed.fake.lists.borrow().iter().filter(|((cpu, _), _)| *cpu == 2).map(|(_, lr)| *lr).collect();
        prop_assert_eq!(lists, lists_after);
    }
}

use super::super::{Config, Layout, VcpuConfig};
use super::*;
use crate::gic::fake::its::{ITS, STALLING_EVENT, WINDOW};
use crate::gic::fake::{self, DISTRIBUTOR, Fake, REDISTRIBUTORS};
use crate::gic::registers::gicd;
use crate::gic::{Acknowledged, Gic};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// The guest's memory.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 0x1000_0000;
/// The hypervisor's page for the hardware's queue.
const MEMORY: u64 = 0x7fff_f000;
const GUEST_QUEUE: u64 = RAM + 0x10_0000;
const PROPERTIES: u64 = RAM + 0x20_0000;
const PENDING: u64 = RAM + 0x30_0000;
const SIXTY_FOUR_KIB: u64 = 2 << 8;

#[derive(Clone, Default)]
struct Ground(Arc<Mutex<Vec<Refusal>>>);

impl Owner for Ground {
    fn owns(&self, start: u64, bytes: u64) -> bool {
        start >= RAM
            && start
                .checked_add(bytes)
                .is_some_and(|end| end <= RAM + RAM_BYTES)
    }

    fn refused(&self, refusal: Refusal) {
        self.0.lock().expect("no test panics with it").push(refusal);
    }
}

struct Bed {
    fake: Rc<Fake>,
    domain: VirtualGic<'static, Rc<Fake>>,
    ground: Ground,
}

fn bed(cpus: usize) -> Bed {
    let (fake, gic) = fake::controller(false, cpus);
    let gic: &'static Gic<_> = Box::leak(Box::new(gic));
    let window = |start, bytes| Window { start, bytes };
    let config = Config {
        layout: Layout::V3 {
            distributor: window(DISTRIBUTOR, 0x1_0000),
            redistributors: vec![window(REDISTRIBUTORS, 8 * gicr::STRIDE)],
        },
        // The other way round: the guest's numbers aren't the hardware's.
        vcpus: (0..cpus)
            .map(|n| VcpuConfig {
                cpu: cpus - 1 - n,
                affinity: n as u64,
            })
            .collect(),
        spis: vec![40],
        virtual_spis: vec![],
        forwarded_ppis: 0,
        virtual_ppis: 0,
    };
    let mut domain = VirtualGic::new(gic, config).expect("the SPI is free");
    let ground = Ground::default();
    domain
        .attach_its(WINDOW, MEMORY, Box::new(ground.clone()))
        .expect("there is an ITS");
    let bed = Bed {
        fake,
        domain,
        ground,
    };
    for vcpu in 0..cpus {
        bed.on(vcpu);
        bed.domain.power_on(vcpu);
    }
    bed.on(0);
    bed.write(DISTRIBUTOR + gicd::CTLR, Size::Word, 2);
    bed
}

impl Bed {
    fn on(&self, vcpu: usize) {
        self.fake.cpu.set(self.domain.vcpus[vcpu].cpu);
    }

    fn write(&self, address: u64, size: Size, value: u64) {
        assert_eq!(
            self.domain.mmio(0, address, size, Some(value)),
            Outcome::Done
        );
    }

    fn its(&self, offset: u64, value: u64) {
        let size = if offset == gits::CTLR {
            Size::Word
        } else {
            Size::Double
        };
        self.write(ITS + offset, size, value);
    }

    fn read(&self, address: u64) -> u64 {
        match self.domain.mmio(0, address, Size::Double, None) {
            Outcome::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    fn refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut self.ground.0.lock().expect("no test panics with it"))
    }

    /// The guest's queue, on, with `pages` pages.
    fn start(&self, pages: u64) {
        self.its(gits::CBASER, gits::VALID | GUEST_QUEUE | (pages - 1));
        self.its(gits::CTLR, 1);
    }

    /// Puts commands into the guest's queue from `at` on and tells the ITS.
    fn command(&self, at: u64, commands: &[[u64; 4]], bytes: u64) -> u64 {
        let mut tail = at;
        for command in commands {
            for (word, value) in (0..).zip(command) {
                self.fake.put64(GUEST_QUEUE + tail + 8 * word, *value);
            }
            tail = (tail + COMMAND) % bytes;
        }
        self.its(gits::CWRITER, tail);
        tail
    }

    /// Gives the redistributor of a vCPU its tables and turns LPIs on.
    fn lpis(&self, vcpu: usize) {
        let frame = REDISTRIBUTORS + vcpu as u64 * gicr::STRIDE;
        self.write(frame + gicr::PROPBASER, Size::Double, PROPERTIES | 15);
        self.write(frame + 0x78, Size::Double, PENDING + vcpu as u64 * 0x1_0000);
        self.write(frame + gicr::CTLR, Size::Word, 1);
    }

    fn redistributor(&self, vcpu: usize) -> u64 {
        REDISTRIBUTORS + self.domain.vcpus[vcpu].cpu as u64 * gicr::STRIDE
    }

    fn arrive(&self, vcpu: usize, intid: u32) {
        self.on(vcpu);
        self.domain.physical(vcpu, acknowledged(intid));
    }
}

fn acknowledged(intid: u32) -> Acknowledged {
    Acknowledged::of(intid)
}

#[test]
fn it_starts_off_without_tables_and_with_the_hypervisors_queue() {
    let bed = bed(1);
    assert_eq!(
        bed.fake.get64(ITS + gits::CTLR) as u32 & gits::CTLR_ENABLED,
        0
    );
    assert_eq!(bed.fake.get64(ITS + gits::BASER) & gits::VALID, 0);
    assert_eq!(bed.fake.get64(ITS + gits::CBASER) & PAGE_ADDRESS, MEMORY);
    assert_eq!(bed.read(ITS + gits::CBASER), 0);
    assert_eq!(bed.read(ITS + gits::TYPER) & (gits::TYPER_PTA | 1 << 37), 0);
    assert_eq!(
        bed.domain
            .mmio(0, ITS + gits::FRAME + 0x40, Size::Word, Some(1)),
        Outcome::Done
    );
}

#[test]
fn commands_are_carried_out_with_the_hardwares_names() {
    let bed = bed(2);
    bed.start(1);
    let mapc = [9, 0, 1 << 63 | 1 << 16, 0];
    let tail = bed.command(0, &[mapc, [5, 0, 1 << 16, 0]], 0x1000);
    assert_eq!(bed.read(ITS + gits::CREADR), tail);
    // The fake's GITS_TYPER.PTA says that addresses name redistributors.
    let target = bed.redistributor(1);
    assert_eq!(
        *bed.fake.commands.borrow(),
        [[9, 0, 1 << 63 | target, 0], [5, 0, target, 0]]
    );
    assert_eq!(bed.refusals(), []);
}

#[test]
fn what_is_queued_before_the_start_is_carried_out_then() {
    let bed = bed(1);
    bed.its(gits::CBASER, gits::VALID | GUEST_QUEUE);
    bed.command(0, &[[0xd, 0, 3, 0]], 0x1000);
    assert!(bed.fake.commands.borrow().is_empty());
    bed.its(gits::CTLR, 1);
    assert_eq!(*bed.fake.commands.borrow(), [[0xd, 0, 3, 0]]);
}

#[test]
fn a_queue_longer_than_the_hardwares_goes_through_in_order() {
    let bed = bed(1);
    bed.start(16);
    let mut tail = 0;
    let mut all = vec![];
    for round in 0..3_u64 {
        let commands: Vec<_> = (0..1500)
            .map(|event| [0xc | round << 32, event, 0, 0])
            .collect();
        tail = bed.command(tail, &commands, 0x1_0000);
        all.extend(commands);
    }
    assert_eq!(*bed.fake.commands.borrow(), all);
    assert_eq!(bed.read(ITS + gits::CREADR), tail);
}

#[test]
fn a_bad_command_is_left_out_and_the_rest_goes_on() {
    let bed = bed(1);
    bed.start(1);
    let foreign = [8, 4, 1 << 63 | 0x8000_0000, 0];
    bed.command(
        0,
        &[
            foreign,
            [0x29, 0, 0, 0],
            [9, 0, 1 << 63 | 7 << 16, 0],
            [0xd, 0, 3, 0],
        ],
        0x1000,
    );
    assert_eq!(*bed.fake.commands.borrow(), [[0xd, 0, 3, 0]]);
    let refused = [
        Refusal::Command(BadCommand::Table {
            start: 0x8000_0000,
            bytes: 12 * 32,
        }),
        Refusal::Command(BadCommand::Unknown { number: 0x29 }),
        Refusal::Command(BadCommand::Target { vcpu: 7 }),
    ];
    assert_eq!(bed.refusals(), refused);
}

#[test]
fn a_stalled_its_gets_going_again() {
    let bed = bed(1);
    bed.start(1);
    let tail = bed.command(0, &[[4, STALLING_EVENT, 0, 0], [0xd, 0, 3, 0]], 0x1000);
    assert_eq!(bed.refusals(), [Refusal::Stalled]);
    assert_eq!(bed.read(ITS + gits::CREADR), tail);
    bed.command(tail, &[[0xd, 0, 4, 0]], 0x1000);
    assert_eq!(*bed.fake.commands.borrow(), [[0xd, 0, 4, 0]]);
}

#[test]
fn a_queue_in_foreign_memory_is_never_read() {
    let bed = bed(1);
    for base in [MEMORY, RAM + RAM_BYTES - 0x1000, 0] {
        bed.its(gits::CBASER, gits::VALID | base | 1);
        bed.its(gits::CTLR, 1);
        bed.its(gits::CWRITER, COMMAND);
        assert_eq!(bed.read(ITS + gits::CBASER) & gits::VALID, 0);
        assert_eq!(bed.refusals().len(), 1);
        bed.its(gits::CTLR, 0);
    }
    assert!(bed.fake.commands.borrow().is_empty());
}

#[test]
fn tables_must_be_the_domains_and_have_one_level() {
    let bed = bed(1);
    let valid = gits::VALID | SIXTY_FOUR_KIB;
    bed.its(gits::BASER, valid | gits::BASER_INDIRECT | RAM | 7);
    assert_eq!(
        bed.fake.get64(ITS + gits::BASER) & (valid | gits::BASER_INDIRECT),
        valid
    );
    // One page too many; and a page size that the hardware hasn't got, so that the table is longer than it looks.
    for value in [
        valid | (RAM + RAM_BYTES - 0x1_0000) | 1,
        gits::VALID | (RAM + RAM_BYTES - 0x1_0000) | 1,
    ] {
        bed.its(gits::BASER, value);
        assert_eq!(bed.fake.get64(ITS + gits::BASER) & gits::VALID, 0);
        assert_eq!(bed.refusals().len(), 1);
    }
    // The vPE table isn't there.
    bed.its(gits::BASER + 16, valid | RAM);
    assert_eq!(bed.read(ITS + gits::BASER + 16), 0);
    assert_eq!(bed.fake.get64(ITS + gits::BASER + 16) & gits::VALID, 0);
}

#[test]
fn a_tables_address_is_what_the_hardware_makes_of_it() {
    assert_eq!(table(0x4000_1000), (0x4000_1000, 0x1000));
    assert_eq!(table(0x4000_7000 | 1 << 8 | 2), (0x4000_4000, 0xc000));
    assert_eq!(table(0x4000_1000 | 2 << 8), (0x1_0000_4000_0000, 0x1_0000));
}

#[test]
fn lpis_go_on_only_with_both_tables() {
    let bed = bed(1);
    let frame = REDISTRIBUTORS;
    let on = |bed: &Bed| bed.fake.load(frame + gicr::CTLR) & 1 == 1;
    bed.write(frame + gicr::CTLR, Size::Word, 1);
    assert!(!on(&bed));
    bed.write(frame + gicr::PROPBASER, Size::Double, MEMORY | 15);
    bed.write(frame + 0x78, Size::Double, PENDING);
    bed.write(frame + gicr::CTLR, Size::Word, 1);
    assert!(!on(&bed));
    assert_eq!(bed.refusals().len(), 1);
    // More bits than the guest was promised aren't given to the hardware.
    bed.write(frame + gicr::PROPBASER, Size::Double, PROPERTIES | 31);
    assert_eq!(bed.fake.get64(frame + gicr::PROPBASER), PROPERTIES | 15);
    bed.write(frame + gicr::CTLR, Size::Word, 1);
    assert!(on(&bed));
    bed.write(frame + gicr::PROPBASER, Size::Double, RAM | 15);
    assert_eq!(
        bed.fake.get64(frame + gicr::PROPBASER),
        PROPERTIES | 15,
        "fixed while LPIs are on"
    );
}

#[test]
fn lpis_arrive_once_each_by_the_priority_of_the_guests_table() {
    let bed = bed(1);
    bed.lpis(0);
    let all: BTreeSet<u32> = (8192..8192 + 40).collect();
    for &intid in &all {
        let priority = if intid == 8192 + 39 { 0x20 } else { 0xa0 };
        let address = PROPERTIES + u64::from(intid - 8192);
        bed.fake.write8(address, priority | 1);
    }
    all.iter().for_each(|&intid| bed.arrive(0, intid));
    let mut seen = vec![];
    while let Some((intid, _)) = bed.fake.guest_acknowledge() {
        bed.fake.guest_end(intid, 0);
        seen.push(intid);
        if bed.fake.maintenance() {
            bed.domain.flush(0);
        }
    }
    assert_eq!(seen[0], 8192 + 39);
    assert_eq!(seen.len(), all.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn an_lpi_beyond_the_guests_table_isnt_looked_up() {
    let bed = bed(1);
    // 14 bits: 8192 LPIs, in the last two pages of memory.
    let start = RAM + RAM_BYTES - 0x2000;
    bed.write(REDISTRIBUTORS + gicr::PROPBASER, Size::Double, start | 13);
    assert_eq!(bed.refusals(), []);
    assert_eq!(bed.domain.lpi_priority(8192 + 8191), Some(0));
    assert_eq!(bed.domain.lpi_priority(8192 + 8192), None);
}

#[test]
fn lpis_of_a_vcpu_that_stops_go_to_another() {
    let bed = bed(2);
    bed.lpis(0);
    bed.lpis(1);
    let all: BTreeSet<u32> = (8192..8200).collect();
    all.iter().for_each(|&intid| bed.arrive(1, intid));
    bed.domain.power_off(1);
    bed.on(0);
    bed.domain.flush(0);
    let mut seen = BTreeSet::new();
    while let Some((intid, _)) = bed.fake.guest_acknowledge() {
        bed.fake.guest_end(intid, 0);
        seen.insert(intid);
        bed.domain.flush(0);
    }
    assert_eq!(seen, all);
}

#[test]
fn a_domain_without_its_has_no_lpis() {
    let mut bed = bed(1);
    bed.domain.its = None;
    assert_eq!(bed.domain.mmio(0, ITS, Size::Word, None), Outcome::NotMine);
    bed.write(
        REDISTRIBUTORS + gicr::PROPBASER,
        Size::Double,
        PROPERTIES | 15,
    );
    bed.write(REDISTRIBUTORS + gicr::CTLR, Size::Word, 1);
    assert_eq!(bed.fake.get64(REDISTRIBUTORS + gicr::PROPBASER), 0);
    assert_eq!(bed.fake.load(REDISTRIBUTORS + gicr::CTLR), 0);
    assert_eq!(
        bed.read(REDISTRIBUTORS + gicr::TYPER) & gicr::TYPER_PLPIS,
        0
    );
    bed.arrive(0, 8192);
    assert_eq!(bed.fake.guest_acknowledge(), None);
}

#[test]
fn a_reset_takes_the_tables_away() {
    let bed = bed(1);
    bed.lpis(0);
    bed.start(1);
    bed.its(gits::CTLR, 0);
    bed.its(gits::BASER, gits::VALID | SIXTY_FOUR_KIB | RAM);
    bed.domain.power_off(0);
    assert_eq!(bed.domain.reset(), Ok(()));
    assert_eq!(bed.fake.get64(ITS + gits::BASER) & gits::VALID, 0);
    assert_eq!(bed.fake.load(REDISTRIBUTORS + gicr::CTLR) & 1, 0);
    assert_eq!(bed.read(ITS + gits::CBASER), 0);
}

fn address() -> impl Strategy<Value = u64> {
    let register = prop_oneof![
        prop::sample::select(vec![0, 8, 0x80, 0x88, 0x90, 0x100, 0x108, 0x110])
            .prop_map(|offset: u64| ITS + offset),
        prop::sample::select(vec![0_u64, 0x70, 0x78, 0x2_0000, 0x2_0070, 0x2_0078])
            .prop_map(|offset| REDISTRIBUTORS + offset),
        (0_u64..0x2_0000).prop_map(|offset| ITS + offset),
    ];
    (register, prop::sample::select(vec![0_u64, 0, 0, 4]))
        .prop_map(|(register, half)| register + half)
}

fn table_value() -> impl Strategy<Value = u64> {
    let start = prop_oneof![
        (0_u64..0x1_0000).prop_map(|page| RAM + page * 0x1000),
        (0_u64..0x10_0000).prop_map(|page| page * 0x1000),
    ];
    (start, any::<u64>()).prop_map(|(start, rest)| start | (rest & 0xfff0_0000_0000_0fff))
}

proptest! {
    #[test]
    fn the_hardware_is_told_of_the_domains_memory_only(
        steps in prop::collection::vec((0_usize..2, address(), any::<bool>(), prop_oneof![table_value(), any::<u64>(), 0_u64..0x1000]), 1..80),
        queue in prop::collection::vec(any::<u64>(), 0..64),
    ) {
        let bed = bed(2);
        for (address, word) in (0..).zip(queue) {
            bed.fake.put64(RAM + 8 * address, word);
        }
        for (vcpu, address, wide, value) in steps {
            bed.on(vcpu);
            let size = if wide { Size::Double } else { Size::Word };
            let _ = bed.domain.mmio(vcpu, address, size, Some(value));

            let queue = bed.fake.get64(ITS + gits::CBASER);
            prop_assert_eq!(queue & PAGE_ADDRESS, MEMORY);
            prop_assert_eq!(queue & 0xff, 0);
            prop_assert!(bed.fake.get64(ITS + gits::CWRITER) < crate::gic::QUEUE_BYTES);
            for register in 0..8 {
                let value = bed.fake.get64(ITS + gits::BASER + 8 * register);
                if value & gits::VALID != 0 {
                    let (start, bytes) = table(value);
                    prop_assert!(bed.ground.owns(start, bytes), "{value:#x}");
                    prop_assert_eq!(value & gits::BASER_INDIRECT, 0);
                }
            }
            for cpu in 0..2 {
                let frame = REDISTRIBUTORS + cpu * gicr::STRIDE;
                let properties = bed.fake.get64(frame + gicr::PROPBASER);
                let pending = bed.fake.get64(frame + 0x78);
                if bed.fake.load(frame + gicr::CTLR) & 1 != 0 {
                    prop_assert!(bed.ground.owns(properties & PAGE_ADDRESS, (2_u64 << (properties & 0xf)).saturating_sub(8192).max(1)));
                    prop_assert!(properties & 0x10 == 0);
                    prop_assert!(bed.ground.owns(pending & PENDING_ADDRESS, 8192));
                }
            }
        }
    }
}

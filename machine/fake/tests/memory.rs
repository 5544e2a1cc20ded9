//! Pages given back and taken again, and the special frames.

use abi::memory::{
    ADD_TO_PHYSMAP, ADD_TO_PHYSMAP_BATCH, AddToPhysmap, AddToPhysmapBatch, CURRENT_RESERVATION,
    DECREASE_RESERVATION, MAXIMUM_RESERVATION, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP,
    RemoveFromPhysmap, Reservation, SPACE_DEVICE, SPACE_GMFN, SPACE_GMFN_FOREIGN,
    SPACE_GRANT_TABLE, SPACE_SHARED_INFO,
};
use abi::{DomainId, number};
use layout::{Gfn, Mfn};
use terrane_machine_fake::{Board, DomainSpec, Guest, HARDWARE};

fn change(guest: Guest<'_>, operation: u64, pages: &[u64], order: u32) -> i64 {
    let list = guest.ram() + 1024;
    guest.put(list, pages);
    let request = Reservation {
        extents: list,
        count: pages.len() as u64,
        order,
        flags: 0,
        domain: DomainId::SELF,
        reserved: [0; 3],
    };
    guest
        .call_with(number::MEMORY_OP, &[operation], guest.ram(), request)
        .0
}

fn mapped(guest: Guest<'_>, page: u64) -> Option<Mfn> {
    let mappings = guest.caller.domain.machine().mappings();
    mappings
        .iter()
        .find(|(gfn, _)| *gfn == Gfn::new(page))
        .map(|(_, mapping)| mapping.mfn)
}

fn reservation(guest: Guest<'_>, operation: u64) -> i64 {
    guest.put(guest.ram(), &DomainId::SELF);
    guest
        .call(number::MEMORY_OP, &[operation, guest.ram()])
        .unwrap()
}

#[test]
fn what_is_given_back_comes_back_as_the_same_frame() {
    let board = Board::two();
    for index in 0..2 {
        let guest = board.guest(index, 0);
        let page = (guest.ram() >> 12) + 5;
        let frame = mapped(guest, page);
        guest.put(page << 12, b"kept");
        assert_eq!(change(guest, DECREASE_RESERVATION, &[page], 0), 1);
        assert_eq!(mapped(guest, page), None);
        assert_eq!(reservation(guest, CURRENT_RESERVATION), 15);
        assert_eq!(reservation(guest, MAXIMUM_RESERVATION), 16);
        board.check();
        assert_eq!(change(guest, POPULATE_PHYSMAP, &[page], 0), 1);
        assert_eq!(mapped(guest, page), frame);
        assert_eq!(reservation(guest, CURRENT_RESERVATION), 16);
        assert_eq!(&guest.get::<[u8; 4]>(page << 12), b"kept");
        board.check();
    }
}

#[test]
fn a_list_ends_at_the_first_page_that_cannot_be_changed() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let ram = guest.ram() >> 12;
    assert_eq!(
        change(
            guest,
            DECREASE_RESERVATION,
            &[ram + 5, ram + 6, ram + 6, ram + 7],
            0
        ),
        2
    );
    assert_eq!(
        change(guest, POPULATE_PHYSMAP, &[ram + 7], 0),
        0,
        "it is there"
    );
    assert_eq!(
        change(guest, POPULATE_PHYSMAP, &[ram + 16], 0),
        0,
        "it isn't the domain's"
    );
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[0x0fff_ffff], 0), 0);
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[u64::MAX], 0), 0);
    assert_eq!(change(guest, DECREASE_RESERVATION, &[ram - 1], 0), 0);
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[ram + 5, ram + 6], 0), 2);
    board.check();
}

#[test]
fn extents_are_all_or_nothing() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let ram = guest.ram() >> 12;
    assert_eq!(change(guest, DECREASE_RESERVATION, &[ram + 8], 2), 1);
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 12);
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[ram + 9], 0), 1);
    assert_eq!(
        change(guest, POPULATE_PHYSMAP, &[ram + 8], 2),
        0,
        "a page of it is there"
    );
    assert_eq!(
        change(guest, DECREASE_RESERVATION, &[ram + 14], 2),
        0,
        "it passes the end"
    );
    assert_eq!(
        change(guest, DECREASE_RESERVATION, &[ram], 10),
        0,
        "too large"
    );
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 13);
    board.check();
}

#[test]
fn a_long_list_goes_on_where_it_was_interrupted() {
    let mut spec = DomainSpec::new("control", HARDWARE, true);
    spec.frames = 700;
    let board = Board::boot(&[spec]);
    let guest = board.guest(0, 0);
    let ram = guest.ram() >> 12;
    let pages: Vec<u64> = (ram + 4..ram + 604).collect();
    let list = (ram + 604) << 12;
    guest.put(list, &pages[..]);
    let request = Reservation {
        extents: list,
        count: 600,
        order: 0,
        flags: 0,
        domain: DomainId::SELF,
        reserved: [0; 3],
    };
    let mut args = [DECREASE_RESERVATION, guest.ram(), 0, 0, 0];
    guest.put(guest.ram(), &request);
    assert_eq!(
        guest.step(number::MEMORY_OP, &mut args),
        hypervisor::Next::Again
    );
    assert_eq!(args[0], DECREASE_RESERVATION | 512 << 6);
    assert_eq!(
        guest.step(number::MEMORY_OP, &mut args),
        hypervisor::Next::Advance
    );
    assert_eq!(args[0], 600);
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 100);
}

fn add(guest: Guest<'_>, domain: DomainId, space: u32, index: u64, gpfn: u64) -> i64 {
    let request = AddToPhysmap {
        domain,
        size: 0,
        space,
        index,
        gpfn,
    };
    guest
        .call_with(number::MEMORY_OP, &[ADD_TO_PHYSMAP], guest.ram(), request)
        .0
}

#[test]
fn the_shared_page_gives_way_to_the_page_that_was_there() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let page = (guest.ram() >> 12) + 15;
    let home = mapped(guest, page);
    assert_eq!(add(guest, DomainId::SELF, SPACE_SHARED_INFO, 0, page), 0);
    assert_ne!(mapped(guest, page), home);
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 15);
    board.check();
    let request = RemoveFromPhysmap {
        domain: DomainId::SELF,
        reserved: [0; 3],
        gpfn: page,
    };
    assert_eq!(
        guest
            .call_with(
                number::MEMORY_OP,
                &[REMOVE_FROM_PHYSMAP],
                guest.ram(),
                request
            )
            .0,
        0
    );
    assert_eq!(
        guest
            .call_with(
                number::MEMORY_OP,
                &[REMOVE_FROM_PHYSMAP],
                guest.ram(),
                request
            )
            .0,
        -22
    );
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[page], 0), 1);
    assert_eq!(mapped(guest, page), home);
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 16);
}

#[test]
fn special_frames_are_the_domains_own() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    let page = (guest.ram() >> 12) + 100;
    let itself = DomainId::SELF;
    assert_eq!(add(guest, itself, SPACE_SHARED_INFO, 1, page), -22);
    assert_eq!(add(guest, itself, SPACE_GRANT_TABLE, 0, page), 0);
    assert_eq!(add(guest, itself, SPACE_GRANT_TABLE, 1, page + 1), 0);
    assert_eq!(
        add(guest, itself, SPACE_GRANT_TABLE, 2, page + 2),
        -22,
        "beyond the limit"
    );
    assert_eq!(
        add(guest, itself, SPACE_GRANT_TABLE, 0x8000_0000, page),
        -22
    );
    assert_eq!(add(guest, itself, SPACE_GRANT_TABLE, u64::MAX, page), -22);
    assert_eq!(add(guest, itself, SPACE_GMFN, 5, page), -95);
    assert_eq!(add(guest, itself, SPACE_GMFN_FOREIGN, 5, page), -95);
    assert_eq!(
        add(guest, itself, SPACE_DEVICE, 0x8_0000, page),
        -22,
        "the other domain's device"
    );
    assert_eq!(add(guest, itself, SPACE_DEVICE, 0x8_0001, page), 0);
    assert_eq!(add(guest, itself, SPACE_SHARED_INFO, 0, u64::MAX), -22);
    assert_eq!(add(guest, itself, SPACE_SHARED_INFO, 0, 1 << 40), -22);
    assert_eq!(add(guest, DomainId(0), SPACE_SHARED_INFO, 0, page), -1);
    assert_eq!(add(guest, DomainId(9), SPACE_SHARED_INFO, 0, page), -3);
    assert_eq!(
        add(control, DomainId(1), SPACE_SHARED_INFO, 0, page + 3),
        0,
        "control may"
    );
    board.check();
}

#[test]
fn a_batch_gives_each_entry_its_result() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let ram = guest.ram();
    let pages: Vec<u64> = (0..40).map(|index| (ram >> 12) + 100 + index % 3).collect();
    let indices: Vec<u64> = (0..40).map(|index| index % 3).collect();
    guest.put(ram + 1024, &indices[..]);
    guest.put(ram + 2048, &pages[..]);
    let request = AddToPhysmapBatch {
        domain: DomainId::SELF,
        space: 1,
        size: 40,
        extra: 0,
        indices: ram + 1024,
        gpfns: ram + 2048,
        errors: ram + 3072,
    };
    assert_eq!(
        guest
            .call_with(number::MEMORY_OP, &[ADD_TO_PHYSMAP_BATCH], ram, request)
            .0,
        0
    );
    let errors: [i32; 40] = guest.get(ram + 3072);
    for (index, error) in errors.into_iter().enumerate() {
        assert_eq!(error, if index % 3 == 2 { -22 } else { 0 });
    }
    board.check();
}

#[test]
fn stage_2_ends_at_its_budget() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let results: Vec<i64> = (0..64)
        .map(|index| {
            add(
                guest,
                DomainId::SELF,
                SPACE_SHARED_INFO,
                0,
                (guest.ram() >> 12) + 100 + index,
            )
        })
        .collect();
    assert_eq!(results.iter().filter(|result| **result == 0).count(), 24);
    assert!(results[24..].iter().all(|result| *result == -12));
}

#[test]
fn giving_back_works_without_tables_too() {
    let mut spec = DomainSpec::new("control", HARDWARE, true);
    spec.splits = 1;
    let board = Board::boot(&[spec]);
    let guest = board.guest(0, 0);
    let ram = guest.ram() >> 12;
    assert_eq!(
        change(guest, DECREASE_RESERVATION, &[ram + 5, ram + 6, ram + 7], 0),
        3
    );
    assert_eq!(mapped(guest, ram + 5), None);
    assert!(
        mapped(guest, ram + 6).is_some(),
        "left where it is, since nobody else gets it"
    );
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 13);
    assert_eq!(
        change(guest, POPULATE_PHYSMAP, &[ram + 7, ram + 6, ram + 5], 0),
        3
    );
    assert_eq!(reservation(guest, CURRENT_RESERVATION), 16);
    assert_eq!(change(guest, POPULATE_PHYSMAP, &[ram + 6], 0), 0);
    board.check();
}

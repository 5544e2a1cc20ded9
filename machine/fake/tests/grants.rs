//! Pages that one domain lends to another.

use abi::grant_table as gt;
use abi::grant_table::Status;
use abi::memory::{ADD_TO_PHYSMAP, AddToPhysmap, SPACE_GRANT_TABLE};
use abi::{DomainId, number};
use hypervisor::Reason;
use layout::{OnStop, Policies};
use terrane_machine_fake::{Board, DomainSpec, Guest, HARDWARE, NO_ROLE};

/// Where the tests put the grant table and what they borrow: pages beyond the domain's RAM.
const TABLE: u64 = 200;
const WINDOW: u64 = 300;

fn page(guest: Guest<'_>, index: u64) -> u64 {
    (guest.ram() >> 12) + index
}

/// Maps the guest's grant table and writes an entry.
fn grant(guest: Guest<'_>, reference: u64, flags: u16, to: u16, page: u64) {
    let request = AddToPhysmap {
        domain: DomainId::SELF,
        size: 0,
        space: SPACE_GRANT_TABLE,
        index: 0,
        gpfn: self::page(guest, TABLE),
    };
    assert_eq!(
        guest
            .call_with(number::MEMORY_OP, &[ADD_TO_PHYSMAP], guest.ram(), request)
            .0,
        0
    );
    guest.set_word(
        entry_address(guest, reference),
        u64::from(flags) | u64::from(to) << 16 | page << 32,
    );
}

fn entry_address(guest: Guest<'_>, reference: u64) -> u64 {
    (page(guest, TABLE) << 12) + reference * 8
}

fn flags(guest: Guest<'_>, reference: u64) -> u16 {
    (guest.word(entry_address(guest, reference)) & 0xffff) as u16
}

fn map(guest: Guest<'_>, domain: u16, reference: u32, window: u64, extra: u32) -> gt::Map {
    let request = gt::Map {
        host_address: page(guest, window) << 12,
        flags: gt::MAP_HOST | extra,
        reference,
        domain: DomainId(domain),
        status: 99,
        handle: 99,
        device_address: 0,
    };
    let (result, answer) = guest.call_with(
        number::GRANT_TABLE_OP,
        &[gt::MAP_GRANT_REF],
        guest.ram(),
        request,
    );
    assert_eq!(result, 0);
    answer
}

fn unmap(guest: Guest<'_>, handle: u32, window: u64) -> i16 {
    let request = gt::Unmap {
        host_address: page(guest, window) << 12,
        device_address: 0,
        handle,
        status: 99,
        reserved: 0,
    };
    guest
        .call_with(
            number::GRANT_TABLE_OP,
            &[gt::UNMAP_GRANT_REF],
            guest.ram(),
            request,
        )
        .1
        .status
}

#[test]
fn a_granted_page_is_shared_while_it_is_mapped() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(guest, 9, gt::GTF_PERMIT_ACCESS, 0, page(guest, 5));
    guest.put(page(guest, 5) << 12, b"hello");
    let mapped = map(control, 1, 9, WINDOW, 0);
    assert_eq!(mapped.status, 0);
    assert_eq!(
        &control.get::<[u8; 5]>(page(control, WINDOW) << 12),
        b"hello"
    );
    control.put(page(control, WINDOW) << 12, b"there");
    assert_eq!(&guest.get::<[u8; 5]>(page(guest, 5) << 12), b"there");
    let machine = guest
        .caller
        .domain
        .machine()
        .translate(layout::GuestAddress::new(page(guest, 5) << 12), false);
    assert_eq!(
        Some(mapped.device_address),
        machine.map(layout::MachineAddress::raw)
    );
    assert_eq!(
        flags(guest, 9),
        gt::GTF_PERMIT_ACCESS | gt::GTF_READING | gt::GTF_WRITING
    );
    board.check();

    assert_eq!(unmap(control, mapped.handle, WINDOW), 0);
    assert_eq!(flags(guest, 9), gt::GTF_PERMIT_ACCESS);
    assert_eq!(
        control.translate(
            page(control, WINDOW) << 12,
            hypervisor::Direction::FromGuest
        ),
        None
    );
    assert_eq!(
        unmap(control, mapped.handle, WINDOW),
        Status::BadHandle as i16
    );
    board.check();
}

#[test]
fn a_read_only_grant_is_not_written() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(
        guest,
        9,
        gt::GTF_PERMIT_ACCESS | gt::GTF_READONLY,
        0,
        page(guest, 5),
    );
    assert_eq!(
        map(control, 1, 9, WINDOW, 0).status,
        Status::PermissionDenied as i16
    );
    let mapped = map(control, 1, 9, WINDOW, gt::MAP_READONLY);
    assert_eq!(mapped.status, 0);
    assert_eq!(
        control.translate(page(control, WINDOW) << 12, hypervisor::Direction::ToGuest),
        None
    );
    assert_eq!(flags(guest, 9) & gt::GTF_WRITING, 0);
}

#[test]
fn two_mappings_of_one_grant_end_one_by_one() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(guest, 9, gt::GTF_PERMIT_ACCESS, 0, page(guest, 5));
    let writable = map(control, 1, 9, WINDOW, 0);
    let readable = map(control, 1, 9, WINDOW + 1, gt::MAP_READONLY);
    assert_eq!(unmap(control, writable.handle, WINDOW), 0);
    assert_eq!(flags(guest, 9), gt::GTF_PERMIT_ACCESS | gt::GTF_READING);
    assert_eq!(unmap(control, readable.handle, WINDOW + 1), 0);
    assert_eq!(flags(guest, 9), gt::GTF_PERMIT_ACCESS);
}

#[test]
fn what_is_not_granted_is_not_mapped() {
    let board = Board::boot(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("a", NO_ROLE, false),
        DomainSpec::new("b", NO_ROLE, false),
    ]);
    let (control, a, b) = (board.guest(0, 0), board.guest(1, 0), board.guest(2, 0));
    grant(a, 9, gt::GTF_PERMIT_ACCESS, 2, page(a, 5));
    grant(a, 10, gt::GTF_PERMIT_ACCESS, 2, page(a, 99));
    grant(a, 11, gt::GTF_PERMIT_ACCESS, 2, page(a, TABLE));
    let status = |guest, domain, reference| map(guest, domain, reference, WINDOW, 0).status;
    assert_eq!(
        status(control, 1, 9),
        Status::BadGrant as i16,
        "meant for another"
    );
    assert_eq!(status(b, 1, 8), Status::BadGrant as i16, "an empty entry");
    assert_eq!(
        status(b, 1, 512),
        Status::BadGrant as i16,
        "beyond the table"
    );
    assert_eq!(status(b, 1, u32::MAX), Status::BadGrant as i16);
    assert_eq!(status(b, 7, 9), Status::BadDomain as i16);
    assert_eq!(status(b, 1, 10), Status::BadPage as i16, "no RAM there");
    assert_eq!(
        status(b, 1, 11),
        Status::BadPage as i16,
        "the hypervisor's frame can't be lent on"
    );
    assert_eq!(
        flags(a, 10),
        gt::GTF_PERMIT_ACCESS,
        "nothing is left in use"
    );
    assert_eq!(status(a, 1, 9), Status::GeneralError as i16, "its own page");
    assert_eq!(
        map(b, 1, 9, 3, 0).status,
        Status::BadVirtualAddress as i16,
        "there is RAM already"
    );
    assert_eq!(
        map(b, 1, 9, WINDOW, gt::MAP_CONTAINS_PTE).status,
        Status::GeneralError as i16
    );
    assert_eq!(map(b, 1, 9, WINDOW, 0).status, 0);
    board.check();
}

#[test]
fn copies_go_through_grants() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(guest, 9, gt::GTF_PERMIT_ACCESS, 0, page(guest, 5));
    grant(
        guest,
        10,
        gt::GTF_PERMIT_ACCESS | gt::GTF_READONLY,
        0,
        page(guest, 6),
    );
    guest.put((page(guest, 6) << 12) + 100, b"packet");
    let end = |page, domain, offset| gt::CopyPointer {
        page,
        domain: DomainId(domain),
        offset,
        reserved: 0,
    };
    let copy = |source, destination, length, flags| {
        let request = gt::Copy {
            source,
            destination,
            length,
            flags,
            status: 99,
            reserved: 0,
        };
        control
            .call_with(number::GRANT_TABLE_OP, &[gt::COPY], control.ram(), request)
            .1
            .status
    };
    let own = end(page(control, 7), DomainId::SELF.0, 50);
    assert_eq!(copy(end(10, 1, 100), own, 6, gt::COPY_SOURCE_GREF), 0);
    assert_eq!(
        &control.get::<[u8; 6]>((page(control, 7) << 12) + 50),
        b"packet"
    );
    assert_eq!(copy(own, end(9, 1, 0), 6, gt::COPY_DEST_GREF), 0);
    assert_eq!(&guest.get::<[u8; 6]>(page(guest, 5) << 12), b"packet");
    assert_eq!(
        copy(own, end(10, 1, 0), 6, gt::COPY_DEST_GREF),
        Status::PermissionDenied as i16
    );
    assert_eq!(
        copy(own, end(9, 1, 4090), 7, gt::COPY_DEST_GREF),
        Status::BadCopyArgument as i16
    );
    assert_eq!(
        copy(end(page(guest, 5), 1, 0), own, 6, 0),
        Status::PermissionDenied as i16
    );
    assert_eq!(copy(end(u64::MAX, 0, 0), own, 6, 0), Status::BadPage as i16);
    assert_eq!(
        (flags(guest, 9), flags(guest, 10)),
        (
            gt::GTF_PERMIT_ACCESS,
            gt::GTF_PERMIT_ACCESS | gt::GTF_READONLY
        )
    );
}

#[test]
fn a_domain_that_ends_lets_go_of_what_it_borrowed() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(control, 9, gt::GTF_PERMIT_ACCESS, 1, page(control, 5));
    assert_eq!(map(guest, 0, 9, WINDOW, 0).status, 0);
    let _ = guest.caller.shutdown(Reason::PowerOff);
    assert_eq!(flags(control, 9), gt::GTF_PERMIT_ACCESS);
    board.check();
}

#[test]
fn grants_end_with_the_life_that_gave_them() {
    let policies = Policies {
        on_reboot: OnStop::Restart,
        ..Policies::default()
    };
    let spec = |name, role| DomainSpec {
        policies,
        ..DomainSpec::new(name, role, false)
    };
    for end in [Reason::PowerOff, Reason::Reboot] {
        let control = DomainSpec::new("control", HARDWARE, true);
        let board = Board::boot(&[control, spec("guest", NO_ROLE)]);
        let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
        grant(guest, 9, gt::GTF_PERMIT_ACCESS, 0, page(guest, 5));
        let table = guest.caller.domain.machine().mappings();
        let frames = table
            .iter()
            .map(|(_, mapping)| mapping.mfn)
            .filter(|mfn| {
                let owner = board.system.ownership().find(*mfn).unwrap().owner;
                matches!(owner, hypervisor::Owner::Pool(_))
            })
            .collect::<Vec<_>>();
        assert!(!frames.is_empty());
        let _ = guest.caller.shutdown(end);
        for frame in frames {
            let contents = board.machine().memory().contents(frame);
            assert!(contents.iter().all(|word| *word == 0));
        }
        assert_eq!(
            map(control, 1, 9, WINDOW, 0).status,
            gt::Status::BadGrant as i16
        );
        board.check();
    }
}

#[test]
fn a_domain_whose_pages_are_lent_is_not_restarted() {
    let policies = Policies {
        on_reboot: OnStop::Restart,
        ..Policies::default()
    };
    let board = Board::boot(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec {
            policies,
            ..DomainSpec::new("guest", NO_ROLE, false)
        },
    ]);
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    grant(guest, 9, gt::GTF_PERMIT_ACCESS, 0, page(guest, 5));
    assert_eq!(map(control, 1, 9, WINDOW, 0).status, 0);
    let _ = guest.caller.shutdown(Reason::Reboot);
    assert!(
        board
            .machine()
            .take_console()
            .contains("guest: can't be restarted: ")
    );
    board.check();
}

#[test]
fn the_table_is_asked_about() {
    let board = Board::two();
    let guest = board.guest(1, 0);
    let query = |domain| {
        let request = gt::QuerySize {
            domain: DomainId(domain),
            reserved: 0,
            frames: 9,
            max_frames: 9,
            status: 99,
            reserved2: 0,
        };
        let answer = guest
            .call_with(
                number::GRANT_TABLE_OP,
                &[gt::QUERY_SIZE],
                guest.ram(),
                request,
            )
            .1;
        (answer.status, answer.frames, answer.max_frames)
    };
    assert_eq!(query(DomainId::SELF.0), (0, 1, 2));
    assert_eq!(query(0).0, Status::PermissionDenied as i16);
    assert_eq!(query(5).0, Status::BadDomain as i16);
    let setup = |frames| {
        let list = guest.ram() + 64;
        let request = gt::SetupTable {
            domain: DomainId::SELF,
            reserved: 0,
            frames,
            status: 99,
            reserved2: [0; 3],
            list,
        };
        guest
            .call_with(
                number::GRANT_TABLE_OP,
                &[gt::SETUP_TABLE],
                guest.ram(),
                request,
            )
            .1
            .status
    };
    assert_eq!(setup(2), 0);
    assert_eq!(setup(3), Status::GeneralError as i16);
    assert_eq!(query(DomainId::SELF.0), (0, 2, 2));
    let version = |version| {
        let request = gt::SetVersion { version };
        guest
            .call_with(
                number::GRANT_TABLE_OP,
                &[gt::SET_VERSION],
                guest.ram(),
                request,
            )
            .0
    };
    assert_eq!((version(1), version(2)), (0, -38));
    let request = gt::GetVersion {
        domain: DomainId::SELF,
        reserved: 0,
        version: 0,
    };
    assert_eq!(
        guest
            .call_with(
                number::GRANT_TABLE_OP,
                &[gt::GET_VERSION],
                guest.ram(),
                request
            )
            .1
            .version,
        1
    );
}

#[test]
fn caches_are_flushed_for_own_and_borrowed_frames_only() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    let flush = |guest: Guest<'_>, address, length, operation| {
        let request = gt::CacheFlush {
            address,
            offset: 16,
            length,
            operation,
        };
        guest
            .call_with(
                number::GRANT_TABLE_OP,
                &[gt::CACHE_FLUSH],
                guest.ram(),
                request,
            )
            .0
    };
    let own = control.ram();
    assert_eq!(
        flush(control, 0, 0, 0),
        0,
        "how Linux asks whether it is there"
    );
    assert_eq!(flush(control, own, 64, gt::CACHE_CLEAN), 0);
    assert_eq!(flush(control, own, 4090, gt::CACHE_CLEAN), -22);
    assert_eq!(flush(control, own, 64, gt::CACHE_SOURCE_GREF), -95);
    assert_eq!(flush(guest, own, 64, gt::CACHE_INVALIDATE), -1);
    grant(control, 9, gt::GTF_PERMIT_ACCESS, 1, page(control, 0));
    assert_eq!(map(guest, 0, 9, WINDOW, 0).status, 0);
    assert_eq!(flush(guest, own, 64, gt::CACHE_INVALIDATE), 0);
}

#[test]
fn long_arrays_go_on_in_batches() {
    let board = Board::two();
    let guest = board.guest(1, 0);
    let entry = gt::Unmap {
        host_address: 0,
        device_address: 0,
        handle: 4,
        status: 99,
        reserved: 0,
    };
    guest.put(guest.ram(), &[entry; 40][..]);
    let mut args = [gt::UNMAP_GRANT_REF, guest.ram(), 40, 0, 0];
    assert_eq!(
        guest.step(number::GRANT_TABLE_OP, &mut args),
        hypervisor::Next::Again
    );
    assert_eq!(args[2], 24);
    assert_eq!(guest.call(number::GRANT_TABLE_OP, &args), Ok(0));
    assert_eq!(
        guest.get::<gt::Unmap>(guest.ram() + 39 * 24).status,
        Status::BadHandle as i16
    );
}

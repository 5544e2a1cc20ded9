//! Two domains that make hypercalls with the arguments and the memory that the fuzzer gives them.
//! Whatever they do, nobody's frames get into the other's hands, and every call ends.
#![no_main]

use hypervisor::Direction;
use libfuzzer_sys::fuzz_target;
use machine_fake::{Board, Guest};

/// Bytes of one deed: who, which hypercall, five arguments, a buffer's six words.
const DEED: usize = 2 + 5 * 8 + 6 * 8;

fuzz_target!(|data: &[u8]| {
    let board = Board::two();
    for deed in data.chunks_exact(DEED).take(64) {
        act(board.guest(u16::from(deed[0] & 1), 0), deed);
        board.check();
    }
});

fn act(guest: Guest<'_>, deed: &[u8]) {
    let (head, words) = deed.split_at(2);
    let word = |index: usize| {
        let bytes = words
            .chunks_exact(8)
            .nth(index)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let buffer = guest.ram();
    if head[0] & 2 != 0 && guest.translate(buffer, Direction::ToGuest).is_some() {
        guest.put(buffer, &[5, 6, 7, 8, 9, 10].map(word));
    }
    // Half of the arguments that could be an address are the buffer's.
    let argument = |index: usize| {
        if head[0] >> (2 + index) & 1 == 1 {
            buffer
        } else {
            word(index)
        }
    };
    let arguments = [
        word(0) & 0xff,
        argument(1),
        argument(2),
        argument(3),
        word(4),
    ];
    let _ = guest.call(u64::from(head[1]), &arguments);
}

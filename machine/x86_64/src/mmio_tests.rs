use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use proptest::prelude::*;

use super::*;

fn load(number: u8, bytes: u8) -> Action {
    let register = Register {
        number,
        bytes,
        high: false,
    };
    Action::Load(register, Extend::Zero)
}

#[test]
fn what_linux_uses() {
    // mov eax, [rip+0x20]; mov r9d, [rdi]; mov [rdi+rax*4+0x80], esi; mov dword [rdi], 0xb0.
    let found = decode(&[0x8b, 0x05, 0x20, 0, 0, 0, 0x90], Mode::Bits64).unwrap();
    assert_eq!(
        (found.length, found.bytes, found.action),
        (6, 4, load(0, 4))
    );
    let found = decode(&[0x44, 0x8b, 0x0f], Mode::Bits64).unwrap();
    assert_eq!((found.length, found.action), (3, load(9, 4)));
    let found = decode(&[0x89, 0xb4, 0x87, 0x80, 0, 0, 0], Mode::Bits64).unwrap();
    assert!(matches!(found.action, Action::Store(register) if register.number == 6));
    let found = decode(&[0xc7, 0x07, 0xb0, 0, 0, 0], Mode::Bits64).unwrap();
    assert_eq!(found.action, Action::StoreConstant(0xb0));
    // An instruction that computes with memory, and one whose end is missing.
    assert_eq!(decode(&[0x09, 0x07], Mode::Bits64), None);
    assert_eq!(decode(&[0xc7, 0x07, 0xb0, 0, 0], Mode::Bits64), None);
    // LOCK is XCHG's alone.
    assert_eq!(decode(&[0xf0, 0x88, 0, 0], Mode::Bits32), None);
    assert!(decode(&[0xf0, 0x87, 0], Mode::Bits32).is_some());
}

#[test]
fn parts_of_registers() {
    let ah = Register {
        number: 0,
        bytes: 1,
        high: true,
    };
    assert_eq!(ah.of(0x1234), 0x12);
    assert_eq!(ah.put(u64::MAX, 0), 0xffff_ffff_ffff_00ff);
    let eax = Register {
        number: 0,
        bytes: 4,
        high: false,
    };
    assert_eq!(eax.put(u64::MAX, 1), 1);
    assert_eq!(Extend::Sign.apply(0x80, 1), 0xffff_ffff_ffff_ff80);
}

/// The same by another decoder: length, bytes of memory, register.
fn oracle(bytes: &[u8], mode: Mode) -> Option<(usize, usize)> {
    let bits = match mode {
        Mode::Bits16 => 16,
        Mode::Bits32 => 32,
        Mode::Bits64 => 64,
    };
    // As AMD's CPUs decode: an operand-size prefix means 16 bits everywhere.
    let mut decoder = Decoder::new(bits, bytes, DecoderOptions::AMD);
    let found = decoder.decode();
    let in_memory = |operand| matches!(found.op_kind(operand), OpKind::Memory);
    let known = matches!(
        found.mnemonic(),
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd | Mnemonic::Xchg
    );
    let memory = found.op_count() == 2 && (in_memory(0) || in_memory(1));
    (!found.is_invalid() && known && memory).then(|| (found.len(), found.memory_size().size()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    /// Whatever is decoded has the length and the width that another decoder finds.
    #[test]
    fn agrees_with_another_decoder(
        prefix in prop_oneof![
            4 => Just(vec![]), 1 => Just(vec![0x66u8]), 1 => Just(vec![0x67]), 2 => (0x40u8..0x50).prop_map(|rex| vec![rex]),
            1 => (0x40u8..0x50).prop_map(|rex| vec![0x66, rex]), 1 => Just(vec![0x65]),
            1 => Just(vec![0xf0]),
        ],
        opcode in prop_oneof![
            Just(vec![0x88u8]), Just(vec![0x89]), Just(vec![0x8a]), Just(vec![0x8b]), Just(vec![0x86]), Just(vec![0x87]),
            Just(vec![0xa1]), Just(vec![0xa2]), Just(vec![0xc6]), Just(vec![0xc7]), Just(vec![0x63]),
            Just(vec![0x0f, 0xb6]), Just(vec![0x0f, 0xb7]), Just(vec![0x0f, 0xbe]), Just(vec![0x0f, 0xbf]),
            prop::collection::vec(any::<u8>(), 1..3),
        ],
        rest in prop::collection::vec(any::<u8>(), 12),
        mode in prop_oneof![Just(Mode::Bits16), Just(Mode::Bits32), Just(Mode::Bits64)],
    ) {
        let bytes: Vec<u8> = prefix.into_iter().chain(opcode).chain(rest).collect();
        if let Some(found) = decode(&bytes, mode) {
            prop_assert_eq!(
                oracle(&bytes, mode), Some((usize::from(found.length), usize::from(found.bytes))), "{:x?}", bytes
            );
        }
    }
}

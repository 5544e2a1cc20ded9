//! Where a domain sees the machine frames that it owns.

use alloc::vec::Vec;

use super::sets::{SUPERPAGE, align_down, align_up};
use crate::address::{
    Extent, FRAME_SHIFT, Frame, Gfn, GfnRange, GuestAddress, GuestRange, MfnRange,
};
use crate::domain::{DirectMap, Identity};
use crate::fixed;
use crate::host::{Architecture, ControllerKind, HostMap};
use crate::plan::Bank;
use crate::sort::sort_by_key;

/// Guest RAM of a domain that doesn't use the host's layout, lowest first, as frame numbers.
///
/// Arm: Xen's fixed layout. x86: up to the hole that Xen's HVM domains leave below 4 GiB
/// (public/hvm/hvm_info_table.h, `HVM_BELOW_4G_RAM_END`), then from 4 GiB on. RISC-V has no such
/// layout in Xen's interface: RAM from 2 GiB, where its machines commonly have it.
const fn fixed_layout(architecture: Architecture) -> &'static [(u64, u64)] {
    const GIB: u64 = 1 << (30 - FRAME_SHIFT);
    const fn frames((start, bytes): (u64, u64)) -> (u64, u64) {
        (start >> FRAME_SHIFT, (start + bytes) >> FRAME_SHIFT)
    }
    match architecture {
        Architecture::Aarch64 => &const { [frames(fixed::RAM[0]), frames(fixed::RAM[1])] },
        Architecture::X86_64 => &[(0, 15 * GIB / 4), (4 * GIB, 1024 * GIB)],
        Architecture::Riscv64 => &[(2 * GIB, 1024 * GIB)],
    }
}

/// The guest frames that a domain's RAM may have, lowest first. `host` is RAM that anybody may
/// have.
pub(crate) fn places(
    architecture: Architecture,
    identity: &Identity,
    host: &[MfnRange],
) -> Vec<GfnRange> {
    if identity.uses_host_layout() {
        let same = |range: &MfnRange| {
            GfnRange::between(Gfn::new(range.start().raw()), Gfn::new(range.end().raw()))
        };
        return host.iter().map(same).collect();
    }
    let fixed = fixed_layout(architecture).iter();
    fixed
        .map(|(start, end)| GfnRange::between(Gfn::new(*start), Gfn::new(*end)))
        .collect()
}

/// What a domain finds in its address space beside RAM and devices, and what it is: its virtual
/// interrupt controller and UART, where it doesn't use the host's layout.
pub(crate) fn emulated(
    host: &HostMap,
    identity: &Identity,
    vpl011: bool,
) -> Vec<(GuestRange, &'static str)> {
    use fixed::{GICC, GICC_BYTES, GICD, GICD_V2_BYTES, GICD_V3_BYTES, GICR, GICR_BYTES};
    if host.architecture != Architecture::Aarch64 || identity.uses_host_layout() {
        return Vec::new();
    }
    let controller: &[(u64, u64)] = match host.controller.kind {
        ControllerKind::GicV2 => &[(GICD, GICD_V2_BYTES), (GICC, GICC_BYTES)],
        ControllerKind::GicV3 => &[(GICD, GICD_V3_BYTES), (GICR, GICR_BYTES)],
        _ => &[],
    };
    let controller = controller
        .iter()
        .map(|it| (*it, "virtual interrupt controller"));
    let uart = vpl011.then_some(((fixed::VPL011, fixed::VPL011_BYTES), "virtual PL011"));
    let seen = controller.chain(uart).map(|((start, bytes), what)| {
        let range = GuestRange::saturating(GuestAddress::new(start), bytes);
        (range, what)
    });
    seen.collect()
}

/// Banks at the same numbers in both spaces, whatever the domain's other RAM does.
pub(crate) fn same_frames(frames: &[MfnRange]) -> impl Iterator<Item = Bank> {
    frames.iter().map(|range| Bank {
        gfn: Gfn::new(range.start().raw()),
        mfn: range.start(),
        frames: range.frames(),
        reserved: false,
    })
}

/// The most frames that a domain which isn't direct-mapped can see.
pub(crate) fn most_frames(
    architecture: Architecture,
    identity: &Identity,
    host: &[MfnRange],
) -> u64 {
    places(architecture, identity, host)
        .iter()
        .map(GfnRange::frames)
        .sum()
}

/// The banks of a domain that owns `owned`, by guest frame. `None` if its layout has no room
/// for them.
pub(crate) fn banks(
    architecture: Architecture,
    identity: &Identity,
    host: &[MfnRange],
    owned: &[MfnRange],
) -> Option<Vec<Bank>> {
    if let Some(direct) = DirectMap::of(identity) {
        let bank = |range: &MfnRange| Bank {
            gfn: direct.guest(range.start()),
            mfn: range.start(),
            frames: range.frames(),
            reserved: false,
        };
        return Some(owned.iter().map(bank).collect());
    }
    let places = superpages_first(&places(architecture, identity, host));
    let mut banks: Vec<Bank> = Vec::new();
    let mut place = 0;
    let mut used = 0;
    for piece in superpages_first(owned) {
        let mut piece = piece;
        while !piece.is_empty() {
            let here = places.get(place)?;
            let room = here.frames() - used;
            if room == 0 {
                place += 1;
                used = 0;
                continue;
            }
            let gfn = here.start().offset(used);
            let count = piece.frames().min(room);
            banks.push(Bank {
                gfn,
                mfn: piece.start(),
                frames: count,
                reserved: false,
            });
            used += count;
            piece = MfnRange::between(piece.start().offset(count), piece.end());
        }
    }
    sort_by_key(&mut banks, |bank| [bank.gfn.raw(), 0, 0]);
    let mut joined = Vec::with_capacity(banks.len());
    for bank in banks {
        push(&mut joined, bank);
    }
    Some(joined)
}

/// The same frames with all whole superpages before everything else: machine superpages then meet
/// guest superpages, and no odd piece pushes one off its alignment.
fn superpages_first<F: Frame>(ranges: &[Extent<F>]) -> Vec<Extent<F>> {
    let core = |range: &Extent<F>| {
        let start = align_up(range.start().to_raw(), SUPERPAGE);
        let end = align_down(range.end().to_raw(), SUPERPAGE);
        (start < end).then(|| Extent::between(F::from_raw(start), F::from_raw(end)))
    };
    let odd = ranges.iter().flat_map(|range| match core(range) {
        Some(core) => [
            Extent::between(range.start(), core.start()),
            Extent::between(core.end(), range.end()),
        ],
        None => [*range, Extent::empty(range.end())],
    });
    ranges
        .iter()
        .filter_map(core)
        .chain(odd)
        .filter(|piece| !piece.is_empty())
        .collect()
}

fn push(banks: &mut Vec<Bank>, bank: Bank) {
    if let Some(last) = banks.last_mut()
        && last.guest().end() == bank.gfn
        && last.machine().end() == bank.mfn
    {
        last.frames += bank.frames;
        return;
    }
    banks.push(bank);
}

#[cfg(test)]
mod tests {
    use super::super::sets::frames;
    use super::*;
    use crate::domain::{Capabilities, Kind};
    use alloc::vec;

    fn identity(capabilities: Capabilities, direct: bool) -> Identity {
        Identity::new(Kind::Pvh, capabilities, Some(direct))
    }

    #[test]
    fn superpages_keep_their_alignment() {
        let owned = [frames(0x10_0001, 0x10_0600), frames(0x20_0000, 0x20_0400)];
        let plain = identity(Capabilities::empty(), false);
        let banks = banks(Architecture::Aarch64, &plain, &[], &owned).unwrap();
        let pairs: Vec<_> = banks
            .iter()
            .map(|b| (b.gfn.raw(), b.mfn.raw(), b.frames))
            .collect();
        assert_eq!(
            pairs,
            vec![
                (0x4_0000, 0x10_0200, 0x400),
                (0x4_0400, 0x20_0000, 0x400),
                (0x4_0800, 0x10_0001, 0x1ff),
            ]
        );
    }

    #[test]
    fn a_large_guest_continues_in_the_second_bank() {
        let owned = [frames(0x100_0000, 0x100_0000 + 0x10_0000)];
        let plain = identity(Capabilities::empty(), false);
        let banks = banks(Architecture::Aarch64, &plain, &[], &owned).unwrap();
        let pairs: Vec<_> = banks.iter().map(|b| (b.gfn.raw(), b.frames)).collect();
        assert_eq!(pairs, vec![(0x4_0000, 0xc_0000), (0x20_0000, 0x4_0000)]);
    }

    #[test]
    fn direct_means_the_same_number() {
        let owned = [frames(0x7_0000, 0x8_0000)];
        let direct = identity(Capabilities::empty(), true);
        let banks = banks(Architecture::Aarch64, &direct, &[], &owned).unwrap();
        assert_eq!(
            (banks[0].gfn.raw(), banks[0].mfn.raw()),
            (0x7_0000, 0x7_0000)
        );
    }

    #[test]
    fn an_indirect_hardware_domain_sees_ram_where_the_host_has_it() {
        let host = [frames(0x4_0000, 0x5_0000), frames(0x8_0000, 0x9_0000)];
        let owned = [frames(0x8_0000, 0x8_8000)];
        let indirect = identity(Capabilities::HARDWARE, false);
        let banks = banks(Architecture::Aarch64, &indirect, &host, &owned).unwrap();
        assert_eq!(
            (banks[0].gfn.raw(), banks[0].mfn.raw()),
            (0x4_0000, 0x8_0000)
        );
    }
}

//! The distributor's registers, and those of the same shape in a redistributor's SGI frame.
//!
//! A register of one bit per interrupt is served from a bank: the physical register cut down to the domain's bits, and
//! the bits that are software's. Word 0 (software and private interrupts) belongs to a vCPU, the others to the domain.

use core::sync::atomic::{AtomicU8, Ordering};

use super::{Access, Outcome, PRIORITY_BITS, Size, VirtualGic, WORDS};
use crate::gic::registers::gicd;
use crate::gic::{ORDINARY, Registers};

/// GICD_IIDR and GICR_IIDR: Arm's implementer code, no product.
pub(super) const IIDR: u64 = 0x43b;

/// A one-bit-per-interrupt register: what reading it shows and writing ones to it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl Bits {
    /// The register array that `offset` lies in, and the word in it.
    const fn at(offset: u64) -> Option<(Self, usize)> {
        let bits = match offset & !0x7f {
            gicd::ISENABLER => Self::SetEnable,
            gicd::ICENABLER => Self::ClearEnable,
            gicd::ISPENDR => Self::SetPending,
            gicd::ICPENDR => Self::ClearPending,
            gicd::ISACTIVER => Self::SetActive,
            gicd::ICACTIVER => Self::ClearActive,
            _ => return None,
        };
        Some((bits, (offset & 0x7f) as usize / 4))
    }
}

impl<R: Registers> VirtualGic<'_, R> {
    /// An access to the distributor by `vcpu`.
    pub(super) fn distributor(&self, vcpu: usize, access: Access) -> Outcome {
        match access.offset {
            gicd::CTLR | gicd::TYPER | gicd::IIDR if access.size != Size::Word => Outcome::Fault,
            gicd::CTLR => self.control(vcpu, access),
            gicd::TYPER => access.read_only(u64::from(self.typer())),
            gicd::IIDR => access.read_only(IIDR),
            // On a GICv3 word 0 lives in the redistributors; on a GICv2 it is banked by CPU.
            0x100..=0x3ff | gicd::IPRIORITYR..=0x7ff | gicd::ICFGR..=0xcff => {
                if self.gic.is_v2() || !is_private(access.offset) {
                    self.interrupts(vcpu, vcpu, access)
                } else {
                    zero_unless_wrong(access)
                }
            }
            gicd::IGROUPR..=0xff | gicd::IGRPMODR..=0xd7f | gicd::NSACR..=0xeff => {
                zero_unless_wrong(access)
            }
            gicd::ITARGETSR..=0xbff if self.gic.is_v2() => self.targets(vcpu, access),
            gicd::SGIR if self.gic.is_v2() => match (access.size, access.write32()) {
                (Size::Word, Some(value)) => {
                    self.sgir(vcpu, value);
                    Outcome::Done
                }
                (Size::Word, None) => Outcome::Value(0),
                _ => Outcome::Fault,
            },
            gicd::CPENDSGIR..=0xf2f if self.gic.is_v2() => self.pending_senders(vcpu, access),
            gicd::V2_PIDR2 if self.gic.is_v2() => access.read_only(0x2b),
            gicd::IROUTER..=0x7fdf if !self.gic.is_v2() => self.router(vcpu, access),
            gicd::V3_PIDR2 if !self.gic.is_v2() => access.read_only(0x3b),
            // Reserved, or a feature that TYPER doesn't announce.
            _ => access.read_only(0),
        }
    }

    /// GICD_CTLR. On GICv3 the guest sees a Non-secure view with affinity routing always on.
    fn control(&self, vcpu: usize, access: Access) -> Outcome {
        let (enable, fixed) = if self.gic.is_v2() {
            (gicd::CTLR_V2_ENABLE, 0)
        } else {
            (gicd::CTLR_ENABLE_GROUP1, gicd::CTLR_ARE)
        };
        let Some(value) = access.write32() else {
            let enabled = if self.enabled.load(Ordering::Relaxed) {
                enable
            } else {
                0
            };
            return Outcome::Value(u64::from(fixed | enabled));
        };
        let enabled = value & enable != 0;
        if self.enabled.swap(enabled, Ordering::SeqCst) != enabled && enabled {
            for (index, other) in self.vcpus.iter().enumerate() {
                if index == vcpu {
                    self.fill(other);
                } else if !other.pending.is_empty() {
                    self.notify(other);
                }
            }
        }
        Outcome::Done
    }

    fn typer(&self) -> u32 {
        let cpus = (self.vcpus.len() as u32).clamp(1, 8) - 1;
        let lines = self.gic.lines / 32 - 1;
        if self.gic.is_v2() {
            return lines | (cpus << 5);
        }
        // IDbits: 10 bits of interrupt number, 16 with LPIs. No1N: an SPI goes to one CPU.
        let numbers = if self.has_lpis() {
            gicd::TYPER_LPIS | (self.gic.typer & gicd::TYPER_ID_BITS).min(15 << 19)
        } else {
            9 << 19
        };
        lines | (cpus << 5) | numbers | (1 << 25)
    }

    /// Registers that the distributor and the SGI frame share. `owner` is the vCPU whose private interrupts word 0 is.
    pub(super) fn interrupts(&self, vcpu: usize, owner: usize, access: Access) -> Outcome {
        match access.offset {
            gicd::IPRIORITYR..=0x7ff => self.priorities(owner, access),
            _ if access.size != Size::Word => Outcome::Fault,
            gicd::ICFGR..=0xcff => self.triggers(owner, access),
            _ => match Bits::at(access.offset) {
                Some((bits, word)) if 32 * (word as u64) < u64::from(self.gic.lines) => {
                    match access.write32() {
                        Some(value) => {
                            self.write_bits(vcpu, owner, bits, word, value);
                            Outcome::Done
                        }
                        None => Outcome::Value(u64::from(self.read_bits(vcpu, owner, bits, word))),
                    }
                }
                _ => access.read_only(0),
            },
        }
    }

    /// Where the physical registers of a word lie: for word 0 those of the CPU that the vCPU is pinned to.
    pub(super) fn bank_base(&self, owner: usize, word: usize) -> u64 {
        if word == 0 {
            self.gic.private_base(&self.gic.cpus[self.vcpus[owner].cpu])
        } else {
            self.gic.facts.distributor.start
        }
    }

    fn read_bits(&self, vcpu: usize, owner: usize, bits: Bits, word: usize) -> u32 {
        let physical = self.physical[word];
        let read = |array: u64| match physical {
            0 => 0,
            mask => {
                self.gic
                    .registers
                    .read32(self.bank_base(owner, word) + array + 4 * word as u64)
                    & mask
            }
        };
        match bits {
            Bits::SetEnable | Bits::ClearEnable => {
                let enabled = if word == 0 {
                    &self.vcpus[owner].enabled
                } else {
                    &self.spi_enabled[word]
                };
                read(gicd::ISENABLER) | (enabled.load(Ordering::Relaxed) & self.software[word])
            }
            Bits::SetPending | Bits::ClearPending => {
                read(gicd::ISPENDR) | self.waiting(vcpu, owner, word)
            }
            Bits::SetActive | Bits::ClearActive => {
                // The hardware calls active what EL2 has taken; for the guest that is pending until it takes it.
                let software =
                    self.listed(vcpu, owner, word, |lr| lr.is_active()) & self.software[word];
                (read(gicd::ISACTIVER) & !self.waiting(vcpu, owner, word)) | software
            }
        }
    }

    /// What waits in software or, on this CPU, in a list register.
    fn waiting(&self, vcpu: usize, owner: usize, word: usize) -> u32 {
        let listed = self.listed(vcpu, owner, word, |lr| lr.is_pending());
        if word == 0 {
            return listed | self.vcpus[owner].pending.word(0);
        }
        self.vcpus
            .iter()
            .fold(listed, |bits, vcpu| bits | vcpu.pending.word(word))
    }

    /// A word's bits of the list registers that match, if they can be reached from here.
    fn listed(
        &self,
        vcpu: usize,
        owner: usize,
        word: usize,
        matches: impl Fn(crate::gic::ListRegister) -> bool,
    ) -> u32 {
        if vcpu != owner {
            return 0;
        }
        self.list_registers()
            .filter(|&(_, lr)| lr.intid() as usize / 32 == word && matches(lr))
            .fold(0, |bits, (_, lr)| bits | 1 << (lr.intid() % 32))
    }

    fn write_bits(&self, vcpu: usize, owner: usize, bits: Bits, word: usize, value: u32) {
        let physical = value & self.physical[word];
        let software = value & self.software[word];
        let write = |array: u64| {
            if physical != 0 {
                self.gic.registers.write32(
                    self.bank_base(owner, word) + array + 4 * word as u64,
                    physical,
                );
            }
        };
        let enabled = if word == 0 {
            &self.vcpus[owner].enabled
        } else {
            &self.spi_enabled[word]
        };
        match bits {
            Bits::SetEnable => {
                write(gicd::ISENABLER);
                if software & !enabled.fetch_or(software, Ordering::Relaxed) != 0 {
                    self.look_again(vcpu, owner, word);
                }
            }
            Bits::ClearEnable => {
                write(gicd::ICENABLER);
                enabled.fetch_and(!software, Ordering::Relaxed);
                if physical != 0 {
                    self.withdraw_word(vcpu, owner, word, physical);
                }
            }
            Bits::SetPending => {
                write(gicd::ISPENDR);
                for intid in ones(word, software) {
                    self.set_pending(vcpu, owner, intid);
                }
            }
            Bits::ClearPending => {
                write(gicd::ICPENDR);
                self.clear_pending(vcpu, owner, word, value);
            }
            // Only a register restore sets active bits, and then only of what software doesn't hold.
            Bits::SetActive => write(gicd::ISACTIVER),
            Bits::ClearActive => {
                write(gicd::ICACTIVER);
                if vcpu == owner {
                    let mask = value & (self.physical[word] | self.software[word]);
                    self.edit_list_registers(|lr| {
                        let mine = lr.intid() as usize / 32 == word
                            && mask & (1 << (lr.intid() % 32)) != 0;
                        if mine { lr.without_active() } else { lr }
                    });
                }
            }
        }
    }

    /// After an enable: what waited may now be delivered.
    fn look_again(&self, vcpu: usize, owner: usize, word: usize) {
        for (index, other) in self.vcpus.iter().enumerate() {
            if (word != 0 || index == owner) && other.pending.word(word) != 0 {
                if index == vcpu {
                    self.fill(other)
                } else {
                    self.notify(other)
                }
            }
        }
    }

    fn withdraw_word(&self, vcpu: usize, owner: usize, word: usize, mask: u32) {
        if word == 0 {
            self.withdraw(vcpu, owner, 0, mask);
        } else {
            (0..self.vcpus.len()).for_each(|index| self.withdraw(vcpu, index, word, mask));
        }
    }

    /// Makes an interrupt pending that is software's.
    fn set_pending(&self, vcpu: usize, owner: usize, intid: u32) {
        let target = if intid < 32 {
            owner
        } else {
            self.spi_target(intid)
        };
        if let Some(state) = self.vcpus.get(target) {
            if target == vcpu {
                self.offer(state, intid, 0);
            } else if intid < 16 {
                self.post(target, intid, 1);
            } else {
                state.pending.insert(intid);
                self.notify(state);
            }
        }
    }

    /// Forgets what waits; what EL2 took from the hardware is inactive then.
    fn clear_pending(&self, vcpu: usize, owner: usize, word: usize, value: u32) {
        let mask = value & (self.physical[word] | self.software[word]);
        for (index, other) in self.vcpus.iter().enumerate() {
            if word == 0 && index != owner {
                continue;
            }
            let mut taken = other.pending.remove_bits(word, mask);
            if word == 0 {
                ones(0, taken & 0xffff)
                    .for_each(|sgi| other.senders[sgi as usize].store(0, Ordering::Relaxed));
            }
            if index == vcpu {
                for (number, lr) in self.list_registers() {
                    let bit = 1 << (lr.intid() % 32);
                    if lr.intid() as usize / 32 == word && mask & bit != 0 && lr.is_pending() {
                        taken |= bit;
                        let rest = lr.without_pending();
                        let rest = if rest.is_valid() {
                            rest
                        } else {
                            crate::gic::ListRegister::EMPTY
                        };
                        self.gic.set_list_register(number, rest);
                    }
                }
            }
            let taken = taken & self.physical[word];
            if taken != 0 {
                let address = self.bank_base(owner, word) + gicd::ICACTIVER + 4 * word as u64;
                self.gic.registers.write32(address, taken);
            }
        }
    }

    /// GICD_IPRIORITYR and GICR_IPRIORITYR: bytes or words. Software's alone, see `vgic`.
    fn priorities(&self, owner: usize, access: Access) -> Outcome {
        if !matches!(access.size, Size::Byte | Size::Word) {
            return Outcome::Fault;
        }
        let first = (access.offset - gicd::IPRIORITYR) as u32;
        each_byte(access, |index, write| {
            let priority = self.priority_cell(owner, first + index)?;
            match write {
                Some(value) => priority.store(value & PRIORITY_BITS, Ordering::Relaxed),
                None => return Some(priority.load(Ordering::Relaxed)),
            }
            None
        })
    }

    fn priority_cell(&self, owner: usize, intid: u32) -> Option<&AtomicU8> {
        let word = intid as usize / 32;
        let bits = self.physical.get(word)? | self.software.get(word)?;
        if bits & (1 << (intid % 32)) == 0 {
            return None;
        }
        match intid.checked_sub(32) {
            None => self.vcpus[owner].priority.get(intid as usize),
            Some(spi) => self.priority.get(spi as usize),
        }
    }

    /// GICD_ICFGR and GICR_ICFGR: two bits an interrupt, the upper one says "edge". Others' bits share the register.
    fn triggers(&self, owner: usize, access: Access) -> Outcome {
        let register = (access.offset - gicd::ICFGR) / 4;
        let word = register as usize / 2;
        let half = 16 * (register % 2);
        if word >= WORDS {
            return access.read_only(0);
        }
        let mask = spread((self.physical[word] >> half) & 0xffff);
        let address = self.bank_base(owner, word) + access.offset;
        match access.write32() {
            None => {
                // Software interrupts are edges, and so is a virtual SPI or the event-channel interrupt a level: zero.
                let edges = if register == 0 { 0xaaaa_aaaa } else { 0 };
                let physical = if mask == 0 {
                    0
                } else {
                    self.gic.registers.read32(address) & mask
                };
                Outcome::Value(u64::from(physical | (edges & !mask)))
            }
            Some(value) => {
                // The trigger of a private interrupt is the timer's own affair.
                if mask != 0 && word != 0 {
                    let _held = self.gic.shared.lock();
                    let old = self.gic.registers.read32(address);
                    self.gic
                        .registers
                        .write32(address, (old & !mask) | (value & mask));
                }
                Outcome::Done
            }
        }
    }

    /// GICD_IROUTER of GICv3: the guest names a vCPU, the hardware gets the CPU it is pinned to.
    fn router(&self, _vcpu: usize, access: Access) -> Outcome {
        if !matches!(access.size, Size::Word | Size::Double) {
            return Outcome::Fault;
        }
        let intid = ((access.offset - gicd::IROUTER) / 8) as u32;
        if !self.is_own_spi(intid) {
            return access.read_only(0);
        }
        let affinity = self
            .vcpus
            .get(self.spi_target(intid))
            .map_or(0, |vcpu| u64::from(vcpu.affinity));
        let current = (affinity & 0x00ff_ffff) | (affinity >> 24 << 32);
        let Some(value) = access.write else {
            return access.read_only64(current);
        };
        let value = match (access.size, access.offset & 4) {
            (Size::Double, _) => value,
            (_, 0) => (current & !0xffff_ffff) | (value & 0xffff_ffff),
            _ => (current & 0xffff_ffff) | (value << 32),
        };
        let wanted = crate::gic::packed_affinity(value);
        // A target that the domain hasn't got is ignored. "Any CPU" isn't offered (TYPER.No1N): its bit reads as zero.
        if let Some(target) = self.vcpus.iter().position(|vcpu| vcpu.affinity == wanted)
            && let Ok(index) = u8::try_from(target)
            && value & gicd::IROUTER_ANY == 0
        {
            self.retarget(intid, index);
        }
        Outcome::Done
    }

    /// Whether an SPI is this domain's, in hardware or in software.
    pub(super) fn is_own_spi(&self, intid: u32) -> bool {
        let word = intid as usize / 32;
        (32..ORDINARY).contains(&intid)
            && self
                .physical
                .get(word)
                .is_some_and(|bits| (bits | self.software[word]) & (1 << (intid % 32)) != 0)
    }

    pub(super) fn retarget(&self, intid: u32, target: u8) {
        if let Some(cell) = self.target.get(intid.wrapping_sub(32) as usize) {
            cell.store(target, Ordering::Relaxed);
            self.route(intid);
        }
    }

    /// Lets a physical SPI go where the guest wants it.
    pub(super) fn route(&self, intid: u32) {
        if self.physical[intid as usize / 32] & (1 << (intid % 32)) == 0 {
            return;
        }
        if self.gic.is_v2() {
            let mask = self
                .target
                .get(intid.wrapping_sub(32) as usize)
                .map_or(0, |mask| mask.load(Ordering::Relaxed));
            let address = self.gic.facts.distributor.start + gicd::ITARGETSR + u64::from(intid);
            self.gic
                .registers
                .write8(address, self.physical_targets(mask));
        } else if let Some(vcpu) = self.vcpus.get(self.spi_target(intid)) {
            self.gic.route(intid, &self.gic.cpus[vcpu.cpu]);
        }
    }
}

/// Whether an offset in the distributor belongs to interrupts 0 to 31.
const fn is_private(offset: u64) -> bool {
    match offset {
        gicd::IPRIORITYR..=0x7ff => offset < gicd::IPRIORITYR + 32,
        gicd::ICFGR..=0xcff => offset < gicd::ICFGR + 8,
        _ => offset & 0x7f < 4,
    }
}

/// Zero, writes ignored, in an array of 32-bit registers.
fn zero_unless_wrong(access: Access) -> Outcome {
    let bytes_too = matches!(access.offset, gicd::IPRIORITYR..=0x7ff);
    match access.size {
        Size::Word => access.read_only(0),
        Size::Byte if bytes_too => access.read_only(0),
        _ => Outcome::Fault,
    }
}

/// The numbers of the ones in a word of interrupts.
pub(super) fn ones(word: usize, mut bits: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let intid = 32 * word as u32 + bits.trailing_zeros();
        bits &= bits - 1;
        Some(intid)
    })
}

/// Serves an access byte by byte: `serve(index, value to write)` gives what reading that byte shows.
pub(super) fn each_byte(
    access: Access,
    mut serve: impl FnMut(u32, Option<u8>) -> Option<u8>,
) -> Outcome {
    let mut result = 0;
    for index in 0..access.size.bytes() {
        let shift = 8 * index;
        let write = access.write.map(|value| (value >> shift) as u8);
        let read = serve(index as u32, write);
        result |= u64::from(read.unwrap_or(0)) << shift;
    }
    if access.write.is_some() {
        Outcome::Done
    } else {
        Outcome::Value(result)
    }
}

/// Bit n of a 16-bit mask as both bits 2n and 2n+1.
const fn spread(mask: u32) -> u32 {
    let mut result = 0;
    let mut bit = 0;
    while bit < 16 {
        result |= ((mask >> bit) & 1) * (0b11 << (2 * bit));
        bit += 1;
    }
    result
}

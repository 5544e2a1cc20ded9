//! A register file for tests: an interrupt controller's frames in a map, with the set and clear registers' meaning,
//! and the part of a CPU interface that a guest's acknowledge and end of interrupt act on.

pub(crate) mod its;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::gic::list::ListRegister;
use crate::gic::registers::{gicc, gicd, gich, gicr};
use crate::gic::{Acknowledged, CpuRegister, Facts, Gic, Model, Registers, Window};

pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;
pub(crate) const REDISTRIBUTORS: u64 = 0x080a_0000;
pub(crate) const GICC: u64 = 0x0801_0000;
pub(crate) const GICH: u64 = 0x0803_0000;
pub(crate) const GICV: u64 = 0x0804_0000;
pub(crate) const MAINTENANCE: u32 = 25;
const LIST_REGISTERS: u8 = 4;

/// What is stored, by address; banked frames by CPU and address.
pub(crate) type Memory = BTreeMap<(usize, u64), u64>;

#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// The CPU that runs.
    pub(crate) cpu: Cell<usize>,
    pub(crate) memory: RefCell<Memory>,
    pub(crate) lists: RefCell<BTreeMap<(usize, u8), u64>>,
    pub(crate) system: RefCell<Vec<(usize, CpuRegister, u64)>>,
    pub(crate) v2: Cell<bool>,
    /// The commands that the ITS has carried out.
    pub(crate) commands: RefCell<Vec<[u64; 4]>>,
}

/// A controller with `cpus` CPUs on a fake register file.
pub(crate) fn controller(v2: bool, cpus: usize) -> (Rc<Fake>, Gic<Rc<Fake>>) {
    let fake = Rc::new(Fake::default());
    fake.v2.set(v2);
    // 288 interrupts, LPIs with 16 bits.
    fake.preset(
        DISTRIBUTOR + gicd::TYPER,
        u64::from(8 | gicd::TYPER_LPIS | (15 << 19)),
    );
    let window = |start, bytes| Window { start, bytes };
    // QEMU's GICv2, whose list registers are watched.
    fake.preset(DISTRIBUTOR + gicd::IIDR, if v2 { 0x43b } else { 0 });
    let model = if v2 {
        for cpu in 0..cpus {
            fake.memory
                .borrow_mut()
                .insert((cpu, DISTRIBUTOR + gicd::ITARGETSR), 1 << cpu);
        }
        Model::V2 {
            cpu_interface: window(GICC, 0x1_0000),
            hypervisor_interface: window(GICH, 0x1_0000),
            virtual_interface: window(GICV, 0x1_0000),
        }
    } else {
        for cpu in 0..cpus as u64 {
            let last = if cpu + 1 == cpus as u64 {
                gicr::TYPER_LAST
            } else {
                0
            };
            let typer = (cpu << 32) | (cpu << 8) | last | gicr::TYPER_PLPIS;
            let base = REDISTRIBUTORS + cpu * gicr::STRIDE;
            fake.preset(base + gicr::TYPER, typer & 0xffff_ffff);
            fake.preset(base + gicr::TYPER + 4, typer >> 32);
        }
        Model::V3 {
            redistributors: vec![window(REDISTRIBUTORS, cpus as u64 * gicr::STRIDE)],
            its: Some(its::WINDOW),
        }
    };
    fake.preset_its();
    let facts = Facts {
        distributor: window(DISTRIBUTOR, if v2 { 0x1000 } else { 0x1_0000 }),
        model,
        cpus: (0..cpus as u64).collect(),
        maintenance: MAINTENANCE,
    };
    let gic = Gic::new(Rc::clone(&fake), facts).expect("the fake has all redistributors");
    gic.init_distributor();
    for cpu in 0..cpus {
        fake.cpu.set(cpu);
        gic.init_cpu(cpu).expect("the fake's CPUs come up");
    }
    fake.cpu.set(0);
    (fake, gic)
}

/// The array that a set or clear register belongs to, named by its set register, and whether writing clears.
fn set_clear(address: u64) -> Option<(u64, bool)> {
    let frame = address & !0xffff;
    let offset = address & 0xffff;
    let banked = frame >= REDISTRIBUTORS && !(frame - REDISTRIBUTORS).is_multiple_of(gicr::STRIDE);
    let here = frame == DISTRIBUTOR || banked;
    (here && (0x100..0x400).contains(&offset)).then_some((address & !0x80, offset & 0x80 != 0))
}

impl Fake {
    pub(crate) fn preset(&self, address: u64, value: u64) {
        self.memory.borrow_mut().insert((0, address), value);
    }

    /// GICv2 banks the distributor's registers of interrupts 0 to 31, and its interfaces.
    fn bank(&self, address: u64) -> usize {
        let offset = address.wrapping_sub(DISTRIBUTOR);
        let private = match offset {
            0x80..0x400 => offset & 0x7f < 4,
            0x400..0x420 | 0x800..0x820 | 0xc00..0xc08 => true,
            _ => (GICC..REDISTRIBUTORS).contains(&address),
        };
        if self.v2.get() && private {
            self.cpu.get()
        } else {
            0
        }
    }

    pub(crate) fn load(&self, address: u64) -> u32 {
        let address = set_clear(address).map_or(address, |(array, _)| array);
        let bank = self.bank(address);
        *self.memory.borrow().get(&(bank, address)).unwrap_or(&0) as u32
    }

    fn store(&self, address: u64, value: u32) {
        let bank = self.bank(address);
        let mut memory = self.memory.borrow_mut();
        if let Some((array, clear)) = set_clear(address) {
            let cell = memory.entry((bank, array)).or_insert(0);
            if clear {
                *cell &= !u64::from(value);
            } else {
                *cell |= u64::from(value);
            }
        } else {
            memory.insert((bank, address), u64::from(value));
        }
    }

    /// Whether the bit of `intid` is set in an array of the distributor, or of the running CPU's SGI frame.
    pub(crate) fn bit(&self, array: u64, intid: u32) -> bool {
        let base = if intid < 32 && !self.v2.get() {
            REDISTRIBUTORS + self.cpu.get() as u64 * gicr::STRIDE + gicr::SGI_FRAME
        } else {
            DISTRIBUTOR
        };
        self.load(base + array + u64::from(intid / 32 * 4)) & (1 << (intid % 32)) != 0
    }

    /// The list register, in ICH_LR's format.
    pub(crate) fn list(&self, index: u8) -> ListRegister {
        let raw = *self
            .lists
            .borrow()
            .get(&(self.cpu.get(), index))
            .unwrap_or(&0);
        if self.v2.get() {
            ListRegister::from_v2(raw as u32)
        } else {
            ListRegister(raw)
        }
    }

    fn set_list(&self, index: u8, value: ListRegister) {
        let raw = if self.v2.get() {
            u64::from(value.to_v2())
        } else {
            value.0
        };
        self.lists.borrow_mut().insert((self.cpu.get(), index), raw);
    }

    fn free_lists(&self) -> u64 {
        (0..LIST_REGISTERS)
            .filter(|&index| self.list(index).is_free())
            .fold(0, |free, index| free | 1 << index)
    }

    /// The running CPU's guest acknowledges the most urgent interrupt.
    pub(crate) fn guest_acknowledge(&self) -> Option<(u32, u8)> {
        let pending = (0..LIST_REGISTERS).filter(|&index| self.list(index).is_pending());
        let index = pending.min_by_key(|&index| self.list(index).priority())?;
        let lr = self.list(index);
        self.set_list(index, ListRegister(lr.without_pending().0 | 1 << 63));
        Some((lr.intid(), lr.source()))
    }

    /// The running CPU's guest ends an interrupt that it has acknowledged.
    pub(crate) fn guest_end(&self, intid: u32, source: u8) {
        let active = (0..LIST_REGISTERS)
            .find(|&index| {
                let lr = self.list(index);
                lr.is_active() && lr.intid() == intid && lr.source() == source
            })
            .expect("the guest ends what it took");
        let lr = self.list(active).without_active();
        if lr.is_hardware() {
            self.deactivated(intid);
        }
        self.set_list(active, lr);
    }

    fn deactivated(&self, intid: u32) {
        self.store(self.array(gicd::ICACTIVER, intid), 1 << (intid % 32));
    }

    fn array(&self, array: u64, intid: u32) -> u64 {
        let base = if intid < 32 && !self.v2.get() {
            REDISTRIBUTORS + self.cpu.get() as u64 * gicr::STRIDE + gicr::SGI_FRAME
        } else {
            DISTRIBUTOR
        };
        base + array + u64::from(intid / 32 * 4)
    }

    /// An interrupt fires and EL2 on the running CPU acknowledges it; `None` if it is disabled or still active.
    pub(crate) fn fire(&self, intid: u32) -> Option<Acknowledged> {
        if !self.bit(gicd::ISENABLER, intid) || self.bit(gicd::ISACTIVER, intid) {
            return None;
        }
        self.store(self.array(gicd::ISACTIVER, intid), 1 << (intid % 32));
        Some(Acknowledged::of(intid))
    }

    /// The kicks sent so far, as the written values, and forgets them.
    pub(crate) fn take_kicks(&self) -> usize {
        let mut system = self.system.borrow_mut();
        let before = system.len();
        system.retain(|(_, register, _)| *register != CpuRegister::Sgi1r);
        let v3 = before - system.len();
        let v2 = self
            .memory
            .borrow_mut()
            .remove(&(0, DISTRIBUTOR + gicd::SGIR))
            .map_or(0, |_| 1);
        v3 + v2
    }

    /// Whether the maintenance interrupt is asserted.
    pub(crate) fn maintenance(&self) -> bool {
        self.underflow() || self.ended() != 0
    }

    /// GICH_EISR: watched interrupts that the guest has ended.
    fn ended(&self) -> u64 {
        (0..LIST_REGISTERS)
            .filter(|&index| !self.list(index).is_valid() && !self.list(index).is_free())
            .fold(0, |ended, index| ended | 1 << index)
    }

    fn underflow(&self) -> bool {
        let wanted = if self.v2.get() {
            u64::from(self.load(GICH + gich::HCR))
        } else {
            self.cpu_register(CpuRegister::Hcr)
        };
        wanted & gich::HCR_UNDERFLOW != 0
            && self.free_lists().count_ones() >= u32::from(LIST_REGISTERS) - 1
    }
}

impl Registers for Rc<Fake> {
    fn read8(&self, address: u64) -> u8 {
        (self.load(address & !3) >> (8 * (address & 3))) as u8
    }

    fn read32(&self, address: u64) -> u32 {
        assert_eq!(address % 4, 0);
        match address.checked_sub(GICH).filter(|_| self.v2.get()) {
            Some(gich::VTR) => u32::from(LIST_REGISTERS) - 1,
            Some(gich::EISR) => self.ended() as u32,
            Some(gich::ELRSR) => self.free_lists() as u32,
            Some(offset @ gich::LR..0x140) => self.list(((offset - gich::LR) / 4) as u8).to_v2(),
            _ => self.load(address),
        }
    }

    fn read64(&self, address: u64) -> u64 {
        assert_eq!(address % 8, 0);
        u64::from(self.load(address)) | (u64::from(self.load(address + 4)) << 32)
    }

    fn write8(&self, address: u64, value: u8) {
        let shift = 8 * (address & 3);
        let old = self.load(address & !3);
        self.store(
            address & !3,
            (old & !(0xff << shift)) | (u32::from(value) << shift),
        );
    }

    fn write32(&self, address: u64, value: u32) {
        assert_eq!(address % 4, 0);
        match address.checked_sub(GICH).filter(|_| self.v2.get()) {
            Some(offset @ gich::LR..0x140) => {
                self.set_list(
                    ((offset - gich::LR) / 4) as u8,
                    ListRegister::from_v2(value),
                );
            }
            _ if self.v2.get() && address == GICC + gicc::DIR => self.deactivated(value & 0x3ff),
            _ => {
                self.store(address, value);
                self.its_written(address, 0);
            }
        }
    }

    fn write64(&self, address: u64, value: u64) {
        assert_eq!(address % 8, 0);
        let old = self.get64(address);
        self.store(address, value as u32);
        self.store(address + 4, (value >> 32) as u32);
        self.its_written(address, old);
    }

    fn cpu_register(&self, register: CpuRegister) -> u64 {
        self.as_ref().cpu_register(register)
    }

    fn set_cpu_register(&self, register: CpuRegister, value: u64) {
        if let CpuRegister::Lr(index) = register {
            self.set_list(index, ListRegister(value));
        } else {
            if register == CpuRegister::Dir {
                self.deactivated(value as u32);
            }
            self.system
                .borrow_mut()
                .push((self.cpu.get(), register, value));
        }
    }

    fn synchronize(&self) {}

    fn clean(&self, _address: u64) {}
}

impl Fake {
    fn cpu_register(&self, register: CpuRegister) -> u64 {
        match register {
            CpuRegister::Vtr => u64::from(LIST_REGISTERS) - 1,
            CpuRegister::Elrsr => self.free_lists(),
            CpuRegister::Lr(index) => self.list(index).0,
            CpuRegister::Iar1 => 1023,
            _ => {
                let system = self.system.borrow();
                let last = system
                    .iter()
                    .rev()
                    .find(|(cpu, name, _)| *cpu == self.cpu.get() && *name == register);
                last.map_or(0, |(_, _, value)| *value)
            }
        }
    }
}

//! List registers: the interrupts that this CPU's vCPU is offered, and the rest of its virtual interface.
//!
//! One format in memory, that of ICH_LR<n>_EL2 (IHI 0069, 12.4.9); GICH_LR<n> of GICv2 has the same fields,
//! narrower. The sender of a GICv2 software interrupt takes the place of the physical number, as there.

use super::registers::{CpuRegister, gicd, gich};
use super::{Gic, Model, Registers};

/// The contents of a list register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListRegister(pub(crate) u64);

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HARDWARE: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
/// Without HW: a maintenance interrupt when the guest ends the interrupt.
const WATCHED: u64 = 1 << 41;

impl ListRegister {
    pub(crate) const EMPTY: Self = Self(0);

    /// A pending interrupt that exists in software only. `source` is the sender of a GICv2 software interrupt.
    #[inline]
    pub(crate) const fn software(intid: u32, priority: u8, source: u8) -> Self {
        Self(PENDING | ((priority as u64) << 48) | ((source as u64) << 32) | intid as u64)
    }

    /// A pending interrupt that stands for the physical one of the same number, which the guest's end of interrupt
    /// deactivates.
    #[inline]
    pub(crate) const fn hardware(intid: u32, priority: u8) -> Self {
        Self(PENDING | HARDWARE | ((priority as u64) << 48) | ((intid as u64) << 32) | intid as u64)
    }

    /// As `hardware`, where the hypervisor deactivates the physical interrupt once the guest has ended this one.
    #[inline]
    pub(crate) const fn watched(intid: u32, priority: u8) -> Self {
        Self(PENDING | WATCHED | ((priority as u64) << 48) | intid as u64)
    }

    pub(crate) const fn intid(self) -> u32 {
        self.0 as u32
    }

    /// Interrupt and sender: what makes two list registers the same interrupt.
    pub(crate) const fn source(self) -> u8 {
        if self.is_hardware() {
            0
        } else {
            (self.0 >> 32) as u8 & 7
        }
    }

    pub(crate) const fn priority(self) -> u8 {
        (self.0 >> 48) as u8
    }

    pub(crate) const fn is_valid(self) -> bool {
        self.0 & (PENDING | ACTIVE) != 0
    }

    /// Whether it is free: not even the end of a watched interrupt waits in it.
    #[cfg(test)]
    pub(crate) const fn is_free(self) -> bool {
        !self.is_valid() && (self.is_hardware() || self.0 & WATCHED == 0)
    }

    pub(crate) const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    pub(crate) const fn is_active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    pub(crate) const fn is_hardware(self) -> bool {
        self.0 & HARDWARE != 0
    }

    /// Whether it stands for a physical interrupt, which the hardware deactivates or the hypervisor does.
    #[cfg(test)]
    pub(crate) const fn is_physical(self) -> bool {
        self.0 & (HARDWARE | WATCHED) != 0
    }

    pub(crate) const fn with_pending(self) -> Self {
        Self(self.0 | PENDING)
    }

    pub(crate) const fn without_active(self) -> Self {
        Self(self.0 & !ACTIVE)
    }

    pub(crate) const fn without_pending(self) -> Self {
        Self(self.0 & !PENDING)
    }

    /// GICH_LR<n>: number 9:0, physical number or sender 19:10, priority 27:23, state 29:28, HW 31.
    pub(super) const fn to_v2(self) -> u32 {
        let state = (self.0 >> 62) as u32;
        let hardware = (self.0 >> 61) as u32 & 1;
        let priority = (self.0 >> 51) as u32 & 0x1f;
        let physical = (self.0 >> 32) as u32 & 0x3ff;
        (hardware << 31)
            | (state << 28)
            | (priority << 23)
            | (physical << 10)
            | (self.0 as u32 & 0x3ff)
    }

    pub(super) const fn from_v2(raw: u32) -> Self {
        let raw = raw as u64;
        let state = (raw >> 28) & 3;
        let physical = (raw >> 10) & 0x3ff;
        let priority = (raw >> 23) & 0x1f;
        Self(
            (state << 62)
                | ((raw >> 31) << 61)
                | (priority << 51)
                | (physical << 32)
                | (raw & 0x3ff),
        )
    }
}

impl<R: Registers> Gic<R> {
    /// How many list registers this CPU has.
    #[inline]
    pub(crate) fn list_registers(&self) -> u8 {
        (self.interface(gich::VTR, CpuRegister::Vtr) & 0xf) as u8 + 1
    }

    #[inline]
    pub(crate) fn list_register(&self, index: u8) -> ListRegister {
        match &self.facts.model {
            Model::V2 {
                hypervisor_interface,
                ..
            } => {
                let address = hypervisor_interface.start + gich::LR + 4 * u64::from(index);
                ListRegister::from_v2(self.registers.read32(address))
            }
            Model::V3 { .. } => ListRegister(self.registers.cpu_register(CpuRegister::Lr(index))),
        }
    }

    #[inline]
    pub(crate) fn set_list_register(&self, index: u8, value: ListRegister) {
        match &self.facts.model {
            Model::V2 {
                hypervisor_interface,
                ..
            } => {
                let address = hypervisor_interface.start + gich::LR + 4 * u64::from(index);
                self.registers.write32(address, value.to_v2());
            }
            Model::V3 { .. } => {
                // A GICv3 guest gets everything in group 1, a GICv2 guest in group 0: its drivers enable just that.
                let group = if value.is_valid() { GROUP1 } else { 0 };
                self.registers
                    .set_cpu_register(CpuRegister::Lr(index), value.0 | group);
            }
        }
    }

    /// A bit for each list register that holds an interrupt.
    #[inline]
    pub(crate) fn used_list_registers(&self) -> u64 {
        !self.interface(gich::ELRSR, CpuRegister::Elrsr) & ((1 << self.list_registers()) - 1)
    }

    /// Whether the virtual interface's own deactivation of a physical interrupt can't be relied on. QEMU's GICv2 (as of
    /// 10.0) deactivates, but doesn't look whether the interrupt is pending again, so that the next one is lost
    /// until something else happens. Its GICD_IIDR is that of no GICv2 of a 64-bit CPU.
    pub(super) fn needs_watching(registers: &R, facts: &super::Facts) -> bool {
        const QEMU: u32 = 0x43b;
        let iidr = facts.distributor.start + gicd::IIDR;
        matches!(facts.model, Model::V2 { .. }) && registers.read32(iidr) == QEMU
    }

    /// A bit for each list register whose watched interrupt the guest has ended.
    #[inline]
    pub(crate) fn ended_list_registers(&self) -> u64 {
        match &self.facts.model {
            Model::V2 {
                hypervisor_interface,
                ..
            } if self.watches => u64::from(
                self.registers
                    .read32(hypervisor_interface.start + gich::EISR),
            ),
            _ => 0,
        }
    }

    /// A list register that is free, the lowest.
    #[inline]
    pub(crate) fn free_list_register(&self) -> Option<u8> {
        let free = self
            .interface(gich::ELRSR, CpuRegister::Elrsr)
            .trailing_zeros() as u8;
        (free < self.list_registers()).then_some(free)
    }

    /// Asks for the maintenance interrupt when the list registers run empty, or no longer.
    #[inline]
    pub(crate) fn want_underflow(&self, wanted: bool) {
        let value = gich::HCR_ENABLE | if wanted { gich::HCR_UNDERFLOW } else { 0 };
        self.set_interface(gich::HCR, CpuRegister::Hcr, value);
    }

    /// Empties the virtual interface of this CPU: what a vCPU finds after reset.
    pub(crate) fn reset_virtual_interface(&self) {
        self.want_underflow(false);
        self.set_interface(gich::VMCR, CpuRegister::Vmcr, 0);
        self.set_interface(gich::APR, CpuRegister::Ap0r0, 0);
        if !self.is_v2() {
            self.registers.set_cpu_register(CpuRegister::Ap1r0, 0);
        }
        for index in 0..self.list_registers() {
            self.set_list_register(index, ListRegister::EMPTY);
        }
    }

    #[inline]
    fn interface(&self, offset: u64, register: CpuRegister) -> u64 {
        match &self.facts.model {
            Model::V2 {
                hypervisor_interface,
                ..
            } => u64::from(self.registers.read32(hypervisor_interface.start + offset)),
            Model::V3 { .. } => self.registers.cpu_register(register),
        }
    }

    #[inline]
    fn set_interface(&self, offset: u64, register: CpuRegister, value: u64) {
        match &self.facts.model {
            Model::V2 {
                hypervisor_interface,
                ..
            } => {
                self.registers
                    .write32(hypervisor_interface.start + offset, value as u32);
            }
            Model::V3 { .. } => self.registers.set_cpu_register(register, value),
        }
    }
}

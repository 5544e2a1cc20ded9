//! `hvm_op`, `physdev_op`, `vm_assist`: parameters, and the notices of a hardware domain about its
//! devices.

use abi::hvm::{
    GET_PARAM, GET_TIME, PARAM_CALLBACK_IRQ, PARAM_CONSOLE_EVTCHN, PARAM_CONSOLE_PFN,
    PARAM_STORE_EVTCHN, PARAM_STORE_PFN, Param, SET_PARAM, SET_UPCALL_VECTOR, UpcallVector,
};
use abi::physdev::{self, SetupGsi};
use abi::{Errno, Handle, number};
use core::sync::atomic::Ordering;

use super::Answer;
use crate::caller::Caller;
use crate::machine::Machine;

/// The lowest vector that a guest may choose: those below are exceptions.
const FIRST_VECTOR: u8 = 16;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn hvm_op(&self, operation: u64, buffer: Handle) -> Answer {
        match operation {
            GET_PARAM => {
                let request: Param = self.read(buffer)?;
                let domain = self.managed(request.domain)?;
                let value = match request.index {
                    PARAM_CALLBACK_IRQ => domain.callback.load(Ordering::Relaxed),
                    // Nobody serves a console or XenStore ring for it.
                    PARAM_STORE_PFN | PARAM_STORE_EVTCHN | PARAM_CONSOLE_PFN
                    | PARAM_CONSOLE_EVTCHN => 0,
                    _ => return Err(Errno::Einval),
                };
                self.write(buffer, &Param { value, ..request })?;
                Ok(0)
            }
            SET_PARAM => self.set_param(buffer),
            SET_UPCALL_VECTOR => {
                let request: UpcallVector = self.read(buffer)?;
                if request.vector < FIRST_VECTOR {
                    return Err(Errno::Einval);
                }
                let vcpu = self
                    .domain
                    .vcpus
                    .get(request.vcpu as usize)
                    .ok_or(Errno::Enoent)?;
                let vector = u32::from(request.vector);
                self.system
                    .machine
                    .set_upcall_vector(&vcpu.machine, vector)
                    .map_err(|_| Errno::Enosys)?;
                self.system.repeat_upcall(self.domain, vcpu.index);
                Ok(0)
            }
            GET_TIME => {
                self.write(buffer, &self.system.machine.now())?;
                Ok(0)
            }
            _ => Err(Errno::Enosys),
        }
    }

    fn set_param(&self, buffer: Handle) -> Answer {
        let request: Param = self.read(buffer)?;
        let domain = self.managed(request.domain)?;
        match request.index {
            PARAM_CALLBACK_IRQ => {
                let machine = &self.system.machine;
                machine
                    .set_callback(&domain.machine, request.value)
                    .map_err(|_| Errno::Eperm)?;
                domain.callback.store(request.value, Ordering::Relaxed);
                for vcpu in &domain.vcpus {
                    self.system.repeat_upcall(domain, vcpu.index);
                }
                Ok(0)
            }
            PARAM_STORE_PFN | PARAM_STORE_EVTCHN | PARAM_CONSOLE_PFN | PARAM_CONSOLE_EVTCHN => {
                Err(Errno::Eperm)
            }
            _ => Err(Errno::Einval),
        }
    }

    /// A hardware domain tells about PCI devices as it finds them. They are its own already, and
    /// without an IOMMU there is nothing to set up, so the notice is taken and nothing follows.
    pub(super) fn physdev_op(&self, operation: u64, buffer: Handle) -> Answer {
        match operation {
            physdev::SETUP_GSI => self.set_up_line(buffer),
            physdev::PCI_DEVICE_ADD
            | physdev::PCI_DEVICE_REMOVE
            | physdev::PCI_DEVICE_RESET
            | physdev::MANAGE_PCI_ADD
            | physdev::MANAGE_PCI_ADD_EXT
            | physdev::MANAGE_PCI_REMOVE
            | physdev::PCI_MMCFG_RESERVED => {
                if self.domain.plan.identity.is_hardware() {
                    Ok(0)
                } else {
                    Err(Errno::Eperm)
                }
            }
            _ => Err(Errno::Enosys),
        }
    }

    /// How a device of the hardware domain signals.
    fn set_up_line(&self, buffer: Handle) -> Answer {
        if !self.domain.plan.identity.is_hardware() {
            return Err(Errno::Enosys);
        }
        let request: SetupGsi = self.read(buffer)?;
        let (by_level, active_low) = (request.triggering != 0, request.polarity != 0);
        self.system
            .machine
            .set_up_line(&self.domain.machine, request.gsi, by_level, active_low)
            .map_err(|_| Errno::Enosys)?;
        Ok(0)
    }

    /// Runstate records are written whole and once, so a guest that wants their update marked has
    /// it.
    pub(super) fn vm_assist(&self, command: u64, kind: u64) -> Answer {
        match (command, kind) {
            (
                number::VM_ASSIST_ENABLE | number::VM_ASSIST_DISABLE,
                number::VM_ASSIST_RUNSTATE_UPDATE_FLAG,
            ) => Ok(0),
            (number::VM_ASSIST_ENABLE | number::VM_ASSIST_DISABLE, _) => Err(Errno::Einval),
            _ => Err(Errno::Enosys),
        }
    }
}

//! CPUID and the model-specific registers of a vCPU.

use super::devices::{Devices, Surroundings, VirtualApic};
use crate::bare::instructions::{ThisCpu, try_read_msr};
use crate::devices::lapic::GeneralProtection;
use crate::devices::msr::{Access, Model, rule};
use crate::features::Leaf;

/// CPUID. `cr4` is the guest's, and so is what XCR0 holds now.
pub fn cpuid(vcpu: &VirtualApic, leaf: u32, subleaf: u32, cr4: u64) -> Leaf {
    vcpu.policy.answer(leaf, subleaf, cr4, &ThisCpu)
}

/// What a write leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MsrWritten {
    /// Nothing.
    Done,
    /// Xen's hypercall page is to be written to the page at this guest physical address.
    HypercallPage(u64),
}

/// RDMSR of a register that neither the permission map passes nor the VMCB holds.
///
/// # Errors
/// #GP(0) is for the guest.
pub fn read_msr(devices: &Devices, vcpu: &VirtualApic, msr: u32) -> Result<u64, GeneralProtection> {
    match rule(msr) {
        Access::Fixed(value) => Ok(value),
        Access::Model(Model::ReadOnly) => Ok(try_read_msr(msr).unwrap_or(0)),
        Access::Model(Model::ApicBase) => Ok(vcpu.local.lock().base()),
        Access::Model(Model::X2Apic) => vcpu.local.lock().msr_read(msr, &Surroundings(devices)),
        Access::Model(Model::TscDeadline) => Ok(vcpu.local.lock().tsc_deadline()),
        Access::Model(Model::HypercallPage) => Ok(0),
        // The run loop has them in the VMCB, or the hardware does them.
        Access::Model(Model::Efer | Model::Pat) | Access::Pass | Access::Fault => {
            Err(GeneralProtection)
        }
    }
}

/// WRMSR, likewise.
///
/// # Errors
/// #GP(0) is for the guest.
pub fn write_msr(
    devices: &Devices,
    vcpu: &VirtualApic,
    msr: u32,
    value: u64,
) -> Result<MsrWritten, GeneralProtection> {
    let mut local = vcpu.local.lock();
    match rule(msr) {
        Access::Fixed(_) | Access::Model(Model::ReadOnly) => {}
        Access::Model(Model::ApicBase) => local.set_base(value)?,
        Access::Model(Model::X2Apic) => local.msr_write(msr, value, &Surroundings(devices))?,
        Access::Model(Model::TscDeadline) => local.set_tsc_deadline(value),
        // There is one page, so the index in the lowest bits is 0.
        Access::Model(Model::HypercallPage) if value & 0xfff == 0 => {
            return Ok(MsrWritten::HypercallPage(value));
        }
        Access::Model(Model::HypercallPage | Model::Efer | Model::Pat)
        | Access::Pass
        | Access::Fault => return Err(GeneralProtection),
    }
    Ok(MsrWritten::Done)
}

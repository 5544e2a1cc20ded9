//! The hypercalls that guests make on x86 alone, with arguments that the hypervisor can read in place.

use abi::hvm::{self, Param, UpcallVector};
use abi::hvm_vcpu::Context;
use abi::memory::{self, MapEntry, MemoryMap};
use abi::shared_info::TimeInfo;
use abi::vcpu::{self, SetSingleshotTimer};
use abi::{DomainId, event_channel, number};
use core::sync::atomic::Ordering;
use zerocopy::transmute;

use crate::SHARED_INFO;
use crate::call::hypercall;
use crate::xen::{Error, SharedInfo, checked, with};

/// Calls `vcpu_op` with a structure.
fn vcpu_op<T>(operation: u64, vcpu: usize, argument: &mut T) -> Result<u64, Error> {
    let address = &raw mut *argument as u64;
    // SAFETY: as in `with`.
    checked(unsafe { hypercall(number::VCPU_OP, [operation, vcpu as u64, address, 0, 0]) })
}

/// VCPUOP_initialise.
///
/// # Errors
/// The hypervisor's.
pub fn initialise_vcpu(vcpu: usize, context: &mut Context) -> Result<(), Error> {
    vcpu_op(vcpu::INITIALISE, vcpu, context).map(drop)
}

/// VCPUOP_up.
///
/// # Errors
/// The hypervisor's.
pub fn vcpu_up(vcpu: usize) -> Result<(), Error> {
    vcpu_op(vcpu::UP, vcpu, &mut 0_u64).map(drop)
}

/// VCPUOP_down of the calling vCPU. Comes back only when it is refused.
pub fn vcpu_down(vcpu: usize) -> Error {
    match vcpu_op(vcpu::DOWN, vcpu, &mut 0_u64) {
        Ok(value) => Error(value.cast_signed()),
        Err(error) => error,
    }
}

/// VCPUOP_is_up.
///
/// # Errors
/// The hypervisor's.
pub fn vcpu_is_up(vcpu: usize) -> Result<bool, Error> {
    vcpu_op(vcpu::IS_UP, vcpu, &mut 0_u64).map(|up| up != 0)
}

/// VCPUOP_set_singleshot_timer of the calling vCPU, in nanoseconds of system time.
///
/// # Errors
/// The hypervisor's.
pub fn set_timer(vcpu: usize, deadline: u64) -> Result<(), Error> {
    let mut request = SetSingleshotTimer {
        deadline,
        flags: 0,
        reserved: 0,
    };
    vcpu_op(vcpu::SET_SINGLESHOT_TIMER, vcpu, &mut request).map(drop)
}

/// EVTCHNOP_bind_virq. Gives the port.
///
/// # Errors
/// The hypervisor's.
pub fn bind_virq(virq: u32, vcpu: u32) -> Result<u32, Error> {
    let mut request = event_channel::BindVirq {
        virq,
        vcpu,
        port: 0,
    };
    let operation = event_channel::BIND_VIRQ;
    with(number::EVENT_CHANNEL_OP, operation, &mut request)?;
    Ok(request.port)
}

/// HVMOP_set_evtchn_upcall_vector.
///
/// # Errors
/// The hypervisor's.
pub fn set_upcall_vector(vcpu: u32, vector: u8) -> Result<(), Error> {
    let mut request = UpcallVector {
        vcpu,
        vector,
        reserved: [0; 3],
    };
    with(number::HVM_OP, hvm::SET_UPCALL_VECTOR, &mut request).map(drop)
}

/// HVMOP_set_param of the way for upcalls: a vector for all vCPUs, which no local APIC sees.
///
/// # Errors
/// The hypervisor's.
pub fn set_callback_vector(vector: u8) -> Result<(), Error> {
    const BY_VECTOR: u64 = 2 << 56;
    let mut request = Param {
        domain: DomainId::SELF,
        reserved: 0,
        index: hvm::PARAM_CALLBACK_IRQ,
        value: BY_VECTOR | u64::from(vector),
    };
    with(number::HVM_OP, hvm::SET_PARAM, &mut request).map(drop)
}

/// HVMOP_get_time: nanoseconds of system time.
///
/// # Errors
/// The hypervisor's.
pub fn time() -> Result<u64, Error> {
    let mut time = 0_u64;
    with(number::HVM_OP, hvm::GET_TIME, &mut time)?;
    Ok(time)
}

/// XENMEM_memory_map, or of the machine's; gives how many entries there are.
///
/// # Errors
/// The hypervisor's.
pub fn memory_map(of_machine: bool, entries: &mut [MapEntry]) -> Result<usize, Error> {
    let mut request = MemoryMap {
        count: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        reserved: 0,
        buffer: entries.as_mut_ptr() as u64,
    };
    let operation = if of_machine {
        memory::MACHINE_MEMORY_MAP
    } else {
        memory::MEMORY_MAP
    };
    with(number::MEMORY_OP, operation, &mut request)?;
    Ok(request.count as usize)
}

impl SharedInfo {
    /// The first vCPU's clock.
    pub fn clock(&self) -> TimeInfo {
        let words: [u64; 4] = core::array::from_fn(|index| {
            let offset = SHARED_INFO.vcpu_time + index as u64 * 8;
            self.word(offset).load(Ordering::SeqCst)
        });
        transmute!(words)
    }
}

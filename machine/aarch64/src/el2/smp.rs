//! The other CPUs: started by PSCI, each with its stack, its tables and the vCPU that it runs.

use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;

use hypervisor::Caller;
use machine_paging::PAGE_SIZE;

use super::entry::secondary_entry;
use super::machine::Arm;
use super::vectors::{self, Frame};
use super::{boot, cache, cpu, firmware, mmu, run};
use crate::smccc;

/// Bytes of a stack, without the guard below it.
const STACK_BYTES: usize = 16 * 1024;

/// What `entry.s` loads before the first Rust instruction; the order is fixed there.
#[repr(C, align(64))]
struct Secondary {
    root: u64,
    control: u64,
    attributes: u64,
    system: u64,
    stack: u64,
    argument: u64,
}

/// What a CPU needs to run its vCPU.
pub struct Task {
    /// The way into the core for the vCPU.
    pub caller: Caller<'static, Arm>,
    /// The CPU's index in the host map.
    pub index: usize,
}

/// Why a CPU doesn't run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// No memory for its stack.
    NoMemory,
    /// What PSCI CPU_ON says.
    Firmware(u64),
}

/// Starts the CPU with this MPIDR.
///
/// # Errors
/// [`StartError`].
pub fn start_cpu(affinity: u64, task: Task) -> Result<(), StartError> {
    let page = usize::try_from(PAGE_SIZE).map_err(|_| StartError::NoMemory)?;
    let layout =
        Layout::from_size_align(STACK_BYTES + page, page).map_err(|_| StartError::NoMemory)?;
    // SAFETY: the layout has a size.
    let stack = unsafe { alloc(layout) } as u64;
    if stack == 0 {
        return Err(StartError::NoMemory);
    }
    // A stack that overflows hits nothing else. Without tables for it there is no guard, but a stack.
    let _ = mmu::unmap(stack, stack + PAGE_SIZE);
    let registers = mmu::registers();
    let record = Box::leak(Box::new(Secondary {
        root: registers.root,
        control: registers.control,
        attributes: registers.attributes,
        system: registers.system,
        stack: stack + PAGE_SIZE + STACK_BYTES as u64,
        argument: Box::leak(Box::new(task)) as *const Task as u64,
    }));
    let address = &raw const *record as u64;
    // The CPU reads it with its MMU off.
    cache::clean(address, size_of::<Secondary>() as u64);
    let function = smccc::CPU_ON | smccc::SMC64;
    match firmware::call(function, [affinity, secondary_entry(), address]) {
        smccc::SUCCESS => Ok(()),
        error => Err(StartError::Firmware(error)),
    }
}

/// The first Rust code of a CPU that `start_cpu` started.
pub extern "C" fn start(argument: u64) -> ! {
    // SAFETY: `start_cpu` leaked a task and passed its address.
    let task = unsafe { &*(argument as *const Task) };
    prepare(task);
    enter()
}

/// Sets this CPU up to take interrupts and run its vCPU.
pub fn prepare(task: &Task) {
    let machine = task.caller.system.machine();
    let ready = machine.gic.init_cpu(task.index).and_then(|()| {
        // The hypervisor's timer is a private interrupt, so each CPU takes its own.
        machine.gic.own(machine.timer, task.index)
    });
    if let Err(error) = ready {
        boot::say(format_args!("CPU {}: no interrupts: {error}", task.index));
    }
    if let (Some(uart), Some(interrupt)) = (machine.uart, machine.uart_interrupt)
        && task.index == machine.uart_cpu
    {
        match machine.gic.own(interrupt, task.index) {
            Ok(()) => uart.enable_receive_interrupt(),
            Err(error) => boot::say(format_args!("no console input: {error}")),
        }
    }
    cpu::start(task.caller);
}

/// Runs the vCPU of a prepared CPU for good.
pub fn enter() -> ! {
    let mut frame = Frame::new();
    run::idle(cpu::this(), &mut frame);
    // SAFETY: the frame is on this CPU's stack, and `idle` has put a guest's state into the registers.
    unsafe { vectors::enter(&mut frame) }
}

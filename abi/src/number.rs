//! Hypercall numbers (`__HYPERVISOR_*` in `xen.h`).

/// `platform_op`: the machine as a whole.
pub const PLATFORM_OP: u64 = 7;
/// `memory_op`: a domain's memory.
pub const MEMORY_OP: u64 = 12;
/// `multicall`: several hypercalls in one.
pub const MULTICALL: u64 = 13;
/// `set_timer_op`: x86's one-shot timer.
pub const SET_TIMER_OP: u64 = 15;
/// `xen_version`: what the hypervisor is.
pub const XEN_VERSION: u64 = 17;
/// `console_io`: the emergency console.
pub const CONSOLE_IO: u64 = 18;
/// `grant_table_op`: memory shared between domains.
pub const GRANT_TABLE_OP: u64 = 20;
/// `vm_assist`: options of the interface.
pub const VM_ASSIST: u64 = 21;
/// `vcpu_op`: virtual CPUs.
pub const VCPU_OP: u64 = 24;
/// `mmuext_op`: page tables of PV guests.
pub const MMUEXT_OP: u64 = 26;
/// `xsm_op`: security modules.
pub const XSM_OP: u64 = 27;
/// `sched_op`: yield, block, shut down.
pub const SCHED_OP: u64 = 29;
/// `event_channel_op`: event channels.
pub const EVENT_CHANNEL_OP: u64 = 32;
/// `physdev_op`: physical devices.
pub const PHYSDEV_OP: u64 = 33;
/// `hvm_op`: parameters of auto-translated guests.
pub const HVM_OP: u64 = 34;
/// `sysctl`: management of the system by tools.
pub const SYSCTL: u64 = 35;
/// `domctl`: management of domains by tools.
pub const DOMCTL: u64 = 36;
/// `argo_op`: messages between domains.
pub const ARGO_OP: u64 = 39;
/// `dm_op`: device models.
pub const DM_OP: u64 = 41;
/// `hypfs_op`: the hypervisor's file system.
pub const HYPFS_OP: u64 = 42;

/// The first number above every number that the interface knows (the last is `arch_7`).
pub const COUNT: u64 = 56;

/// `VMASST_CMD_enable`.
pub const VM_ASSIST_ENABLE: u64 = 0;
/// `VMASST_CMD_disable`.
pub const VM_ASSIST_DISABLE: u64 = 1;
/// `VMASST_TYPE_runstate_update_flag`: bit 63 of the entry time marks a runstate record that is
/// being written.
pub const VM_ASSIST_RUNSTATE_UPDATE_FLAG: u64 = 5;

//! How much memory the hypervisor takes for itself, by a formula that is the same on the
//! workstation and on the machine.

use crate::request::SystemRequest;

/// Bytes of the hypervisor's whole region for this system on a host with `host_cpus` CPUs and
/// `ram` bytes of memory, a multiple of 2 MiB.
pub fn hypervisor_bytes(_request: &SystemRequest, _host_cpus: usize, _ram: u64) -> u64 {
    4 << 20
}

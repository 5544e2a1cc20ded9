//! Virtual interrupts: what the hypervisor itself tells a domain.

use abi::Errno;
use abi::event_channel::{VIRQ_COUNT, VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU};

use super::{Binding, Events};

/// Whether each vCPU has its own of this virtual interrupt. The others exist once and are bound by
/// vCPU 0.
pub(super) const fn per_vcpu(virq: u32) -> bool {
    matches!(virq, VIRQ_TIMER | VIRQ_DEBUG | VIRQ_XENOPROF | VIRQ_XENPMU)
}

impl Events {
    /// Binds a virtual interrupt to a free port.
    pub(crate) fn bind_virq(&mut self, virq: u32, vcpu: u32) -> Result<u32, Errno> {
        if virq >= VIRQ_COUNT || (!per_vcpu(virq) && vcpu != 0) {
            return Err(Errno::Einval);
        }
        if vcpu >= self.vcpus() {
            return Err(Errno::Enoent);
        }
        if self.virq_port(virq, vcpu).is_some() {
            return Err(Errno::Eexist);
        }
        let port = self.allocate(Binding::Virq(virq), vcpu)?;
        self.set_virq_port(virq, vcpu, port);
        Ok(port)
    }

    /// The port that a vCPU has bound to a virtual interrupt.
    pub(crate) fn virq_port(&self, virq: u32, vcpu: u32) -> Option<u32> {
        let port = *self.virqs.get(vcpu as usize)?.get(virq as usize)?;
        (port != 0).then_some(port)
    }

    /// Forgets the port of a virtual interrupt. One that moved between vCPUs is still listed under
    /// vCPU 0.
    pub(super) fn unbind_virq(&mut self, virq: u32, vcpu: u32) {
        self.set_virq_port(virq, if per_vcpu(virq) { vcpu } else { 0 }, 0);
    }

    fn set_virq_port(&mut self, virq: u32, vcpu: u32, port: u32) {
        let place = self
            .virqs
            .get_mut(vcpu as usize)
            .and_then(|ports| ports.get_mut(virq as usize));
        if let Some(place) = place {
            *place = port;
        }
    }
}

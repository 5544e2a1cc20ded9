//! `event_channel_op`: arguments in, arguments out. What ports are is in [`crate::event`].

use abi::event_channel::{
    ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BIND_IPI, BIND_VCPU, BIND_VIRQ, BindInterdomain,
    BindIpi, BindVcpu, BindVirq, CLOSE, Port, RESET, Reset, SEND, STATUS, STATUS_CLOSED,
    STATUS_INTERDOMAIN, STATUS_IPI, STATUS_UNBOUND, STATUS_VIRQ, Status, UNMASK,
};
use abi::{DomainId, Errno, Handle};

use super::{Answer, Args, Flow};
use crate::caller::Caller;
use crate::domain::Domain;
use crate::event::Binding;
use crate::machine::Machine;

/// Ports that one call of `reset` closes before interrupts come through.
const RESET_BATCH: u32 = 64;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn event_channel_op(&self, args: &Args) -> Flow {
        let buffer = args[1];
        match args[0] {
            SEND => self.send_op(buffer).into(),
            UNMASK => self.unmask_op(buffer).into(),
            ALLOC_UNBOUND => self.alloc_unbound(buffer).into(),
            BIND_INTERDOMAIN => self.bind_interdomain_op(buffer).into(),
            BIND_VIRQ => self.bind_virq_op(buffer).into(),
            BIND_IPI => self.bind_ipi(buffer).into(),
            BIND_VCPU => self.bind_vcpu(buffer).into(),
            CLOSE => self.close_op(buffer).into(),
            STATUS => self.port_status(buffer).into(),
            RESET => self.reset_ports(args),
            // Physical interrupts by event channel are x86 PV's; the FIFO form isn't offered,
            // guests fall back to the two-level one.
            _ => Err(Errno::Enosys).into(),
        }
    }

    fn send_op(&self, buffer: Handle) -> Answer {
        let Port { port } = self.read(buffer)?;
        self.system.send(self.domain, port)?;
        Ok(0)
    }

    fn unmask_op(&self, buffer: Handle) -> Answer {
        let Port { port } = self.read(buffer)?;
        let events = self.domain.events.lock();
        self.system.unmask(self.domain, &events, port)?;
        Ok(0)
    }

    fn alloc_unbound(&self, buffer: Handle) -> Answer {
        let request: AllocUnbound = self.read(buffer)?;
        let domain = self.managed(request.domain)?;
        let remote = self.own_number_of(request.remote);
        let port = domain.events.lock().allocate(Binding::Unbound(remote), 0)?;
        self.answer_port(domain, buffer, &AllocUnbound { port, ..request }, port)
    }

    fn bind_interdomain_op(&self, buffer: Handle) -> Answer {
        let request: BindInterdomain = self.read(buffer)?;
        let remote = self.system.domain_by_id(self.domain, request.remote)?;
        // The structure is written first with what it had: a guest that can't take the answer gets
        // no port.
        self.write(buffer, &request)?;
        let port = self
            .system
            .bind_interdomain(self.domain, remote, request.remote_port)?;
        self.answer_port(
            self.domain,
            buffer,
            &BindInterdomain { port, ..request },
            port,
        )
    }

    fn bind_virq_op(&self, buffer: Handle) -> Answer {
        let request: BindVirq = self.read(buffer)?;
        let port = self
            .domain
            .events
            .lock()
            .bind_virq(request.virq, request.vcpu)?;
        self.answer_port(self.domain, buffer, &BindVirq { port, ..request }, port)
    }

    fn bind_ipi(&self, buffer: Handle) -> Answer {
        let request: BindIpi = self.read(buffer)?;
        if request.vcpu as usize >= self.domain.vcpus.len() {
            return Err(Errno::Enoent);
        }
        let port = self
            .domain
            .events
            .lock()
            .allocate(Binding::Ipi, request.vcpu)?;
        self.answer_port(self.domain, buffer, &BindIpi { port, ..request }, port)
    }

    fn bind_vcpu(&self, buffer: Handle) -> Answer {
        let request: BindVcpu = self.read(buffer)?;
        self.domain
            .events
            .lock()
            .move_to(request.port, request.vcpu)?;
        Ok(0)
    }

    fn close_op(&self, buffer: Handle) -> Answer {
        let Port { port } = self.read(buffer)?;
        self.system.close(self.domain, port)?;
        Ok(0)
    }

    fn port_status(&self, buffer: Handle) -> Answer {
        let request: Status = self.read(buffer)?;
        let domain = self.managed(request.domain)?;
        let channel = domain
            .events
            .lock()
            .peek(request.port)
            .ok_or(Errno::Einval)?;
        let (status, detail, remote_port) = match channel.binding {
            Binding::Free => (STATUS_CLOSED, 0, 0),
            Binding::Unbound(remote) => (STATUS_UNBOUND, u32::from(remote.0), 0),
            Binding::Interdomain(remote, port) => {
                let remote = self.system.domains.get(remote.get()).ok_or(Errno::Esrch)?;
                (STATUS_INTERDOMAIN, u32::from(remote.id().0), port)
            }
            Binding::Virq(virq) => (STATUS_VIRQ, virq, 0),
            Binding::Ipi => (STATUS_IPI, 0, 0),
        };
        let vcpu = channel.vcpu;
        self.write(
            buffer,
            &Status {
                status,
                vcpu,
                detail,
                remote_port,
                ..request
            },
        )?;
        Ok(0)
    }

    fn reset_ports(&self, args: &Args) -> Flow {
        let reset = |buffer| -> Result<bool, Errno> {
            let Reset { domain } = self.read(buffer)?;
            Ok(self.system.close_some(self.managed(domain)?, RESET_BATCH))
        };
        match reset(args[1]) {
            Ok(true) => Flow::Done(Ok(0)),
            // What was closed stays closed, so the same call goes on where this one ends.
            Ok(false) => Flow::Again(*args),
            Err(error) => Flow::Done(Err(error)),
        }
    }

    /// Writes an answer with a new port, and takes the port back if the guest can't have it.
    fn answer_port<T>(&self, domain: &Domain<M>, buffer: Handle, answer: &T, port: u32) -> Answer
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable,
    {
        self.write(buffer, answer).or_else(|error| {
            self.system.close(domain, port)?;
            Err(error)
        })?;
        Ok(0)
    }

    /// A domain that the caller may manage: itself, or any for a control domain.
    pub(crate) fn managed(&self, id: DomainId) -> Result<&Domain<M>, Errno> {
        let domain = self.system.domain_by_id(self.domain, id)?;
        let may = domain.index == self.domain.index || self.is_control();
        if may { Ok(domain) } else { Err(Errno::Eperm) }
    }

    /// Whether the caller manages other domains.
    pub(crate) fn is_control(&self) -> bool {
        self.domain
            .plan
            .identity
            .capabilities
            .contains(layout::Capabilities::CONTROL)
    }

    /// `SELF` as the caller's number; any other number as it is.
    fn own_number_of(&self, id: DomainId) -> DomainId {
        if id == DomainId::SELF {
            self.domain.id()
        } else {
            id
        }
    }
}

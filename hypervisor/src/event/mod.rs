//! Event channels, two-level form: ports, what they are bound to, and the bits that a guest sees.
//!
//! `Events` belongs to one domain and is behind its lock. [`ports`](self) never reach into another
//! domain: what concerns two is in `link`, which takes both locks in the order of the domains.

mod link;
mod notify;
mod virq;

use alloc::boxed::Box;
use alloc::vec;

use abi::event_channel::{PORTS, VIRQ_COUNT};
use abi::{DomainId, Errno};

use crate::ownership::{Claim, DomainIndex};

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// Nothing: the port is free.
    Free,
    /// Nothing yet: this domain may bind to it.
    Unbound(DomainId),
    /// A port of another domain, or of the same.
    Interdomain(DomainIndex, u32),
    /// A virtual interrupt of the hypervisor.
    Virq(u32),
    /// The domain's own `send`.
    Ipi,
}

/// A port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) binding: Binding,
    /// The vCPU that is notified.
    pub(crate) vcpu: u32,
}

const FREE: Channel = Channel {
    binding: Binding::Free,
    vcpu: 0,
};

/// Where a vCPU's `vcpu_info` is.
#[derive(Debug)]
pub(crate) enum InfoPlace {
    /// Nowhere: the guest hasn't registered one, and the shared page has none for it.
    Nowhere,
    /// In the shared page, at this offset.
    Shared(u64),
    /// In the guest's own RAM.
    Registered(Claim, u64),
}

/// A domain's event channels.
#[derive(Debug)]
pub(crate) struct Events {
    /// Port 0 is never used, so that 0 can mean none.
    channels: Box<[Channel]>,
    /// Per vCPU.
    infos: Box<[InfoPlace]>,
    /// Per vCPU the port of each VIRQ, 0 for none.
    virqs: Box<[[u32; VIRQ_COUNT as usize]]>,
    layout: abi::shared_info::Layout,
}

impl Events {
    /// The event channels of a domain that just begins. `max_port` is the highest port that it may
    /// use.
    pub(crate) fn new(max_port: u32, vcpus: usize, layout: abi::shared_info::Layout) -> Self {
        let ports = max_port.min(PORTS - 1) as usize + 1;
        let mut events = Self {
            channels: vec![FREE; ports].into_boxed_slice(),
            infos: (0..vcpus).map(|_| InfoPlace::Nowhere).collect(),
            virqs: vec![[0; VIRQ_COUNT as usize]; vcpus].into_boxed_slice(),
            layout,
        };
        events.reset();
        events
    }

    /// Forgets everything. The domain starts anew; its ports have been closed.
    pub(crate) fn reset(&mut self) {
        self.channels.fill(FREE);
        self.virqs.fill([0; VIRQ_COUNT as usize]);
        for (index, info) in (0..).zip(&mut self.infos) {
            *info = if index < self.layout.vcpus {
                InfoPlace::Shared(u64::from(index) * self.layout.vcpu_info_size)
            } else {
                InfoPlace::Nowhere
            };
        }
    }

    /// How many vCPUs the domain has.
    pub(crate) fn vcpus(&self) -> u32 {
        u32::try_from(self.infos.len()).unwrap_or(u32::MAX)
    }

    /// The number after the highest port.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.channels.len()).unwrap_or(u32::MAX)
    }

    /// A port that is bound to something.
    pub(crate) fn get(&self, port: u32) -> Result<Channel, Errno> {
        let channel = self.channels.get(port as usize).ok_or(Errno::Einval)?;
        if channel.binding == Binding::Free {
            Err(Errno::Einval)
        } else {
            Ok(*channel)
        }
    }

    /// Any port, free or not; `None` beyond the limit. Port 0 is free.
    pub(crate) fn peek(&self, port: u32) -> Option<Channel> {
        self.channels.get(port as usize).copied()
    }

    fn set(&mut self, port: u32, channel: Channel) {
        if let Some(place) = self.channels.get_mut(port as usize) {
            *place = channel;
        }
    }

    /// Binds the lowest free port.
    pub(crate) fn allocate(&mut self, binding: Binding, vcpu: u32) -> Result<u32, Errno> {
        let port = self.free_port()?;
        self.set(port, Channel { binding, vcpu });
        Ok(port)
    }

    /// The lowest free port.
    fn free_port(&self) -> Result<u32, Errno> {
        let free = (0..)
            .zip(&self.channels)
            .skip(1)
            .find(|(_, channel)| channel.binding == Binding::Free);
        free.map(|(port, _)| port).ok_or(Errno::Enospc)
    }

    /// Makes another vCPU the one that a port notifies.
    pub(crate) fn move_to(&mut self, port: u32, vcpu: u32) -> Result<(), Errno> {
        let channel = self.get(port)?;
        if vcpu >= self.vcpus() {
            return Err(Errno::Enoent);
        }
        let may_move = match channel.binding {
            Binding::Unbound(_) | Binding::Interdomain(..) => true,
            Binding::Virq(virq) => !virq::per_vcpu(virq),
            Binding::Ipi | Binding::Free => false,
        };
        if !may_move {
            return Err(Errno::Einval);
        }
        self.set(port, Channel { vcpu, ..channel });
        Ok(())
    }
}

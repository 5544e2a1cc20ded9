//! Accesses to addresses that nobody gave the domain.

use core::fmt;

use layout::{GuestAddress, MachineAddress, OnStrayAccess};

use crate::caller::Caller;
use crate::machine::{Machine, Next, StrayAction};
use crate::ownership::Owner;
use crate::system::System;

impl<M: Machine> Caller<'_, M> {
    /// An access of the guest that no page and no device answers. It is logged with the owner of
    /// the machine address of the same number, which is what a guest with the host's layout meant;
    /// so many times and no more.
    pub fn stray_access(&self, address: GuestAddress, write: bool) -> StrayAction {
        let what = if write { "write to" } else { "read from" };
        if let Some(last) = self.domain.said.stray() {
            let owner = Named {
                system: self.system,
                address: MachineAddress::new(address.raw()),
                host_layout: self.domain.plan.identity.uses_host_layout(),
            };
            let more = if last {
                "; further ones aren't logged"
            } else {
                ""
            };
            let (name, vcpu) = (self.domain.name(), self.vcpu.index);
            self.system.log(format_args!(
                "{name}: vcpu {vcpu}: stray {what} {address}, {owner}{more}"
            ));
        }
        match self.domain.plan.policies.on_stray_access {
            OnStrayAccess::Fault => StrayAction::Fault,
            OnStrayAccess::Ignore => StrayAction::Ignore,
            OnStrayAccess::Stop => {
                let parked = self.crash(format_args!("stray {what} {address}"));
                debug_assert_eq!(parked, Next::Park);
                StrayAction::Park
            }
        }
    }
}

/// The owner of a machine address, in words.
struct Named<'a, M: Machine> {
    system: &'a System<M>,
    address: MachineAddress,
    /// Whether the guest sees the machine's addresses, so that this is the one that it meant.
    host_layout: bool,
}

impl<M: Machine> fmt::Display for Named<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.host_layout {
            f.write_str("not in its layout (on the machine: ")?;
        }
        self.owner(f)?;
        if !self.host_layout {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl<M: Machine> Named<'_, M> {
    fn owner(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |index: crate::DomainIndex| {
            self.system
                .domains
                .get(index.get())
                .map_or("?", |domain| domain.name())
        };
        match self
            .system
            .ownership
            .find(self.address.frame())
            .map(|holding| holding.owner)
        {
            None => f.write_str("nobody's"),
            Some(Owner::Hypervisor) => f.write_str("the hypervisor's"),
            Some(Owner::Pool(index)) => write!(f, "the hypervisor's, shared with {}", name(index)),
            Some(Owner::Domain(index)) => write!(f, "RAM of {}", name(index)),
            Some(Owner::Device(index)) => write!(f, "a device of {}", name(index)),
            Some(Owner::DeviceMemory(index)) => write!(f, "memory of a device of {}", name(index)),
            Some(Owner::Module) => f.write_str("a boot module's"),
            Some(Owner::Reserved) => f.write_str("reserved memory"),
            Some(Owner::Unowned) => f.write_str("RAM of nobody"),
        }
    }
}

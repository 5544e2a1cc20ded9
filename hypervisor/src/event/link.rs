//! Ports of two domains: bind, notify, close. Both domains' locks are taken in the order of the
//! domains.

use abi::{DomainId, Errno};
use spin::MutexGuard;

use super::{Binding, Channel, Events, FREE};
use crate::domain::Domain;
use crate::machine::Machine;
use crate::system::System;

/// The locked events of the domain that acts and of the one that it acts on; the same domain is
/// locked once.
struct Both<'a> {
    near: MutexGuard<'a, Events>,
    far: Option<MutexGuard<'a, Events>>,
}

impl Both<'_> {
    fn far(&mut self) -> &mut Events {
        self.far.as_mut().unwrap_or(&mut self.near)
    }
}

fn lock_both<'a, M: Machine>(near: &'a Domain<M>, far: &'a Domain<M>) -> Both<'a> {
    if near.index == far.index {
        return Both {
            near: near.events.lock(),
            far: None,
        };
    }
    if near.index < far.index {
        let locked = near.events.lock();
        return Both {
            near: locked,
            far: Some(far.events.lock()),
        };
    }
    let locked = far.events.lock();
    Both {
        near: near.events.lock(),
        far: Some(locked),
    }
}

impl<M: Machine> System<M> {
    /// Binds a free port of `near` to a port of `far` that is unbound and waits for `near`. It
    /// notifies vCPU 0 until the guest moves it, as every port but those of IPIs and per-vCPU VIRQs
    /// (event_channel.h at `EVTCHNOP_bind_vcpu`).
    pub(crate) fn bind_interdomain(
        &self,
        near: &Domain<M>,
        far: &Domain<M>,
        far_port: u32,
    ) -> Result<u32, Errno> {
        let mut both = lock_both(near, far);
        let channel = both.far().get(far_port)?;
        if channel.binding != Binding::Unbound(near.id()) {
            return Err(Errno::Einval);
        }
        let port = both
            .near
            .allocate(Binding::Interdomain(far.index, far_port), 0)?;
        let binding = Binding::Interdomain(near.index, port);
        both.far().set(far_port, Channel { binding, ..channel });
        // The other side may have sent before there was anybody to tell.
        self.set_pending(near, &both.near, port);
        Ok(port)
    }

    /// Notifies whoever is at the other end of a port.
    pub(crate) fn send(&self, domain: &Domain<M>, port: u32) -> Result<(), Errno> {
        let events = domain.events.lock();
        match events.get(port)?.binding {
            Binding::Ipi => {
                self.set_pending(domain, &events, port);
                Ok(())
            }
            // Nobody listens yet; binding makes up for it.
            Binding::Unbound(_) => Ok(()),
            Binding::Virq(_) | Binding::Free => Err(Errno::Einval),
            Binding::Interdomain(far, far_port) => {
                drop(events);
                let Some(far) = self.domains.get(far.get()) else {
                    return Err(Errno::Einval);
                };
                let events = far.events.lock();
                // The link may have been cut between the two locks; then nobody is told.
                let linked = events.get(far_port).is_ok_and(|channel| {
                    channel.binding == Binding::Interdomain(domain.index, port)
                });
                if linked {
                    self.set_pending(far, &events, far_port);
                }
                Ok(())
            }
        }
    }

    /// Makes a port free. The other end of a link becomes unbound, waiting for this domain.
    pub(crate) fn close(&self, domain: &Domain<M>, port: u32) -> Result<(), Errno> {
        loop {
            let channel = domain.events.lock().get(port)?;
            let far = match channel.binding {
                Binding::Interdomain(far, _) => self.domains.get(far.get()).unwrap_or(domain),
                _ => domain,
            };
            let mut both = lock_both(domain, far);
            // Another vCPU may have closed it between the two looks.
            let channel = both.near.get(port)?;
            match channel.binding {
                Binding::Interdomain(far_index, far_port) if far_index == far.index => {
                    let link = Binding::Interdomain(domain.index, port);
                    if let Ok(end) = both.far().get(far_port)
                        && end.binding == link
                    {
                        let binding = Binding::Unbound(domain.id());
                        both.far().set(far_port, Channel { binding, ..end });
                    }
                }
                // Somebody bound it between the two looks; now the domain to be locked is known.
                Binding::Interdomain(..) => continue,
                Binding::Virq(virq) => both.near.unbind_virq(virq, channel.vcpu),
                Binding::Unbound(_) | Binding::Ipi | Binding::Free => {}
            }
            both.near.set(port, FREE);
            self.clear_pending(domain, &both.near, port);
            return Ok(());
        }
    }

    /// Closes ports of a domain, at most `budget` of them; says whether all are closed now.
    pub(crate) fn close_some(&self, domain: &Domain<M>, budget: u32) -> bool {
        let mut left = budget;
        let end = domain.events.lock().end();
        for port in 1..end {
            let bound = domain.events.lock().get(port).is_ok();
            if !bound {
                continue;
            }
            if left == 0 {
                return false;
            }
            left -= 1;
            // Another vCPU may have closed it first, which is what is wanted.
            let _ = self.close(domain, port);
        }
        true
    }

    /// The domain with this number, `SELF` being the one given.
    pub(crate) fn domain_by_id<'a>(
        &'a self,
        own: &'a Domain<M>,
        id: DomainId,
    ) -> Result<&'a Domain<M>, Errno> {
        if id == DomainId::SELF || id == own.id() {
            return Ok(own);
        }
        self.domains
            .iter()
            .find(|domain| domain.id() == id)
            .ok_or(Errno::Esrch)
    }
}

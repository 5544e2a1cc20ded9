//! The vCPU that trapped, with the domain and the system that it belongs to. The machine crate's
//! way into the core.

use crate::domain::{Domain, Vcpu};
use crate::machine::Machine;
use crate::system::System;

/// A vCPU with all that its requests need. Three references: a machine crate keeps one for each
/// CPU.
pub struct Caller<'a, M: Machine> {
    /// The system.
    pub system: &'a System<M>,
    /// The vCPU's domain.
    pub domain: &'a Domain<M>,
    /// The vCPU.
    pub vcpu: &'a Vcpu<M>,
}

impl<M: Machine> Clone for Caller<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Caller<'_, M> {}

//! `memory_op`: the dispatch, and questions about the domain's memory.

use abi::memory::{
    ADD_TO_PHYSMAP, ADD_TO_PHYSMAP_BATCH, CURRENT_RESERVATION, DECREASE_RESERVATION, EXCHANGE,
    GET_SHARING_FREED_PAGES, GET_SHARING_SHARED_PAGES, INCREASE_RESERVATION, MACHINE_MEMORY_MAP,
    MAXIMUM_GPFN, MAXIMUM_RAM_PAGE, MAXIMUM_RESERVATION, MEMORY_MAP, MapEntry, MemoryMap,
    OPERATION_MASK, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP,
};
use abi::{DomainId, Errno, Handle};
use zerocopy::IntoBytes;

use super::{Answer, Args, Flow};
use crate::caller::Caller;
use crate::machine::Machine;
use crate::ownership::Owner;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn memory_op(&self, args: &Args) -> Flow {
        match args[0] & OPERATION_MASK {
            DECREASE_RESERVATION | POPULATE_PHYSMAP => self.change_reservation(args),
            ADD_TO_PHYSMAP_BATCH => self.add_to_physmap_batch(args),
            ADD_TO_PHYSMAP => self.add_to_physmap(args[1]).into(),
            REMOVE_FROM_PHYSMAP => self.remove_from_physmap(args[1]).into(),
            CURRENT_RESERVATION => self.current_reservation(args[1]).into(),
            MAXIMUM_RESERVATION => self.maximum_reservation(args[1]).into(),
            MAXIMUM_GPFN => self.maximum_gpfn(args[1]).into(),
            MAXIMUM_RAM_PAGE => Flow::Done(Ok(self.maximum_ram_page())),
            // Frames without a guest page mean nothing to an auto-translated domain: none are
            // given.
            INCREASE_RESERVATION => Flow::Done(Ok(0)),
            MEMORY_MAP => {
                let map = self.system.machine.memory_map(&self.domain.machine);
                self.memory_map(args[1], map).into()
            }
            MACHINE_MEMORY_MAP => self.machine_memory_map(args[1]).into(),
            EXCHANGE => Flow::Done(Err(Errno::Eopnotsupp)),
            GET_SHARING_FREED_PAGES | GET_SHARING_SHARED_PAGES => Flow::Done(Ok(0)),
            _ => Flow::Done(Err(Errno::Enosys)),
        }
    }

    /// The whole map or nothing: a guest that gave too little room can ask for the number.
    fn memory_map(&self, buffer: Handle, map: &[MapEntry]) -> Answer {
        if map.is_empty() {
            return Err(Errno::Enosys);
        }
        let request: MemoryMap = self.read(buffer)?;
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        if request.buffer != 0 {
            if request.count < count {
                return Err(Errno::Einval);
            }
            self.write_bytes(request.buffer, map.as_bytes())?;
        }
        self.write(buffer, &MemoryMap { count, ..request })?;
        Ok(0)
    }

    fn machine_memory_map(&self, buffer: Handle) -> Answer {
        let map = self.system.machine.machine_memory_map();
        if !map.is_empty() && !self.is_control() && !self.domain.plan.identity.is_hardware() {
            return Err(Errno::Eperm);
        }
        self.memory_map(buffer, map)
    }

    fn current_reservation(&self, buffer: Handle) -> Answer {
        let domain = self.managed(self.read::<DomainId>(buffer)?)?;
        let given_back = domain.given_back.lock().pages();
        Ok(domain.plan.frames().saturating_sub(given_back))
    }

    fn maximum_reservation(&self, buffer: Handle) -> Answer {
        Ok(self.managed(self.read::<DomainId>(buffer)?)?.plan.frames())
    }

    fn maximum_gpfn(&self, buffer: Handle) -> Answer {
        let domain = self.managed(self.read::<DomainId>(buffer)?)?;
        let end = domain
            .plan
            .banks
            .iter()
            .map(|bank| bank.guest().end())
            .max();
        Ok(end.map_or(0, |end| end.raw().saturating_sub(1)))
    }

    fn maximum_ram_page(&self) -> u64 {
        let holdings = self.system.ownership.holdings().iter();
        let ram = holdings.filter(|holding| !matches!(holding.owner, Owner::Device(_)));
        ram.map(|holding| holding.frames.end().raw())
            .max()
            .map_or(0, |end| end.saturating_sub(1))
    }
}

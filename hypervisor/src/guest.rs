//! A guest's own buffers: copying in and out of what a hypercall's arguments point to.
//!
//! Addresses are the guest's virtual ones. Each page is translated by the machine as the guest
//! itself would see it, and the frame behind it must be RAM of that guest; so neither device
//! registers nor anybody else's memory can be named. Copies are as long as a structure or a small
//! batch: the callers bound them.

use abi::{Errno, Handle};
use layout::{FRAME_SIZE, Gfn, GuestAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::caller::Caller;
use crate::machine::{Direction, Machine};
use crate::ownership::{Claim, Owner};

impl<M: Machine> Caller<'_, M> {
    /// Reads a structure.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, at: Handle) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Reads entry `index` of an array of structures.
    pub(crate) fn read_entry<T: FromBytes + IntoBytes>(
        &self,
        array: Handle,
        index: u64,
    ) -> Result<T, Errno> {
        self.read(entry::<T>(array, index)?)
    }

    /// Writes a structure.
    pub(crate) fn write<T: IntoBytes + Immutable>(
        &self,
        at: Handle,
        value: &T,
    ) -> Result<(), Errno> {
        self.write_bytes(at, value.as_bytes())
    }

    /// Writes entry `index` of an array of structures.
    pub(crate) fn write_entry<T: IntoBytes + Immutable>(
        &self,
        array: Handle,
        index: u64,
        value: &T,
    ) -> Result<(), Errno> {
        self.write(entry::<T>(array, index)?, value)
    }

    /// Reads bytes.
    pub(crate) fn read_bytes(&self, at: Handle, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (claim, offset, length) = self.page(at, rest.len(), Direction::FromGuest)?;
            let (now, later) = rest.split_at_mut(length);
            self.system.machine.read(&claim, offset, now);
            at = at.wrapping_add(length as u64);
            rest = later;
        }
        Ok(())
    }

    /// Writes bytes.
    pub(crate) fn write_bytes(&self, at: Handle, bytes: &[u8]) -> Result<(), Errno> {
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (claim, offset, length) = self.page(at, rest.len(), Direction::ToGuest)?;
            let (now, later) = rest.split_at(length);
            self.system.machine.write(&claim, offset, now);
            at = at.wrapping_add(length as u64);
            rest = later;
        }
        Ok(())
    }

    /// The frame behind a virtual address, the place in it, and how many of `wanted` bytes are on
    /// that page.
    fn page(
        &self,
        at: Handle,
        wanted: usize,
        direction: Direction,
    ) -> Result<(Claim, u64, usize), Errno> {
        let machine = &self.system.machine;
        let address = machine
            .guest_buffer(&self.vcpu.machine, at, direction)
            .map_err(|_| Errno::Efault)?;
        let claim = self
            .system
            .ownership
            .claim_frame(address.frame(), Owner::Domain(self.domain.index))
            .ok_or(Errno::Efault)?;
        let offset = address.offset_in_frame();
        let length = usize::try_from(FRAME_SIZE - offset).map_or(wanted, |left| left.min(wanted));
        Ok((claim, offset, length))
    }

    /// The frame of the domain's own RAM that is mapped at a page now.
    pub(crate) fn own_frame(&self, page: Gfn) -> Result<Claim, Errno> {
        let mapping = self
            .system
            .machine
            .lookup(&self.domain.machine, page)
            .ok_or(Errno::Einval)?;
        let owner = Owner::Domain(self.domain.index);
        self.system
            .ownership
            .claim_frame(mapping.mfn, owner)
            .ok_or(Errno::Einval)
    }

    /// An area of `size` bytes in one page of the domain's RAM, aligned to 8: the frame and the
    /// place in it.
    pub(crate) fn physical_area(&self, address: u64, size: u64) -> Result<(Claim, u64), Errno> {
        let address = GuestAddress::new(address);
        let offset = address.offset_in_frame();
        if !offset.is_multiple_of(8) || offset + size > FRAME_SIZE {
            return Err(Errno::Enxio);
        }
        Ok((self.own_frame(address.frame())?, offset))
    }
}

fn entry<T>(array: Handle, index: u64) -> Result<Handle, Errno> {
    let offset = index
        .checked_mul(size_of::<T>() as u64)
        .ok_or(Errno::Efault)?;
    array.checked_add(offset).ok_or(Errno::Efault)
}

//! A scripted guest: what a kernel would do on one vCPU, step by step.

use std::ops::Range;
use std::sync::atomic::Ordering;

use hypervisor::{Caller, Direction, Machine, Next};
use layout::{FRAME_SIZE, GuestAddress, MachineAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::machine::{Fake, VcpuState};

/// How often a hypercall may say "again" before the test takes it for endless.
const PATIENCE: u32 = 100_000;

/// The vCPU runs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A guest on one vCPU.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// The way into the core.
    pub caller: Caller<'a, Fake>,
}

impl<'a> Guest<'a> {
    /// A guest on this vCPU.
    pub fn new(caller: Caller<'a, Fake>) -> Self {
        Self { caller }
    }

    /// The machine.
    pub fn machine(&self) -> &'a Fake {
        self.caller.system.machine()
    }

    /// What its vCPU does.
    pub fn state(&self) -> VcpuState {
        self.caller.vcpu.machine().state()
    }

    /// Makes one step of a hypercall: `Again` is left to the caller.
    pub fn step(&self, number: u64, args: &mut [u64; 5]) -> Next {
        self.caller.hypercall(number, args)
    }

    /// Makes a hypercall to its end.
    ///
    /// # Errors
    /// [`Stopped`] if the vCPU doesn't come back from it.
    ///
    /// # Panics
    /// If the call never ends.
    pub fn call(&self, number: u64, args: &[u64]) -> Result<i64, Stopped> {
        let mut registers = [0; 5];
        registers[..args.len()].copy_from_slice(args);
        for _ in 0..PATIENCE {
            match self.step(number, &mut registers) {
                Next::Again => {}
                Next::Park => return Err(Stopped),
                _ => return Ok(registers[0].cast_signed()),
            }
        }
        panic!("hypercall {number} with {args:x?} never ends");
    }

    /// Writes a structure at `at` and makes a hypercall whose buffer it is: `args` come before the
    /// buffer. Gives the result and what the structure is then.
    ///
    /// # Panics
    /// If the vCPU doesn't come back.
    pub fn call_with<T>(&self, number: u64, args: &[u64], at: u64, value: T) -> (i64, T)
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        self.put(at, &value);
        let mut all = args.to_vec();
        all.push(at);
        all.push(1);
        let result = self.call(number, &all).expect("the vCPU goes on");
        (result, self.get(at))
    }

    /// Writes a value into the guest's memory.
    ///
    /// # Panics
    /// If the guest itself couldn't.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&self, at: u64, value: &T) {
        let bytes = value.as_bytes();
        self.pages(at, bytes.len(), Direction::ToGuest, |machine, range| {
            self.machine().memory().write(machine, &bytes[range]);
        });
    }

    /// Reads a value out of the guest's memory.
    ///
    /// # Panics
    /// If the guest itself couldn't.
    pub fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> T {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        self.pages(at, bytes.len(), Direction::FromGuest, |machine, range| {
            self.machine().memory().read(machine, &mut bytes[range]);
        });
        value
    }

    /// Cuts a buffer into what lies on one page each.
    fn pages(
        &self,
        at: u64,
        length: usize,
        direction: Direction,
        mut visit: impl FnMut(MachineAddress, Range<usize>),
    ) {
        let mut done = 0;
        while done < length {
            let address = at + done as u64;
            let left = FRAME_SIZE - address % FRAME_SIZE;
            let now = usize::try_from(left).map_or(length - done, |left| left.min(length - done));
            let machine = self
                .translate(address, direction)
                .expect("memory of the guest");
            visit(machine, done..done + now);
            done += now;
        }
    }

    /// The machine address behind a guest's.
    pub fn translate(&self, at: u64, direction: Direction) -> Option<MachineAddress> {
        self.machine()
            .guest_buffer(self.caller.vcpu.machine(), at, direction)
            .ok()
    }

    /// The address of its RAM's first byte.
    ///
    /// # Panics
    /// If it has no RAM.
    pub fn ram(&self) -> u64 {
        self.caller
            .domain
            .plan()
            .banks
            .first()
            .expect("RAM")
            .gfn
            .address()
            .raw()
    }

    /// A word of its memory that it changes at the same time as the hypervisor.
    ///
    /// # Panics
    /// If it isn't RAM of the guest.
    pub fn word(&self, at: u64) -> u64 {
        let address = self
            .caller
            .domain
            .machine()
            .translate(GuestAddress::new(at), false)
            .expect("RAM");
        self.machine()
            .memory()
            .word(address)
            .expect("RAM")
            .load(Ordering::SeqCst)
    }

    /// Sets such a word.
    ///
    /// # Panics
    /// If it isn't RAM of the guest.
    pub fn set_word(&self, at: u64, value: u64) {
        let address = self
            .caller
            .domain
            .machine()
            .translate(GuestAddress::new(at), true)
            .expect("RAM");
        self.machine()
            .memory()
            .word(address)
            .expect("RAM")
            .store(value, Ordering::SeqCst);
    }
}

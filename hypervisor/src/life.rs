//! A domain's life: which of its vCPUs run, how it ends, and what follows.
//!
//! No CPU waits for another. A vCPU that ends the domain marks it as ending and asks the CPUs of
//! the others to leave the guest; each parks its vCPU, and the last one to do so carries out what
//! the manifest says.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use abi::Errno;
use abi::hvm_vcpu::Context;
use arrayvec::ArrayString;
use layout::OnStop;

use crate::caller::Caller;
use crate::domain::{Domain, Vcpu};
use crate::machine::{Machine, Next, Start};
use crate::system::System;

/// Why a domain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It powered itself off.
    PowerOff,
    /// It asks to be started again.
    Reboot,
    /// It broke down, or the hypervisor stopped it; the text says why.
    Crash(ArrayString<CAUSE_LENGTH>),
}

/// The longest cause of a crash, in bytes.
pub const CAUSE_LENGTH: usize = 96;

impl Reason {
    /// A crash with its cause, cut off at [`CAUSE_LENGTH`].
    #[must_use]
    pub fn crash(cause: fmt::Arguments<'_>) -> Self {
        let mut text = ArrayString::new();
        // A cause that doesn't fit keeps the pieces that did.
        let _ = fmt::write(&mut text, cause);
        Self::Crash(text)
    }
}

/// The fixed words of the log: "powered off", "rebooted", "crashed: why".
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("powered off"),
            Self::Reboot => f.write_str("rebooted"),
            Self::Crash(cause) => write!(f, "crashed: {cause}"),
        }
    }
}

/// Where a domain is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not built yet, or ended for good.
    Absent,
    /// Built; its vCPUs may run.
    Running,
    /// One of its vCPUs ended it, others may still run.
    Ending(Reason),
}

/// Which vCPUs of a domain run, and whether it is ending.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    on: Vec<bool>,
    /// Which have been given their registers by hypercall, and haven't been started since.
    ready: Vec<bool>,
}

/// Why a vCPU can't be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The domain has no such vCPU.
    NoSuchVcpu,
    /// It runs.
    AlreadyOn,
    /// The domain is ending.
    Ending,
}

impl Life {
    pub(crate) fn new(vcpus: usize) -> Self {
        Self {
            phase: Phase::Absent,
            on: alloc::vec![false; vcpus],
            ready: alloc::vec![false; vcpus],
        }
    }

    fn none_on(&self) -> bool {
        !self.on.contains(&true)
    }
}

impl<M: Machine> System<M> {
    /// Starts a domain that has been built: its first vCPU at the kernel, with the device tree's
    /// address.
    pub(crate) fn start(&self, domain: &Domain<M>) {
        let mut life = domain.life.lock();
        let Some((first, on)) = domain.vcpus.first().zip(life.on.first_mut()) else {
            return;
        };
        *on = true;
        life.ready.fill(false);
        life.phase = Phase::Running;
        first.since.store(self.machine.now(), Ordering::Relaxed);
        let start = Start {
            entry: domain.plan.entry.unwrap_or(domain.plan.kernel.address),
            argument: domain.plan.tree.start().raw(),
        };
        self.machine.start_vcpu(&first.machine, start);
    }

    /// What follows once no vCPU of an ending domain runs any more.
    fn finish(&self, domain: &Domain<M>, reason: &Reason) {
        self.end_line(domain);
        self.log(format_args!("{}: {reason}", domain.name()));
        let policies = &domain.plan.policies;
        let follows = match reason {
            Reason::PowerOff => policies.on_poweroff,
            Reason::Reboot => policies.on_reboot,
            Reason::Crash(_) => policies.on_crash,
        };
        match follows {
            OnStop::Restart => match self.rebuild(domain) {
                Ok(()) => {
                    self.log(format_args!("{}: restarting", domain.name()));
                    return self.start(domain);
                }
                Err(error) => self.log(format_args!(
                    "{}: can't be restarted: {error}",
                    domain.name()
                )),
            },
            OnStop::Stop => {}
            OnStop::HaltMachine => return self.machine.power_off(),
            OnStop::RebootMachine => return self.machine.reset(),
        }
        self.end_for_good(domain);
    }

    /// Takes down a domain that won't run again, and powers the machine off after the last one.
    pub(crate) fn end_for_good(&self, domain: &Domain<M>) {
        self.take_down(domain);
        domain.life.lock().phase = Phase::Absent;
        // A domain may end before others have been built: those count from the start.
        if self.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.log(format_args!("all domains have stopped"));
            self.machine.power_off();
        }
    }
}

impl<M: Machine> Caller<'_, M> {
    /// Ends the calling domain, as the firmware calls for power off and reset do.
    pub fn shutdown(&self, reason: Reason) -> Next {
        {
            let mut life = self.domain.life.lock();
            if life.phase == Phase::Running {
                life.phase = Phase::Ending(reason);
                for (vcpu, on) in self.domain.vcpus.iter().zip(&life.on) {
                    if *on && vcpu.index != self.vcpu.index {
                        self.system.machine.kick(&vcpu.machine);
                    }
                }
            }
        }
        self.park()
    }

    /// Ends the calling domain because its guest can't go on; `cause` goes to the log.
    pub fn crash(&self, cause: fmt::Arguments<'_>) -> Next {
        self.shutdown(Reason::crash(cause))
    }

    /// What a CPU does after [`Machine::kick`].
    pub fn kicked(&self) -> Next {
        let ending = matches!(self.domain.life.lock().phase, Phase::Ending(_));
        if ending { self.park() } else { Next::Resume }
    }

    /// Starts another vCPU of the calling domain.
    ///
    /// # Errors
    /// [`StartError`] says why not.
    pub fn vcpu_on(&self, index: u32, start: Start) -> Result<(), StartError> {
        let mut life = self.domain.life.lock();
        let vcpu = self.stopped(&life, index)?;
        self.switch_on(&mut life, vcpu);
        self.system.machine.start_vcpu(&vcpu.machine, start);
        Ok(())
    }

    /// Gives a vCPU that doesn't run the registers with which [`vcpu_up`](Self::vcpu_up) starts it.
    pub(crate) fn vcpu_initialise(&self, index: u32, context: &Context) -> Result<(), Errno> {
        let place = index as usize;
        let vcpu = self.domain.vcpus.get(place).ok_or(Errno::Enoent)?;
        let mut life = self.domain.life.lock();
        let on = life.on.get(place).copied().unwrap_or(true);
        let ready = life.ready.get_mut(place).filter(|ready| !on && !**ready);
        let ready = ready.ok_or(Errno::Eexist)?;
        self.system
            .machine
            .initialise_vcpu(&vcpu.machine, context)
            .map_err(|_| Errno::Einval)?;
        *ready = true;
        Ok(())
    }

    /// Starts a vCPU that has been given its registers; nothing if it runs.
    pub(crate) fn vcpu_up(&self, index: u32) -> Result<(), Errno> {
        let mut life = self.domain.life.lock();
        let vcpu = match self.stopped(&life, index) {
            Ok(vcpu) => vcpu,
            Err(StartError::AlreadyOn) => return Ok(()),
            Err(StartError::NoSuchVcpu) => return Err(Errno::Enoent),
            Err(StartError::Ending) => return Err(Errno::Einval),
        };
        if life.ready.get(index as usize) != Some(&true) {
            return Err(Errno::Einval);
        }
        self.switch_on(&mut life, vcpu);
        self.system.machine.start_initialised(&vcpu.machine);
        Ok(())
    }

    /// A vCPU that may be started.
    fn stopped(&self, life: &Life, index: u32) -> Result<&Vcpu<M>, StartError> {
        let vcpu = self
            .domain
            .vcpus
            .get(index as usize)
            .ok_or(StartError::NoSuchVcpu)?;
        if life.phase != Phase::Running {
            return Err(StartError::Ending);
        }
        match life.on.get(index as usize) {
            Some(false) => Ok(vcpu),
            Some(true) => Err(StartError::AlreadyOn),
            None => Err(StartError::NoSuchVcpu),
        }
    }

    /// Counts a vCPU as running.
    fn switch_on(&self, life: &mut Life, vcpu: &Vcpu<M>) {
        let place = vcpu.index as usize;
        if let Some((on, ready)) = life.on.get_mut(place).zip(life.ready.get_mut(place)) {
            *on = true;
            *ready = false;
        }
        vcpu.since
            .store(self.system.machine.now(), Ordering::Relaxed);
    }

    /// Stops the calling vCPU until another one starts it. A domain whose last vCPU stops has
    /// powered itself off.
    pub fn vcpu_off(&self) -> Next {
        self.park()
    }

    /// Whether a vCPU of the calling domain runs; `None` if there is no such vCPU.
    #[must_use]
    pub fn vcpu_is_on(&self, index: u32) -> Option<bool> {
        self.domain.life.lock().on.get(index as usize).copied()
    }

    /// Marks the calling vCPU as stopped, and ends the domain if it was the last one.
    fn park(&self) -> Next {
        self.stop_timers();
        self.system.machine.stop_vcpu(&self.vcpu.machine);
        let ended = {
            let mut life = self.domain.life.lock();
            if let Some(on) = life.on.get_mut(self.vcpu.index as usize) {
                *on = false;
            }
            match &life.phase {
                Phase::Ending(reason) if life.none_on() => Some(reason.clone()),
                Phase::Running if life.none_on() => {
                    life.phase = Phase::Ending(Reason::PowerOff);
                    Some(Reason::PowerOff)
                }
                _ => None,
            }
        };
        if let Some(reason) = ended {
            self.system.finish(self.domain, &reason);
        }
        Next::Park
    }
}

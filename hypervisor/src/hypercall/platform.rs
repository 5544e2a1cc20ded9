//! `platform_op`, and the hypercalls that manage a system which is decided by its plan.

use core::sync::atomic::Ordering;

use abi::platform::{
    CPU_INVALID, CPU_ONLINE, GET_CONSOLE, GET_CPUINFO, Head, INTERFACE_VERSION, PhysicalCpu,
    SETTIME32, SETTIME64, SetTime32, SetTime64,
};
use abi::{Errno, Handle};

use super::Answer;
use crate::caller::Caller;
use crate::domain::Domain;
use crate::machine::Machine;
use crate::system::System;

const SECOND: u64 = 1_000_000_000;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn platform_op(&self, buffer: Handle) -> Answer {
        if !self.is_control() && !self.domain.plan.identity.is_hardware() {
            return Err(Errno::Eperm);
        }
        let head: Head = self.read(buffer)?;
        if head.interface_version != INTERFACE_VERSION {
            return Err(Errno::Eacces);
        }
        let body = buffer
            .checked_add(size_of::<Head>() as u64)
            .ok_or(Errno::Efault)?;
        match head.command {
            SETTIME64 => {
                let time: SetTime64 = self.read(body)?;
                if time.reserved != 0 {
                    return Err(Errno::Einval);
                }
                self.set_time(time.seconds, time.nanoseconds, time.system_time)
            }
            SETTIME32 => {
                let time: SetTime32 = self.read(body)?;
                self.set_time(time.seconds.into(), time.nanoseconds, time.system_time)
            }
            GET_CPUINFO => self.physical_cpu(body),
            // The hypervisor has no screen.
            GET_CONSOLE => Err(Errno::Enodev),
            _ => Err(Errno::Enosys),
        }
    }

    fn set_time(&self, seconds: u64, nanoseconds: u32, system_time: u64) -> Answer {
        let at_start = seconds
            .checked_mul(SECOND)
            .and_then(|time| time.checked_add(u64::from(nanoseconds)))
            .and_then(|time| time.checked_sub(system_time))
            .ok_or(Errno::Einval)?;
        self.system.set_wall_clock(at_start);
        Ok(0)
    }

    fn physical_cpu(&self, body: Handle) -> Answer {
        let cpus = self.system.machine.physical_cpus();
        let highest = cpus.len().checked_sub(1).ok_or(Errno::Enosys)?;
        let request: PhysicalCpu = self.read(body)?;
        let max_present = u32::try_from(highest).unwrap_or(u32::MAX);
        let answer = match cpus.get(request.cpu as usize) {
            Some(cpu) => PhysicalCpu {
                max_present,
                flags: CPU_ONLINE,
                apic_id: cpu.hardware_id,
                acpi_id: cpu.firmware_id,
                ..request
            },
            None => PhysicalCpu {
                max_present,
                flags: CPU_INVALID,
                ..request
            },
        };
        self.write(body, &answer)?;
        Ok(0)
    }

    /// `sysctl`, `domctl` and their like. The plan decides all that they could change; nobody has
    /// the right.
    pub(super) fn management(&self, number: u64) -> Answer {
        let error = if self.is_control() {
            Errno::Enosys
        } else {
            Errno::Eperm
        };
        Err(self.refused(number, "management at run time", error))
    }
}

impl<M: Machine> System<M> {
    /// Sets the wall clock of all domains: nanoseconds since 1970 at system time 0.
    pub(crate) fn set_wall_clock(&self, at_start: u64) {
        self.wall_clock.store(at_start, Ordering::Relaxed);
        for domain in &self.domains {
            self.show_wall_clock(domain);
        }
    }

    /// Writes the wall clock into a domain's shared page.
    pub(crate) fn show_wall_clock(&self, domain: &Domain<M>) {
        let time = self.wall_clock.load(Ordering::Relaxed);
        let (seconds, nanoseconds) = (time / SECOND, time % SECOND);
        let place = M::FACTS.shared_info.wall_clock;
        // The domain's lock keeps two writers apart; the guest goes by the version, which is odd
        // meanwhile.
        let _writer = domain.events.lock();
        let (Some(first), Some(second)) = (
            self.machine.word(&domain.shared_info, place),
            self.machine.word(&domain.shared_info, place + 8),
        ) else {
            return;
        };
        let version = (first.load(Ordering::Relaxed) & 0xffff_ffff) | 1;
        first.store(version | (seconds & 0xffff_ffff) << 32, Ordering::SeqCst);
        second.store(nanoseconds | seconds >> 32 << 32, Ordering::SeqCst);
        let version = (version + 1) & 0xffff_ffff;
        first.store(version | (seconds & 0xffff_ffff) << 32, Ordering::SeqCst);
    }

    /// The wall clock's first value.
    pub(crate) fn wall_clock_at_start(machine: &M) -> u64 {
        machine.wall_clock().unwrap_or(0).saturating_mul(SECOND)
    }
}

//! The APIC timer: one-shot, periodic, and by TSC deadline.

/// Bits 18:17 of its local vector table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    OneShot,
    Periodic,
    Deadline,
    /// 3: means nothing, never fires.
    Reserved,
}

impl Kind {
    pub(super) const fn of(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::Deadline,
            _ => Self::Reserved,
        }
    }
}

#[derive(Debug)]
pub(super) struct Timer {
    kind: Kind,
    tsc_per_tick: u32,
    /// The divide configuration register, bits 3, 1 and 0.
    divide: u32,
    initial: u32,
    /// When it fires next.
    deadline: Option<u64>,
}

impl Timer {
    pub(super) const fn new(tsc_per_tick: u32) -> Self {
        Self {
            kind: Kind::OneShot,
            tsc_per_tick,
            divide: 0,
            initial: 0,
            deadline: None,
        }
    }

    /// As after a reset.
    pub(super) fn stop(&mut self) {
        *self = Self::new(self.tsc_per_tick);
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// The local vector table entry was written. Between counting and the TSC deadline the timer is disarmed.
    pub(super) fn set_kind(&mut self, kind: Kind) {
        let was_counting = matches!(self.kind, Kind::OneShot | Kind::Periodic);
        let counts = matches!(kind, Kind::OneShot | Kind::Periodic);
        if was_counting != counts || kind == Kind::Reserved {
            self.deadline = None;
            self.initial = 0;
        }
        self.kind = kind;
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// What is left is counted on at the new pace.
    pub(super) fn set_divide(&mut self, value: u32, now: u64) {
        let left = self.current(now);
        self.divide = value & 0b1011;
        if self.counts() && self.deadline.is_some() {
            self.deadline = Some(self.after(now, left.max(1)));
        }
    }

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// Starts counting down; zero stops. Ignored by the TSC-deadline timer.
    pub(super) fn set_initial(&mut self, count: u32, now: u64) {
        if !self.counts() {
            return;
        }
        self.initial = count;
        self.deadline = (count != 0).then(|| self.after(now, count));
    }

    /// The current count register.
    pub(super) fn current(&self, now: u64) -> u32 {
        match self.deadline {
            Some(deadline) if self.counts() => {
                let left = deadline.saturating_sub(now).div_ceil(self.tsc_per_count());
                u32::try_from(left).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    /// The TSC deadline, 0 when disarmed or when the timer counts.
    pub(super) fn tsc_deadline(&self) -> u64 {
        match self.kind {
            Kind::Deadline => self.deadline.unwrap_or(0),
            _ => 0,
        }
    }

    /// Arms the TSC-deadline timer; zero disarms. Ignored while it counts.
    pub(super) fn set_tsc_deadline(&mut self, deadline: u64) {
        if self.kind == Kind::Deadline {
            self.deadline = (deadline != 0).then_some(deadline);
        }
    }

    /// Whether it fires now. A periodic timer that is late fires once and keeps its phase.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) else {
            return false;
        };
        self.deadline = match self.kind {
            Kind::Periodic => {
                let period = self.tsc_per_count().saturating_mul(u64::from(self.initial));
                let missed = (now - deadline) / period.max(1);
                deadline.checked_add(period.saturating_mul(missed.saturating_add(1)))
            }
            Kind::OneShot | Kind::Deadline | Kind::Reserved => None,
        };
        true
    }

    fn counts(&self) -> bool {
        matches!(self.kind, Kind::OneShot | Kind::Periodic)
    }

    /// TSC counts for one count of the timer: divisors 2, 4, ... 128, and 1 for 0b1011.
    fn tsc_per_count(&self) -> u64 {
        let code = (self.divide & 0b11) | (self.divide >> 1 & 0b100);
        u64::from(self.tsc_per_tick) << ((code + 1) & 7)
    }

    fn after(&self, now: u64, counts: u32) -> u64 {
        now.saturating_add(self.tsc_per_count().saturating_mul(u64::from(counts)))
    }
}

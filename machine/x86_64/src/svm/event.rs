//! Events that VMRUN delivers, and those that an exit interrupted. APM volume 2, 15.20 and 15.7.2; double faults: 8.2.9.

/// An exception, interrupt or NMI in the form of EVENTINJ and EXITINTINFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event(u64);

const VALID: u64 = 1 << 31;
const HAS_CODE: u64 = 1 << 11;
const KIND: u64 = 7 << 8;
const INTERRUPT: u64 = 0;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;
const SOFTWARE: u64 = 4 << 8;

/// Vectors of exceptions.
pub mod vector {
    /// Debug.
    pub const DB: u8 = 1;
    /// Invalid opcode.
    pub const UD: u8 = 6;
    /// Double fault.
    pub const DF: u8 = 8;
    /// General protection.
    pub const GP: u8 = 13;
    /// Page fault.
    pub const PF: u8 = 14;
    /// Alignment check.
    pub const AC: u8 = 17;
    /// Machine check.
    pub const MC: u8 = 18;
}

/// What becomes of an event whose delivery an exit interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// There was none, or its instruction is still to be executed.
    Nothing,
    /// It is to be delivered again.
    Again(Event),
}

impl Event {
    /// A non-maskable interrupt.
    pub const NMI: Self = Self(VALID | NMI | 2);
    /// #UD.
    pub const UNDEFINED: Self = Self::exception(vector::UD);
    /// #GP(0).
    pub const PROTECTION: Self = Self::with_code(vector::GP, 0);

    /// An exception without an error code.
    #[must_use]
    pub const fn exception(vector: u8) -> Self {
        Self(VALID | EXCEPTION | vector as u64)
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with_code(vector: u8, code: u32) -> Self {
        Self(VALID | EXCEPTION | HAS_CODE | vector as u64 | (code as u64) << 32)
    }

    /// As EVENTINJ takes it.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The exception's vector; `None` for what is none.
    const fn exception_vector(self) -> Option<u8> {
        if self.0 & KIND == EXCEPTION {
            Some((self.0 & 0xff) as u8)
        } else {
            None
        }
    }

    /// This exception while `before` was being delivered: itself, or a double fault.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        let first = before.and_then(Self::exception_vector);
        let (Some(first), Some(second)) = (first, self.exception_vector()) else {
            return self;
        };
        let double = match first {
            vector::DF => true,
            vector::PF => is_contributory(second) || second == vector::PF,
            _ => is_contributory(first) && is_contributory(second),
        };
        if double {
            Self::with_code(vector::DF, 0)
        } else {
            self
        }
    }
}

const fn is_contributory(vector: u8) -> bool {
    matches!(vector, 0 | 10..=13)
}

/// Reads EXITINTINFO. INT n and the like are executed again, as RIP still points at them. Vectors above 31 are interrupts,
/// whatever the kind says: QEMU reports them as exceptions.
#[must_use]
pub const fn interrupted(info: u64) -> Interrupted {
    if info & VALID == 0 {
        return Interrupted::Nothing;
    }
    let vector = info & 0xff;
    match info & KIND {
        SOFTWARE => Interrupted::Nothing,
        EXCEPTION if vector > 31 => Interrupted::Again(Event(VALID | INTERRUPT | vector)),
        // #BP and #OF come from instructions too.
        EXCEPTION if vector == 3 || vector == 4 => Interrupted::Nothing,
        INTERRUPT => Interrupted::Again(Event(VALID | INTERRUPT | vector)),
        NMI => Interrupted::Again(Event::NMI),
        _ => Interrupted::Again(Event(info)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_the_manual() {
        assert_eq!(Event::UNDEFINED.raw(), 0x8000_0306);
        assert_eq!(Event::PROTECTION.raw(), 0x8000_0b0d);
        assert_eq!(Event::NMI.raw(), 0x8000_0202);
        assert_eq!(Event::with_code(14, 7).raw(), 0x7_8000_0b0e);
    }

    #[test]
    fn what_is_delivered_again() {
        let page_fault = Event::with_code(14, 2);
        assert_eq!(
            interrupted(page_fault.raw()),
            Interrupted::Again(page_fault)
        );
        let timer = Interrupted::Again(Event(0x8000_00ef));
        assert_eq!(interrupted(0x8000_00ef), timer);
        assert_eq!(interrupted(0x8000_03ef), timer, "QEMU's");
        assert_eq!(interrupted(0x8000_0480), Interrupted::Nothing, "INT 0x80");
        assert_eq!(interrupted(0x8000_0303), Interrupted::Nothing, "INT3");
        assert_eq!(interrupted(0x0000_030e), Interrupted::Nothing, "invalid");
    }

    #[test]
    fn faults_in_faults() {
        let page_fault = Event::with_code(14, 0);
        let double = Event::with_code(8, 0);
        assert_eq!(Event::PROTECTION.after(Some(page_fault)), double);
        assert_eq!(Event::PROTECTION.after(Some(Event::PROTECTION)), double);
        assert_eq!(page_fault.after(Some(Event::PROTECTION)), page_fault);
        assert_eq!(
            Event::UNDEFINED.after(Some(Event::PROTECTION)),
            Event::UNDEFINED
        );
        assert_eq!(Event::PROTECTION.after(Some(Event::NMI)), Event::PROTECTION);
        assert_eq!(Event::PROTECTION.after(None), Event::PROTECTION);
    }
}

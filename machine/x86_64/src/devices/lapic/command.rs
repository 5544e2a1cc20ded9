//! The interrupt command register: interrupts between the vCPUs of one domain.

use super::{Apics, LocalApic, Platform, error};
use crate::devices::interrupt::{Delivery, Destination};

/// Level: assert. Only a de-asserted INIT has it clear.
const ASSERT: u32 = 1 << 14;
const TRIGGER_LEVEL: u32 = 1 << 15;
const LOGICAL: u32 = 1 << 11;

/// Bits 19:18: whom the interrupt is for, without a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shorthand {
    None,
    Oneself,
    All,
    Others,
}

impl Shorthand {
    const fn of(low: u32) -> Self {
        match low >> 18 & 3 {
            0 => Self::None,
            1 => Self::Oneself,
            2 => Self::All,
            _ => Self::Others,
        }
    }
}

impl LocalApic<'_> {
    /// The low half was written: `destination` is what the high half holds, as this mode reads it.
    pub(super) fn send(&mut self, low: u32, high: u32, x2apic: bool, platform: &impl Platform) {
        let vector = low as u8;
        let delivery = Delivery::of(low);
        let logical = low & LOGICAL != 0;
        let destination = if x2apic {
            Destination::wide(high, logical)
        } else {
            Destination::narrow((high >> 24) as u8, logical)
        };
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority if vector < 16 => {
                self.error(error::SEND_ILLEGAL);
                return;
            }
            // The de-assertion of INIT synchronised arbitration on CPUs of long ago. Nothing else is level-triggered.
            Delivery::Init if low & (ASSERT | TRIGGER_LEVEL) == TRIGGER_LEVEL => return,
            // Nobody but the hypervisor gets to system management; ExtINT isn't for commands.
            Delivery::Smi | Delivery::ExtInt | Delivery::Reserved => return,
            _ => {}
        }
        let apics: &Apics = self.apics;
        let own = self.vcpu;
        match Shorthand::of(low) {
            // For itself or everybody, only a fixed interrupt or an NMI means something.
            Shorthand::Oneself => {
                if delivery == Delivery::Fixed {
                    self.deliver(own, delivery, vector, platform);
                }
            }
            Shorthand::All => {
                if matches!(delivery, Delivery::Fixed | Delivery::Nmi) {
                    for vcpu in 0..apics.inboxes.len() {
                        self.deliver(vcpu, delivery, vector, platform);
                    }
                }
            }
            Shorthand::Others => {
                for vcpu in (0..apics.inboxes.len()).filter(|vcpu| *vcpu != own) {
                    self.deliver(vcpu, delivery, vector, platform);
                }
            }
            Shorthand::None => {
                let limit = match delivery {
                    Delivery::LowestPriority => 1,
                    _ => usize::MAX,
                };
                for vcpu in apics.named(destination).take(limit) {
                    self.deliver(vcpu, delivery, vector, platform);
                }
            }
        }
    }

    fn deliver(&self, vcpu: usize, delivery: Delivery, vector: u8, platform: &impl Platform) {
        let Some(inbox) = self.apics.inbox(vcpu) else {
            return;
        };
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority => {
                inbox.post(vector, false);
            }
            Delivery::Nmi => inbox.post_nmi(),
            Delivery::Init => inbox.post_init(),
            Delivery::StartUp => inbox.post_start_up(vector),
            Delivery::Smi | Delivery::ExtInt | Delivery::Reserved => return,
        }
        if vcpu != self.vcpu {
            platform.kick(vcpu);
        }
    }
}

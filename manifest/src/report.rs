//! What the hypervisor says on its console before it starts a domain: conflicts, the plan, refusals.
//!
//! The same on every machine, and scripts rely on the lines (docs/architecture.md).

use alloc::string::String;
use core::fmt;

use layout::{Conflict, HostMap, MachineRange, OnConflict, Outcome};

use crate::origin::Origins;
use crate::plan_json::{digest, plan_json};
use crate::tree::system::System;

/// What one boot has found.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The hypervisor's image as it runs.
    pub image: MachineRange,
    /// The host in the planner's terms.
    pub host: &'a HostMap,
    /// What is wrong or strange in the host's description.
    pub host_problems: &'a [Conflict],
    /// What the system's tree says.
    pub system: &'a System,
    /// The plan.
    pub outcome: &'a Outcome,
    /// Where each was said.
    pub origins: &'a Origins,
}

impl Report<'_> {
    /// Prints who is there, every conflict, and the plan if it is asked for or isn't the workstation's. Says whether domains may
    /// be started.
    #[must_use]
    pub fn print(&self, say: &dyn Fn(fmt::Arguments<'_>)) -> bool {
        say(format_args!(
            "Terrane {} at {:#x}, {} KiB",
            env!("CARGO_PKG_VERSION"),
            self.image.start().raw(),
            self.image.size() / 1024
        ));
        let (system, outcome) = (self.system, self.outcome);
        let request = &system.request.hypervisor;
        let all = self
            .host_problems
            .iter()
            .chain(&system.problems)
            .chain(&outcome.conflicts);
        let mut errors = false;
        for conflict in all {
            errors |= conflict.is_error();
            self.conflict(conflict, say);
        }
        let needs_text = request.print_plan || system.digest.is_some();
        let text = if needs_text {
            plan_json(&outcome.plan, self.host, &system.request)
        } else {
            String::new()
        };
        let mut differs = false;
        if let Some(expected) = &system.digest {
            let found = digest(&text);
            differs = *expected != found;
            if differs {
                say(format_args!(
                    "error[plan-differs]: the workstation's plan is {expected}, this machine's {found}"
                ));
            }
        }
        if request.print_plan || differs {
            say(format_args!("plan begin"));
            say(format_args!("{text}"));
            say(format_args!("plan end"));
        }
        for refusal in &outcome.refused {
            say(format_args!(
                "{}: refused: {}",
                refusal.name,
                refusal.code.as_str()
            ));
        }
        let halts = (errors || differs) && request.on_conflict == OnConflict::Halt;
        if halts {
            say(format_args!(
                "on-conflict is \"halt\": no domain is started"
            ));
        }
        !halts
    }

    fn conflict(&self, conflict: &Conflict, say: &dyn Fn(fmt::Arguments<'_>)) {
        let word = if conflict.is_error() {
            "error"
        } else {
            "warning"
        };
        say(format_args!(
            "{word}[{}]: {}",
            conflict.code.as_str(),
            conflict.why
        ));
        for side in &conflict.sides {
            match self.origins.describe(side.origin) {
                Some(place) => say(format_args!("  side: {} ({place})", side.what)),
                None => say(format_args!("  side: {}", side.what)),
            }
        }
        if !conflict.help.is_empty() {
            say(format_args!("  help: {}", conflict.help));
        }
    }
}

//! What became of the machine, read from the hypervisor's own lines and QEMU's exit status.

use std::collections::BTreeMap;

use crate::exit::Exit;

/// How the hypervisor's first line begins.
const BANNER: &str = "Terrane ";

/// How a domain ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It powered itself off.
    PoweredOff,
    /// It asked for a reboot and the manifest's `on-reboot` let that be its end, or the machine's.
    Rebooted,
    /// It crashed, and why.
    Crashed(String),
    /// The hypervisor didn't start it: the code of the conflict.
    Refused(String),
}

/// Why the supervisor stopped watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// QEMU ended; whether with status 0.
    QemuEnded {
        /// QEMU's exit status was 0.
        success: bool,
    },
    /// A signal that isn't ours ended QEMU: it crashed, or somebody killed it.
    QemuCrashed {
        /// The signal's number.
        signal: i32,
    },
    /// `--timeout` expired and QEMU was ended.
    TimedOut,
    /// The user asked for the end (Ctrl-] or a signal) and QEMU was ended.
    Interrupted,
}

/// Collects the lines of the hypervisor that scripts may rely on.
#[derive(Debug, Default)]
pub struct Outcome {
    ends: BTreeMap<String, End>,
    crashed: Option<(String, String)>,
    errors: Vec<String>,
    all_stopped: bool,
}

impl Outcome {
    /// Takes one line that the hypervisor wrote, without its prefix.
    pub fn hypervisor_line(&mut self, line: &str) {
        if line == "all domains have stopped" {
            self.all_stopped = true;
        } else if let Some(name) = line.strip_suffix(": restarting") {
            self.ends.remove(name);
        } else if line.starts_with(BANNER) {
            // The machine was reset: its domains begin anew.
            self.ends.clear();
        } else if let Some((code, _)) = line
            .strip_prefix("error[")
            .and_then(|rest| rest.split_once(']'))
        {
            self.errors.push(code.to_owned());
        } else if let Some((name, end)) = line
            .split_once(": ")
            .and_then(|(name, rest)| Some((name, end_of(rest)?)))
        {
            if let End::Crashed(why) = &end {
                self.crashed
                    .get_or_insert_with(|| (name.to_owned(), why.clone()));
            }
            self.ends.insert(name.to_owned(), end);
        }
    }

    /// The exit status, and a sentence for the user if it isn't [`Exit::Good`]. `domains` are those of the manifest.
    pub fn verdict(&self, stopped: Stopped, domains: &[String]) -> (Exit, Option<String>) {
        let running: Vec<&str> = domains
            .iter()
            .filter(|name| !self.ends.contains_key(*name))
            .map(String::as_str)
            .collect();
        if let Some((name, why)) = &self.crashed {
            return (
                Exit::DomainCrashed,
                Some(format!("domain `{name}` crashed: {why}")),
            );
        }
        match stopped {
            Stopped::TimedOut => (
                Exit::TimedOut,
                Some(still(&running, "when the time was up")),
            ),
            Stopped::Interrupted => (
                Exit::TimedOut,
                Some(format!("with {} running", names(&running))),
            ),
            Stopped::QemuEnded { success: false } => (
                Exit::QemuFailed,
                Some("QEMU ended with an error".to_owned()),
            ),
            Stopped::QemuCrashed { signal } => (
                Exit::QemuFailed,
                Some(format!("QEMU was ended by signal {signal}")),
            ),
            _ if !self.errors.is_empty() => {
                let codes = self.errors.join(", ");
                (
                    Exit::Conflicts,
                    Some(format!("the hypervisor found conflicts: {codes}")),
                )
            }
            Stopped::QemuEnded { success: true } if !self.all_stopped && !running.is_empty() => (
                Exit::DomainCrashed,
                Some(still(&running, "when the machine stopped")),
            ),
            Stopped::QemuEnded { success: true } => (Exit::Good, None),
        }
    }
}

fn end_of(text: &str) -> Option<End> {
    if text == "powered off" {
        Some(End::PoweredOff)
    } else if text == "rebooted" {
        Some(End::Rebooted)
    } else if let Some(why) = text.strip_prefix("crashed: ") {
        Some(End::Crashed(why.to_owned()))
    } else {
        text.strip_prefix("refused: ")
            .map(|code| End::Refused(code.to_owned()))
    }
}

fn still(running: &[&str], when: &str) -> String {
    if running.is_empty() {
        return format!("the machine still ran {when}");
    }
    format!("still running {when}: {}", names(running))
}

fn names(domains: &[&str]) -> String {
    if domains.is_empty() {
        return "no domain".to_owned();
    }
    let quoted: Vec<String> = domains.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[&str], stopped: Stopped) -> Exit {
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.hypervisor_line(line);
        }
        outcome
            .verdict(stopped, &["control".to_owned(), "net".to_owned()])
            .0
    }

    const ENDED: Stopped = Stopped::QemuEnded { success: true };

    #[test]
    fn every_domain_off_is_good() {
        let lines = [
            "control: powered off",
            "net: rebooted",
            "all domains have stopped",
        ];
        assert_eq!(verdict(&lines, ENDED), Exit::Good);
    }

    #[test]
    fn a_crash_outweighs_everything() {
        let lines = [
            "net: crashed: data abort",
            "net: powered off",
            "all domains have stopped",
        ];
        assert_eq!(verdict(&lines, ENDED), Exit::DomainCrashed);
        assert_eq!(verdict(&lines, Stopped::TimedOut), Exit::DomainCrashed);
    }

    #[test]
    fn a_machine_that_stops_under_a_running_domain_is_a_crash() {
        assert_eq!(
            verdict(&["control: powered off"], ENDED),
            Exit::DomainCrashed
        );
        assert_eq!(verdict(&[], ENDED), Exit::DomainCrashed);
    }

    #[test]
    fn a_domain_that_is_restarted_runs() {
        let mut lines = vec![
            "net: powered off",
            "control: rebooted",
            "control: restarting",
        ];
        assert_eq!(verdict(&lines, ENDED), Exit::DomainCrashed);
        lines.push("control: powered off");
        assert_eq!(verdict(&lines, ENDED), Exit::Good);
    }

    #[test]
    fn a_machine_that_is_reset_runs_its_domains() {
        let mut lines = vec!["control: powered off", "net: rebooted"];
        assert_eq!(verdict(&lines, ENDED), Exit::Good);
        lines.push("Terrane 0.1.0 at 0x200000, 1200 KiB");
        assert_eq!(verdict(&lines, ENDED), Exit::DomainCrashed);
    }

    #[test]
    fn refusals_are_conflicts() {
        let lines = [
            "error[static-outside-ram]: no",
            "net: refused: static-outside-ram",
            "control: powered off",
        ];
        assert_eq!(verdict(&lines, ENDED), Exit::Conflicts);
    }

    #[test]
    fn timeout_and_qemu_errors_have_codes_of_their_own() {
        assert_eq!(verdict(&[], Stopped::TimedOut), Exit::TimedOut);
        assert_eq!(
            verdict(&[], Stopped::QemuEnded { success: false }),
            Exit::QemuFailed
        );
        let crashed = Stopped::QemuCrashed { signal: 11 };
        assert_eq!(verdict(&["net: powered off"], crashed), Exit::QemuFailed);
    }

    #[test]
    fn ordinary_lines_mean_nothing() {
        let mut outcome = Outcome::default();
        outcome.hypervisor_line("control: 2036 MiB at 0x40000000");
        assert!(outcome.ends.is_empty());
    }
}

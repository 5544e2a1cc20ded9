//! Collects conflicts while planning, and remembers which domains can't be started for them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::conflict::{Code, Conflict, Severity, Side};
use crate::host::Origin;
use crate::plan::Refusal;
use crate::request::{DomainRequest, SystemRequest};

/// What was found so far.
pub(crate) struct Report {
    conflicts: Vec<Conflict>,
    /// For each domain of the request the first error that keeps it from starting.
    refused: Vec<Option<Code>>,
}

impl Report {
    pub(crate) fn new(request: &SystemRequest) -> Self {
        Self {
            conflicts: Vec::new(),
            refused: request.domains.iter().map(|one| one.misread).collect(),
        }
    }

    /// An error. `domains` are those that can't be started for it: not always every side, since
    /// of two claims to a CPU the first is good.
    pub(crate) fn error(
        &mut self,
        code: Code,
        domains: &[usize],
        sides: Vec<Side>,
        why: String,
        help: String,
    ) {
        for &domain in domains {
            if let Some(first) = self.refused.get_mut(domain) {
                first.get_or_insert(code);
            }
        }
        self.conflicts.push(Conflict {
            code,
            severity: Severity::Error,
            sides,
            why,
            help,
        });
    }

    /// Something worth knowing that keeps nobody from starting.
    pub(crate) fn warning(&mut self, code: Code, sides: Vec<Side>, why: String, help: String) {
        self.conflicts.push(Conflict {
            code,
            severity: Severity::Warning,
            sides,
            why,
            help,
        });
    }

    pub(crate) fn is_refused(&self, domain: usize) -> bool {
        self.refused.get(domain).is_some_and(Option::is_some)
    }

    pub(crate) fn finish(self, request: &SystemRequest) -> (Vec<Conflict>, Vec<Refusal>) {
        let named = request
            .domains
            .iter()
            .map(|domain| domain.name.value.clone());
        let refused = self.refused.into_iter().zip(named).enumerate();
        let refused = refused
            .filter_map(|(domain, (code, name))| {
                Some(Refusal {
                    domain,
                    name,
                    code: code?,
                })
            })
            .collect();
        (self.conflicts, refused)
    }
}

/// A side that belongs to a domain.
pub(crate) fn side(domain: usize, what: String, origin: Origin) -> Side {
    Side {
        what,
        origin,
        domain: Some(domain),
    }
}

/// A side that belongs to the host or the hypervisor.
pub(crate) fn host_side(what: String, origin: Origin) -> Side {
    Side {
        what,
        origin,
        domain: None,
    }
}

/// How messages name a domain.
pub(crate) fn name(index: usize, domain: &DomainRequest) -> String {
    match domain.name.value.as_str() {
        "" => format!("domain {index}"),
        name => format!("domain \"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept() {
        let two = SystemRequest {
            domains: alloc::vec![DomainRequest::default(), DomainRequest::default()],
            ..SystemRequest::default()
        };
        let mut report = Report::new(&two);
        report.error(
            Code::CpusZero,
            &[1],
            Vec::new(),
            String::new(),
            String::new(),
        );
        report.error(
            Code::CpusTooMany,
            &[1, 7],
            Vec::new(),
            String::new(),
            String::new(),
        );
        assert!(report.is_refused(1) && !report.is_refused(0) && !report.is_refused(7));
    }
}

//! What Xen has room for: beyond it stops with a panic.

use manifest::image::IMAGE_ALIGNMENT;

use crate::diagnostics::{Diagnostic, Side};

use super::{Overlay, Planned};

/// Bytes of a command line, its end included (xen/include/xen/bootfdt.h, `BOOTMOD_MAX_CMDLINE`).
const COMMAND_LINE: usize = 1024;
/// Modules, Xen itself and the tree included (`MAX_MODULES`).
const MODULES: usize = 32;
/// Ranges of static and reserved memory (`NR_MEM_BANKS`).
const BANKS: usize = 256;

impl Overlay<'_> {
    /// Refuses what Xen would stop at.
    pub(super) fn check_limits(&mut self) {
        let planned: Vec<Planned<'_>> = self.planned().collect();
        for domain in &planned {
            let length = domain.plan.command_line.len();
            if length >= COMMAND_LINE {
                let what = format!("a command line of {length} bytes");
                self.beyond(*domain, what, format!("at most {} bytes", COMMAND_LINE - 1));
            }
            self.check_first_range(*domain);
        }
        let Some(last) = planned.last() else { return };
        let modules = planned.iter().map(|domain| {
            1 + usize::from(domain.plan.ramdisk.is_some())
                + usize::from(domain.plan.partial_tree.is_some())
        });
        let modules = modules.sum::<usize>() + 2;
        if modules > MODULES {
            let what = format!("{modules} modules in all, Xen and the device tree included");
            self.beyond(*last, what, format!("at most {MODULES}"));
        }
        let banks = planned
            .iter()
            .filter_map(|domain| self.static_ranges(*domain));
        let banks = banks.map(|ranges| ranges.len()).sum::<usize>() + self.host.reserved.len();
        if banks > BANKS {
            let what = format!("{banks} ranges of static and reserved memory");
            self.beyond(*last, what, format!("at most {BANKS}"));
        }
    }

    /// Xen puts all that a domain starts from into the first range (xen/arch/arm/kernel.c, `place_modules`).
    fn check_first_range(&mut self, domain: Planned<'_>) {
        let direct = domain.plan.identity.is_direct_mapped();
        let Some(ranges) = self.static_ranges(domain).filter(|_| direct) else {
            return;
        };
        let first = ranges
            .first()
            .copied()
            .filter(|first| first.start().raw().is_multiple_of(IMAGE_ALIGNMENT));
        let room = first.map_or(0, |first| first.size());
        let whole = |size: u64| size.next_multiple_of(IMAGE_ALIGNMENT);
        let plan = domain.plan;
        let ramdisk = plan
            .ramdisk
            .as_ref()
            .map_or(0, |ramdisk| whole(ramdisk.size));
        let wanted = whole(plan.kernel.size) + ramdisk + whole(plan.tree.size());
        if room < wanted {
            let what = format!(
                "kernel, ramdisk and tree in one range of {} KiB",
                wanted >> 10
            );
            self.beyond(
                domain,
                what,
                format!("the first range, which has {} KiB here", room >> 10),
            );
        }
    }

    fn beyond(&mut self, domain: Planned<'_>, what: String, most: String) {
        let place = self
            .findings
            .place(domain.request.name.origin, self.said.origins);
        self.is_refused = true;
        let message = format!("Xen stops at boot: {what}, and it takes {most}");
        self.findings.add(Diagnostic {
            sides: vec![Side { what, place }],
            ..Diagnostic::error("xen-limit", message)
        });
    }
}

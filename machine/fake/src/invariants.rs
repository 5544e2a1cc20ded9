//! What must hold at every moment, whatever guests do.

use hypervisor::{Domain, Owner};
use layout::DirectMap;

use crate::board::Board;
use crate::machine::Fake;

impl Board {
    /// Checks every mapping of every domain against the owners of the frames.
    ///
    /// # Panics
    /// If a domain has a frame mapped that it may not have; if a frame of its own isn't where the
    /// plan puts it; if a CPU may still use what was taken out of a domain.
    pub fn check(&self) {
        for domain in self.system.domains() {
            let stale = domain.machine().stale();
            assert!(
                stale.is_empty(),
                "{}: {stale:?} is still in use",
                domain.name()
            );
            for (page, mapping) in domain.machine().mappings() {
                let name = domain.name();
                let found = self
                    .system
                    .ownership()
                    .find(mapping.mfn)
                    .map(|holding| holding.owner);
                let owner = found.unwrap_or_else(|| {
                    panic!("{name}: {page:?} is nobody's frame {:?}", mapping.mfn)
                });
                match owner {
                    Owner::Domain(index) if index == domain.index() => {
                        check_home(domain, page, mapping.mfn)
                    }
                    Owner::Pool(index) | Owner::Device(index) | Owner::DeviceMemory(index)
                        if index == domain.index() => {}
                    Owner::Domain(_) => assert!(
                        self.system.is_granted(domain, mapping.mfn),
                        "{name}: {page:?} is a frame of another domain without a grant"
                    ),
                    _ => panic!("{name}: {page:?} is a frame of {owner:?}"),
                }
            }
        }
    }
}

/// A frame of the domain's own RAM is at its own page and nowhere else.
fn check_home(domain: &Domain<Fake>, page: layout::Gfn, mfn: layout::Mfn) {
    assert_eq!(
        domain.plan().machine_frame(page),
        Some(mfn),
        "{}: {page:?} has a frame of another page",
        domain.name()
    );
    if let Some(direct) = DirectMap::of(&domain.plan().identity) {
        assert_eq!(
            direct.machine(page),
            mfn,
            "{}: {page:?} isn't direct-mapped",
            domain.name()
        );
    }
}

//! Makes the plan: checks the request, shares out the RAM, places what domains start with.
//!
//! Every step adds its conflicts to one report and goes on with the domains that are still
//! good, so that one run finds everything.

mod attempt;
mod capacity;
mod copies;
mod cpus;
pub(crate) mod devices;
pub(crate) mod dma;
mod exact;
mod fit;
mod free;
pub(crate) mod ground;
mod guest;
mod home;
mod index;
mod links;
mod modules;
mod nodes;
pub(crate) mod place;
pub(crate) mod report;
mod roles;
pub(crate) mod sets;
mod shares;
mod statics;
mod wants;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::address::{Gfn, GuestAddress, MachineRange, Mfn, MfnRange};
use crate::conflict::Code;
use crate::domain::Identity;
use crate::host::{HostMap, Origin};
use crate::need;
use crate::plan::{Bank, DomainPlan, HypervisorPlan, Outcome, Placement, Plan};
use crate::request::{DomainRequest, StaticRange, SystemRequest};
use crate::size::Size;
use ground::Ground;
use home::{Home, Place};
use modules::Wanted;
use nodes::Nodes;
use place::{Share, Sharing, Task, Want};
use report::{Report, host_side, name, side};

/// Plans a system on a host. Never fails as a whole: what can't be had is in
/// [`Outcome::conflicts`], and the plan holds every domain that can be started safely. The same
/// input gives the same outcome.
pub fn plan(host: &HostMap, request: &SystemRequest) -> Outcome {
    Planner::new(host, request).run()
}

struct Planner<'a> {
    ground: Ground<'a>,
    request: &'a SystemRequest,
    report: Report,
}

impl<'a> Planner<'a> {
    fn new(host: &'a HostMap, request: &'a SystemRequest) -> Self {
        let report = Report::new(request);
        Self {
            ground: Ground::new(host),
            request,
            report,
        }
    }

    fn run(mut self) -> Outcome {
        let (host, request) = (self.ground.host, self.request);
        self.check_host();
        roles::check(host.architecture, request, &mut self.report);
        let devices = devices::assign(host, request, &mut self.report);
        dma::check(host, request, &devices, &mut self.report);
        let reach = dma::reaches(&self.ground, request, &devices);
        let cpus = cpus::check(host, request, &mut self.report);
        let wanted = wants::check(&self.ground, request, &mut self.report);
        let statics = statics::check(&self.ground, request, &mut self.report);
        links::check(&self.ground, request, &statics, &mut self.report);
        let kept = self.kept_modules();

        let home = Home::new(&self.ground, request);
        let free = self.unclaimed(&statics, &kept);
        let sources = self.module_sources();
        let mut wants = wants::collect(&self.ground, request, &wanted, &reach, &self.report);
        let mut nodes = Nodes::new(&self.ground);
        let (ground, report) = (&self.ground, &self.report);
        let places = home.candidates(&free);
        nodes.choose(ground, request, &free, &places, report, &mut wants);
        let wants = capacity::admit(
            &self.ground,
            request,
            &free,
            home.need,
            wants,
            &mut self.report,
        );
        let task = Task {
            architecture: host.architecture,
            usable: &self.ground.usable,
            free: &free,
            wants: &wants,
            home: &home,
            places: &places,
            sources: &sources,
        };
        let sharing = place::share_out(&task);
        let place = match &sharing {
            Some(sharing) => sharing.home,
            None => self.no_home(&home),
        };
        let mut shares = self.shares_of_sized(&wants, sharing);
        self.place_static(&wanted, &statics, &sources, &mut shares);

        let near = |share: &Option<Share>| Some(nodes.near(&share.as_ref()?.banks));
        let places: Vec<_> = shares.iter().map(near).collect();
        let cpus = cpus::assign(host, request, cpus, &places);
        let mut domains = self.domain_plans(shares, cpus, devices, &kept, place);
        for domain in &domains {
            devices::check_seen(host, request, domain, &mut self.report);
            dma::check_reach(&self.ground, request, domain, &mut self.report);
        }
        domains.retain(|domain| !self.report.is_refused(domain.index));
        let copies = self.order_copies(&mut domains, place, &kept, &sources);
        let heap = give_pools(host, request, &mut domains, place);
        self.finish(domains, copies, kept, place, heap)
    }

    fn check_host(&mut self) {
        let all: Vec<usize> = (0..self.request.domains.len()).collect();
        let host = self.ground.host;
        if self.ground.usable.is_empty() {
            let sides = vec![self.ground.ram_side(None)];
            let why = String::from("there is no RAM that a domain could have");
            let help = String::from("memory = [{ start = 0x40000000, size = \"1GiB\" }] in [host]");
            self.report.error(Code::HostInvalid, &all, sides, why, help);
        }
        if host.cpus.is_empty() {
            let sides = vec![host_side(String::from("the host"), Origin::NONE)];
            let why = String::from("the host describes no CPU that can be started");
            self.report
                .error(Code::HostInvalid, &all, sides, why, String::new());
        }
    }

    /// Frames with modules that are needed for a restart.
    fn kept_modules(&self) -> Vec<MfnRange> {
        let kept = ground::modules(self.request).filter(|(index, ..)| {
            self.request.domains[*index].keep_modules && !self.report.is_refused(*index)
        });
        let kept = sets::normalise(
            kept.map(|(_, _, range, _)| range.frames_touched())
                .collect(),
        );
        // What the hardware domain has beside its share, too: else its modules would be overwritten.
        let ram = sets::union(&self.ground.usable, &self.ground.low);
        let ram = sets::union(&ram, &self.ground.kernels);
        sets::intersect(&kept, &ram)
    }

    /// Frames with modules that may have to be read after some domain's RAM is written.
    fn module_sources(&self) -> Vec<MfnRange> {
        let modules = ground::modules(self.request);
        let good = modules.filter(|(index, ..)| !self.report.is_refused(*index));
        sets::normalise(
            good.map(|(_, _, range, _)| range.frames_touched())
                .collect(),
        )
    }

    /// RAM that no good domain names and in which no module must stay.
    fn unclaimed(&self, statics: &[Vec<MfnRange>], kept: &[MfnRange]) -> Vec<MfnRange> {
        let good = statics
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.report.is_refused(*at));
        let named = good.flat_map(|(_, ranges)| ranges).chain(kept);
        sets::subtract(
            &self.ground.usable,
            &sets::normalise(named.copied().collect()),
        )
    }

    /// The largest range that a domain names.
    fn largest_named(&self) -> Option<(usize, StaticRange)> {
        let domains = self.request.domains.iter().enumerate();
        let named = domains.flat_map(|(index, domain)| {
            let ranges = domain.static_mem.iter();
            ranges.map(move |range| (index, *range))
        });
        named.max_by_key(|(_, range)| range.size)
    }

    /// Without room for itself the hypervisor stays where it is and starts nothing.
    fn no_home(&mut self, home: &Home) -> Place {
        let all: Vec<usize> = (0..self.request.domains.len()).collect();
        let size = Size(home.need << crate::FRAME_SHIFT);
        let own = host_side(format!("the hypervisor, which takes {size}"), Origin::NONE);
        let largest = self.largest_named();
        let stated = |(index, range): (usize, StaticRange)| {
            statics::stated_side(index, &self.request.domains[index], &range)
        };
        let sides: Vec<_> = largest.map(stated).into_iter().collect();
        let sides = [sides, vec![own, self.ground.ram_side(None)]].concat();
        let why = String::from(
            "no free RAM holds it in one piece, aligned to 2 MiB and beside trees and modules",
        );
        let mut help = format!("leave {size} of RAM at a multiple of 2 MiB to no domain");
        // What is named is unchecked: it may wrap.
        let shorter = |range: StaticRange| {
            let end = range.start.checked_add(range.size)?;
            let end = end.checked_sub(home.need << crate::FRAME_SHIFT)?;
            let bytes = (end - end % (2 << 20)).checked_sub(range.start)?;
            (bytes > 0).then(|| {
                let size = Size(bytes);
                format!(": {{ start = {:#x}, size = \"{size:#}\" }}", range.start)
            })
        };
        let shorter = largest.and_then(|(_, range)| shorter(range));
        help.push_str(&shorter.unwrap_or_default());
        self.report
            .error(Code::NoRoomForHypervisor, &all, sides, why, help);
        let image = self.ground.image().unwrap_or(MfnRange::empty(Mfn::new(0)));
        Place {
            region: image,
            image,
            in_place: true,
        }
    }

    fn shares_of_sized(
        &mut self,
        wants: &[Want<'_>],
        sharing: Option<Sharing>,
    ) -> Vec<Option<Share>> {
        let mut shares = vec![None; self.request.domains.len()];
        let exhaustive = sharing.as_ref().is_some_and(|it| it.exhaustive);
        let found = sharing.map_or_else(Vec::new, |sharing| sharing.shares);
        for (want, share) in wants.iter().zip(found) {
            if share.is_none() {
                let (ground, report) = (&self.ground, &mut self.report);
                capacity::no_contiguous_room(ground, self.request, want, exhaustive, report);
            }
            shares[want.index] = share;
        }
        shares
    }

    fn place_static(
        &mut self,
        wanted: &[Option<Wanted>],
        statics: &[Vec<MfnRange>],
        sources: &[MfnRange],
        shares: &mut [Option<Share>],
    ) {
        let host = self.ground.host;
        for (index, domain) in self.request.domains.iter().enumerate() {
            let Some(wanted) = &wanted[index] else {
                continue;
            };
            if statics[index].is_empty() || self.report.is_refused(index) {
                continue;
            }
            let (identity, owned) = (domain.identity(), &statics[index]);
            let banks = guest::banks(host.architecture, &identity, &self.ground.usable, owned);
            let Some(banks) = banks else {
                capacity::beyond_layout(&self.ground, self.request, index, &mut self.report);
                continue;
            };
            shares[index] =
                modules::place(wanted, &banks, sources).map(|layout| Share { banks, layout });
            if shares[index].is_none() {
                let report = &mut self.report;
                capacity::modules_dont_fit(
                    &self.ground,
                    self.request,
                    index,
                    wanted,
                    owned,
                    report,
                );
            }
        }
    }

    fn domain_plans(
        &self,
        shares: Vec<Option<Share>>,
        cpus: Vec<Vec<u32>>,
        devices: Vec<Vec<usize>>,
        kept: &[MfnRange],
        place: Place,
    ) -> Vec<DomainPlan> {
        let low = sets::subtract(&self.ground.low, kept);
        let mut ids = 1..=u16::MAX;
        let mut plans = Vec::with_capacity(shares.len());
        for (index, ((share, cpus), devices)) in
            shares.into_iter().zip(cpus).zip(devices).enumerate()
        {
            let domain = &self.request.domains[index];
            let identity: Identity = domain.identity();
            let id = if identity.is_hardware() {
                Some(0)
            } else {
                ids.next()
            };
            let Some((Share { mut banks, layout }, id)) = share.zip(id) else {
                continue;
            };
            if identity.is_hardware() && identity.uses_host_layout() {
                banks.splice(..0, guest::same_frames(&low));
            }
            if identity.is_hardware() && identity.is_direct_mapped() {
                self.add_reserved(&mut banks, &devices, kept, place);
            }
            if self.report.is_refused(index) {
                continue;
            }
            plans.push(DomainPlan {
                index,
                id,
                name: domain.name.value.clone(),
                identity,
                banks,
                pool: MfnRange::empty(Mfn::new(0)),
                tables: MfnRange::empty(Mfn::new(0)),
                entry: entry(domain, &layout.kernel),
                kernel: layout.kernel,
                ramdisk: layout.ramdisk,
                tree: layout.tree,
                partial_tree: domain.partial_tree.as_ref().map(|tree| tree.module),
                cpus,
                devices,
                limits: domain.limits,
                policies: domain.policies,
                command_line: domain.command_line.clone(),
                vpl011: domain.vpl011,
            });
        }
        plans
    }

    /// Gives the direct-mapped hardware domain what the host's tree reserves for its kernel. Nothing is
    /// placed there, so it comes last.
    fn add_reserved(
        &self,
        banks: &mut Vec<Bank>,
        devices: &[usize],
        kept: &[MfnRange],
        place: Place,
    ) {
        let ground = &self.ground;
        if ground.kernels.is_empty() {
            return;
        }
        let mut taken = vec![place.region];
        taken.extend_from_slice(kept);
        for (at, device) in ground.host.devices.iter().enumerate() {
            if devices.binary_search(&at).is_err() {
                taken.extend(device.ranges.iter().map(MachineRange::frames_touched));
            }
        }
        let own = ground::own_registers(ground.host);
        taken.extend(own.map(|(range, ..)| range.frames_touched()));
        for frames in sets::subtract(&ground.kernels, &sets::normalise(taken)) {
            let at = banks.partition_point(|bank| bank.mfn < frames.start());
            let bank = Bank {
                gfn: Gfn::new(frames.start().raw()),
                mfn: frames.start(),
                frames: frames.frames(),
                reserved: true,
            };
            banks.insert(at, bank);
        }
    }

    /// Orders the copies; a domain whose module can't be moved safely is left out.
    fn order_copies(
        &mut self,
        domains: &mut Vec<DomainPlan>,
        place: Place,
        kept: &[MfnRange],
        sources: &[MfnRange],
    ) -> Vec<crate::plan::Copy> {
        loop {
            let needed = copies::needed(domains);
            let written = copies::written(domains);
            let busy = [sources, kept, &written, &[place.region]].concat();
            let scratch = sets::subtract(&self.ground.usable, &sets::normalise(busy));
            match copies::order(needed.clone(), &scratch) {
                Ok(ordered) => return ordered,
                Err(stuck) => {
                    let index = domains[needed[stuck].domain].index;
                    let domain = &self.request.domains[index];
                    let what = format!("{}, module {}", name(index, domain), needed[stuck].source);
                    self.report.error(
                        Code::ModuleCycle,
                        &[index],
                        vec![side(index, what, domain.name.origin)],
                        String::from(
                            "modules lie where others must go, and no RAM is left to put one aside",
                        ),
                        String::from(
                            "load the modules at other addresses, or give less memory to a domain",
                        ),
                    );
                    domains.retain(|domain| domain.index != index);
                }
            }
        }
    }

    fn finish(
        self,
        domains: Vec<DomainPlan>,
        copies: Vec<crate::plan::Copy>,
        kept: Vec<MfnRange>,
        place: Place,
        heap: Vec<MfnRange>,
    ) -> Outcome {
        let ground = &self.ground;
        let owned = domains
            .iter()
            .flat_map(|domain| &domain.banks)
            .map(|bank| bank.machine());
        let taken = owned.chain(kept.iter().copied()).chain([place.region]);
        let taken = sets::normalise(taken.collect());
        let settings = &self.request.hypervisor;
        let plan = Plan {
            architecture: ground.host.architecture,
            hypervisor: HypervisorPlan {
                region: place.region,
                image: place.image,
                in_place: place.in_place,
                on_conflict: settings.on_conflict,
                print_plan: settings.print_plan,
                scrub: settings.scrub,
                console: devices::console_device(ground.host, self.request),
                heap,
            },
            clear: copies::left_behind(self.request, &domains, &copies),
            copies,
            kept,
            reserved: sets::subtract(&ground.reserved, &taken),
            unowned: sets::subtract(&sets::union(&ground.usable, &ground.low), &taken),
            domains,
        };
        let (conflicts, refused) = self.report.finish(self.request);
        Outcome {
            plan,
            conflicts,
            refused,
        }
    }
}

/// Where the kernel that lies there starts, if it says so.
fn entry(domain: &DomainRequest, kernel: &Placement) -> Option<GuestAddress> {
    let offset = domain.kernel.as_ref()?.entry?;
    kernel.address.checked_add(offset)
}

/// Carves the domains' pools and tables out of the region, from the top of its larger free part
/// down. Gives back what is left for the hypervisor itself.
fn give_pools(
    host: &HostMap,
    request: &SystemRequest,
    domains: &mut [DomainPlan],
    place: Place,
) -> Vec<MfnRange> {
    let mut parts = [
        MfnRange::between(place.region.start(), place.image.start()),
        MfnRange::between(place.image.end(), place.region.end()),
    ];
    for domain in domains {
        let request = &request.domains[domain.index];
        domain.tables = carve(&mut parts, need::table_frames(host, request));
        domain.pool = carve(&mut parts, need::pool_frames(&request.limits));
    }
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

fn carve(parts: &mut [MfnRange; 2], frames: u64) -> MfnRange {
    let [low, high] = parts;
    let part = if low.frames() > high.frames() {
        low
    } else {
        high
    };
    let frames = frames.min(part.frames());
    let start = Mfn::new(part.end().raw() - frames);
    let carved = MfnRange::between(start, part.end());
    *part = MfnRange::between(part.start(), start);
    carved
}

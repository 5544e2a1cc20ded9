//! A plan as a picture: the machine's memory and every domain's own view of it as columns on one
//! scale, with what is the same frame joined.
//!
//! Two forms: an SVG file that stands alone, and a page that holds the same picture with search,
//! details and tables. Neither asks for anything outside itself, and the same plan gives the same
//! bytes. Everything from outside (names, paths) is escaped by `maud`.

mod geometry;
mod page;
mod svg;

use layout::{Owner, Size};

use crate::view::{Kind, Region, View, about, span};

/// The picture as an SVG file.
pub fn svg(view: &View) -> String {
    svg::file(view)
}

/// The picture in a page.
pub fn html(view: &View) -> String {
    page::render(view)
}

/// The column of an address space: the machine's, or a domain's by its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Machine,
    Domain(usize),
}

/// A region in full: what hovering over it shows.
fn details(view: &View, space: Space, region: &Region) -> String {
    let mut lines = Vec::new();
    let whose = match space {
        Space::Machine => "machine".to_owned(),
        Space::Domain(place) => view.owner(Some(Owner::Domain(place))),
    };
    lines.push(format!("{whose}: {}", what(view, space, region)));
    let bytes = region.size();
    let (span_of, exact) = (span(region.start, region.end), Size(bytes).to_string());
    lines.push(match about(bytes) {
        short if short == exact => format!("{span_of}, {exact}"),
        short => format!("{span_of}, {exact} ({short})"),
    });
    if space != Space::Machine && region.kind != Kind::Device {
        lines.push(match region.machine {
            None => "emulated: no machine address".to_owned(),
            Some(machine) if machine == region.start => {
                "the same address on the machine".to_owned()
            }
            Some(machine) => format!("on the machine {}", span(machine, machine + bytes)),
        });
    }
    if region.is_ram() || region.kind == Kind::Device {
        lines.push(format!("owner: {}", view.owner(region.owner)));
    }
    if !region.why.is_empty() {
        lines.push(format!("why: {}", region.why));
    }
    if region.is_ram() {
        lines.push(dma(view, region));
    }
    if region.parts.len() > 1 {
        let parts = region.parts.iter();
        lines.extend(parts.map(|part| format!("{} {}", span(part.start, part.end), part.name)));
    }
    lines.join("\n")
}

fn what(view: &View, space: Space, region: &Region) -> String {
    match (region.kind, space) {
        (Kind::Ram, Space::Machine) => view.ram_words(region),
        (Kind::Device, _) => region.of_device(),
        _ => region.label.clone(),
    }
}

/// Whose devices may touch this RAM.
fn dma(view: &View, region: &Region) -> String {
    let machine = region.machine.unwrap_or(region.start);
    let mut drivers: Vec<(Option<usize>, usize)> = Vec::new();
    for group in view.reach.touching(machine, machine + region.size()) {
        match drivers
            .iter_mut()
            .find(|(domain, _)| *domain == group.domain)
        {
            Some((_, count)) => *count += group.devices.len(),
            None => drivers.push((group.domain, group.devices.len())),
        }
    }
    if drivers.is_empty() {
        return "DMA: no device reaches it".to_owned();
    }
    let names: Vec<String> = drivers
        .iter()
        .map(|(domain, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            let owner = view.owner(domain.map(Owner::Domain));
            format!("{count} device{plural} of {owner}")
        })
        .collect();
    format!("DMA: {} may read and write it", names.join(", "))
}

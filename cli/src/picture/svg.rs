//! The picture itself.

use layout::Owner;
use maud::{Markup, PreEscaped, html};

use super::geometry::{BETWEEN, COLUMN, GUTTER, Geometry, LINE, MARGIN, STRIP, fitted};
use super::{Space, details};
use crate::view::{Guest, Kind, Link, Region, View, about};

/// Its look.
pub const STYLE: &str = include_str!("picture.css");

/// How many kinds of pattern domains have.
const PATTERNS: usize = 6;
/// How many colours domains have; with the patterns 24 pairs before one comes back.
const COLOURS: usize = 8;

/// With more domains than these their bands are faint until somebody points at one.
const FEW: usize = 8;

/// The picture as a file.
pub fn file(view: &View) -> String {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    let style = html! { style { (PreEscaped(STYLE)) } };
    format!("{head}{}\n", picture(view, &style).into_string())
}

/// The picture, with something before its first shape.
pub fn picture(view: &View, head: &Markup) -> Markup {
    let geometry = Geometry::of(view);
    let (width, height) = (geometry.width, geometry.height);
    let class = if view.guests.len() > FEW {
        "map many"
    } else {
        "map"
    };
    html! {
        svg xmlns="http://www.w3.org/2000/svg" class=(class) width=(width) height=(height)
            viewBox=(format!("0 0 {width} {height}")) role="group" aria-labelledby="map-title" {
            title id="map-title" { "Memory of " (view.machine) }
            (head)
            (patterns())
            g class="links" {
                @for (place, guest) in view.guests.iter().enumerate() {
                    @for (link, registers) in links(guest) { (joined(&geometry, place, link, registers)) }
                }
            }
            g class="cuts" {
                @for segment in geometry.scale.segments.iter().filter(|segment| segment.gap) {
                    (cut(&geometry, segment.start, segment.end))
                }
            }
            @for (place, guest) in view.guests.iter().enumerate() {
                (domain(view, &geometry, place, guest))
            }
            (machine(view, &geometry))
        }
    }
}

fn machine(view: &View, geometry: &Geometry) -> Markup {
    let bottom = geometry.height - MARGIN;
    html! {
        g class="column machine" role="list" aria-label="machine addresses" {
            rect class="ground" x="0" y="0" width=(GUTTER + COLUMN) height=(bottom) {}
            @for segment in &geometry.scale.segments {
                text class="address" x=(GUTTER - 8) y=(geometry.y(segment.start) + LINE - 3)
                    text-anchor="end" {
                    @if segment.gap { (format!("⋮ {}", about(segment.end - segment.start))) }
                    @else { (format!("{:#x}", segment.start)) }
                }
            }
            @if let Some(last) = geometry.scale.segments.last() {
                text class="address" x=(GUTTER - 8) y=(geometry.y(last.end) + LINE - 3)
                    text-anchor="end" { (format!("{:#x}", last.end)) }
            }
            text class="name" x=(GUTTER) y="18" { "Machine" }
            text class="note" x=(GUTTER) y="34" { (about(view.ram)) " of RAM" }
            @for (index, region) in view.host.iter().enumerate() {
                (block(view, geometry, Space::Machine, index, region))
            }
        }
    }
}

fn domain(view: &View, geometry: &Geometry, place: usize, guest: &Guest) -> Markup {
    let x = Geometry::x(place + 1);
    let how = if guest.direct {
        "direct-mapped"
    } else {
        "not direct-mapped"
    };
    let note = format!("{}, {how}", about(guest.ram));
    html! {
        g class="column" role="list" aria-label=(format!("addresses of {}", guest.name)) {
            text class="name" x=(x) y="18" {
                (fitted(&guest.name, COLUMN - 20))
                title { (guest.name) }
            }
            text class="note" x=(x) y="34" { (fitted(&note, COLUMN + BETWEEN - 6)) }
            @for (index, region) in guest.regions.iter().enumerate() {
                (block(view, geometry, Space::Domain(place), index, region))
            }
        }
    }
}

/// A region: a pale block with a strip in its owner's colour and pattern, and as many lines of text
/// as it has room for.
fn block(view: &View, geometry: &Geometry, space: Space, index: usize, region: &Region) -> Markup {
    let column = match space {
        Space::Machine => 0,
        Space::Domain(place) => place + 1,
    };
    let x = Geometry::x(column);
    let top = geometry.y(region.start);
    let height = geometry.y(region.end).saturating_sub(top).max(2) - 1;
    let lines = lines(space, region, height / LINE);
    html! {
        g class=(format!("region {} {}", kind(region.kind), owner(region.owner)))
            id=(format!("r{column}-{index}")) role="listitem" tabindex="-1"
            data-start=(format!("{:#x}", region.start)) data-end=(format!("{:#x}", region.end))
            data-column=(column) {
            title { (details(view, space, region)) }
            rect class="body" x=(x) y=(top) width=(COLUMN) height=(height) rx="2" {}
            rect class="strip" x=(x) y=(top) width=(STRIP) height=(height) rx="2" {}
            @if let Some(pattern) = pattern(region.owner) {
                rect class="over" x=(x) y=(top) width=(STRIP) height=(height) rx="2"
                    fill=(format!("url(#{pattern})")) {}
            }
            @for (line, y) in lines.iter().zip((top + LINE - 3..).step_by(15)) {
                text x=(x + STRIP + 6) y=(y) { (line) }
            }
        }
    }
}

fn lines(space: Space, region: &Region, room: u32) -> Vec<String> {
    let bytes = about(region.size());
    let width = COLUMN - STRIP - 10;
    let both = format!("{} {bytes}", region.label);
    let elsewhere = region.machine.filter(|machine| *machine != region.start);
    let moved = elsewhere.filter(|_| space != Space::Machine && region.is_ram());
    let lines = match room {
        0 | 1 if fitted(&both, width) == both => vec![both],
        0 | 1 => vec![region.label.clone()],
        _ => match moved {
            Some(machine) => vec![both, format!("= {machine:#x}")],
            None => vec![region.label.clone(), bytes],
        },
    };
    let fitted = |line: &String| fitted(line, width).into_owned();
    lines.iter().map(fitted).collect()
}

/// What joins a domain's column with the machine's, and whether it is registers.
fn links(guest: &Guest) -> impl Iterator<Item = (Link, bool)> {
    let registers = guest
        .regions
        .iter()
        .filter(|region| region.kind == Kind::Device);
    let registers = registers.filter_map(|region| {
        Some(Link {
            guest: region.start,
            machine: region.machine?,
            size: region.size(),
        })
    });
    let banks = guest.banks.iter().map(|bank| (*bank, false));
    banks.chain(registers.map(|link| (link, true)))
}

/// The band between a domain's frames and the machine's.
fn joined(geometry: &Geometry, place: usize, link: Link, registers: bool) -> Markup {
    let left = GUTTER + COLUMN;
    let right = Geometry::x(place + 1);
    let (a, b) = (
        geometry.y(link.machine),
        geometry.y(link.machine + link.size),
    );
    let (c, d) = (geometry.y(link.guest), geometry.y(link.guest + link.size));
    let class = format!(
        "link {}{}",
        owner(Some(Owner::Domain(place))),
        if registers { " registers" } else { "" }
    );
    let path = format!("M{left} {a}L{right} {c}V{}L{left} {}Z", d - 1, b - 1);
    html! {
        path class=(class) d=(path) data-column=(place + 1)
            data-start=(format!("{:#x}", link.machine))
            data-end=(format!("{:#x}", link.machine + link.size))
            data-guest=(format!("{:#x}", link.guest)) {}
    }
}

/// A zigzag through all columns: addresses where nothing lies are left out.
fn cut(geometry: &Geometry, start: u64, end: u64) -> Markup {
    let middle = (geometry.y(start) + geometry.y(end)) / 2;
    let right = geometry.width - MARGIN;
    let mut path = format!("M{} {middle}", GUTTER);
    let mut x = GUTTER;
    while x + 12 <= right {
        path += "l6 -4l6 4";
        x += 12;
    }
    html! { path class="cut" d=(path) {} }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ram => "ram",
        Kind::Kernel | Kind::Ramdisk | Kind::Description => "content",
        Kind::Device | Kind::Controller | Kind::Iommu => "registers",
        Kind::Outside => "outside",
    }
}

/// The class of an owner: its colour.
pub fn owner(owner: Option<Owner>) -> String {
    match owner {
        Some(Owner::Domain(place)) => format!("d{}", place % COLOURS),
        Some(Owner::Hypervisor) => "hypervisor".to_owned(),
        Some(Owner::Kept) => "kept".to_owned(),
        Some(Owner::Reserved) => "reserved".to_owned(),
        Some(Owner::Nobody) | None => "nobody".to_owned(),
    }
}

/// The pattern of an owner.
pub fn pattern(owner: Option<Owner>) -> Option<String> {
    match owner {
        Some(Owner::Domain(place)) => Some(format!("p{}", place % PATTERNS)),
        Some(Owner::Kept | Owner::Reserved) => Some("hatch".to_owned()),
        _ => None,
    }
}

/// The patterns: for those who don't tell colours apart.
fn patterns() -> Markup {
    const SHAPES: [(&str, &str); PATTERNS + 1] = [
        ("p0", ""),
        ("p1", "M-1 7L7 -1M-1 1L1 -1M5 7L7 5"),
        ("p2", "M0 3H6"),
        ("p3", "M2 3H4M3 2V4"),
        ("p4", "M-1 -1L7 7M-1 5L1 7M5 -1L7 1"),
        ("p5", "M3 0V6"),
        ("hatch", "M0 0L6 6M6 0L0 6"),
    ];
    html! {
        defs {
            @for (id, path) in SHAPES {
                pattern id=(id) width="6" height="6" patternUnits="userSpaceOnUse" {
                    path d=(path) fill="none" stroke="#fff" stroke-width="1.5" {}
                }
            }
        }
    }
}

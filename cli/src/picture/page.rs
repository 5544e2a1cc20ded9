//! The page around the picture: search, details, legend, and all of it as tables.

use layout::{Owner, Size};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Space, svg, what};
use crate::plan_text::sentence;
use crate::view::reach::Masters;
use crate::view::{Region, View, span};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn render(view: &View) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // The page is what it holds: nothing from anywhere else, whatever a name in it says.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { "Terrane plan: " (view.machine) }
                style { (PreEscaped(svg::STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                a class="skip" href="#tables" { "Skip the picture" }
                header {
                    h1 { "Machine: " (view.machine) }
                    (statement(view))
                }
                (search())
                (legend(view))
                main {
                    div class="picture" id="picture" { (svg::picture(view, &html! {})) }
                    section id="details" aria-live="polite" aria-label="details" {
                        pre id="detail" { "Point at a region, or choose one by Tab and the arrow keys." }
                    }
                    section id="tables" { (tables(view)) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string() + "\n"
}

/// The security statement.
fn statement(view: &View) -> Markup {
    html! {
        section class="statement" aria-labelledby="reach-title" {
            h2 id="reach-title" { "What devices can reach" }
            p { (sentence(&view.reach.headline)) }
            ul { @for (name, statement) in &view.reach.statements {
                li { strong { (name) } ": " (statement) "." }
            } }
        }
    }
}

fn search() -> Markup {
    html! {
        form id="search" role="search" {
            label for="query" { "Address or name" }
            input id="query" type="search" autocomplete="off" spellcheck="false"
                placeholder="0x4000_0000, net, uart" aria-describedby="count";
            button type="submit" { "Next" }
            output id="count" for="query" {}
        }
    }
}

fn legend(view: &View) -> Markup {
    let key = |owner: Option<Owner>, name: &str| {
        html! {
            li {
                svg class="sample" width="14" height="14" aria-hidden="true" {
                    rect class=(format!("key {}", svg::owner(owner))) width="14" height="14" {}
                    @if let Some(pattern) = svg::pattern(owner) {
                        rect width="14" height="14" fill=(format!("url(#{pattern})")) {}
                    }
                }
                (name)
            }
        }
    };
    html! {
        details class="legend" open[view.guests.len() <= 8] {
            summary { "Legend" }
            ul {
                (key(Some(Owner::Hypervisor), "hypervisor"))
                @for (place, guest) in view.guests.iter().enumerate() {
                    (key(Some(Owner::Domain(place)), &guest.name))
                }
                (key(Some(Owner::Reserved), "reserved, or kept for a restart"))
                (key(None, "nobody's"))
            }
            p {
                "What stands at the same height has the same address. Bands join what is the same frame. A "
                "region's height grows with the logarithm of its size; a zigzag leaves out addresses where nothing "
                "lies. Dashed: registers."
            }
        }
    }
}

fn tables(view: &View) -> Markup {
    html! {
        h2 { "As tables" }
        (regions(view, Space::Machine, &view.host, "Machine addresses"))
        @for (place, guest) in view.guests.iter().enumerate() {
            (regions(view, Space::Domain(place), &guest.regions, &format!("Addresses of {}", guest.name)))
        }
        (reach(view))
    }
}

fn regions(view: &View, space: Space, regions: &[Region], caption: &str) -> Markup {
    let guest = space != Space::Machine;
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(caption) { table {
            caption { (caption) }
            thead { tr {
                th scope="col" { "Addresses" }
                th scope="col" class="number" { "Size" }
                th scope="col" { "What" }
                th scope="col" { "Owner" }
                @if guest { th scope="col" { "On the machine" } }
                th scope="col" { "Why" }
            } }
            tbody { @for region in regions { tr {
                td class="mono" { (span(region.start, region.end)) }
                td class="number" { (Size(region.size())) }
                td {
                    (what(view, space, region))
                    @if region.parts.len() > 1 {
                        ul { @for part in &region.parts {
                            li { span class="mono" { (span(part.start, part.end)) } " " (part.name) }
                        } }
                    }
                }
                td { (view.owner(region.owner)) }
                @if guest { td class="mono" {
                    @match region.machine {
                        None => { "emulated" }
                        Some(machine) if machine == region.start => { "same" }
                        Some(machine) => { (span(machine, machine + region.size())) }
                    }
                } }
                td { (region.why) }
            } } }
        } }
    }
}

fn reach(view: &View) -> Markup {
    html! {
        @if !view.reach.masters.is_empty() {
            div class="scroll" tabindex="0" role="region" aria-label="DMA" { table {
                caption { "Which frames each device's DMA can touch" }
                thead { tr {
                    th scope="col" { "Driver" }
                    th scope="col" { "Devices" }
                    th scope="col" { "Reaches" }
                    th scope="col" { "Whose memory" }
                    th scope="col" { "In between" }
                } }
                tbody { @for group in &view.reach.masters { (masters(view, group)) } }
            } }
        }
    }
}

fn masters(view: &View, group: &Masters) -> Markup {
    html! { tr {
        td { (view.owner(group.domain.map(Owner::Domain))) }
        td { ul { @for device in &group.devices { li { (device) } } } }
        td class="mono" { ul { @for (start, end) in &group.ranges { li { (span(*start, *end)) } } } }
        td { ul { @for one in &group.touched { li {
            (view.owner(Some(one.owner))) ": " (Size(one.bytes))
            ul class="mono" { @for (start, end) in &one.ranges { li { (span(*start, *end)) } } }
        } } } }
        td { (group.isolation.as_str()) }
    } }
}

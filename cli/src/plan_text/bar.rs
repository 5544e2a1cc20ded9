//! The bar: the machine's memory from the lowest address to the highest, and beside it each
//! domain's own view, on one scale.
//!
//! What stands at the same height has the same address, so a direct-mapped domain's memory stands
//! beside the machine's. Where the domains don't fit beside each other, the bar is repeated.

use std::fmt::Write as _;

use anstyle::{Ansi256Color, AnsiColor, Color, Style};
use layout::Owner;

use crate::cells;
use crate::view::scale::{Scale, Segment, magnitude};
use crate::view::{self, Guest, Kind, Region, View, at};

/// Cells of the addresses' column.
const ADDRESSES: usize = 18;
/// Cells of any other column, with the blanks around it.
const COLUMN: usize = 15;
/// The least number of domains beside the machine, however narrow the terminal.
const FEWEST: usize = 1;

/// Backgrounds of domains, from the 256-colour palette: pale, so that black can be read on them,
/// and told apart by those who see fewer colours.
const COLOURS: [u8; 8] = [117, 215, 151, 223, 183, 229, 110, 181];

/// The bar, for lines of this many cells.
pub fn render(view: &View, width: usize) -> String {
    let machine: Vec<Region> = view
        .host
        .iter()
        .filter(|one| one.is_ram())
        .cloned()
        .collect();
    let guests: Vec<(usize, &Guest, Vec<Region>)> = view
        .guests
        .iter()
        .enumerate()
        .map(|(place, guest)| (place, guest, banks(place, guest)))
        .collect();
    let beside = (width.saturating_sub(2 + ADDRESSES + COLUMN) / COLUMN).max(FEWEST);
    let several = guests.len() > beside;
    let mut text = String::new();
    let mut blocks: Vec<&[(usize, &Guest, Vec<Region>)]> = guests.chunks(beside).collect();
    if blocks.is_empty() {
        blocks.push(&[]);
    }
    for (number, block) in blocks.into_iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        render_block(&mut text, &machine, block, several);
    }
    text
}

/// A domain's RAM, without what lies in it when it starts.
fn banks(place: usize, guest: &Guest) -> Vec<Region> {
    let banks = guest.banks.iter();
    banks
        .map(|bank| Region {
            start: bank.guest,
            end: bank.guest + bank.size,
            kind: Kind::Ram,
            owner: Some(Owner::Domain(place)),
            label: if bank.guest == bank.machine {
                "same".to_owned()
            } else {
                format!("{:#x}", bank.machine)
            },
            machine: Some(bank.machine),
            why: String::new(),
            parts: Vec::new(),
        })
        .collect()
}

fn render_block(
    text: &mut String,
    machine: &[Region],
    block: &[(usize, &Guest, Vec<Region>)],
    several: bool,
) {
    let bold = Style::new().bold();
    let _ = write!(text, "  {bold}{:<ADDRESSES$}{}", "FROM", pad("MACHINE"));
    for (_, guest, _) in block {
        let _ = write!(text, "{}", pad(&guest.name));
    }
    trim(text);
    let _ = writeln!(text, "{bold:#}");
    let all = block.iter().flat_map(|(_, _, banks)| banks);
    let scale = Scale::of(machine.iter().chain(all), lines, 1);
    let ours = |segment: &Segment| {
        let mut of_block = block.iter();
        let owner = at(machine, segment.start).and_then(|region| region.owner);
        of_block.any(|(place, _, banks)| {
            owner == Some(Owner::Domain(*place)) || at(banks, segment.start).is_some()
        })
    };
    let mut segments = scale.segments.iter().peekable();
    while let Some(segment) = segments.next() {
        if segment.gap {
            let bytes = view::about(segment.end - segment.start);
            let _ = writeln!(text, "  {:<ADDRESSES$}~ {bytes} without RAM", "");
            continue;
        }
        if several && !ours(segment) {
            let mut end = segment.end;
            while let Some(next) = segments.next_if(|next| !next.gap && !ours(next)) {
                end = next.end;
            }
            let bytes = view::about(end - segment.start);
            let _ = writeln!(text, "  {:<#ADDRESSES$x}| {bytes} of others", segment.start);
            continue;
        }
        for line in 0..segment.height {
            let mut row = match line {
                0 => format!("  {:<#ADDRESSES$x}", segment.start),
                _ => format!("  {:ADDRESSES$}", ""),
            };
            let others = block.iter().map(|(_, _, banks)| banks.as_slice());
            for column in std::iter::once(machine).chain(others) {
                row += &cell(column, segment, line == 0);
            }
            trim(&mut row);
            text.push_str(&row);
            text.push('\n');
        }
    }
    if let Some(last) = scale.segments.last() {
        let _ = writeln!(text, "  {:#x}", last.end);
    }
}

/// Lines for so much memory.
fn lines(bytes: u64) -> u32 {
    // 1 below 64 MiB, one more for each factor of 16.
    1 + magnitude(bytes).saturating_sub(10) / 4
}

/// One column's part of a line: its label where the region begins.
fn cell(column: &[Region], segment: &Segment, first: bool) -> String {
    let Some(region) = at(column, segment.start) else {
        return pad("");
    };
    let label = if first && region.start == segment.start {
        format!("| {}", label(region))
    } else {
        "|".to_owned()
    };
    let style = style(region.owner);
    let padded = pad(&label);
    // The blank that parts two columns has no colour.
    let inner = padded.strip_suffix(' ').unwrap_or(&padded);
    format!("{style}{inner}{style:#} ")
}

/// An owner that is no domain has a short name in brackets.
fn label(region: &Region) -> &str {
    match region.owner {
        Some(Owner::Hypervisor) => "(terrane)",
        Some(Owner::Kept) => "(kept)",
        Some(Owner::Reserved) if region.label == view::nobody(region.owner) => "(reserved)",
        Some(Owner::Nobody) => "(nobody's)",
        _ => &region.label,
    }
}

/// The colours of an owner.
fn style(owner: Option<Owner>) -> Style {
    let black = Color::Ansi(AnsiColor::Black);
    let on = |colour: u8| {
        let background = Color::Ansi256(Ansi256Color(colour));
        Style::new()
            .fg_color(Some(black))
            .bg_color(Some(background))
    };
    match owner {
        Some(Owner::Domain(place)) => on(COLOURS
            .get(place % COLOURS.len())
            .copied()
            .unwrap_or_default()),
        Some(Owner::Hypervisor) => Style::new().invert(),
        Some(Owner::Kept | Owner::Reserved) => on(250),
        Some(Owner::Nobody) | None => Style::new().dimmed(),
    }
}

/// A column's text: cut if it is too long, and at least one blank behind it.
fn pad(label: &str) -> String {
    let label = cells::cut(label, COLUMN - 1, "..");
    let blanks = COLUMN - cells::width(&label);
    format!("{label}{}", " ".repeat(blanks))
}

fn trim(line: &mut String) {
    line.truncate(line.trim_end().len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Link;
    use crate::view::reach::Reach;

    const MIB: u64 = 1 << 20;

    /// So many domains of 64 MiB each beside each other; every second one sees its RAM at 1 GiB.
    fn view(domains: u64) -> View {
        let mut view = View {
            machine: "test".to_owned(),
            ram: 0,
            host: Vec::new(),
            guests: Vec::new(),
            reach: Reach {
                masters: Vec::new(),
                headline: String::new(),
                statements: Vec::new(),
            },
        };
        for number in 0..domains {
            let machine = (4096 + 64 * number) * MIB;
            let guest = if number % 2 == 0 { machine } else { 1024 * MIB };
            let place = usize::try_from(number).unwrap();
            view.host.push(Region {
                start: machine,
                end: machine + 64 * MIB,
                kind: Kind::Ram,
                owner: Some(Owner::Domain(place)),
                label: format!("domain-{number}"),
                machine: Some(machine),
                why: String::new(),
                parts: Vec::new(),
            });
            view.guests.push(Guest {
                name: format!("domain-{number}"),
                direct: number % 2 == 0,
                ram: 64 * MIB,
                regions: Vec::new(),
                banks: vec![Link {
                    guest,
                    machine,
                    size: 64 * MIB,
                }],
            });
        }
        view
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn one_address_has_one_height() {
        let text = plain(&render(&view(2), 80));
        let expected = "\
\x20 FROM              MACHINE        domain-0       domain-1
  0x40000000                                      | 0x104000000
                                                  |
                    ~ 2.9 GiB without RAM
  0x100000000       | domain-0     | same
                    |              |
  0x104000000       | domain-1
                    |
  0x108000000
";
        let lines = |text: &str| {
            text.lines()
                .map(|line| line.trim_end().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&text), lines(expected));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_every_domain_is_there() {
        for width in [40, 80, 132, 200] {
            let text = plain(&render(&view(11), width));
            let widest = text.lines().map(|line| cells::width(line.trim_end())).max();
            assert!(
                widest <= Some(width.max(ADDRESSES + 2 * COLUMN + 2)),
                "{width}: {text}"
            );
            for number in 0..11 {
                assert!(
                    text.contains(&format!("domain-{number}")),
                    "{width}: {number}"
                );
            }
        }
        let narrow = plain(&render(&view(11), 80));
        assert!(narrow.contains("of others"), "{narrow}");
    }

    #[test]
    fn columns_stay_under_each_other_behind_wide_letters() {
        for name in ["網域", "網域網域網域", "網域網域網域網域", "e\u{301}-net"] {
            let mut view = view(2);
            view.host[0].label = name.to_owned();
            view.guests[0].name = name.to_owned();
            let text = plain(&render(&view, 80));
            // The second domain's column begins where it does without.
            let column = 2 + ADDRESSES + 2 * COLUMN;
            let heading = text.lines().next().unwrap();
            let before = heading.strip_suffix("domain-1").unwrap();
            assert_eq!(cells::width(before), column, "{text}");
            let row = text.lines().find(|line| line.contains("0x100000000  "));
            let (before, _) = row.unwrap().rsplit_once("| same").unwrap();
            assert_eq!(cells::width(before), column - COLUMN, "{text}");
        }
    }

    #[test]
    fn colours_are_for_regions_only() {
        let text = render(&view(2), 80);
        assert!(text.contains("\u{1b}["), "{text}");
        let gap = text
            .lines()
            .find(|line| line.contains("without RAM"))
            .unwrap();
        assert!(!gap.contains('\u{1b}'), "{gap}");
    }
}

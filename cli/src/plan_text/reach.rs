//! What devices can reach, as text.

use std::fmt::Write as _;

use layout::Owner;

use super::table::{Columns, wrapped};
use crate::view::reach::{Masters, Reach};
use crate::view::{self, View};

/// The section: the statement, then who touches what.
pub fn render(view: &View, width: Option<usize>) -> String {
    let Reach {
        masters,
        headline,
        statements,
    } = &view.reach;
    let columns = width.unwrap_or(100);
    let mut text = wrapped(&sentence(headline), 2, columns);
    for (name, statement) in statements {
        text += &wrapped(&format!("`{name}`: {statement}."), 2, columns);
    }
    if masters.is_empty() {
        return text;
    }
    text.push('\n');
    let mut table = Columns::new(
        [
            "DRIVER",
            "DEVICES",
            "ADDRESSES",
            "WHOSE MEMORY",
            "IN BETWEEN",
        ],
        width,
    );
    for group in masters {
        let driver = view.owner(group.domain.map(Owner::Domain));
        let (ranges, whose) = (ranges(group), whose(view, group));
        let between = group.isolation.as_str();
        table.row([&driver, &devices(group), &ranges, &whose, between]);
    }
    table.keep_whole(&[2]);
    let _ = writeln!(text, "{}", table.text());
    text
}

/// With a capital letter and a full stop.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        let first: String = first.to_uppercase().collect();
        format!("{first}{}.", letters.as_str())
    })
}

fn devices(group: &Masters) -> String {
    match group.devices.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}\nand {} more", rest.len()),
    }
}

fn ranges(group: &Masters) -> String {
    let all: Vec<String> = group.ranges.iter().map(range).collect();
    all.join("\n")
}

fn range((start, end): &(u64, u64)) -> String {
    if *start == 0 && *end == u64::MAX {
        "every address".to_owned()
    } else {
        view::span(*start, *end)
    }
}

fn whose(view: &View, group: &Masters) -> String {
    let owners = group.touched.iter();
    let lines: Vec<String> = owners
        .map(|one| {
            format!(
                "{}: {}",
                view.owner(Some(one.owner)),
                view::about(one.bytes)
            )
        })
        .collect();
    lines.join("\n")
}

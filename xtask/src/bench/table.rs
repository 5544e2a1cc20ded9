//! The result as a table for people and as JSON for programs, in the form of the contract.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// Rows whose columns do the same work.
const RATIOS: [&str; 3] = ["userspace", "page-fault", "wall"];

/// One figure in each column; `None` where there is no such figure.
pub struct Row {
    name: &'static str,
    unit: &'static str,
    /// In the order of the table's columns.
    values: Vec<Option<f64>>,
}

impl Row {
    /// A row from the columns' values.
    pub fn new(
        name: &'static str,
        unit: &'static str,
        values: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        Self {
            name,
            unit,
            values: values.into_iter().collect(),
        }
    }
}

/// Everything that was measured.
pub struct Table {
    /// The architecture's name.
    pub arch: &'static str,
    /// The columns' names; the first one is what the others are compared with.
    pub columns: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Row>,
    /// How often the guest was left under Terrane, by reason.
    pub exits: BTreeMap<String, u64>,
}

impl Table {
    /// One JSON object.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut object = Map::new();
                object.insert("name".to_owned(), json!(row.name));
                object.insert("unit".to_owned(), json!(row.unit));
                for (column, value) in self.columns.iter().zip(&row.values) {
                    object.insert((*column).to_owned(), number(*value));
                }
                Value::Object(object)
            })
            .collect();
        json!({ "arch": self.arch, "rows": rows, "exits": self.exits })
    }

    /// A table; behind a figure of a whole run stands its ratio to the first column's.
    pub fn text(&self) -> String {
        let mut text = format!("{:<29}", "");
        for column in &self.columns {
            let _ = write!(text, " {column:>15}       ");
        }
        end_line(&mut text);
        for row in &self.rows {
            let _ = write!(text, "{:<15} {:<13}", row.name, row.unit);
            let first = row.values.first().copied().flatten();
            for (place, &value) in row.values.iter().enumerate() {
                let ratio = match (first, value) {
                    (Some(first), Some(value)) if place > 0 && RATIOS.contains(&row.name) => {
                        format!("{:.3}", value / first)
                    }
                    _ => String::new(),
                };
                let value = value.map_or_else(|| "-".to_owned(), figure);
                let _ = write!(text, " {value:>15} {ratio:<6}");
            }
            end_line(&mut text);
        }
        let exits: Vec<String> = self
            .exits
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let _ = writeln!(
            text,
            "exits to userspace under Terrane: {}",
            exits.join(", ")
        );
        text
    }
}

fn end_line(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// A count as an integer, a time with two digits.
fn number(value: Option<f64>) -> Value {
    match value {
        None => Value::Null,
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        Some(value) if value.fract() == 0.0 => json!(value as i64),
        Some(value) => json!((value * 100.0).round() / 100.0),
    }
}

/// Thousands parted.
fn figure(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut parted = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            parted.push(',');
        }
        parted.push(digit);
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_contracts_form() {
        let rows = vec![
            Row::new(
                "hypercall",
                "instructions",
                [None, Some(424.0), Some(190.0)],
            ),
            Row::new("wall", "seconds", [Some(3.126), Some(4.0), Some(3.5)]),
        ];
        let exits = BTreeMap::from([("hvc".to_owned(), 12)]);
        let table = Table {
            arch: "aarch64",
            columns: vec!["native", "xen", "terrane"],
            rows,
            exits,
        };
        assert_eq!(
            table.json(),
            json!({ "arch": "aarch64", "rows": [
                { "name": "hypercall", "unit": "instructions", "native": null, "xen": 424, "terrane": 190 },
                { "name": "wall", "unit": "seconds", "native": 3.13, "xen": 4, "terrane": 3.5 },
            ], "exits": { "hvc": 12 } })
        );
    }

    #[test]
    fn a_whole_run_has_its_ratio() {
        let table = Table {
            arch: "x86_64",
            columns: vec!["native", "xen", "xen-pv", "terrane"],
            rows: vec![Row::new(
                "userspace",
                "instructions",
                [Some(4.0), Some(6.0), None, Some(4.1)],
            )],
            exits: BTreeMap::new(),
        };
        let text = table.text();
        let words: Vec<&str> = text
            .lines()
            .nth(1)
            .into_iter()
            .flat_map(str::split_whitespace)
            .collect();
        assert_eq!(
            words,
            [
                "userspace",
                "instructions",
                "4",
                "6",
                "1.500",
                "-",
                "4.10",
                "1.025"
            ]
        );
    }

    #[test]
    fn figures_are_parted_by_thousands() {
        assert_eq!(figure(1_015_816.0), "1,015,816");
        assert_eq!(figure(424.0), "424");
        assert_eq!(figure(3.126), "3.13");
    }
}

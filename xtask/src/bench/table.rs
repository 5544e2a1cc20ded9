//! The result as a table for people and as JSON for programs, in the form of the contract.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Rows that compare one whole run with another.
const RUNS: [&str; 2] = ["userspace", "wall"];

/// One figure in each column; `None` where there is no such figure.
pub struct Row {
    name: &'static str,
    unit: &'static str,
    values: [Option<f64>; 3],
}

impl Row {
    /// A row from the columns' values, in the order native, Xen, Terrane.
    pub fn new(
        name: &'static str,
        unit: &'static str,
        values: impl Iterator<Item = Option<f64>>,
    ) -> Self {
        let mut row = Self {
            name,
            unit,
            values: [None; 3],
        };
        for (place, value) in row.values.iter_mut().zip(values) {
            *place = value;
        }
        row
    }
}

/// Everything that was measured.
pub struct Table {
    /// The architecture's name.
    pub arch: &'static str,
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
                let [native, xen, terrane] = row.values.map(number);
                json!({ "name": row.name, "unit": row.unit, "native": native, "xen": xen, "terrane": terrane })
            })
            .collect();
        json!({ "arch": self.arch, "rows": rows, "exits": self.exits })
    }

    /// A table, with Xen's and Terrane's ratios to native for whole runs.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<15} {:<13} {:>15} {:>15} {:>15} {:>7} {:>7}\n",
            "", "", "native", "xen", "terrane", "xen/n", "ter/n"
        );
        for row in &self.rows {
            let [native, xen, terrane] = row.values;
            let ratio = |value: Option<f64>| match (native, value) {
                (Some(native), Some(value)) if RUNS.contains(&row.name) => {
                    format!("{:.3}", value / native)
                }
                _ => String::new(),
            };
            let [a, b, c] = row
                .values
                .map(|value| value.map_or_else(|| "-".to_owned(), figure));
            let _ = writeln!(
                text,
                "{:<15} {:<13} {a:>15} {b:>15} {c:>15} {:>7} {:>7}",
                row.name,
                row.unit,
                ratio(xen),
                ratio(terrane)
            );
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
                [None, Some(424.0), Some(190.0)].into_iter(),
            ),
            Row::new(
                "wall",
                "seconds",
                [Some(3.126), Some(4.0), Some(3.5)].into_iter(),
            ),
        ];
        let exits = BTreeMap::from([("hvc".to_owned(), 12)]);
        let table = Table {
            arch: "aarch64",
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
    fn figures_are_parted_by_thousands() {
        assert_eq!(figure(1_015_816.0), "1,015,816");
        assert_eq!(figure(424.0), "424");
        assert_eq!(figure(3.126), "3.13");
    }
}

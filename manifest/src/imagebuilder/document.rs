//! The manifest's text: values by `toml_edit`, so that every string is quoted as TOML wants it, and comments above them.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

/// A table of the manifest with the comments that stand above it.
#[derive(Default)]
pub(super) struct Section {
    table: Table,
    comments: String,
}

impl Section {
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.table.insert(key, Item::Value(value.into()));
    }

    pub(super) fn set_list<V: Into<Value>>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = V>,
    ) {
        let array: Array = items.into_iter().map(Into::into).collect();
        self.set(key, array);
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.comments.push_str(&comment(text));
    }

    fn into_table(mut self) -> Table {
        self.table
            .decor_mut()
            .set_prefix(format!("\n{}", self.comments));
        self.table
    }
}

/// A comment's lines. TOML has no control characters in comments but the tab.
pub(super) fn comment(text: &str) -> String {
    let shown = |c: char| {
        let hidden = c.is_control() && c != '\t';
        if hidden {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    let plain: String = text.chars().map(shown).collect();
    format!("# {plain}\n")
}

/// `{ start = .., size = .. }`.
pub(super) fn range(start: u64, size: u64) -> Value {
    let mut table = InlineTable::new();
    table.insert("start", address(start));
    table.insert("size", bytes(size));
    table.into()
}

/// An address, in hexadecimal; beyond TOML's integers as a string.
fn address(address: u64) -> Value {
    let text = format!("{address:#x}");
    text.parse().unwrap_or_else(|_| text.into())
}

/// A size in the largest unit that it is a multiple of.
pub(super) fn bytes(bytes: u64) -> Value {
    format!("{:#}", layout::Size(bytes)).into()
}

/// The manifest, its version first.
pub(super) fn document(
    head: &str,
    host: Section,
    hypervisor: Section,
    domains: Vec<Section>,
) -> DocumentMut {
    let mut document = DocumentMut::new();
    let mut version = Item::Value(i64::from(crate::toml::VERSION).into());
    if let Some(value) = version.as_value_mut() {
        value.decor_mut().set_prefix(" ");
    }
    document.insert("manifest-version", version);
    if let Some(mut key) = document.key_mut("manifest-version") {
        key.leaf_decor_mut().set_prefix(head);
    }
    document.insert("host", Item::Table(host.into_table()));
    if !hypervisor.table.is_empty() {
        document.insert("hypervisor", Item::Table(hypervisor.into_table()));
    }
    let mut tables = ArrayOfTables::new();
    for domain in domains {
        tables.push(domain.into_table());
    }
    document.insert("domain", Item::ArrayOfTables(tables));
    document
}

//! `terrane schema`: the manifest's JSON schema, by which an editor completes and checks a TOML file.
//!
//! It says which keys there are and what each takes; what goes together is the planner's to say. The
//! manifest's reader is another room's and keeps positions, so that the keys stand in both: the tests
//! give both the same manifests and want the same verdict.

mod keys;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use clap::Args;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

use crate::exit::Exit;
use crate::output;

/// `terrane schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Write it to a file instead of standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs it.
pub fn schema(args: &SchemaArgs) -> io::Result<Exit> {
    let text = serde_json::to_string_pretty(&generate()).map_err(io::Error::other)? + "\n";
    output::put(text.as_bytes(), args.output.as_deref())
}

/// The schema, draft 2020-12. Its `$id` carries the version of the manifest's keys.
fn generate() -> Schema {
    let settings = SchemaSettings::draft2020_12()
        .with_transform(NoNull)
        .with_transform(NoNul);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<keys::Manifest>();
    let id = format!("urn:terrane:manifest:{}", manifest::toml::VERSION);
    schema.insert("$id".to_owned(), id.into());
    schema
}

/// A text has no NUL, which would end it in a device tree. Words and numbers in strings have forms of their own.
#[derive(Debug, Clone)]
struct NoNul;

impl Transform for NoNul {
    fn transform(&mut self, schema: &mut Schema) {
        let is_text = schema.get("type").is_some_and(|kind| kind == "string");
        let has_form = ["pattern", "enum", "const"]
            .iter()
            .any(|key| schema.get(*key).is_some());
        if is_text && !has_form {
            schema.insert("pattern".to_owned(), r"^[^\x00]*$".into());
        }
        transform_subschemas(self, schema);
    }
}

/// TOML has no null: a key that may be left out takes what it takes.
#[derive(Debug, Clone)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                for (key, value) in only {
                    schema.insert(key, value);
                }
            }
        }
        transform_subschemas(self, schema);
    }
}

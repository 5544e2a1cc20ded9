//! Schema and reader have one opinion.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use layout::Code;
use serde_json::{Value, json};

use super::generate;

fn schema() -> Value {
    generate().to_value()
}

/// What the schema finds wrong with a value. Of JSON schema it knows the words that ours uses, and panics at another.
fn refuses(whole: &Value, schema: &Value, value: &Value) -> Option<String> {
    let with = |part: &Value, value: &Value| refuses(whole, part, value);
    let said = |wrong: bool| wrong.then(|| format!("{schema} of {value}"));
    schema
        .as_object()
        .unwrap()
        .iter()
        .find_map(|(word, part)| match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => None,
            "$ref" => {
                let path = part.as_str().unwrap().strip_prefix('#').unwrap();
                with(whole.pointer(path).unwrap(), value)
            }
            "type" => said(!types(part).iter().any(|name| is(value, name))),
            "const" => said(value != part),
            "enum" => said(!part.as_array().unwrap().contains(value)),
            "not" => said(with(part, value).is_none()),
            "anyOf" => said(good(part, &|one| with(one, value)) == 0),
            "oneOf" => said(good(part, &|one| with(one, value)) != 1),
            "minimum" => said(value.as_f64() < part.as_f64() && value.is_number()),
            "maximum" => said(value.as_f64() > part.as_f64() && value.is_number()),
            "pattern" => said(value.as_str().is_some_and(|text| !matches(part, text))),
            "minItems" => {
                let least = usize::try_from(part.as_u64().unwrap()).unwrap();
                said(value.as_array().is_some_and(|items| items.len() < least))
            }
            "items" => value.as_array()?.iter().find_map(|item| with(part, item)),
            "properties" => {
                let known = part.as_object().unwrap().iter();
                let mut known = known.filter_map(|(key, part)| Some((value.get(key)?, part)));
                known.find_map(|(value, part)| with(part, value))
            }
            "required" => {
                let keys = part
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|key| key.as_str().unwrap());
                said(
                    keys.clone()
                        .any(|key| value.is_object() && value.get(key).is_none()),
                )
            }
            "additionalProperties" => {
                assert_eq!(part, &Value::Bool(false));
                let known = &schema["properties"];
                let mut keys = value.as_object()?.keys();
                said(keys.any(|key| known.get(key).is_none()))
            }
            other => panic!("{other}"),
        })
}

fn types(part: &Value) -> Vec<&str> {
    match part {
        Value::String(name) => vec![name],
        names => names
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect(),
    }
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other}"),
    }
}

fn good(choices: &Value, wrong: &dyn Fn(&Value) -> Option<String>) -> usize {
    let choices = choices.as_array().unwrap().iter();
    choices.filter(|choice| wrong(choice).is_none()).count()
}

fn matches(pattern: &Value, text: &str) -> bool {
    regex_lite::Regex::new(pattern.as_str().unwrap())
        .unwrap()
        .is_match(text)
}

/// What the reader says that a schema could say too.
fn reader_refuses(text: &str) -> Option<String> {
    let parsed = manifest::toml::parse("m.toml", text.to_owned(), Path::new("")).unwrap();
    let shape = [
        Code::UnknownKey,
        Code::WrongType,
        Code::ValueInvalid,
        Code::KeyMissing,
    ];
    let found = parsed.problems.iter().find(|it| shape.contains(&it.code));
    found.map(|problem| problem.why.clone())
}

fn to_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// A manifest that both take, with the table at this place and all others that may stand beside it.
fn whole(place: &str) -> Value {
    let host = match place {
        "/host/memory/0" => json!({
            "description": "board.dtb",
            "memory": [{"start": 0, "size": 4096}],
        }),
        _ => json!({
            "qemu": {"machine": "virt", "arch": "aarch64", "cpu": "max", "memory": "1GiB"},
            "reserved": [{"start": 0, "size": 4096}],
        }),
    };
    json!({
        "manifest-version": 1,
        "host": host,
        "hypervisor": {},
        "domain": [{
            "name": "d",
            "kernel": "k",
            "static-mem": [{"start": 0, "size": 4096}],
            "devices": [{"path": "/x"}],
        }],
    })
}

/// Each table of [`whole`] whose keys the schema names, by its place in the manifest, with the table's
/// schema.
fn tables(schema: &Value) -> Vec<(&'static str, Value)> {
    let definition = |name: &str| schema["$defs"][name].clone();
    vec![
        ("", schema.clone()),
        ("/host", definition("Host")),
        ("/host/qemu", definition("Qemu")),
        ("/host/memory/0", definition("Range")),
        ("/host/reserved/0", definition("NamedRange")),
        ("/hypervisor", definition("Hypervisor")),
        ("/domain/0", definition("Domain")),
        ("/domain/0/static-mem/0", definition("Range")),
        ("/domain/0/devices/0", definition("DeviceTable")),
    ]
}

fn keys(table: &Value) -> BTreeSet<String> {
    let properties = table["properties"].as_object().unwrap();
    properties.keys().cloned().collect()
}

fn to_toml(manifest: &Value) -> String {
    toml::to_string(manifest).unwrap()
}

/// The keys that the reader knows in a table, as it lists them when a key is like none of them.
fn known(place: &str) -> BTreeSet<String> {
    let mut manifest = whole(place);
    let strange = "no-key-has-such-a-name-and-none-ever-will";
    manifest.pointer_mut(place).unwrap()[strange] = true.into();
    let parsed = manifest::toml::parse("m.toml", to_toml(&manifest), Path::new("")).unwrap();
    let list = parsed
        .problems
        .iter()
        .find_map(|problem| problem.help.split_once("; known here: "))
        .unwrap_or_else(|| panic!("{place}: {:?}", parsed.problems))
        .1;
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn both_know_the_same_keys() {
    let schema = schema();
    for (place, table) in tables(&schema) {
        assert_eq!(keys(&table), known(place), "{place}");
    }
}

#[test]
fn both_want_the_same_of_every_key() {
    let schema = schema();
    for (place, _) in tables(&schema) {
        assert_eq!(reader_refuses(&to_toml(&whole(place))), None);
        assert_eq!(refuses(&schema, &schema, &whole(place)), None);
    }
    let values = [
        json!("x"),
        json!("a b"),
        json!(""),
        json!("terrane"),
        json!("rest"),
        json!("256MiB"),
        json!("256 MiB"),
        json!("256MB"),
        json!("0xffff_0000"),
        json!("_1"),
        json!("1_"),
        json!("1__0"),
        json!("0x_1"),
        json!("0x1GiB"),
        json!("-1"),
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(1_u64 << 32),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["x"]),
        json!(["hardware", "control"]),
        json!([0]),
        json!([-1]),
        json!([true]),
        json!([{}]),
        json!([{"start": 1, "size": "1MiB"}]),
        json!([{"start": 1, "size": 1, "name": "n"}]),
        json!([{"start": 1}]),
        json!([{"path": "/x", "dma-mask": "4GiB"}]),
        json!([{"dma-mask": 1}]),
        json!({}),
    ];
    let words = [
        "halt",
        "skip-domain",
        "reused",
        "all",
        "pvh",
        "hvm",
        "pv",
        "fault",
        "ignore",
        "stop",
    ];
    let more = [
        "restart",
        "halt-machine",
        "reboot-machine",
        "aarch64",
        "x86_64",
        "riscv64",
        "arm",
    ];
    let words = words.iter().chain(&more).map(|word| json!(word));
    let values: Vec<Value> = values.into_iter().chain(words).collect();
    let mut tried = 0;
    for (place, table) in tables(&schema) {
        for key in keys(&table) {
            // Whatever is in them is refused: they aren't built yet.
            if ["shared-memory", "event-channels"].contains(&key.as_str()) {
                continue;
            }
            for value in &values {
                let mut manifest = whole(place);
                manifest.pointer_mut(place).unwrap()[&key] = value.clone();
                agree(&schema, &manifest, &format!("{place}/{key} = {value}"));
                tried += 1;
            }
            let mut without = whole(place);
            let object = without.pointer_mut(place).unwrap().as_object_mut();
            object.unwrap().remove(&key);
            agree(&schema, &without, &format!("{place} without {key}"));
        }
    }
    assert!(tried > 1000, "{tried}");
}

fn agree(schema: &Value, manifest: &Value, what: &str) {
    let text = to_toml(manifest);
    let reader = reader_refuses(&text);
    let schema = refuses(schema, schema, manifest);
    assert_eq!(
        reader.is_none(),
        schema.is_none(),
        "{what}\nreader: {reader:?}\nschema: {schema:?}"
    );
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().unwrap().to_string_lossy().starts_with('.');
        if path.is_dir() {
            manifests(&path, found);
        } else if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
}

/// What no schema can say, and the reader alone refuses: what two values make, and how large a number in a string is.
const NO_SHAPE: &[&str] = &["host-memory-wraps.toml", "memory-beyond-64-bits.toml"];

/// Also of what is wrong with it. What isn't TOML, an editor says by itself.
#[test]
fn both_say_the_same_of_every_manifest_here() {
    let schema = schema();
    let mut paths = Vec::new();
    for folder in ["tests", "../examples"] {
        manifests(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut paths,
        );
    }
    assert!(paths.len() > 30, "{paths:?}");
    paths.retain(|path| !NO_SHAPE.iter().any(|name| path.ends_with(name)));
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        if toml::from_str::<toml::Table>(&text).is_ok() {
            agree(&schema, &to_json(&text), &path.display().to_string());
        }
    }
}

#[test]
fn it_says_which_version_it_is_of() {
    let schema = schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["$id"], "urn:terrane:manifest:1");
    assert_eq!(
        schema["properties"]["manifest-version"]["const"],
        manifest::toml::VERSION
    );
}

/// An editor shows it while one types.
#[test]
fn every_key_is_described() {
    let schema = schema();
    for (place, table) in tables(&schema) {
        for (key, value) in table["properties"].as_object().unwrap() {
            let reference = value["$ref"]
                .as_str()
                .map(|path| path.trim_start_matches('#'));
            let behind = reference.and_then(|path| schema.pointer(path));
            let said = value
                .get("description")
                .or(behind.and_then(|it| it.get("description")));
            assert!(said.is_some(), "{place}/{key}");
        }
    }
}

//! What a help proposes, for a manifest that is a device tree: the planner speaks in keys of TOML, and Xen's binding has
//! other words for them.

use manifest::toml::parse_number;

/// The help with each key and value that it names as a property of a domain's node.
pub fn in_tree_words(help: &str) -> String {
    let mut out = String::new();
    let mut rest = help;
    while let Some(letter) = rest.chars().next() {
        let is_start = out.chars().last().is_none_or(|before| !is_word(before));
        if let Some((property, length)) = is_start.then(|| property(rest)).flatten() {
            out += &property;
            rest = rest.get(length..).unwrap_or_default();
            // A property's end takes the sentence's comma's place.
            if property.ends_with(';') {
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
        } else {
            out.push(letter);
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-_,".contains(letter)
}

/// The property that stands for what the text begins with, and how many bytes of it that is.
fn property(text: &str) -> Option<(String, usize)> {
    if text.starts_with('{') {
        let length = value_length(text)?;
        return Some((range(text.get(..length)?)?, length));
    }
    let key_length = text.find(|letter| !is_word(letter))?;
    let (key, rest) = text.split_at_checked(key_length)?;
    let value_at = rest.strip_prefix(" = ")?;
    let mut length = value_length(value_at)?;
    let value = value_at.get(..length)?;
    let written = match key {
        "memory" if value == "\"rest\"" => "terrane,memory = \"rest\";".to_owned(),
        "memory" => format!("memory = <{}>;", cells(number(value)? >> 10)),
        "static-mem" => range(value.strip_prefix('[')?.strip_suffix(']')?)?,
        // A range without its braces.
        "start" => {
            const SIZE: &str = ", size = ";
            let size = value_at.get(length..)?.strip_prefix(SIZE)?;
            length += SIZE.len() + value_length(size)?;
            range(&text.get(..key.len() + 3 + length)?.replace(['{', '}'], ""))?
        }
        "cpus" => format!("cpus = <{value}>;"),
        "affinity" => format!("terrane,affinity = <{}>;", items(value)?.join(" ")),
        "capabilities" => format!("capabilities = <{:#x}>;", capabilities(value)?),
        "direct-map" if value == "true" => "direct-map;".to_owned(),
        "direct-map" => "terrane,direct-map = \"no\";".to_owned(),
        "name" | "kind" => format!("terrane,{key} = {value};"),
        "devices" => devices(value)?,
        "allow-dma-without-iommu" if value == "true" => {
            "terrane,allow-dma-without-iommu;".to_owned()
        }
        "memory-below" => format!("terrane,memory-below = <{}>;", cells(number(value)?)),
        "max-grant-frames" => format!("max_grant_frames = <{value}>;"),
        "kernel" => "a module compatible with \"multiboot,kernel\"".to_owned(),
        "max-event-channels" => format!("terrane,max-event-channels = <{value}>;"),
        _ => return None,
    };
    Some((written, key.len() + 3 + length))
}

/// How long the value is that the text begins with: a string, a list, a table, or a number or a word.
fn value_length(text: &str) -> Option<usize> {
    let end = match text.chars().next()? {
        '"' => text.get(1..)?.find('"')? + 2,
        '[' => text.find(']')? + 1,
        '{' => text.find('}')? + 1,
        _ => text
            .find(|letter| !is_word(letter) || letter == ',')
            .unwrap_or(text.len()),
    };
    (end > 0).then_some(end)
}

fn number(value: &str) -> Option<u64> {
    parse_number(value.trim_matches('"'))
}

/// A number of 64 bits as two cells.
fn cells(number: u64) -> String {
    format!("{:#x} {:#x}", number >> 32, number & 0xffff_ffff)
}

/// A range as the property that names it; its node counts addresses and sizes in two cells each.
fn range(table: &str) -> Option<String> {
    let inner = table
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim();
    let (start, size) = inner.split_once(", ")?;
    let start = number(start.strip_prefix("start = ")?)?;
    let size = number(size.strip_prefix("size = ")?)?;
    Some(format!(
        "xen,static-mem = <{} {}>;",
        cells(start),
        cells(size)
    ))
}

/// Devices are children of the domain's node, which name one each.
fn devices(list: &str) -> Option<String> {
    let named = items(list)?.into_iter();
    let nodes: Vec<String> = named
        .map(|path| format!("terrane,device = {path};"))
        .collect();
    match nodes.as_slice() {
        [] => None,
        [one] => Some(format!("a node in it with {one}")),
        _ => Some(format!("nodes in it, one each with {}", nodes.join(" "))),
    }
}

fn items(list: &str) -> Option<Vec<&str>> {
    let inner = list.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split(", ").filter(|item| !item.is_empty()).collect())
}

/// The bits of Xen's `capabilities` (docs/misc/arm/device-tree/booting.txt).
fn capabilities(list: &str) -> Option<u32> {
    let bit = |name: &str| match name {
        "\"control\"" => Some(1),
        "\"hardware\"" => Some(2),
        "\"xenstore\"" => Some(4),
        _ => None,
    };
    items(list)?.into_iter().map(bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_property() {
        for (toml, tree) in [
            (
                "memory = \"512MiB\" or less",
                "memory = <0x0 0x80000>; or less",
            ),
            ("memory = \"rest\"", "terrane,memory = \"rest\";"),
            ("cpus = 2", "cpus = <2>;"),
            ("affinity = [0, 1]", "terrane,affinity = <0 1>;"),
            (
                "the nearest free range of that size: { start = 0x100000000, size = \"256MiB\" }",
                "the nearest free range of that size: xen,static-mem = <0x1 0x0 0x0 0x10000000>;",
            ),
            (
                "start = 0x70000000, size = \"256MiB\"",
                "xen,static-mem = <0x0 0x70000000 0x0 0x10000000>;",
            ),
            (
                "memory = \"1MiB\", or static-mem = [{ start = 0x70000000, size = \"1MiB\" }]",
                "memory = <0x0 0x400>; or xen,static-mem = <0x0 0x70000000 0x0 0x100000>;",
            ),
            ("direct-map = true", "direct-map;"),
            (
                "a kernel that can be moved, or direct-map = false",
                "a kernel that can be moved, or terrane,direct-map = \"no\";",
            ),
            (
                "capabilities = [\"control\", \"xenstore\"] for domain \"net\"",
                "capabilities = <0x5>; for domain \"net\"",
            ),
            (
                "memory-below = 0x80000000, or leave it out",
                "terrane,memory-below = <0x0 0x80000000>; or leave it out",
            ),
            (
                "give all of them to one domain: devices = [\"/soc/a@1\", \"/soc/b@2\"]",
                "give all of them to one domain: nodes in it, one each with terrane,device = \
                 \"/soc/a@1\"; terrane,device = \"/soc/b@2\";",
            ),
            (
                "allow-dma-without-iommu = true, if it does none;, so to say",
                "terrane,allow-dma-without-iommu; if it does none;, so to say",
            ),
            (
                "name = \"net1\" for the second",
                "terrane,name = \"net1\"; for the second",
            ),
        ] {
            assert_eq!(in_tree_words(toml), tree);
        }
    }

    #[test]
    fn what_is_no_key_stays() {
        for help in [
            "",
            "leave out kind",
            "start = 0x1000",
            "an überraschung = {",
            "dma-mask = 0xff",
            "memory = \"",
            "{ start = 1 }",
        ] {
            assert_eq!(in_tree_words(help), help);
        }
    }
}

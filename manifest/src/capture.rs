//! What `terrane host capture` writes on a running Linux: a PC's [description](crate::pc), or on a machine that has a
//! device tree that tree, both as one JSON object. The schema is in docs/host-description.md.

use layout::{Architecture, MachineAddress, MachineRange};
use serde::Deserialize;
use serde::de::Error as _;

use crate::json::Json;
use crate::pc::{self, Description, ReadError, VERSION};

/// A captured machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Captured {
    /// A PC.
    Pc(Box<Description>),
    /// A machine that has a device tree.
    Tree {
        /// What Linux runs on there.
        architecture: Architecture,
        /// The tree, as Linux got it.
        tree: Vec<u8>,
        /// The banks of RAM as Linux knows them, for trees whose boot loader took the memory nodes out.
        memory: Vec<MachineRange>,
    },
}

/// The architectures whose machines are described by a device tree.
const WITH_TREE: [Architecture; 2] = [Architecture::Aarch64, Architecture::Riscv64];

/// A machine that has a device tree, as JSON without a line feed.
#[must_use]
pub fn write_tree(architecture: Architecture, tree: &[u8], memory: &[MachineRange]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let halves = |byte: u8| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    };
    let digits: String = tree.iter().copied().flat_map(halves).collect();
    let mut json = Json::default();
    json.object(|json| {
        json.number("version", VERSION.into());
        json.string("architecture", architecture.as_str());
        json.string("tree", &digits);
        if !memory.is_empty() {
            json.list("memory", memory, Json::range);
        }
    });
    json.into_text()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeLine {
    version: u32,
    architecture: String,
    tree: String,
    #[serde(default)]
    memory: Vec<pc::RangeLine>,
}

/// Reads what [`pc::write`] or [`write_tree`] wrote. Keys that this version doesn't know are an error.
///
/// # Errors
/// See [`ReadError`].
pub fn read(text: &str) -> Result<Captured, ReadError> {
    #[derive(Deserialize)]
    struct Told {
        tree: Option<serde::de::IgnoredAny>,
    }
    let told: Told = serde_json::from_str(text).map_err(ReadError::Json)?;
    if told.tree.is_none() {
        return pc::read(text).map(|description| Captured::Pc(Box::new(description)));
    }
    let line: TreeLine = serde_json::from_str(text).map_err(ReadError::Json)?;
    if line.version != VERSION {
        return Err(ReadError::Version(line.version));
    }
    let bad = |what: &str| ReadError::Json(serde_json::Error::custom(what));
    let known = WITH_TREE
        .iter()
        .find(|known| known.as_str() == line.architecture);
    let architecture = *known.ok_or_else(|| bad("an architecture that has no device trees"))?;
    let tree = bytes(&line.tree).ok_or_else(|| bad("the tree isn't whole bytes in hexadecimal"))?;
    let range =
        |bank: &pc::RangeLine| MachineRange::saturating(MachineAddress::new(bank.start), bank.size);
    Ok(Captured::Tree {
        architecture,
        tree,
        memory: line.memory.iter().map(range).collect(),
    })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            riscv: bool,
            tree in prop::collection::vec(any::<u8>(), 0..80),
            banks in prop::collection::vec((any::<u64>(), any::<u64>()), 0..3),
        ) {
            let architecture = WITH_TREE[usize::from(riscv)];
            let bank = |(start, size)| MachineRange::saturating(MachineAddress::new(start), size);
            let memory: Vec<MachineRange> = banks.into_iter().map(bank).collect();
            let text = write_tree(architecture, &tree, &memory);
            let captured = Captured::Tree { architecture, tree, memory };
            prop_assert_eq!(read(&text).unwrap(), captured);
        }

        #[test]
        fn any_text_is_no_panic(text in ".*") {
            prop_assert!(read(&text).is_err());
        }
    }

    #[test]
    fn a_pc_is_read_too_and_nonsense_is_refused() {
        let pc = Description::default();
        assert_eq!(read(&pc::write(&pc)).unwrap(), Captured::Pc(Box::new(pc)));
        let line = write_tree(Architecture::Riscv64, &[0xd0, 0x0d], &[]);
        for (good, bad) in [
            ("d00d", "d00"),
            ("d00d", "d00g"),
            ("riscv64", "x86_64"),
            ("\"version\":2", "\"version\":1"),
            ("\"tree\"", "\"trees\""),
        ] {
            assert!(read(&line.replacen(good, bad, 1)).is_err(), "{bad}");
        }
    }
}

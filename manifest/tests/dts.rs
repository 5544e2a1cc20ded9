//! Device tree source against trees that are known: any tree printed and read again, and dtc's output and verdict where dtc
//! is installed (or named by `TERRANE_DTC`). Board trees are those of `TERRANE_BOARD_TREES`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use terrane_manifest::dts::{self, NoFiles, Source};
use terrane_manifest::tree::blob::{Node, Tree};

fn parse(text: &str) -> Result<Source, dts::Broken> {
    dts::parse("x.dts", text.as_bytes().to_vec(), &mut NoFiles)
}

fn good(text: &str) -> Source {
    parse(text).unwrap_or_else(|broken| panic!("{:#?}\n{text}", broken.errors))
}

/// A property's value as it is written.
#[derive(Debug, Clone)]
enum Piece {
    Cells(Vec<u32>, bool),
    Wide(Vec<u64>),
    Bytes(Vec<u8>),
    Text(String),
}

#[derive(Debug, Clone)]
struct TestNode {
    name: String,
    properties: Vec<(String, Vec<Piece>)>,
    children: Vec<TestNode>,
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Cells(cells, _) => cells.iter().flat_map(|cell| cell.to_be_bytes()).collect(),
            Self::Wide(numbers) => numbers.iter().flat_map(|it| it.to_be_bytes()).collect(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Text(text) => text.bytes().chain([0]).collect(),
        }
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Cells(cells, decimal) => {
                out.push('<');
                for cell in cells {
                    let _ = match decimal {
                        true => write!(out, "{cell} "),
                        false => write!(out, "({cell:#x}) /* a comment; */"),
                    };
                }
                out.push('>');
            }
            Self::Wide(numbers) => {
                out.push_str("/bits/ 64 <");
                for number in numbers {
                    let _ = writeln!(out, "{number:#x}");
                }
                out.push('>');
            }
            Self::Bytes(bytes) => {
                out.push('[');
                for byte in bytes {
                    let _ = write!(out, "{byte:02x}");
                }
                out.push(']');
            }
            Self::Text(text) => {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = write!(out, "\"{}\"", text.replace('\n', "\\n"));
            }
        }
    }
}

impl TestNode {
    fn print(&self, out: &mut String, name: &str) {
        let _ = writeln!(out, "{name} {{");
        for (name, pieces) in &self.properties {
            out.push_str(name);
            for (index, piece) in pieces.iter().enumerate() {
                out.push_str(if index == 0 { " = " } else { ", // next\n" });
                piece.print(out);
            }
            out.push_str(";\n");
        }
        for child in &self.children {
            child.print(out, &child.name);
        }
        out.push_str("};\n");
    }

    fn assert_same(&self, node: Node<'_, '_>) {
        let names: Vec<&str> = node.properties().iter().map(|it| it.name).collect();
        let expected: Vec<&str> = self
            .properties
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, expected);
        for (name, pieces) in &self.properties {
            let bytes: Vec<u8> = pieces.iter().flat_map(Piece::bytes).collect();
            assert_eq!(node.value(name), Some(bytes.as_slice()), "{name}");
        }
        let children: Vec<Node<'_, '_>> = node.children().collect();
        assert_eq!(children.len(), self.children.len());
        for (child, expected) in children.into_iter().zip(&self.children) {
            assert_eq!(child.name(), expected.name);
            expected.assert_same(child);
        }
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let cells = prop::collection::vec(any::<u32>(), 0..5);
    prop_oneof![
        (cells, any::<bool>()).prop_map(|(cells, decimal)| Piece::Cells(cells, decimal)),
        prop::collection::vec(any::<u64>(), 0..3).prop_map(Piece::Wide),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Piece::Bytes),
        "[ -~\n]{0,20}".prop_map(Piece::Text),
    ]
}

/// Names that differ by what stands before them.
fn unlike<T>(list: Vec<(String, T)>, mark: char) -> Vec<(String, T)> {
    let numbered = list.into_iter().enumerate();
    numbered
        .map(|(index, (name, value))| (format!("{mark}{index}{name}"), value))
        .collect()
}

fn node() -> impl Strategy<Value = TestNode> {
    let properties = || {
        let property = ("[a-z,#?.+-]{0,8}", prop::collection::vec(piece(), 0..4));
        prop::collection::vec(property, 0..5).prop_map(|list| {
            let list = unlike(list, 'p').into_iter();
            list.collect::<Vec<_>>()
        })
    };
    let leaf = properties().prop_map(|properties| TestNode {
        name: String::new(),
        properties,
        children: Vec::new(),
    });
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let child = ("(@[0-9a-f]{1,8})?", inner);
        (properties(), prop::collection::vec(child, 0..5)).prop_map(|(properties, children)| {
            let children = unlike(children, 'n').into_iter();
            TestNode {
                name: String::new(),
                properties,
                children: children
                    .map(|(name, child)| TestNode { name, ..child })
                    .collect(),
            }
        })
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read(node in node(), reserved in any::<Option<(u64, u64)>>()) {
        let mut text = String::from("/dts-v1/;\n");
        let reserved = reserved.filter(|entry| *entry != (0, 0));
        if let Some((address, size)) = reserved {
            let _ = writeln!(text, "/memreserve/ {address:#x} {size:#x};");
        }
        node.print(&mut text, "/");
        let source = good(&text);
        let tree = Tree::read(&source.blob).unwrap();
        node.assert_same(tree.root());
        prop_assert_eq!(tree.reservations(), reserved.as_slice());
    }

    #[test]
    fn every_place_is_that_of_its_text(node in node()) {
        let mut text = String::from("/dts-v1/;\n");
        node.print(&mut text, "/");
        let source = good(&text);
        let tree = Tree::read(&source.blob).unwrap();
        for node in tree.nodes() {
            if node.parent().is_some() {
                prop_assert_eq!(&text[source.node(node).unwrap().span], node.name());
            }
            for property in node.properties() {
                let place = source.property(node, property.name).unwrap();
                prop_assert_eq!(&text[place.span.clone()], property.name);
                let line = text.lines().nth(place.start.line as usize - 1).unwrap();
                let column = place.start.column as usize - 1;
                let there: String = line.chars().skip(column).collect();
                prop_assert!(there.starts_with(property.name));
            }
        }
    }

    #[test]
    fn damaged_sources_do_not_panic(
        node in node(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), "[ -~]?"), 1..6),
    ) {
        let mut text = String::from("/dts-v1/;\n");
        node.print(&mut text, "/");
        for (index, piece) in damage {
            let at = index.index(text.len());
            text.replace_range(at..=at, &piece);
        }
        match parse(&text) {
            Ok(source) => prop_assert!(Tree::read(&source.blob).is_ok()),
            Err(broken) => {
                prop_assert!(!broken.errors.is_empty());
                for error in broken.errors {
                    prop_assert!(text.get(error.place.span).is_some());
                }
            }
        }
    }
}

fn dtc() -> Option<PathBuf> {
    let program = std::env::var_os("TERRANE_DTC").unwrap_or("dtc".into());
    let mut asked = Command::new(&program);
    asked.arg("--version").stdout(Stdio::null());
    match asked.status() {
        Ok(status) if status.success() => Some(program.into()),
        _ => {
            eprintln!("no dtc: not compared with it");
            None
        }
    }
}

/// dtc's output for this input, `None` if it refuses it.
fn run(dtc: &Path, forms: [&str; 2], input: &[u8]) -> Option<Vec<u8>> {
    let [from, to] = forms;
    let mut child = Command::new(dtc)
        .args(["-q", "-q", "-I", from, "-O", to, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // It may end before it has read all.
    let _ = writing.join();
    output.status.success().then_some(output.stdout)
}

fn assert_same(ours: &Tree<'_>, other: &Tree<'_>, what: &str) {
    assert_eq!(ours.nodes().count(), other.nodes().count(), "{what}");
    for (ours, other) in ours.nodes().zip(other.nodes()) {
        assert_eq!(ours.path(), other.path(), "{what}");
        assert_eq!(
            ours.properties(),
            other.properties(),
            "{what} {}",
            ours.path()
        );
    }
    assert_eq!(ours.reservations(), other.reservations(), "{what}");
}

fn trees(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            trees(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            found.push(path);
        }
    }
}

#[test]
fn what_dtc_writes_of_boards_is_the_same_tree() {
    let Some(dtc) = dtc() else { return };
    let mut paths = Vec::new();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trees");
    trees(Path::new(own), &mut paths);
    if let Some(folder) = std::env::var_os("TERRANE_BOARD_TREES") {
        trees(Path::new(&folder), &mut paths);
    }
    for path in &paths {
        let blob = std::fs::read(path).unwrap();
        let name = path.display().to_string();
        let text = run(&dtc, ["dtb", "dts"], &blob).expect("dtc takes its own");
        let source = dts::parse(&name, text, &mut NoFiles)
            .unwrap_or_else(|broken| panic!("{name}: {:#?}", broken.errors));
        let (ours, other) = (
            Tree::read(&source.blob).unwrap(),
            Tree::read(&blob).unwrap(),
        );
        assert_same(&ours, &other, &name);
    }
    println!("{} trees", paths.len());
}

/// Sources of every form that both must take, to the same tree.
const TAKEN: [&str; 14] = [
    "/dts-v1/; / { p = <1 0x2 010 (1 + 2 * 3) 'a' (-1)>; };",
    "/dts-v1/; / { p = <(1 << 3 | 1) (7 & 3 == 3) (5 > 3 ? 2 : 1) (~0 & 0xff) (!3)>; };",
    "/dts-v1/; / { p = \"a\\n\\x41\\101\\\"\", [de ad beef 0 1]; };",
    "/dts-v1/; / { p = \"a\\tb\", \"c\", [de ad be ef]; q = [0123 45]; };",
    "/dts-v1/; / { a: x { }; p = <&a>; };",
    "/dts-v1/; / { p = <&a &b &a>; q = &b; a: x { b: y@1 { }; }; };",
    "/dts-v1/; / { p = <&{/x/y}>, &{/x}; x { phandle = <7>; y { }; }; };",
    "/dts-v1/; / { p; q; x { y { z; }; }; }; / { /delete-property/ p; /delete-node/ x; }; / { x { n; }; };",
    "/dts-v1/; / { a: x { p = <1>; q; }; }; &a { p = <2>; r; y { }; }; b: &{/x/y} { s; };",
    "/dts-v1/; / { /omit-if-no-ref/ a: x { }; /omit-if-no-ref/ b: y { }; p = <&a>; };",
    "/dts-v1/; / { a: x { }; y { }; }; /delete-node/ &a; /delete-node/ &{/y};",
    "/dts-v1/; /memreserve/ 0x1000 0x2000; l: /memreserve/ 1 (1+1); / { };",
    "/dts-v1/; /dts-v1/; / { p = /bits/ 8 <1 255>, /bits/ 16 <1 0xffff>, /bits/ 64 <(1 << 40)>; };",
    "/dts-v1/; / { l1: p = l2: <l3: 1 l4: 2 l5:> l6:, l7: \"x\" l8:; #size-cells = <0>; \\q; 1,2-3 { }; };",
];

/// Sources that neither takes.
const REFUSED: [&str; 14] = [
    "",
    "/ { };",
    "/dts-v1/;",
    "/dts-v1/; / { }",
    "/dts-v1/; / { p = <1>, ; };",
    "/dts-v1/; / { p = <1 };",
    "/dts-v1/; / { p = <X>; };",
    "/dts-v1/; / { p = <0x1_0>; };",
    "/dts-v1/; / { p = <09>; };",
    "/dts-v1/; / { p = <&nowhere>; };",
    "/dts-v1/; / { x { }; p; };",
    "/dts-v1/; / { p = \"x; };",
    "/dts-v1/; / { p = <-1>; };",
    "/dts-v1/; / { a: x { }; a: y { }; };",
];

#[test]
fn dtc_agrees() {
    let Some(dtc) = dtc() else { return };
    for text in TAKEN {
        let both = (parse(text), run(&dtc, ["dts", "dtb"], text.as_bytes()));
        // What dtc refuses of these is an odd form of mine, not of the language.
        let (Ok(ours), Some(other)) = both else {
            assert!(both.0.is_err() && both.1.is_none(), "{text}");
            continue;
        };
        let (ours, other) = (Tree::read(&ours.blob).unwrap(), Tree::read(&other).unwrap());
        assert_same(&ours, &other, text);
    }
    for text in REFUSED {
        assert!(parse(text).is_err(), "{text}");
        assert_eq!(run(&dtc, ["dts", "dtb"], text.as_bytes()), None, "{text}");
    }
}

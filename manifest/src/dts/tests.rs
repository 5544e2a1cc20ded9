//! The language, form by form.

use std::collections::HashMap;

use super::*;

fn read(text: &str) -> Result<Source, Broken> {
    parse("x.dts", text.as_bytes().to_vec(), &mut NoFiles)
}

/// The source, or its errors as a failed test.
fn good(text: &str) -> Source {
    read(text).unwrap_or_else(|broken| panic!("{:#?}", broken.errors))
}

/// The value of a property as bytes.
fn value(text: &str, path: &str, name: &str) -> Option<Vec<u8>> {
    let source = good(text);
    let tree = Tree::read(&source.blob).unwrap();
    tree.find(path)?.value(name).map(<[u8]>::to_vec)
}

fn cells(text: &str, path: &str, name: &str) -> Vec<u32> {
    let bytes = value(text, path, name).expect("no such property");
    let cells = bytes.chunks_exact(4);
    cells
        .map(|cell| u32::from_be_bytes(cell.try_into().unwrap()))
        .collect()
}

/// Each error as "line:column why".
fn errors(text: &str) -> Vec<String> {
    let errors = read(text).expect_err("it is good").errors;
    errors
        .iter()
        .map(|error| {
            let at = error.place.start;
            format!("{}:{} {}", at.line, at.column, error.why)
        })
        .collect()
}

fn one(value: &str) -> String {
    format!("/dts-v1/; / {{ p = {value}; }};")
}

#[test]
fn values_of_every_form() {
    let bytes = |form: &str| value(&one(form), "/", "p").unwrap();
    assert_eq!(
        bytes("<1 0x2 (1 + 2)>"),
        [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]
    );
    assert_eq!(bytes("\"a\", \"b\""), b"a\0b\0");
    assert_eq!(
        bytes("[de ad beef 0 1 ]".replace("0 1", "01").as_str()),
        [0xde, 0xad, 0xbe, 0xef, 1]
    );
    assert_eq!(bytes("/bits/ 8 <1 0xff>"), [1, 0xff]);
    assert_eq!(bytes("/bits/ 16 <1>"), [0, 1]);
    assert_eq!(
        bytes("/bits/ 64 <0x123456789>"),
        0x1_2345_6789u64.to_be_bytes()
    );
    assert_eq!(bytes("<(-1)>"), [0xff; 4]);
    assert_eq!(bytes("<'A'>"), [0, 0, 0, 65]);
    assert_eq!(bytes("<1>, \"x\", [02]"), [0, 0, 0, 1, b'x', 0, 2]);
    assert_eq!(bytes("<>"), b"");
    assert_eq!(bytes("[]"), b"");
    assert_eq!(bytes("\"\\n\\x41\\101\\\\\\\"\\q\""), b"\nAA\\\"q\0");
    assert_eq!(bytes("a: <b: 1 c:> d:, e: \"x\" f:"), [0, 0, 0, 1, b'x', 0]);
    assert_eq!(value("/dts-v1/; / { flag; };", "/", "flag").unwrap(), b"");
}

#[test]
fn comments_and_white_space_are_nothing() {
    let text = "/* a */ /dts-v1/ ; // b\n/ /* c */ { p /**/ = // d\n < 1 /* e\n */ 2 > ; } ;\n//";
    assert_eq!(cells(text, "/", "p"), [1, 2]);
}

#[test]
fn names_may_look_like_numbers_and_directives() {
    let text = "/dts-v1/; / {\n#address-cells = <2>;\n#include-cells = <1>;\n0 { 1,2 = <3>; }; \\x = <4>; };";
    // A property behind a child is refused; the rest is read.
    assert_eq!(
        errors(text),
        ["4:20 a node's properties come before its children"]
    );
    let text = text.replace("\\x = <4>;", "");
    assert_eq!(cells(&text, "/0", "1,2"), [3]);
    assert_eq!(cells(&text, "/", "#include-cells"), [1]);
}

#[test]
fn nodes_merge_by_path_label_and_reference() {
    let text = "/dts-v1/;
        / { a: x { p = <1>; q = <1>; }; };
        / { x { p = <2>; y { }; }; };
        &a { r = <3>; y { s = <4>; }; };
        b: &{/x/y} { t = <5>; };
        &b { t = <6>; };";
    assert_eq!(cells(text, "/x", "p"), [2]);
    assert_eq!(cells(text, "/x", "q"), [1]);
    assert_eq!(cells(text, "/x", "r"), [3]);
    assert_eq!(cells(text, "/x/y", "s"), [4]);
    assert_eq!(cells(text, "/x/y", "t"), [6]);
}

#[test]
fn references_are_phandles_and_paths() {
    let text = "/dts-v1/;
        / { p = <&a 7 &b>; q = &a, \"x\"; r = <&{/x/y}>; s = &{/x}; aliases { t = &b; };
            a: x { phandle = <9>; b: y { }; }; };";
    assert_eq!(cells(text, "/", "p"), [9, 7, 1]);
    assert_eq!(value(text, "/", "q").unwrap(), b"/x\0x\0");
    assert_eq!(cells(text, "/", "r"), [1]);
    assert_eq!(value(text, "/", "s").unwrap(), b"/x\0");
    assert_eq!(value(text, "/aliases", "t").unwrap(), b"/x/y\0");
    assert_eq!(cells(text, "/x/y", "phandle"), [1]);
}

#[test]
fn deletion_and_omission() {
    let text = "/dts-v1/;
        / { p; q; a: x { y { z; }; }; b: w { }; /omit-if-no-ref/ c: u { }; /omit-if-no-ref/ d: v { }; };
        / { /delete-property/ p; /delete-node/ x; r = <&c>; };
        / { x { n; }; };
        /delete-node/ &b;";
    // A property behind a child only within one block.
    let source = good(text);
    let tree = Tree::read(&source.blob).unwrap();
    let has = |path: &str| tree.find(path).is_some();
    assert!(!tree.root().has("p") && tree.root().has("q"));
    assert!(has("/x") && tree.find("/x").unwrap().has("n") && !has("/x/y"));
    assert!(!has("/w") && has("/u") && !has("/v"));
    assert_eq!(
        errors("/dts-v1/; / { a: x { }; };\n/delete-node/ &a;\n&a { };"),
        ["3:1 there is no label `a`"]
    );
}

#[test]
fn memory_reservations() {
    let text = "/dts-v1/;\n/memreserve/ 0x10000000 (1 << 12);\nl: /memreserve/ 1 2;\n/ { };";
    let source = good(text);
    let tree = Tree::read(&source.blob).unwrap();
    assert_eq!(tree.reservations(), [(0x1000_0000, 4096), (1, 2)]);
}

#[test]
fn every_cell_has_its_place() {
    let text = "/dts-v1/;\n/ {\n  n@1 {\n    p = <1 (2 + 3)>,\n      \"ä\", <&l>;\n    l: m { };\n  };\n};\n";
    let source = good(text);
    let tree = Tree::read(&source.blob).unwrap();
    let node = tree.find("/n@1").unwrap();
    let at = |place: Option<Place>| {
        let place = place.unwrap();
        let LineColumn { line, column } = place.start;
        (line, column, text[place.span].to_owned())
    };
    use crate::origin::LineColumn;
    assert_eq!(at(source.node(node)), (3, 3, "n@1".into()));
    assert_eq!(at(source.property(node, "p")), (4, 5, "p".into()));
    assert_eq!(at(source.value(node, "p", 0..4)), (4, 10, "1".into()));
    assert_eq!(at(source.value(node, "p", 4..8)), (4, 12, "(2 + 3)".into()));
    assert_eq!(
        at(source.value(node, "p", 0..8)),
        (4, 10, "1 (2 + 3)".into())
    );
    assert_eq!(at(source.value(node, "p", 8..9)), (5, 7, "\"ä\"".into()));
    assert_eq!(at(source.value(node, "p", 11..15)), (5, 13, "&l".into()));
    assert_eq!(source.value(node, "q", 0..4), None);
}

#[test]
fn origins_are_turned_into_places() {
    use crate::origin::WhichTree;
    let source = good("/dts-v1/;\n/ { n { p = <1 2>; }; };");
    let mut origins = Origins::detailed();
    let paths = ["/n", "/n:p", "/n:p[4..8]", "/n:q", "/m"];
    let noted: Vec<_> = paths
        .map(|path| origins.node(WhichTree::System, path.to_owned()))
        .into();
    source.locate(&mut origins);
    let told: Vec<_> = noted
        .into_iter()
        .map(|origin| origins.describe(origin).unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "x.dts:2:5",
            "x.dts:2:9",
            "x.dts:2:16",
            "x.dts:2:5",
            "system tree /m"
        ]
    );
}

#[test]
fn errors_come_all_at_once() {
    let text = "/dts-v1/;
/ {
    a = <1 2
    b = <3>;
    c = \"x\"
    d = <0x1_0>;
    e = <-1>;
    f = <0x100000000>;
    g = /bits/ 7 <1>;
    n {
        h = <FOO>;
        i = [0];
        j = ;
        n { }
        k;
    };
    l = <&nowhere>;
};";
    assert_eq!(
        errors(text),
        [
            "3:9 this list isn't closed",
            "5:11 a statement ends with a semicolon",
            "6:10 `0x1_0` isn't a hexadecimal number",
            "7:10 an operator stands in parentheses only",
            "8:10 0x100000000 takes more than the 32 bits of an element",
            "9:16 elements have 8, 16, 32 or 64 bits",
            "11:14 `FOO` is a name, and a number belongs here",
            "12:14 a byte is two hexadecimal digits",
            "13:13 a value is <cells>, \"a string\", [bytes], &label, or several with commas between",
            "14:13 a statement ends with a semicolon",
            "15:9 a node's properties come before its children",
            "17:5 a node's properties come before its children",
        ]
    );
}

#[test]
fn slips_in_the_frame() {
    assert_eq!(errors(""), ["1:1 this source has no root node"]);
    assert_eq!(
        errors("/ { };"),
        ["1:1 a device tree source begins with its version"]
    );
    assert_eq!(
        errors("/dts-v1/;\n/plugin/;\n&x { y; };"),
        ["2:1 this is an overlay: it says what changes in a tree, and there is no tree"]
    );
    assert_eq!(
        errors("/dts-v1/; / {\n"),
        ["1:13 this node is never closed"]
    );
    assert_eq!(
        errors("/dts-v1/; / { };\n/* x"),
        ["2:1 this comment has no end"]
    );
    assert_eq!(
        errors("/dts-v1/; / { p = \"x; };"),
        [
            "1:19 this string has no end",
            "1:13 this node is never closed"
        ]
        .map(String::from)
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
    );
    assert_eq!(
        errors("/dts-v1/; / { }; x"),
        ["1:18 at the top stand / { .. }, &label { .. }, /memreserve/ and /delete-node/"]
    );
    assert_eq!(
        errors("/dts-v1/; / { x { }; };\n&y { };"),
        ["2:1 there is no label `y`"]
    );
    assert_eq!(
        errors("/dts-v1/; / { p; p; x { }; x { }; a: y { }; a: z { }; };"),
        [
            "1:18 a node has each property once in a block",
            "1:28 a node has each child once in a block",
            "1:45 the label `a` stands at two nodes",
        ]
    );
    assert_eq!(
        errors(
            "/dts-v1/; / { x { phandle = <1>; }; y { phandle = <1>; }; z { phandle = <0>; }; };"
        ),
        [
            "1:41 two nodes have the phandle 0x1",
            "1:63 a phandle is one cell other than 0 and 0xffffffff"
        ]
    );
}

#[test]
fn what_needs_the_preprocessor_says_so_once() {
    let text =
        "#include <dt-bindings/x.h>\n#define A \\\n  1\n/dts-v1/;\n/ { p = <A>; q = <&l>; };";
    assert_eq!(
        errors(text),
        ["1:1 this source hasn't been through the C preprocessor"]
    );
}

#[test]
fn line_markers_are_obeyed() {
    let text = "# 1 \"board.dts\"\n/dts-v1/;\n# 7 \"a \\\"b.dtsi\" 1 2\n/ {\n p = <1_2>;\n};\n#line 3 \"c.dts\"\n x";
    let errors = read(text).unwrap_err().errors;
    let places: Vec<_> = errors
        .iter()
        .map(|error| (error.place.file.as_str(), error.place.start.line))
        .collect();
    assert_eq!(places, [("a \"b.dtsi", 8), ("c.dts", 3)]);
}

/// Files by their names.
struct Named(HashMap<&'static str, &'static str>);

impl Files for Named {
    fn open(&mut self, _: &str, name: &str, part: Range<u64>) -> Result<(String, Vec<u8>), String> {
        let text = self.0.get(name).ok_or("no such file")?.as_bytes();
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = text.iter().skip(place(part.start));
        let bytes = bytes.take(place(part.end - part.start));
        Ok((name.to_owned(), bytes.copied().collect()))
    }
}

/// Files without an end, and how much of them was read.
struct Endless {
    read: u64,
}

impl Files for Endless {
    fn open(&mut self, _: &str, name: &str, part: Range<u64>) -> Result<(String, Vec<u8>), String> {
        let length = (part.end - part.start).min(64 << 20);
        self.read += length;
        Ok((name.to_owned(), vec![b' '; length as usize]))
    }
}

#[test]
fn what_files_bring_in_is_bounded_within_a_value() {
    let whys = |text: &str| {
        let mut files = Endless { read: 0 };
        let broken = parse("x.dts", text.into(), &mut files).unwrap_err();
        assert!(files.read <= (8 << 20) + 1, "{}", files.read);
        let whys = broken.errors.into_iter().map(|error| error.why);
        whys.collect::<Vec<_>>()
    };
    let values = ["the values take more than 8 MiB"];
    assert_eq!(whys(&one("/incbin/(\"a\")")), values);
    let parts = vec!["/incbin/(\"a\", 7, 0x10000)"; 1000].join(", ");
    assert_eq!(whys(&one(&parts)), values);
    // Replaced ones count too.
    let blocks = parts.replace(", /", "; }; / { p = /");
    assert_eq!(whys(&one(&blocks)), values);
    let included = whys("/dts-v1/; /include/ \"a\" / { };");
    assert_eq!(
        included,
        ["the source has more than 8 MiB with all that it includes"]
    );
}

#[test]
fn a_part_of_a_large_file_is_included() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // All of it is a hole.
    let large = std::fs::File::create(at("large")).unwrap();
    large.set_len(64 << 30).unwrap();
    let write = |value: &str| std::fs::write(at("x.dts"), one(value)).unwrap();

    write("/incbin/(\"large\", 0xfffffffff, 1), /incbin/(\"large\", 0xffffffffffffffff, 1)");
    let source = load(&at("x.dts")).unwrap();
    let tree = Tree::read(&source.blob).unwrap();
    assert_eq!(tree.root().value("p").unwrap(), [0]);

    write("/incbin/(\"large\")");
    assert!(matches!(load(&at("x.dts")), Err(LoadError::Broken(_))));
    std::fs::rename(at("large"), at("large.dts")).unwrap();
    assert!(matches!(load(&at("large.dts")), Err(LoadError::Broken(_))));
}

#[test]
fn files_are_included() {
    let mut files = Named(HashMap::from([
        ("a.dtsi", "p = <1\n/include/ \"b.dtsi\"\n>;"),
        ("b.dtsi", "2 3"),
        ("c.bin", "0123456789"),
        ("loop.dtsi", "/include/ \"loop.dtsi\""),
    ]));
    let text =
        "/dts-v1/; / { /include/ \"a.dtsi\" q = /incbin/(\"c.bin\"), /incbin/(\"c.bin\", 2, 3); };";
    let source = parse("x.dts", text.into(), &mut files).unwrap();
    let tree = Tree::read(&source.blob).unwrap();
    assert_eq!(tree.root().value("p").unwrap().len(), 12);
    assert_eq!(tree.root().value("q").unwrap(), b"0123456789234");
    let place = source.value(tree.root(), "p", 8..12).unwrap();
    assert_eq!(
        (place.file.as_str(), place.start.line, place.start.column),
        ("b.dtsi", 1, 3)
    );

    let text = "/dts-v1/; / { };\n/include/ \"loop.dtsi\"\n/include/ \"d.dtsi\"";
    let broken = parse("x.dts", text.into(), &mut files).unwrap_err();
    let whys: Vec<_> = broken
        .errors
        .iter()
        .map(|error| error.why.as_str())
        .collect();
    assert_eq!(
        whys,
        [
            "can't include d.dtsi: no such file",
            "loop.dtsi includes itself"
        ]
    );
}

/// Snippets are cut from the text by them.
#[test]
fn places_are_whole_characters_of_the_text() {
    for text in [
        "/dts-v1/; / { p = ä",
        "/dts-v1/; / { p = <ä 1>; };",
        "/dts-v1/; / { ä; };",
        "/dts-v1/; ä",
        "/dts-v1/; / { p = [ä",
        "/dts-v1/; / { p = <1",
        "/dts-v1/; / { p",
        "/dts-v1/",
        "ä",
    ] {
        for error in read(text).unwrap_err().errors {
            let place = error.place;
            assert!(text.get(place.span.clone()).is_some(), "{text}: {place:?}");
        }
    }
}

#[test]
fn bounds_hold() {
    let deep = format!("/dts-v1/; / {{ {} }};", "a { ".repeat(50_000));
    let deep = errors(&deep);
    assert!(
        deep.contains(&"1:141 nodes nest at most 32 deep".to_owned()),
        "{deep:?}"
    );
    let wide = format!("/dts-v1/; / {{ p = <{}>; }};", "1 ".repeat(600_000));
    assert_eq!(
        errors(&wide),
        ["1:15 the tree takes more than 2 MiB, the most that a kernel maps"]
    );
    let long = format!("/dts-v1/; / {{ {}; }};", "a".repeat(256));
    assert_eq!(errors(&long), ["1:15 a name has at most 255 characters"]);
    let many = format!("/dts-v1/; / {{ {} }};", "? ;".repeat(1000));
    assert_eq!(errors(&many).len(), 100);
    let large = " ".repeat(9 << 20);
    assert_eq!(
        errors(&large),
        ["1:1 the source has more than 8 MiB with all that it includes"]
    );
}

#[test]
fn labels_are_as_long_as_names() {
    let source = |length: usize| {
        let label = "l".repeat(length);
        format!("/dts-v1/; / {{ p = <&{label}>, &{label}; {label}: a {{ }}; }};\n&{label} {{ }};")
    };
    good(&source(255));
    let too_long = "a name has at most 255 characters";
    let places = ["1:20", "1:280", "1:539", "2:1"];
    assert_eq!(
        errors(&source(256)),
        places.map(|place| format!("{place} {too_long}"))
    );
    let bytes = errors(&one(&format!("[{}: 01]", "a".repeat(256))));
    assert_eq!(bytes, [format!("1:20 {too_long}")]);
    let cells = errors(&one(&format!("<{}: 1>", "l".repeat(256))));
    assert_eq!(cells, [format!("1:20 {too_long}")]);
}

/// Behind each byte a label could begin: its end is looked for once.
#[test]
fn an_unbroken_byte_string_is_read_in_one_go() {
    for (bytes, label) in [("ab", ""), ("01", ""), ("01", "ab:")] {
        let text = one(&format!("[{}{label}]", bytes.repeat(10_000)));
        let read = value(&text, "/", "p").unwrap();
        assert_eq!(
            read,
            [u8::from_str_radix(bytes, 16).unwrap()].repeat(10_000)
        );

        let mut files = NoFiles;
        let mut scanner = Scanner::new("x.dts".to_owned(), text.clone().into(), &mut files);
        Parser::new(&mut scanner).source();
        assert!(scanner.counted <= text.len(), "{}", scanner.counted);
    }
}

#[test]
fn the_nearest_label_is_sought_while_that_takes_little() {
    let helps = |labels: usize, length: usize| {
        let name = |last: &str| format!("{}{last}", "l".repeat(length - last.len()));
        let label = |number: usize| format!("{}: n{number} {{ }};", name(&format!("{number:04}")));
        let nodes: String = (0..labels).map(label).collect();
        let text = format!("/dts-v1/; / {{ {nodes} }};\n&{} {{ }};", name("000_"));
        read(&text).unwrap_err().errors[0].help.clone()
    };
    assert_eq!(helps(3, 8), "the nearest label is `llll0000`");
    assert!(helps(3, 250).starts_with("the nearest label is `lll"));
    assert!(helps(500, 20).starts_with("the nearest label is `lll"));
    assert_eq!(helps(100, 250), "");
    assert_eq!(helps(9000, 30), "");
}

#[test]
fn sources_are_known_by_their_beginning() {
    for yes in [
        "/dts-v1/;",
        "/include/ \"board.dts\"",
        "\n/* a */ // b\n# 1 \"x\"\n#include <y>\n/dts-v1/;",
    ] {
        assert!(is_source(yes.as_bytes()), "{yes}");
    }
    for no in [
        "",
        "# a comment\nmanifest-version = 1",
        "/*",
        "//",
        "[host]",
    ] {
        assert!(!is_source(no.as_bytes()), "{no}");
    }
}

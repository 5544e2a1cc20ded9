//! The grammar of version 1 of device tree source: statements into a [`Draft`].
//!
//! After an error reading goes on with the next statement, so that all are found at once.

use super::fault::Fault;
use super::scan::Scanner;
use super::text::Span;
use super::tree::{Before, Draft, Item, NodeId, Piece, Property, ROOT, TooMany};
use crate::tree::blob::{MAX_BYTES, MAX_DEPTH};

/// Bytes of all values of a source together, later replaced ones included.
const MAX_VALUES: usize = 4 * MAX_BYTES;

pub(super) struct Parser<'s, 'f> {
    pub(super) scanner: &'s mut Scanner<'f>,
    pub(super) draft: Draft,
    /// Blocks in braces so far.
    blocks: usize,
    value_bytes: usize,
    has_version: bool,
    /// The statement's end is missing, which is noted.
    has_slipped: bool,
    /// Something couldn't be read, so that what it defined is missing.
    pub(super) has_lost: bool,
}

/// A statement that can't be read: the error is noted.
struct Bad;

type Parsed<T> = Result<T, Bad>;

impl<'s, 'f> Parser<'s, 'f> {
    pub(super) fn new(scanner: &'s mut Scanner<'f>) -> Self {
        Self {
            scanner,
            draft: Draft::new(),
            blocks: 0,
            value_bytes: 0,
            has_version: false,
            has_slipped: false,
            has_lost: false,
        }
    }

    /// Reads everything.
    pub(super) fn source(&mut self) {
        let mut has_tree = false;
        while self.scanner.peek().is_some() {
            match self.top(&mut has_tree) {
                Ok(()) => {}
                Err(Bad) => self.recover(true),
            }
        }
        if !has_tree && self.scanner.faults.is_empty() {
            let here = self.scanner.span(0);
            let why = "this source has no root node";
            self.fault(here, "it ends here", why, "write / { .. };");
        }
    }

    fn fault(&mut self, span: Span, what: &str, why: impl Into<String>, help: &str) {
        self.scanner.faults.add(span, what, why, help);
    }

    fn fault_here<T>(&mut self, what: &str, why: impl Into<String>, help: &str) -> Parsed<T> {
        // The character that stands there, if one does.
        self.scanner.peek();
        let here = self.scanner.span(1);
        self.fault(here, what, why, help);
        Err(Bad)
    }

    fn top(&mut self, has_tree: &mut bool) -> Parsed<()> {
        if self.scanner.eat("/dts-v1/").is_some() {
            self.has_version = true;
            return self.semicolon();
        }
        if !self.has_version {
            self.has_version = true;
            self.scanner.peek();
            let here = self.scanner.span(1);
            let why = "a device tree source begins with its version";
            self.fault(here, "not /dts-v1/", why, "begin the file with /dts-v1/;");
        }
        if let Some(span) = self.scanner.eat("/plugin/") {
            let why = "this is an overlay: it says what changes in a tree, and there is no tree";
            let help = "apply it to the board's tree by fdtoverlay, and name the result";
            self.fault(span, "here", why, help);
            self.scanner.stop();
            return Ok(());
        }
        if self.scanner.eat("/memreserve/").is_some() {
            return self.reservation();
        }
        if self.scanner.eat("/delete-node/").is_some() {
            if let Some(id) = self.target()? {
                self.draft.delete(id);
            }
            return self.semicolon();
        }
        if self.scanner.eat("/omit-if-no-ref/").is_some() {
            if let Some(node) = self.target()?.and_then(|id| self.draft.nodes.get_mut(id)) {
                node.omit_if_unused = true;
            }
            return self.semicolon();
        }
        let mut labels = Vec::new();
        while let Some(label) = self.scanner.label() {
            labels.push(label);
        }
        if labels.is_empty() && self.scanner.eat("/").is_some() {
            *has_tree = true;
            return self.block(ROOT, 1);
        }
        if !labels.is_empty() && self.scanner.eat("/memreserve/").is_some() {
            return self.reservation();
        }
        if self.scanner.is_next("&") {
            let id = self.target()?;
            *has_tree = true;
            for (label, span) in labels {
                self.label(id.unwrap_or(ROOT), label, span);
            }
            // What is in braces behind an unknown reference is read for its own errors, into a node that is dropped.
            let id = match id {
                Some(id) => id,
                None => self.draft.nowhere(),
            };
            return self.block(id, 1);
        }
        self.fault_here(
            "not a statement",
            "at the top stand / { .. }, &label { .. }, /memreserve/ and /delete-node/",
            "",
        )
    }

    fn reservation(&mut self) -> Parsed<()> {
        let mut number = || match self.scanner.number() {
            Some((number, _)) => Ok(number),
            None => {
                self.scanner.no_number();
                Err(Bad)
            }
        };
        let entry = (number()?, number()?);
        self.draft.reservations.push(entry);
        self.semicolon()
    }

    /// A reference to a node; nothing, noted, if there is no such node.
    fn target(&mut self) -> Parsed<Option<NodeId>> {
        let Some((name, span)) = self.scanner.reference() else {
            let why = "a node is referred to by &label or &{/path}";
            return self.fault_here("not a reference", why, "");
        };
        let id = self.draft.find(&name);
        if id.is_none() {
            let (why, help) = self.draft.unknown(&name);
            self.scanner
                .faults
                .add(span, "not known at this point", why, help);
        }
        Ok(id)
    }

    fn semicolon(&mut self) -> Parsed<()> {
        let has_slipped = std::mem::take(&mut self.has_slipped);
        if self.scanner.eat(";").is_some() {
            return Ok(());
        }
        if !has_slipped {
            let here = self.scanner.behind();
            let why = "a statement ends with a semicolon";
            self.fault(here, "`;` is missing behind this", why, "");
        }
        // Most likely only the semicolon was left out. What can begin a statement then comes next.
        match self.scanner.peek() {
            Some(byte) if byte.is_ascii_alphanumeric() || b"#/&}_".contains(&byte) => Ok(()),
            None => Ok(()),
            _ => Err(Bad),
        }
    }

    /// `{ .. };` of a node.
    fn block(&mut self, id: NodeId, depth: usize) -> Parsed<()> {
        let Some(open) = self.scanner.eat("{") else {
            return self.fault_here("not `{`", "a node's contents stand in braces", "");
        };
        if depth > MAX_DEPTH {
            let why = format!("nodes nest at most {MAX_DEPTH} deep");
            self.fault(open, "too deep", why, "");
            self.scanner.stop();
            return Ok(());
        }
        self.blocks += 1;
        let block = self.blocks;
        let mut has_children = false;
        loop {
            if self.scanner.eat("}").is_some() {
                return self.semicolon();
            }
            if self.scanner.peek().is_none() {
                let why = "this node is never closed";
                self.fault(open, "it begins here", why, "close it by };");
                return Ok(());
            }
            if let Err(Bad) = self.statement(id, block, depth, &mut has_children) {
                self.recover(false);
            }
        }
    }

    fn statement(
        &mut self,
        id: NodeId,
        block: usize,
        depth: usize,
        has_children: &mut bool,
    ) -> Parsed<()> {
        let mut labels = Vec::new();
        let mut omit = false;
        loop {
            if let Some(label) = self.scanner.label() {
                labels.push(label);
            } else if self.scanner.eat("/omit-if-no-ref/").is_some() {
                omit = true;
            } else {
                break;
            }
        }
        if self.scanner.eat("/delete-property/").is_some() {
            let (name, _) = self.name()?;
            self.draft.delete_property(id, &name);
            return self.semicolon();
        }
        if self.scanner.eat("/delete-node/").is_some() {
            if self.scanner.is_next("&") {
                let why = "inside a node, /delete-node/ takes the name of a child";
                let help = "delete by a reference at the top, outside all braces";
                return self.fault_here("not a name", why, help);
            }
            let (name, _) = self.name()?;
            self.draft.delete_child(id, &name);
            return self.semicolon();
        }
        let (name, name_span) = self.name()?;
        if self.scanner.is_next("{") {
            *has_children = true;
            let child = self.draft.child(id, name, name_span, block);
            let (child, before) = self.counted(name_span, child)?;
            self.no_twice(name_span, &before, "a node has each child once in a block");
            for (label, span) in labels {
                self.label(child, label, span);
            }
            if let Some(node) = self.draft.nodes.get_mut(child) {
                node.omit_if_unused |= omit;
            }
            return self.block(child, depth + 1);
        }
        if *has_children {
            let why = "a node's properties come before its children";
            let help = "move it up, above the first child";
            self.fault(name_span, "behind a child", why, help);
        }
        let items = if self.scanner.eat("=").is_some() {
            self.value()?
        } else {
            Vec::new()
        };
        let property = Property {
            name,
            name_span,
            items,
            is_deleted: false,
            block,
        };
        let before = self.draft.set(id, property);
        let before = self.counted(name_span, before)?;
        self.no_twice(
            name_span,
            &before,
            "a node has each property once in a block",
        );
        self.semicolon()
    }

    fn counted<T>(&mut self, span: Span, result: Result<T, TooMany>) -> Parsed<T> {
        result.map_err(|TooMany| {
            let why = "the tree has more nodes and properties than a blob of 2 MiB holds";
            self.fault(span, "too many", why, "");
            self.scanner.stop();
            Bad
        })
    }

    fn no_twice(&mut self, span: Span, before: &Before, why: &str) {
        if let Some(first) = before.twice {
            self.scanner.faults.push(Fault {
                span,
                what: "again".to_owned(),
                why: why.to_owned(),
                help: "take one of the two out".to_owned(),
                other: Some((first, "first here".to_owned())),
            });
        }
    }

    fn label(&mut self, id: NodeId, label: String, span: Span) {
        let why = format!("the label `{label}` stands at two nodes");
        if let Some(first) = self.draft.label(id, label, span) {
            self.scanner.faults.push(Fault {
                span,
                what: "again".to_owned(),
                why,
                help: "give one of them another name".to_owned(),
                other: Some((first, "first here".to_owned())),
            });
        }
    }

    fn name(&mut self) -> Parsed<(String, Span)> {
        match self.scanner.name() {
            Some(name) => Ok(name),
            None => {
                let why = "here stands the name of a property or a node";
                self.fault_here("not a name", why, "")
            }
        }
    }

    /// What stands behind `=`.
    fn value(&mut self) -> Parsed<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            while self.scanner.label().is_some() {}
            self.part(&mut items)?;
            while self.scanner.label().is_some() {}
            if self.scanner.eat(",").is_none() {
                return Ok(items);
            }
        }
    }

    /// Adds a piece to a value. Counted at once: a single value may name any number of files.
    fn add(&mut self, items: &mut Vec<Item>, span: Span, piece: Piece) -> Parsed<()> {
        self.value_bytes += piece.length();
        if self.value_bytes > MAX_VALUES {
            let why = format!("the values take more than {} MiB", MAX_VALUES >> 20);
            self.fault(span, "too much", why, "");
            self.scanner.stop();
            return Err(Bad);
        }
        items.push(Item { span, piece });
        Ok(())
    }

    fn part(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        match self.scanner.peek() {
            Some(b'"') => {
                let (bytes, span) = self.scanner.string();
                // The rest of the line went with it, the semicolon most likely too.
                self.has_slipped |= bytes.is_none();
                let mut bytes = bytes.unwrap_or_default();
                bytes.push(0);
                self.add(items, span, Piece::Bytes(bytes))
            }
            Some(b'<') => self.cells(32, items),
            Some(b'[') => self.byte_string(items),
            Some(b'&') => {
                let Some((name, span)) = self.scanner.reference() else {
                    let why = "a node is referred to by &label or &{/path}";
                    return self.fault_here("not a reference", why, "");
                };
                self.add(items, span, Piece::Path(name))
            }
            Some(b'/') if self.scanner.eat("/bits/").is_some() => {
                let bits = match self.scanner.number() {
                    Some((bits @ (8 | 16 | 32 | 64), _)) => u32::try_from(bits).unwrap_or(32),
                    Some((_, span)) => {
                        let why = "elements have 8, 16, 32 or 64 bits";
                        self.fault(span, "not such a number", why, "");
                        32
                    }
                    None => {
                        self.scanner.no_number();
                        32
                    }
                };
                self.cells(bits, items)
            }
            Some(b'/') if self.scanner.eat("/incbin/").is_some() => self.file(items),
            _ => {
                let why = "a value is <cells>, \"a string\", [bytes], &label, or several with commas between";
                self.fault_here("not a value", why, "")
            }
        }
    }

    fn cells(&mut self, bits: u32, items: &mut Vec<Item>) -> Parsed<()> {
        let Some(open) = self.scanner.eat("<") else {
            return self.fault_here("not `<`", "the elements stand in angle brackets", "");
        };
        loop {
            while self.scanner.label().is_some() {}
            if self.scanner.eat(">").is_some() {
                return Ok(());
            }
            match self.scanner.peek() {
                Some(b'&') => {
                    let Some((name, span)) = self.scanner.reference() else {
                        let why = "a node is referred to by &label or &{/path}";
                        return self.fault_here("not a reference", why, "");
                    };
                    if bits != 32 {
                        let why = "a reference takes an element of 32 bits";
                        self.fault(span, "not 32 bits", why, "");
                    }
                    self.add(items, span, Piece::Phandle(name))?;
                }
                // What ends a statement can't be in a list, nor can the next one.
                None | Some(b';' | b'}') => return self.endless(open),
                Some(_) if self.scanner.is_statement() => return self.endless(open),
                Some(b'-' | b'~' | b'!') => {
                    let span = self.scanner.skip_one();
                    let why = "an operator stands in parentheses only";
                    self.fault(span, "here", why, "write <(-1)> for <-1>");
                }
                Some(b',') => {
                    let span = self.scanner.skip_one();
                    let why = "cells stand side by side, without commas between";
                    self.fault(span, "not needed", why, "take it out");
                }
                Some(_) => self.cell(bits, items)?,
            }
        }
    }

    /// A list that isn't closed. What follows it is read all the same.
    fn endless(&mut self, open: Span) -> Parsed<()> {
        let why = "this list isn't closed";
        self.fault(open, "it begins here", why, "close it by >");
        self.has_slipped = true;
        Ok(())
    }

    fn cell(&mut self, bits: u32, items: &mut Vec<Item>) -> Parsed<()> {
        let Some((number, span)) = self.scanner.number() else {
            // Whatever stands there is passed over, so that the list goes on.
            if !self.scanner.no_number() {
                self.scanner.skip_one();
            }
            return Ok(());
        };
        // Ones above are the sign of a negative number.
        let above = number.checked_shr(bits).unwrap_or(0);
        let all = u64::MAX.checked_shr(bits).unwrap_or(0);
        if above != 0 && above != all {
            let why = format!("{number:#x} takes more than the {bits} bits of an element");
            let help = match bits {
                32 => format!(
                    "write a 64-bit number as two cells: {:#x} {:#x}",
                    number >> 32,
                    number & 0xffff_ffff
                ),
                _ => String::new(),
            };
            self.fault(span, "too large", why, &help);
        }
        let bytes = u8::try_from(bits / 8).unwrap_or(4);
        self.add(items, span, Piece::Number(number, bytes))
    }

    fn byte_string(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        let Some(open) = self.scanner.eat("[") else {
            return Err(Bad);
        };
        loop {
            // "ab:" is a label, as for dtc.
            while self.scanner.label().is_some() {}
            if self.scanner.eat("]").is_some() {
                return Ok(());
            }
            if let Some((byte, span)) = self.scanner.byte() {
                self.add(items, span, Piece::Number(u64::from(byte), 1))?;
                continue;
            }
            if matches!(self.scanner.peek(), None | Some(b';' | b'}')) {
                self.fault(
                    open,
                    "it begins here",
                    "this byte string isn't closed",
                    "close it by ]",
                );
                return Ok(());
            }
            let span = self.scanner.skip_one();
            let why = "a byte is two hexadecimal digits";
            self.fault(span, "not a byte", why, "");
        }
    }

    /// `("file")` or `("file", offset, length)` behind `/incbin/`.
    fn file(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        if self.scanner.eat("(").is_none() || !self.scanner.is_next("\"") {
            let why = "/incbin/ is followed by a file's name in parentheses";
            return self.fault_here("no name", why, "write /incbin/(\"FILE\")");
        }
        let (name, span) = self.scanner.string();
        let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
        let mut part = None;
        if self.scanner.eat(",").is_some() {
            let offset = self.scanner.number();
            let comma = self.scanner.eat(",");
            let length = self.scanner.number();
            let (Some((offset, _)), Some(_), Some((length, _))) = (offset, comma, length) else {
                let why = "a part of a file is an offset and a length";
                return self.fault_here("not these", why, "");
            };
            part = Some((offset, length));
        }
        if self.scanner.eat(")").is_none() {
            let why = "/incbin/ ends with a parenthesis";
            return self.fault_here("not `)`", why, "");
        }
        let (offset, length) = part.unwrap_or((0, u64::MAX));
        // One byte above what is left tells that there is too much.
        let room = MAX_VALUES.saturating_sub(self.value_bytes) as u64 + 1;
        let part = offset..offset.saturating_add(length.min(room));
        match self.scanner.included_bytes(&name, part) {
            Ok(bytes) => self.add(items, span, Piece::Bytes(bytes)),
            Err(why) => {
                let why = format!("can't include {name}: {why}");
                let help = "a relative path counts from the folder of the file that names it";
                self.fault(span, "named here", why, help);
                Ok(())
            }
        }
    }

    /// Passes over the rest of a statement that can't be read. `at_top` no closing brace ends it.
    fn recover(&mut self, at_top: bool) {
        self.has_lost = true;
        let mut depth = 0usize;
        while let Some(byte) = self.scanner.peek() {
            match byte {
                b'"' => {
                    self.scanner.string();
                    continue;
                }
                b'{' => depth += 1,
                b'}' if depth == 0 && !at_top => return,
                b'}' => depth = depth.saturating_sub(1),
                b';' if depth == 0 => {
                    self.scanner.skip_one();
                    return;
                }
                _ => {}
            }
            self.scanner.skip_one();
        }
    }
}

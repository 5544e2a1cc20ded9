//! The part of the shell's language that is assignments of literals, read and never run.
//!
//! A configuration of ImageBuilder is a script that its shell sources, so it could hold anything. What isn't a literal
//! (an expansion, a command, a test) is an answer with its place; reading goes on in the next line.
//!
//! Source: POSIX.1-2017, Shell Command Language, 2.2 "Quoting" and 2.9.1 "Simple Commands"; Bash Reference Manual, 6.7
//! "Arrays".

use std::ops::Range;

/// `NAME=value` or `NAME[index]=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// Its index; in the shell a variable without one is its own first item.
    pub index: u32,
    /// The value, quotes taken off.
    pub value: String,
    /// The bytes of the whole assignment.
    pub span: Range<usize>,
}

/// Something that isn't one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLiteral {
    /// The bytes that aren't.
    pub span: Range<usize>,
    /// What they are.
    pub why: &'static str,
    /// The variable that they were to be the value of, if that much is known.
    pub variable: Option<(String, u32)>,
}

/// Every assignment of a literal, in the text's order, and everything else.
#[must_use]
pub fn read(text: &str) -> (Vec<Assignment>, Vec<NotLiteral>) {
    let mut reader = Reader {
        text,
        at: 0,
        found: Vec::new(),
    };
    let mut wrong = Vec::new();
    loop {
        reader.skip_blanks();
        match reader.peek() {
            None => break,
            Some('#') => reader.skip_line(),
            Some(_) => {
                if let Err(not_literal) = reader.assignment() {
                    reader.at = reader.at.max(not_literal.span.end);
                    reader.skip_line();
                    wrong.push(not_literal);
                }
            }
        }
    }
    // A shell drops NUL and goes on; a text with one has no place in a device tree.
    reader.found.retain(|assignment| {
        let nul = assignment.span.clone().find(|&at| text.as_bytes()[at] == 0);
        wrong.extend(nul.map(|at| NotLiteral {
            span: at..at + 1,
            why: "it holds NUL",
            variable: Some((assignment.name.clone(), assignment.index)),
        }));
        nul.is_none()
    });
    (reader.found, wrong)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    found: Vec<Assignment>,
}

/// Where a word stands: only an assignment's value is kept from the expansion of patterns.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Value,
    Item,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.rest().starts_with(word);
        if taken {
            self.at += word.len();
        }
        taken
    }

    /// Takes characters as long as they are `wanted`.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | ';'));
            if !self.take("\\\n") {
                return;
            }
        }
    }

    /// Skips what is left of the line, its end too.
    fn skip_line(&mut self) {
        self.take_while(|c| c != '\n');
    }

    /// What stands from `start` to here, and why it can't be taken.
    fn wrong(&self, start: usize, why: &'static str) -> NotLiteral {
        NotLiteral {
            span: start..self.at.max(start),
            why,
            variable: None,
        }
    }

    fn assignment(&mut self) -> Result<(), NotLiteral> {
        let start = self.at;
        if self.take("export") {
            let blank = self.take_while(|c| c == ' ' || c == '\t');
            if blank.is_empty() {
                self.at = start;
            }
        }
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.command(start));
        }
        let index = self.index()?;
        if self.rest().starts_with("+=") {
            self.take_while(|c| !c.is_whitespace() && c != ';');
            return Err(self.wrong(start, "it adds to a value"));
        }
        if !self.take("=") {
            return Err(self.command(start));
        }
        if self.take("(") {
            return self.list(name, start);
        }
        let value = self.word(Place::Value).map_err(|wrong| NotLiteral {
            variable: Some((name.to_owned(), index)),
            ..wrong
        })?;
        self.found.push(Assignment {
            name: name.to_owned(),
            index,
            value,
            span: start..self.at,
        });
        Ok(())
    }

    /// Takes the rest of a word that isn't an assignment, one character at least: reading must get on.
    fn command(&mut self, start: usize) -> NotLiteral {
        if self.at == start {
            self.next();
        }
        self.take_while(|c| !c.is_whitespace() && c != ';');
        self.wrong(start, "it is a command, not an assignment")
    }

    /// `[3]`; 0 without one.
    fn index(&mut self) -> Result<u32, NotLiteral> {
        let start = self.at;
        if !self.take("[") {
            return Ok(0);
        }
        let digits = self.take_while(|c| c != ']' && c != '\n');
        let index = digits.parse().ok();
        // A leading 0 makes it octal.
        let octal = digits.len() > 1 && digits.starts_with('0');
        match index.filter(|_| self.take("]") && !octal) {
            Some(index) => Ok(index),
            None => Err(self.wrong(start, "the index is no decimal number")),
        }
    }

    /// `NAME=(a b c)`, from behind the parenthesis.
    fn list(&mut self, name: &str, start: usize) -> Result<(), NotLiteral> {
        for index in 0.. {
            loop {
                self.skip_blanks();
                if self.peek() != Some('#') {
                    break;
                }
                self.skip_line();
            }
            let item = self.at;
            match self.peek() {
                None => break,
                Some(')') => {
                    self.next();
                    return Ok(());
                }
                Some('[') => {
                    self.next();
                    return Err(self.wrong(item, "an item of a list has an index of its own"));
                }
                Some(_) => {
                    let value = self.word(Place::Item)?;
                    self.found.push(Assignment {
                        name: name.to_owned(),
                        index,
                        value,
                        span: item..self.at,
                    });
                }
            }
        }
        Err(self.wrong(start, "the list has no end"))
    }

    fn word(&mut self, place: Place) -> Result<String, NotLiteral> {
        let mut value = String::new();
        // The shell puts a home directory in place of `~` here, and behind a colon.
        let mut begins = true;
        loop {
            let start = self.at;
            let Some(next) = self.peek() else {
                return Ok(value);
            };
            match next {
                ' ' | '\t' | '\n' | '\r' | ';' => return Ok(value),
                ')' if place == Place::Item => return Ok(value),
                _ => {}
            }
            self.next();
            match next {
                '\'' => {
                    value.push_str(self.take_while(|c| c != '\''));
                    if !self.take("'") {
                        return Err(self.wrong(start, "the quote has no end"));
                    }
                }
                '"' => self.double_quoted(start, &mut value)?,
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(escaped) => value.push(escaped),
                },
                '$' => {
                    self.dollar(start, false)?;
                    value.push('$');
                }
                '`' => return Err(self.wrong(start, "it runs a command")),
                '~' if begins => return Err(self.wrong(start, "it stands for a home directory")),
                '&' | '|' | '<' | '>' | '(' | ')' => {
                    return Err(self.wrong(start, "it is a command, not an assignment"));
                }
                '*' | '?' | '[' | '{' if place == Place::Item => {
                    return Err(self.wrong(start, "it is a pattern"));
                }
                other => value.push(other),
            }
            begins = next == ':';
        }
    }

    /// From behind the quote at `start` to its end, also if something in it is no literal.
    fn double_quoted(&mut self, start: usize, value: &mut String) -> Result<(), NotLiteral> {
        let mut result = Ok(());
        loop {
            let at = self.at;
            let here = match self.next() {
                None => return Err(self.wrong(start, "the quote has no end")),
                Some('"') => return result,
                Some('\\') => {
                    match self.next() {
                        Some('\n') | None => {}
                        Some(escaped @ ('$' | '`' | '"' | '\\')) => value.push(escaped),
                        Some(other) => value.extend(['\\', other]),
                    }
                    Ok(())
                }
                Some('$') => {
                    value.push('$');
                    self.dollar(at, true)
                }
                Some('`') => Err(self.wrong(at, "it runs a command")),
                Some(other) => {
                    value.push(other);
                    Ok(())
                }
            };
            result = result.and(here);
        }
    }

    /// Behind a `$`: whether it stands for itself.
    fn dollar(&mut self, start: usize, quoted: bool) -> Result<(), NotLiteral> {
        let expands = |c: char| {
            let quotes = !quoted && matches!(c, '\'' | '"');
            c.is_ascii_alphanumeric() || "_{([#?!*@$-".contains(c) || quotes
        };
        if self.peek().is_some_and(expands) {
            self.next();
            self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Err(self.wrong(start, "it stands for another value"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, u32, String)> {
        let (found, wrong) = read(text);
        assert_eq!(wrong, [], "{text}");
        found
            .into_iter()
            .map(|one| (one.name, one.index, one.value))
            .collect()
    }

    fn value(text: &str) -> String {
        let mut found = values(text);
        assert_eq!(found.len(), 1, "{text}");
        found.remove(0).2
    }

    #[test]
    fn quotes_are_the_shells() {
        for (text, expected) in [
            ("A=b", "b"),
            ("A=", ""),
            ("A=\"b c\"", "b c"),
            ("A='b \"c\" $d `e`'", "b \"c\" $d `e`"),
            ("A=\"b\"'c'd\\ e", "bcd e"),
            ("A=\"\\$b \\\" \\\\ \\n\"", "$b \" \\ \\n"),
            ("A=\"b\\\nc\"", "bc"),
            ("A=\"b\nc\"", "b\nc"),
            ("A=b#c", "b#c"),
            ("A=b # c", "b"),
            ("A=b\r\n", "b"),
            ("A=\"costs $ 5$\"", "costs $ 5$"),
            ("export A=b", "b"),
            ("A=*.dtb", "*.dtb"),
            ("A=ä", "ä"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn an_index_or_a_list_names_the_item() {
        let one = |index, value: &str| ("A".to_owned(), index, value.to_owned());
        assert_eq!(values("A[2]=x"), [one(2, "x")]);
        assert_eq!(values("A=x; A[0]=y"), [one(0, "x"), one(0, "y")]);
        assert_eq!(
            values("A=(x 'y z'\n # no item\n w)"),
            [one(0, "x"), one(1, "y z"), one(2, "w")]
        );
    }

    #[test]
    fn what_is_no_literal_is_pointed_at_and_the_next_line_read() {
        for (line, at, why) in [
            ("A=$B", 2..4, "it stands for another value"),
            ("A=\"x ${B}\"", 5..8, "it stands for another value"),
            ("A=`ls`", 2..3, "it runs a command"),
            ("A=$(ls)", 2..6, "it stands for another value"),
            ("A=~/x", 2..3, "it stands for a home directory"),
            ("A+=x", 0..4, "it adds to a value"),
            ("A[i]=x", 1..3, "the index is no decimal number"),
            ("if true; then", 0..2, "it is a command, not an assignment"),
            ("[ -f x ]", 0..1, "it is a command, not an assignment"),
            ("A=\"$B\n$C\"", 3..5, "it stands for another value"),
            ("A=x>y", 3..4, "it is a command, not an assignment"),
            ("A=(*.dtb)", 3..4, "it is a pattern"),
            ("A=\"x\0y\"", 4..5, "it holds NUL"),
            ("A=(x y\0)", 6..7, "it holds NUL"),
            (
                "A=([1]=x)",
                3..4,
                "an item of a list has an index of its own",
            ),
        ] {
            let (found, wrong) = read(&format!("{line}\nZ=1\n"));
            assert_eq!(wrong.len(), 1, "{line}: {wrong:?}");
            assert_eq!(wrong[0].why, why, "{line}");
            assert_eq!(wrong[0].span, at, "{line}");
            assert_eq!(found.last().unwrap().name, "Z", "{line}");
        }
    }

    #[test]
    fn a_quote_without_an_end_is_pointed_at() {
        for text in ["A='b\nC=1", "A=\"b\nC=1", "A=(b\nC=1"] {
            let (_, wrong) = read(text);
            assert_eq!(wrong.len(), 1, "{text}");
            assert!(wrong[0].why.ends_with("has no end"), "{text}");
        }
    }
}

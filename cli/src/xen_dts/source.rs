//! Device-tree source as text: nodes, properties, comments. Knows the syntax and no binding.

use std::fmt::Write as _;

/// Source that is being written.
#[derive(Default)]
pub struct Source {
    text: String,
    depth: usize,
}

impl Source {
    /// One line at the current depth.
    fn line(&mut self, line: &str) {
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n('\t', self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    /// A line that stands for itself, such as `/dts-v1/;`; empty for none.
    pub fn plain(&mut self, line: &str) {
        self.line(line);
    }

    /// A comment of one line.
    pub fn comment(&mut self, text: &str) {
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let plain: String = text.chars().map(shown).collect();
        // A backslash at the end would go on in the next line.
        self.line(format!("// {plain}").trim_end_matches(['\\', ' ']));
    }

    /// A node, by its name or reference.
    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.line(&format!("{name} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("};");
    }

    /// A property without a value.
    pub fn flag(&mut self, name: &str) {
        self.line(&format!("{name};"));
    }

    /// 32-bit cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        let cells: Vec<String> = cells.iter().map(u32::to_string).collect();
        self.line(&format!("{name} = <{}>;", cells.join(" ")));
    }

    /// Numbers of two cells each.
    pub fn numbers(&mut self, name: &str, numbers: &[u64]) {
        let cells: Vec<String> = numbers
            .iter()
            .map(|number| format!("{:#x} {:#x}", number >> 32, number & 0xffff_ffff))
            .collect();
        self.line(&format!("{name} = <{}>;", cells.join("  ")));
    }

    /// Strings.
    pub fn strings(&mut self, name: &str, strings: &[&str]) {
        let quoted: Vec<String> = strings.iter().map(|text| quoted(text)).collect();
        self.line(&format!("{name} = {};", quoted.join(", ")));
    }

    /// All that was written.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A string as the compiler takes it: what isn't printable ASCII by its bytes. A zero byte ends a string, so that none is
/// written.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes().filter(|byte| *byte != 0) {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_is_the_compilers() {
        let mut source = Source::default();
        source.plain("/dts-v1/;");
        source.node("chosen", |chosen| {
            chosen.comment("a\nb \\");
            chosen.cells("cpus", &[2]);
            chosen.numbers("memory", &[0x1_0000_0002]);
            chosen.flag("vpl011");
            chosen.strings("bootargs", &["a=\"b\\c\" ä", "d\0\n"]);
        });
        let expected = "/dts-v1/;\n\
            chosen {\n\
            \t// a b\n\
            \tcpus = <2>;\n\
            \tmemory = <0x1 0x2>;\n\
            \tvpl011;\n\
            \tbootargs = \"a=\\\"b\\\\c\\\" \\xc3\\xa4\", \"d\\x0a\";\n\
            };\n";
        assert_eq!(source.into_text(), expected);
    }
}

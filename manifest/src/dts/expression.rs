//! Numbers: literals, and C's expressions in parentheses.
//!
//! All of them are unsigned and 64 bits wide, and wrap, as dtc has it.

use super::scan::Scanner;
use super::text::Span;

/// How deep parentheses and operators may nest.
const MAX_DEPTH: usize = 64;

/// What binds weakest first. A longer operator stands before one that it begins with.
const OPERATORS: [(&str, u8); 18] = [
    ("||", 1),
    ("&&", 2),
    ("|", 3),
    ("^", 4),
    ("&", 5),
    ("==", 6),
    ("!=", 6),
    ("<<", 8),
    (">>", 8),
    ("<=", 7),
    (">=", 7),
    ("<", 7),
    (">", 7),
    ("+", 9),
    ("-", 9),
    ("*", 10),
    ("/", 10),
    ("%", 10),
];

impl Scanner<'_> {
    /// A number as it stands in a list: a literal, a character or an expression in parentheses. `None` if none comes next;
    /// a wrong one is noted and counts as 0.
    pub(super) fn number(&mut self) -> Option<(u64, Span)> {
        self.number_within(MAX_DEPTH)
    }

    fn number_within(&mut self, depth: usize) -> Option<(u64, Span)> {
        match self.peek()? {
            b'(' => {
                let start = self.eat("(")?;
                let value = self.expression(depth.checked_sub(1));
                if self.eat(")").is_none() {
                    let here = self.behind();
                    let why = "an expression ends with a parenthesis";
                    self.faults.add(here, "`)` is missing behind this", why, "");
                }
                Some((value, self.since(start)))
            }
            b'\'' => {
                let (bytes, span) = self.character();
                let bytes = bytes.unwrap_or_default();
                if bytes.len() != 1 {
                    let why = format!("this literal has {} characters instead of 1", bytes.len());
                    self.faults.add(span, "not one character", why, "");
                }
                Some((u64::from(bytes.first().copied().unwrap_or(0)), span))
            }
            b'0'..=b'9' => {
                let (word, span) = self.word()?;
                let value = literal(&word).unwrap_or_else(|why| {
                    self.faults.add(span, "not a number", why, "");
                    0
                });
                Some((value, span))
            }
            _ => None,
        }
    }

    /// An expression. Without depth it nests too deep.
    fn expression(&mut self, depth: Option<usize>) -> u64 {
        let Some(depth) = depth else {
            let here = self.span(1);
            let why = format!("expressions nest at most {MAX_DEPTH} deep");
            self.faults.add(here, "too deep", why, "");
            self.stop();
            return 0;
        };
        let condition = self.binary(0, depth);
        if self.eat("?").is_none() {
            return condition;
        }
        let yes = self.expression(depth.checked_sub(1));
        if self.eat(":").is_none() {
            let here = self.behind();
            let why = "a condition has two results";
            self.faults.add(here, "`:` is missing behind this", why, "");
            return 0;
        }
        let no = self.expression(depth.checked_sub(1));
        if condition != 0 { yes } else { no }
    }

    /// Operators that bind stronger than `level`.
    fn binary(&mut self, level: u8, depth: usize) -> u64 {
        let mut left = self.unary(depth);
        loop {
            let next = OPERATORS.iter().find(|(text, _)| self.is_next(text));
            let Some((text, binds)) = next.filter(|(_, binds)| *binds > level) else {
                return left;
            };
            let Some(span) = self.eat(text) else {
                return left;
            };
            let right = match depth.checked_sub(1) {
                Some(depth) => self.binary(*binds, depth),
                None => self.expression(None),
            };
            left = apply(text, left, right).unwrap_or_else(|| {
                self.faults.add(span, "here", "this divides by zero", "");
                0
            });
        }
    }

    fn unary(&mut self, depth: usize) -> u64 {
        let mut signs = Vec::new();
        while let Some(sign @ (b'-' | b'~' | b'!')) = self.peek() {
            signs.push(sign);
            self.skip_one();
        }
        let value = match self.number_within(depth) {
            Some((value, _)) => value,
            None => {
                self.no_number();
                0
            }
        };
        signs.iter().rev().fold(value, |value, sign| match sign {
            b'-' => value.wrapping_neg(),
            b'~' => !value,
            _ => u64::from(value == 0),
        })
    }

    /// Notes that no number comes where one belongs, and takes the word that comes instead. Whether there was one.
    pub(super) fn no_number(&mut self) -> bool {
        match self.word() {
            Some((word, span)) => {
                if !self.is_unprocessed {
                    let why = format!("`{word}` is a name, and a number belongs here");
                    let help =
                        "if it is a macro of the C preprocessor, run the source through cpp first";
                    self.faults.add(span, "not a number", why, help);
                }
                true
            }
            None => {
                let here = self.span(1);
                self.faults
                    .add(here, "not a number", "a number belongs here", "");
                false
            }
        }
    }
}

fn apply(operator: &str, left: u64, right: u64) -> Option<u64> {
    let shift = u32::try_from(right).ok();
    Some(match operator {
        "||" => u64::from(left != 0 || right != 0),
        "&&" => u64::from(left != 0 && right != 0),
        "|" => left | right,
        "^" => left ^ right,
        "&" => left & right,
        "==" => u64::from(left == right),
        "!=" => u64::from(left != right),
        "<" => u64::from(left < right),
        ">" => u64::from(left > right),
        "<=" => u64::from(left <= right),
        ">=" => u64::from(left >= right),
        "<<" => shift.and_then(|by| left.checked_shl(by)).unwrap_or(0),
        ">>" => shift.and_then(|by| left.checked_shr(by)).unwrap_or(0),
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        "/" => left.checked_div(right)?,
        _ => left.checked_rem(right)?,
    })
}

/// C's integer literals: decimal, `0x`, octal behind a 0, with or without `U` and `L`.
fn literal(word: &str) -> Result<u64, String> {
    let digits = ["ULL", "UL", "LL", "U", "L"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix))
        .unwrap_or(word);
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (digits, radix, kind) = match hexadecimal {
        Some(digits) => (digits, 16, "a hexadecimal number"),
        None if digits.len() > 1 && digits.starts_with('0') => {
            (digits, 8, "an octal number, as the 0 before it says")
        }
        None => (digits, 10, "a number"),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(format!("`{word}` isn't {kind}"));
    }
    u64::from_str_radix(digits, radix).map_err(|_| format!("`{word}` takes more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::super::scan::NoFiles;
    use super::*;

    fn value(text: &str) -> Option<u64> {
        let mut files = NoFiles;
        let mut scanner = Scanner::new("x".to_owned(), text.as_bytes().to_vec(), &mut files);
        let value = scanner.number()?.0;
        (scanner.faults.is_empty() && scanner.peek().is_none()).then_some(value)
    }

    #[test]
    fn literals_are_cs() {
        assert_eq!(value("10"), Some(10));
        assert_eq!(value("010"), Some(8));
        assert_eq!(value("0x10UL"), Some(16));
        assert_eq!(value("0xffffffffffffffffULL"), Some(u64::MAX));
        assert_eq!(value("'a'"), Some(97));
        assert_eq!(value("'\\n'"), Some(10));
        assert_eq!(value("09"), None);
        assert_eq!(value("0x1_0000"), None);
        assert_eq!(value("0x10000000000000000"), None);
        assert_eq!(value("''"), None);
    }

    #[test]
    fn operators_bind_as_in_c() {
        assert_eq!(value("(1 + 2 * 3)"), Some(7));
        assert_eq!(value("((1 + 2) * 3)"), Some(9));
        assert_eq!(value("(10 - 4 - 3)"), Some(3));
        assert_eq!(value("(1 << 4 | 1)"), Some(17));
        assert_eq!(value("(1 << 2 + 1)"), Some(8));
        assert_eq!(value("(6 & 3 == 3)"), Some(0));
        assert_eq!(value("(1 || 0 && 0)"), Some(1));
        assert_eq!(value("(-1)"), Some(u64::MAX));
        assert_eq!(value("(~0 >> 60)"), Some(15));
        assert_eq!(value("(!0 + !5)"), Some(1));
        assert_eq!(value("(0 ? 1 : 0 ? 2 : 3)"), Some(3));
        assert_eq!(value("(1 << 64)"), Some(0));
        assert_eq!(value("(7 % 4 <= 3 != 0)"), Some(1));
        assert_eq!(value("(1 / 0)"), None);
        assert_eq!(value("(1 + )"), None);
        assert_eq!(value("(1"), None);
    }

    #[test]
    fn deep_nesting_ends() {
        for open in ["(", "(1+(", "(-(", "(1?2:("] {
            assert_eq!(value(&open.repeat(100_000)), None);
        }
        assert_eq!(
            value(&format!("({}1)", "-".repeat(100_000))),
            Some(1),
            "signs are a loop"
        );
    }
}

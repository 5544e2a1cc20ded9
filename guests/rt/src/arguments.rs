//! Boot arguments: words `key=value` or `key`, parted by spaces, as Linux has them.

/// The value of the first word `key=value`, or `None`.
pub fn value<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    arguments
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The value of `key=value` as a number, decimal or with `0x`; `None` if it is absent or not a number.
pub fn number(arguments: &str, key: &str) -> Option<u64> {
    parse(value(arguments, key)?)
}

/// The ranges of `key=START+SIZE,START+SIZE...`, numbers as in [`number`]; a malformed range is left out.
pub fn ranges<'a>(arguments: &'a str, key: &str) -> impl Iterator<Item = (u64, u64)> + 'a {
    value(arguments, key)
        .unwrap_or_default()
        .split(',')
        .filter_map(|range| {
            let (start, size) = range.split_once('+')?;
            Some((parse(start)?, parse(size)?))
        })
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{number, ranges, value};

    #[test]
    fn reads_words() {
        let line = "end=off  top=0x8000_0 seed=42 top=7 quiet";
        assert_eq!(value(line, "end"), Some("off"));
        assert_eq!(value(line, "en"), None);
        assert_eq!(value(line, "quiet"), None);
        assert_eq!(number(line, "seed"), Some(42));
        assert_eq!(number(line, "top"), None);
        assert_eq!(number("top=0x4000", "top"), Some(0x4000));
    }

    #[test]
    fn reads_ranges() {
        let line = "mmio=0x9000000+0x1000,bad,0x8000000+65536";
        let all: Vec<_> = ranges(line, "mmio").collect();
        assert_eq!(all, [(0x900_0000, 0x1000), (0x800_0000, 0x1_0000)]);
        assert_eq!(ranges("", "mmio").count(), 0);
    }
}

//! Sizes and addresses as a manifest writes them.

/// Units of sizes, in bytes.
const UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number in a string: decimal, or hexadecimal behind `0x`, with underscores between digits and
/// a unit behind it ("256MiB", "0xffff_ffff_f000_0000"). `None` if it is none, or more than 64
/// bits.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, bytes)| Some((text.strip_suffix(name)?.trim_end(), *bytes)))
        .unwrap_or((text, 1));
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    parse_digits(digits, radix)?.checked_mul(unit)
}

/// Digits of a radix from 2 to 16, with underscores between them and no sign.
pub(super) fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    let plain: String = digits.chars().filter(|&digit| digit != '_').collect();
    let signed = plain.starts_with(['+', '-']);
    if signed || digits.starts_with('_') || digits.ends_with('_') {
        return None;
    }
    u64::from_str_radix(&plain, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_bases() {
        assert_eq!(parse("256MiB"), Some(256 << 20));
        assert_eq!(parse("2 GiB"), Some(2 << 30));
        assert_eq!(parse("0xffff_ffff_f000_0000"), Some(0xffff_ffff_f000_0000));
        assert_eq!(parse("1_000"), Some(1000));
        assert_eq!(parse("0"), Some(0));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "",
            "MiB",
            "256MB",
            "256mib",
            "-1",
            "+1",
            "0x",
            "1__",
            "_1",
            "1.5GiB",
            "0x1_0000_0000_0000_0000",
            "16777216TiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! What Linux shows of its machine, for the harness to compare with the plan.

use std::fs;

use anyhow::{Context as _, Result, ensure};

/// `[WORD]`: the features word of the hypervisor, compared if one is given (hexadecimal, `0x` or not).
///
/// # Errors
/// No hypervisor of Xen's ABI, or another word.
pub fn features(arguments: &[&str]) -> Result<String> {
    let text = fs::read_to_string("/sys/hypervisor/properties/features")
        .context("no hypervisor in sysfs")?;
    let seen = number(text.trim())?;
    if let Some(expected) = arguments.first() {
        ensure!(
            seen == number(expected)?,
            "features={seen:#x}, not {expected}"
        );
    }
    let version = ["major", "minor"].map(|part| {
        let path = format!("/sys/hypervisor/version/{part}");
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    });
    Ok(format!("features={seen:#x} version={}", version.join(".")))
}

fn number(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).with_context(|| format!("not a number: {text}"))
}

/// Prints /proc/iomem, /proc/interrupts and MemTotal, a `fact` a line.
///
/// # Errors
/// A file that can't be read.
pub fn print() -> Result<String> {
    for (kind, path) in [("iomem", "/proc/iomem"), ("interrupt", "/proc/interrupts")] {
        let text = fs::read_to_string(path).with_context(|| format!("no {path}"))?;
        for line in text.lines() {
            println!("fact {kind} {line}");
        }
    }
    let meminfo = fs::read_to_string("/proc/meminfo").context("no /proc/meminfo")?;
    let total = field(&meminfo, "MemTotal:").context("no MemTotal")?;
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").context("no CPUs in sysfs")?;
    let boot = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    println!("fact cmdline {}", boot.trim());
    println!("fact cpus {}", cpus.trim());
    println!("fact ram-kib {}", ram_kib()?);
    println!("fact mem-total-kib {total}");
    Ok(String::new())
}

/// All "System RAM" of /proc/iomem, in KiB: what the tree's memory nodes gave.
fn ram_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/iomem").context("no /proc/iomem")?;
    let ranges = text.lines().filter(|line| !line.starts_with(' '));
    Ok(ranges.filter_map(ram_bytes).sum::<u64>() / 1024)
}

fn ram_bytes(line: &str) -> Option<u64> {
    let (range, name) = line.split_once(" : ")?;
    let (start, last) = range.trim().split_once('-')?;
    let parse = |text| u64::from_str_radix(text, 16).ok();
    let bytes = parse(last)?.checked_sub(parse(start)?)? + 1;
    (name == "System RAM" || name == "reserved").then_some(bytes)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::{field, number, ram_bytes};

    #[test]
    fn reads_numbers_and_fields() {
        assert!(matches!(number("00066805"), Ok(0x66805)));
        assert!(number("xyz").is_err());
        assert_eq!(
            field("A: 1 kB\nMemTotal:   42 kB\n", "MemTotal:"),
            Some("42")
        );
    }

    #[test]
    fn counts_ram() {
        assert_eq!(ram_bytes("40000000-5fffffff : System RAM"), Some(512 << 20));
        assert_eq!(ram_bytes("09000000-09000fff : pl011@9000000"), None);
    }
}

//! What a Linux guest told about itself on its console: lines `fact NAME VALUE...` of the task, and lines
//! `check NAME: pass|fail ...` of the checker (guests/checker).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};

use crate::initramfs::STATUS;

/// A guest's facts.
pub struct Facts {
    values: BTreeMap<String, Vec<String>>,
    checks: BTreeMap<String, String>,
    status: Option<u8>,
}

impl Facts {
    /// Reads a console's text.
    pub fn read(console: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut checks = BTreeMap::new();
        let mut status = None;
        for line in console.lines() {
            let line = line.trim_end();
            if let Some(fact) = line.strip_prefix("fact ") {
                let (name, value) = fact.split_once(' ').unwrap_or((fact, ""));
                values
                    .entry(name.to_owned())
                    .or_default()
                    .push(value.to_owned());
            } else if let Some((name, outcome)) = line
                .strip_prefix("check ")
                .and_then(|check| check.split_once(": "))
            {
                checks.insert(name.to_owned(), outcome.to_owned());
            } else if let Some(number) = line.strip_prefix(STATUS) {
                status = number.trim().parse().ok();
            }
        }
        Self {
            values,
            checks,
            status,
        }
    }

    /// Every value of a fact that may be told many times.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a fact that is told once.
    pub fn one(&self, name: &str) -> Result<&str> {
        match self.all(name) {
            [value] => Ok(value),
            values => Err(anyhow::anyhow!(
                "the guest told `{name}` {} times, not once",
                values.len()
            )),
        }
    }

    /// Fails unless the fact has this value.
    pub fn expect(&self, name: &str, value: &str) -> Result<()> {
        let told = self.one(name)?;
        ensure!(told == value, "fact {name} is `{told}`, not `{value}`");
        Ok(())
    }

    /// Fails unless the checker has done this check, and it passed. Gives what it saw.
    pub fn expect_check(&self, name: &str) -> Result<&str> {
        let outcome = self.checks.get(name).map_or("not done", String::as_str);
        ensure!(outcome.starts_with("pass"), "check {name}: {outcome}");
        Ok(outcome)
    }

    /// Fails unless the guest's task ended with status 0.
    pub fn expect_success(&self) -> Result<()> {
        match self.status {
            Some(0) => Ok(()),
            Some(status) => anyhow::bail!("the guest's task ended with {status}"),
            None => anyhow::bail!("the guest never came to the end of its task"),
        }
    }

    /// The ranges of `/proc/iomem` (lines as facts `iomem`) with this name, at the top level or below.
    pub fn iomem(&self, name: &str) -> Vec<RangeInclusive<u64>> {
        let lines = self.all("iomem").iter();
        lines
            .filter_map(|line| {
                let (range, told) = line.split_once(" : ")?;
                let (start, end) = range.trim().split_once('-')?;
                let range =
                    u64::from_str_radix(start, 16).ok()?..=u64::from_str_radix(end, 16).ok()?;
                (told == name).then_some(range)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_status_and_memory_ranges_are_read() {
        let facts = Facts::read(
            "noise\r\nfact cpus 4\r\nfact iomem 40000000-bfffffff : System RAM\nfact iomem   08000000-0800ffff : GICD\n\
             check edu-dma: pass page=0x41000\ncheck cpus: fail online=1\nterrane-guest: status 0\n",
        );
        assert!(facts.expect_check("edu-dma").is_ok());
        assert!(facts.expect_check("cpus").is_err());
        assert!(facts.expect_check("balloon").is_err());
        assert!(facts.expect("cpus", "4").is_ok());
        assert_eq!(facts.iomem("System RAM"), [0x4000_0000..=0xbfff_ffff]);
        assert_eq!(facts.iomem("GICD"), [0x0800_0000..=0x0800_ffff]);
        assert!(facts.expect_success().is_ok());
        assert!(facts.one("absent").is_err());
    }
}

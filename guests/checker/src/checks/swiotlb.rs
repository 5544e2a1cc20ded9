//! Whether swiotlb-xen is in use, and whether anything bounced.
//!
//! Two trace instances, each with one kind of event, so that the ring buffers' own counters give exact numbers even when
//! the buffers overflow: the event `swiotlb_bounced`, and the function tracer on swiotlb-xen's mapping functions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

const TRACING: &str = "/sys/kernel/tracing";

fn instance(name: &str) -> PathBuf {
    Path::new(TRACING).join("instances").join(name)
}

/// Begins to count; to be called before the drivers load.
///
/// # Errors
/// A kernel without these traces.
pub fn start() -> Result<()> {
    let bounced = instance("terrane-bounced");
    fs::create_dir(&bounced).context("cannot make a trace instance")?;
    fs::write(bounced.join("events/swiotlb/swiotlb_bounced/enable"), "1")
        .context("no event swiotlb_bounced")?;
    let mapped = instance("terrane-mapped");
    fs::create_dir(&mapped).context("cannot make a trace instance")?;
    // The pattern takes xen_swiotlb_map_page, _map_sg and their later names.
    fs::write(mapped.join("set_ftrace_filter"), "xen_swiotlb_map_*")
        .context("no function xen_swiotlb_map_*")?;
    fs::write(mapped.join("current_tracer"), "function").context("no function tracer")?;
    Ok(())
}

/// Events that an instance saw: those in its buffers and those that these lost.
fn events(instance: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(instance.join("per_cpu")).context("not started")? {
        let text = fs::read_to_string(entry?.path().join("stats"))?;
        total += counted(&text);
    }
    Ok(total)
}

fn counted(stats: &str) -> u64 {
    stats
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            matches!(name, "entries" | "overrun").then(|| value.trim().parse::<u64>().ok())?
        })
        .sum()
}

/// Passes when swiotlb-xen mapped pages and bounced none.
///
/// # Errors
/// A bounce, no mapping at all, or no trace.
pub fn check() -> Result<String> {
    let bounced = events(&instance("terrane-bounced"))?;
    let mapped = events(&instance("terrane-mapped"))?;
    ensure!(bounced == 0, "mapped={mapped} bounced={bounced}");
    if mapped == 0 {
        bail!("swiotlb-xen mapped nothing");
    }
    Ok(format!("mapped={mapped} bounced={bounced}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_what_is_kept_and_what_is_lost() {
        let text = "entries: 12\noverrun: 3\ncommit overrun: 0\nbytes: 400\n";
        assert_eq!(super::counted(text), 15);
    }
}

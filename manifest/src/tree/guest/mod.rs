//! The device tree that a domain gets.

use layout::DomainRequest;

use super::blob::Tree;

/// What a guest's tree has beside the host's nodes and its own command line, in bytes, generously.
const OWN_BYTES: u64 = 8 << 10;

/// Bytes of one CPU's node, generously.
const CPU_BYTES: u64 = 256;

/// The bytes to set aside for a domain's tree, a multiple of 4 KiB: on workstation and machine the same, so that the
/// plan is.
#[must_use]
pub fn budget(host: &Tree<'_>, domain: &DomainRequest) -> u64 {
    let from_host = if domain.identity().is_hardware() {
        host.used_bytes() as u64
    } else {
        0
    };
    let partial = domain
        .partial_tree
        .as_ref()
        .map_or(0, |partial| partial.module.size());
    let cpus = u64::from(domain.cpus.value).saturating_mul(CPU_BYTES);
    [from_host, partial, domain.command_line.len() as u64, cpus]
        .iter()
        .fold(OWN_BYTES, |sum, &bytes| sum.saturating_add(bytes))
        .checked_next_multiple_of(4096)
        .unwrap_or(u64::MAX)
}

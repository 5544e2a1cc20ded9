//! Static shared memory and event channels: nodes under a domain's, or under `/chosen` for the classic hardware domain.
//!
//! An event channel of Xen's binding names the other end's node by phandle. The workstation writes the peer's name and
//! port instead, so that ends that don't agree can be written too.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{Code, EventChannelRequest, ShareRole, SharedMemoryRequest};

use super::property;
use super::read::Reader;
use super::words::Word;
use crate::tree::blob::{Cells, Node};
use crate::tree::writer::Writer;

const SHARED: &str = "xen,domain-shared-memory-v1";
const CHANNEL: &str = "xen,evtchn-v1";

/// Writes a domain's end of shared memory; the node above has two cells for address and size.
pub(super) fn write_shared(node: &mut Writer, shared: &SharedMemoryRequest) {
    node.string("compatible", SHARED);
    node.string("xen,shm-id", &shared.id);
    node.string("role", shared.role.word());
    let numbers = [shared.start.unwrap_or(0), shared.address, shared.size];
    let from = usize::from(shared.start.is_none());
    node.numbers("xen,shared-mem", numbers.get(from..).unwrap_or_default());
    if shared.read_only {
        node.flag(property::READ_ONLY);
    }
}

/// Writes a domain's end of an event channel.
pub(super) fn write_channel(node: &mut Writer, channel: &EventChannelRequest) {
    node.string("compatible", CHANNEL);
    node.cells(property::PORT, &[channel.port]);
    node.string(property::PEER, &channel.peer);
    node.cells(property::PEER_PORT, &[channel.peer_port]);
}

impl Reader<'_, '_> {
    /// The ends that stand under a node.
    pub(super) fn links(
        &mut self,
        parent: Node<'_, '_>,
    ) -> (Vec<SharedMemoryRequest>, Vec<EventChannelRequest>) {
        let (mut shared, mut channels) = (Vec::new(), Vec::new());
        for node in parent.children() {
            if node.is_compatible(SHARED) {
                shared.extend(self.shared(parent, node));
            } else if node.is_compatible(CHANNEL) || node.is_compatible("xen,evtchn") {
                channels.extend(self.channel(node));
            }
        }
        (shared, channels)
    }

    fn shared(&mut self, parent: Node<'_, '_>, node: Node<'_, '_>) -> Option<SharedMemoryRequest> {
        const NAME: &str = "xen,shared-mem";
        self.check_names(node, &[&property::OF_ALL, &property::OF_SHARED], false);
        let whole = self.origin(node);
        let (address_cells, size_cells) = parent.child_cells();
        let value = node.value(NAME).unwrap_or_default();
        let mut cells = Cells::new(value);
        let has = |addresses: usize| {
            value.len() / 4
                == address_cells
                    .saturating_mul(addresses)
                    .saturating_add(size_cells)
        };
        let start = match has(2) {
            true => cells.next_number(address_cells),
            false => None,
        };
        let range = cells
            .next_number(address_cells)
            .zip(cells.next_number(size_cells))
            .filter(|_| has(1) || has(2) && start.is_some());
        if range.is_none() {
            let why =
                "it is not a guest address and a size, with or without a machine address before";
            let help = format!(
                "{address_cells} cells for each address and {size_cells} for the size, by the node above"
            );
            self.wrong(node, NAME, Code::WrongType, NAME, why, &help);
        }
        let id = node.string("xen,shm-id").filter(|id| !id.is_empty());
        if id.is_none() {
            let (what, why) = ("no xen,shm-id", "shared memory is known by its name");
            let help = "xen,shm-id = \"NAME\";";
            self.problem_with_help(whole, Code::KeyMissing, what, why, help);
        }
        let role = self.optional_choice(node, "role");
        let (address, size) = range?;
        Some(SharedMemoryRequest {
            id: id?.to_owned(),
            size,
            // Xen's default.
            role: role.unwrap_or(ShareRole::Borrower),
            start,
            address,
            read_only: node.has(property::READ_ONLY),
            origin: self.at_value(whole, node, NAME),
        })
    }

    fn channel(&mut self, node: Node<'_, '_>) -> Option<EventChannelRequest> {
        const NAME: &str = "xen,evtchn";
        self.check_names(node, &[&property::OF_ALL, &property::OF_CHANNEL], false);
        let whole = self.origin(node);
        if node.has(property::PEER) {
            return Some(EventChannelRequest {
                port: self.cell(node, property::PORT)?,
                peer: node.string(property::PEER)?.to_owned(),
                peer_port: self.cell(node, property::PEER_PORT)?,
                origin: whole,
            });
        }
        let Some((port, phandle)) = port_and_peer(node) else {
            let why = "it is not a port and a reference to the other end's node";
            let help = "xen,evtchn = <PORT &OTHER>;";
            self.wrong(node, NAME, Code::WrongType, NAME, why, help);
            return None;
        };
        let peer = node.tree().by_phandle(phandle);
        let peer = peer.and_then(|peer| Some((domain_of(peer)?, port_and_peer(peer)?.0)));
        let Some((peer, peer_port)) = peer else {
            let what = format!("{NAME} = <{port} {phandle:#x}>");
            let why = "the reference leads to no event channel of a domain";
            let help = "refer to a node of compatible \"xen,evtchn-v1\"";
            self.wrong(node, NAME, Code::EventChannelEnds, &what, why, help);
            return None;
        };
        Some(EventChannelRequest {
            port,
            peer,
            peer_port,
            origin: self.at_value(whole, node, NAME),
        })
    }
}

/// The port, and the phandle of the other end's node.
fn port_and_peer(node: Node<'_, '_>) -> Option<(u32, u32)> {
    let mut cells = Cells::new(node.value("xen,evtchn")?);
    let both = cells.next_u32().zip(cells.next_u32());
    both.filter(|_| cells.is_empty())
}

/// The name of the domain that an end stands under.
fn domain_of(node: Node<'_, '_>) -> Option<String> {
    let parent = node.parent()?;
    if parent.is_compatible("xen,domain") {
        let name = parent.string(property::NAME).unwrap_or(parent.name());
        return Some(name.to_owned());
    }
    (parent.name() == "chosen").then(|| "dom0".to_owned())
}

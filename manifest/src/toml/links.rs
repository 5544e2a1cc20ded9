//! `shared-memory` and `event-channels` of a `[[domain]]`.

use layout::{EventChannelRequest, ShareRole, SharedMemoryRequest};
use toml::de::DeTable;

use super::reader::{Reader, Value, value};

impl Reader<'_> {
    /// The items of `shared-memory` that have all that they need.
    pub(super) fn shared_memory(&mut self, table: &DeTable<'_>) -> Vec<SharedMemoryRequest> {
        let Some(list) = value(table, "shared-memory") else {
            return Vec::new();
        };
        let known = ["id", "size", "role", "start", "address", "read-only"];
        let items = self.list(&list);
        let read = |item: &Value<'_>| {
            let table = self.table(item)?;
            self.check_keys(table, &known, "an item of `shared-memory`");
            let id = self.needed(item, table, "id").and_then(|at| self.text(&at));
            let size = self.needed(item, table, "size");
            let size = size.and_then(|at| self.number(&at));
            let address = self.needed(item, table, "address");
            let address = address.and_then(|at| self.number(&at));
            let role = self.needed(item, table, "role");
            let role = role.and_then(|at| self.word::<ShareRole>(&at));
            let start = value(table, "start").and_then(|at| self.number(&at));
            let read_only = value(table, "read-only").and_then(|at| self.flag(&at));
            Some(SharedMemoryRequest {
                id: id?,
                size: size?,
                role: role?,
                start,
                address: address?,
                read_only: read_only.unwrap_or_default(),
                origin: self.origin(item.span()),
            })
        };
        items.iter().filter_map(read).collect()
    }

    /// The items of `event-channels` that have all that they need.
    pub(super) fn event_channels(&mut self, table: &DeTable<'_>) -> Vec<EventChannelRequest> {
        let Some(list) = value(table, "event-channels") else {
            return Vec::new();
        };
        let items = self.list(&list);
        let read = |item: &Value<'_>| {
            let table = self.table(item)?;
            let known = ["port", "peer", "peer-port"];
            self.check_keys(table, &known, "an item of `event-channels`");
            let port = self.needed(item, table, "port");
            let port = port.and_then(|at| self.count(&at));
            let peer = self.needed(item, table, "peer");
            let peer = peer.and_then(|at| self.text(&at));
            let peer_port = self.needed(item, table, "peer-port");
            let peer_port = peer_port.and_then(|at| self.count(&at));
            Some(EventChannelRequest {
                port: port?,
                peer: peer?,
                peer_port: peer_port?,
                origin: self.origin(item.span()),
            })
        };
        items.iter().filter_map(read).collect()
    }

    /// The value of a key that an item must have.
    fn needed<'a>(
        &mut self,
        item: &Value<'_>,
        table: &'a DeTable<'a>,
        key: &str,
    ) -> Option<Value<'a>> {
        let found = value(table, key);
        if found.is_none() {
            let why = format!("an item of `{}` has a `{key}`", item.key);
            self.missing(key, item.span(), &why);
        }
        found
    }
}

//! The table of mappings: found from inside by socket and destination, from outside by port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::Protocol;

/// What a mapping policy tells destinations apart by: nothing, the address, or address and port.
pub(crate) type Towards = Option<(IpAddr, Option<u16>)>;

/// Destinations that one mapping remembers for filtering.
const MOST_USED: usize = 8192;

/// An external port and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub inside: SocketAddr,
    towards: Towards,
    /// The destinations it was used for.
    pub used: BTreeSet<SocketAddr>,
    pub ends: Instant,
}

/// All mappings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    by_flow: BTreeMap<(Protocol, SocketAddr, Towards), u16>,
    by_port: BTreeMap<(Protocol, u16), Entry>,
}

impl Entry {
    /// Notes a destination; false if there is no room for another.
    pub fn use_for(&mut self, destination: SocketAddr) -> bool {
        if self.used.len() >= MOST_USED && !self.used.contains(&destination) {
            return false;
        }
        self.used.insert(destination);
        true
    }
}

impl Table {
    /// The port of a flow whose mapping lives.
    pub fn port(&self, now: Instant, flow: (Protocol, SocketAddr, Towards)) -> Option<u16> {
        let port = *self.by_flow.get(&flow)?;
        self.entry(now, flow.0, port).map(|_| port)
    }

    /// The mapping of a port, if it lives.
    pub fn entry(&self, now: Instant, protocol: Protocol, port: u16) -> Option<&Entry> {
        self.by_port.get(&(protocol, port)).filter(|entry| entry.ends > now)
    }

    /// The same, to change it.
    pub fn entry_mut(&mut self, now: Instant, protocol: Protocol, port: u16) -> Option<&mut Entry> {
        self.by_port.get_mut(&(protocol, port)).filter(|entry| entry.ends > now)
    }

    /// The living mappings of an inside socket.
    pub fn of_socket(
        &self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
    ) -> impl Iterator<Item = &Entry> {
        self.by_flow
            .range((protocol, inside, None)..)
            .take_while(move |((p, i, _), _)| (*p, *i) == (protocol, inside))
            .filter_map(move |(_, port)| self.entry(now, protocol, *port))
    }

    /// Whether a protocol has no room for another mapping beside `most`.
    pub fn is_full(&mut self, now: Instant, protocol: Protocol, most: usize) -> bool {
        self.by_port.len() >= most && self.count(now, protocol) >= most
    }

    /// How many mappings of a protocol live. Those that do not are removed.
    pub fn count(&mut self, now: Instant, protocol: Protocol) -> usize {
        self.by_port.retain(|_, entry| entry.ends > now);
        let Self { by_flow, by_port } = self;
        by_flow.retain(|(protocol, inside, towards), port| {
            by_port.get(&(*protocol, *port)).is_some_and(|e| e.inside == *inside && e.towards == *towards)
        });
        self.by_port.range((protocol, 0)..=(protocol, u16::MAX)).count()
    }

    /// Gives a port to a flow, taking it from a mapping that lives no more.
    pub fn insert(&mut self, flow: (Protocol, SocketAddr, Towards), port: u16, ends: Instant) {
        let (protocol, inside, towards) = flow;
        let entry = Entry { inside, towards, used: BTreeSet::new(), ends };
        if let Some(old) = self.by_port.insert((protocol, port), entry) {
            self.by_flow.remove(&(protocol, old.inside, old.towards));
        }
        self.by_flow.insert(flow, port);
    }
}

//! The table of mappings, indexed by internal socket and destination and by external port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::Protocol;

/// What distinguishes destinations for the mapping behavior: nothing, the address, or address and port.
pub(crate) type DestinationKey = Option<(IpAddr, Option<u16>)>;

/// The maximum number of destinations that a mapping remembers for filtering. Where there are more, those that were used
/// least lately are forgotten, as a router forgets sessions.
const MAX_DESTINATIONS: usize = 8192;

/// The mapping of an external port.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub inside: SocketAddr,
    destination_key: DestinationKey,
    /// The destinations that it was used for, and when last.
    destinations: BTreeMap<SocketAddr, Instant>,
    pub expires: Instant,
}

/// All mappings of a NAT.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    by_flow: BTreeMap<(Protocol, SocketAddr, DestinationKey), u16>,
    by_port: BTreeMap<(Protocol, u16), Entry>,
    /// When each pair of an internal socket and a destination is forgotten, where those are what is counted.
    tracked: BTreeMap<(Protocol, SocketAddr, SocketAddr), Instant>,
}

impl Entry {
    /// Notes that the mapping is used for a destination.
    pub fn use_for(&mut self, now: Instant, destination: SocketAddr) {
        self.destinations.insert(destination, now);
        if self.destinations.len() > MAX_DESTINATIONS {
            let mut used: Vec<Instant> = self.destinations.values().copied().collect();
            let median = *used.select_nth_unstable(MAX_DESTINATIONS / 2).1;
            self.destinations.retain(|_, used| *used > median);
            self.destinations.insert(destination, now);
        }
    }

    /// Returns true if the mapping was used for a destination.
    pub fn was_used_for(&self, destination: SocketAddr) -> bool {
        self.destinations.contains_key(&destination)
    }

    /// Returns true if the mapping was used for any port of an address.
    pub fn was_used_for_address(&self, address: IpAddr) -> bool {
        self.destinations.keys().any(|used| used.ip() == address)
    }
}

impl Table {
    /// Returns the external port of a flow with a live mapping.
    pub fn port(&self, now: Instant, flow: (Protocol, SocketAddr, DestinationKey)) -> Option<u16> {
        let port = *self.by_flow.get(&flow)?;
        self.entry(now, flow.0, port).map(|_| port)
    }

    /// Returns the live mapping of an external port.
    pub fn entry(&self, now: Instant, protocol: Protocol, port: u16) -> Option<&Entry> {
        self.by_port.get(&(protocol, port)).filter(|entry| entry.expires > now)
    }

    /// Returns the live mapping of an external port, to change it.
    pub fn entry_mut(&mut self, now: Instant, protocol: Protocol, port: u16) -> Option<&mut Entry> {
        self.by_port.get_mut(&(protocol, port)).filter(|entry| entry.expires > now)
    }

    /// Returns the live mappings of an internal socket.
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

    /// Tracks a packet of an internal socket to a destination. Returns false if that takes a place and all `capacity`
    /// of them are taken.
    pub fn track(
        &mut self,
        now: Instant,
        (protocol, inside, destination): (Protocol, SocketAddr, SocketAddr),
        expires: Instant,
        capacity: usize,
    ) -> bool {
        let known = self.tracked.get(&(protocol, inside, destination)).is_some_and(|expires| *expires > now);
        if !known && self.count_tracked(now, protocol) >= capacity {
            return false;
        }
        self.tracked.insert((protocol, inside, destination), expires);
        true
    }

    /// Keeps a tracked pair for longer, since a packet came back.
    pub fn refresh_tracked(
        &mut self,
        (protocol, inside, destination): (Protocol, SocketAddr, SocketAddr),
        expires: Instant,
    ) {
        if let Some(known) = self.tracked.get_mut(&(protocol, inside, destination)) {
            *known = expires;
        }
    }

    /// Forgets expired pairs, and returns the number of tracked ones of a protocol.
    pub fn count_tracked(&mut self, now: Instant, protocol: Protocol) -> usize {
        self.tracked.retain(|_, expires| *expires > now);
        self.tracked.keys().filter(|(of, ..)| *of == protocol).count()
    }

    /// Returns true if a protocol has `capacity` live mappings.
    pub fn is_full(&mut self, now: Instant, protocol: Protocol, capacity: usize) -> bool {
        self.by_port.len() >= capacity && self.count(now, protocol) >= capacity
    }

    /// Removes expired mappings, and returns the number of live ones of a protocol.
    pub fn count(&mut self, now: Instant, protocol: Protocol) -> usize {
        self.by_port.retain(|_, entry| entry.expires > now);
        let Self { by_flow, by_port, .. } = self;
        by_flow.retain(|(protocol, inside, destination_key), port| {
            by_port
                .get(&(*protocol, *port))
                .is_some_and(|e| e.inside == *inside && e.destination_key == *destination_key)
        });
        self.by_port.range((protocol, 0)..=(protocol, u16::MAX)).count()
    }

    /// Adds the mapping of a flow, in place of an expired one with the same port.
    pub fn insert(&mut self, flow: (Protocol, SocketAddr, DestinationKey), port: u16, expires: Instant) {
        let (protocol, inside, destination_key) = flow;
        let entry = Entry { inside, destination_key, destinations: BTreeMap::new(), expires };
        if let Some(old) = self.by_port.insert((protocol, port), entry) {
            self.by_flow.remove(&(protocol, old.inside, old.destination_key));
        }
        self.by_flow.insert(flow, port);
    }
}

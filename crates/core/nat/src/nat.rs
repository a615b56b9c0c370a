//! The address translation.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Filtering, Mapping};
use tracing::trace;

use crate::{
    Protocol, Rules, TableUnit,
    ports::Ports,
    table::{DestinationKey, Entry, Table},
};

/// The shortest lifetime of an idle TCP mapping (RFC 5382, REQ-5).
const MIN_TCP_LIFETIME: Duration = Duration::from_secs(124 * 60);

/// A NAT with one external address.
#[derive(Debug, Clone)]
pub struct Nat {
    rules: Rules,
    external: IpAddr,
    table: Table,
    ports: Ports,
}

/// A packet that was hairpinned at the external address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hairpinned {
    /// The source address that the receiver sees.
    pub source: SocketAddr,
    /// The internal socket that receives it.
    pub inside: SocketAddr,
}

impl Nat {
    /// Returns a NAT without mappings. `seed` determines random ports.
    #[must_use]
    pub fn new(seed: u64, outside: IpAddr, rules: Rules) -> Self {
        Self { rules, external: outside, table: Table::default(), ports: Ports::new(seed, &rules) }
    }

    /// Returns its behavior.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns its external address.
    #[must_use]
    pub const fn outside(&self) -> IpAddr {
        self.external
    }

    /// Removes all mappings, as after a restart.
    pub fn reset(&mut self) {
        self.table = Table::default();
    }

    /// Returns the number of live mappings of a protocol.
    pub fn mappings(&mut self, now: Instant, protocol: Protocol) -> usize {
        self.table.count(now, protocol)
    }

    /// Returns the number of places of a protocol's table that are taken.
    pub fn taken(&mut self, now: Instant, protocol: Protocol) -> usize {
        match self.rules.table_unit {
            TableUnit::Mapping => self.table.count(now, protocol),
            TableUnit::Flow => self.table.count_tracked(now, protocol),
        }
    }

    /// Translates a packet from `inside`. Returns its external source address, or `None` if it is dropped, since the
    /// table is full or no port is free.
    pub fn outbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        if !self.track(now, (protocol, inside, destination)) {
            trace!(?protocol, %inside, %destination, reason = "table is full", "outbound packet dropped");
            return None;
        }
        let flow = (protocol, inside, self.destination_key(destination));
        let port = match self.table.port(now, flow) {
            Some(port) => port,
            None => self.map(now, flow)?,
        };
        let expires = now + self.lifetime(protocol);
        let entry = self.table.entry_mut(now, protocol, port)?;
        entry.expires = expires;
        entry.use_for(now, destination);
        Some(SocketAddr::new(self.external, port))
    }

    /// Translates a packet from `source` to `external`. Returns the internal socket, or `None` if it is filtered.
    pub fn inbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        external: SocketAddr,
        source: SocketAddr,
    ) -> Option<SocketAddr> {
        let Some(entry) = self.entry(now, protocol, external) else {
            trace!(?protocol, %external, %source, reason = "no mapping", "inbound packet dropped");
            return None;
        };
        let inside = entry.inside;
        let whole = self.rules.filters_by_socket;
        let own = std::iter::once(entry).filter(|_| !whole);
        let all = self.table.of_socket(now, protocol, inside).filter(|_| whole);
        if !own.chain(all).any(|entry| self.lets_in(entry, source)) {
            trace!(?protocol, %external, %source, reason = "filtered", "inbound packet dropped");
            return None;
        }
        if self.rules.inbound_refreshes {
            let expires = now + self.lifetime(protocol);
            self.table.refresh_tracked((protocol, inside, source), expires);
            self.table.entry_mut(now, protocol, external.port())?.expires = expires;
        }
        Some(inside)
    }

    /// Translates a packet from inside to the external address. Returns `None` if it is dropped.
    pub fn hairpin(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Hairpinned> {
        let source = self.outbound(now, protocol, inside, destination).filter(|_| self.rules.hairpin)?;
        let inside = self.inbound(now, protocol, destination, source)?;
        Some(Hairpinned { source, inside })
    }

    /// Returns the internal socket whose packet to `destination` left from `external`, for ICMP errors from outside
    /// that quote it. Refreshes nothing.
    #[must_use]
    pub fn lookup_inbound(
        &self,
        now: Instant,
        protocol: Protocol,
        external: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let entry = self.entry(now, protocol, external)?;
        entry.was_used_for(destination).then_some(entry.inside)
    }

    /// Returns the external address of `inside` towards `destination` if it has a live mapping, for ICMP errors from
    /// inside. Refreshes nothing.
    #[must_use]
    pub fn lookup_outbound(
        &self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let port = self.table.port(now, (protocol, inside, self.destination_key(destination)))?;
        Some(SocketAddr::new(self.external, port))
    }

    fn entry(&self, now: Instant, protocol: Protocol, external: SocketAddr) -> Option<&Entry> {
        self.table.entry(now, protocol, external.port()).filter(|_| external.ip() == self.external)
    }

    const fn destination_key(&self, destination: SocketAddr) -> DestinationKey {
        match self.rules.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some((destination.ip(), None)),
            Mapping::AddressAndPortDependent => Some((destination.ip(), Some(destination.port()))),
        }
    }

    /// Returns false if the packet needs a place in the table and there is none.
    fn track(&mut self, now: Instant, flow: (Protocol, SocketAddr, SocketAddr)) -> bool {
        let expires = now + self.lifetime(flow.0);
        self.rules.table_unit == TableUnit::Mapping || self.table.track(now, flow, expires, self.rules.table)
    }

    fn map(&mut self, now: Instant, flow: (Protocol, SocketAddr, DestinationKey)) -> Option<u16> {
        let (protocol, inside, _) = flow;
        if self.rules.table_unit == TableUnit::Mapping && self.table.is_full(now, protocol, self.rules.table)
        {
            trace!(?protocol, %inside, reason = "table is full", "outbound packet dropped");
            return None;
        }
        let taken = |port| self.table.entry(now, protocol, port).is_some();
        let Some(port) = self.ports.choose(now, &self.rules, inside.port(), taken) else {
            trace!(?protocol, %inside, reason = "no free port", "outbound packet dropped");
            return None;
        };
        trace!(?protocol, %inside, port, "mapping created");
        self.table.insert(flow, port, now + self.lifetime(protocol));
        Some(port)
    }

    fn lets_in(&self, entry: &Entry, source: SocketAddr) -> bool {
        match self.rules.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => entry.was_used_for_address(source.ip()),
            Filtering::AddressAndPortDependent => entry.was_used_for(source),
        }
    }

    fn lifetime(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp | Protocol::Icmp => self.rules.lifetime,
            Protocol::Tcp => self.rules.lifetime.max(MIN_TCP_LIFETIME),
        }
    }
}

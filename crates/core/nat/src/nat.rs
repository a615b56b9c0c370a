//! The translation itself.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Filtering, Mapping};

use crate::{
    Protocol, Rules,
    ports::Ports,
    table::{Entry, Table, Towards},
};

/// How long an idle TCP connection's mapping must live (RFC 5382, REQ-5).
const TCP_LIFETIME: Duration = Duration::from_secs(124 * 60);

/// A NAT with one outside address.
#[derive(Debug, Clone)]
pub struct Nat {
    rules: Rules,
    outside: IpAddr,
    table: Table,
    ports: Ports,
}

/// A packet that was turned around at the outside address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hairpinned {
    /// Where it seems to come from.
    pub source: SocketAddr,
    /// The inside socket that gets it.
    pub inside: SocketAddr,
}

impl Nat {
    /// A NAT without mappings. `seed` decides what is left to chance.
    #[must_use]
    pub fn new(seed: u64, outside: IpAddr, rules: Rules) -> Self {
        Self { rules, outside, table: Table::default(), ports: Ports::new(seed, &rules) }
    }

    /// What it does.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Its outside address.
    #[must_use]
    pub const fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Forgets every mapping, as after a restart.
    pub fn reset(&mut self) {
        self.table = Table::default();
    }

    /// How many mappings of a protocol live.
    pub fn mappings(&mut self, now: Instant, protocol: Protocol) -> usize {
        self.table.count(now, protocol)
    }

    /// Where the outside sees a packet from `inside` come from; `None` if it is dropped, since table or ports are used
    /// up.
    pub fn outbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let flow = (protocol, inside, self.towards(destination));
        let port = match self.table.port(now, flow) {
            Some(port) => port,
            None => self.map(now, flow)?,
        };
        let ends = now + self.lifetime(protocol);
        let entry = self.table.entry_mut(now, protocol, port)?;
        entry.ends = ends;
        entry.use_for(destination).then(|| SocketAddr::new(self.outside, port))
    }

    /// Which inside socket gets a packet that came to `external`; `None` if it is dropped.
    pub fn inbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        external: SocketAddr,
        source: SocketAddr,
    ) -> Option<SocketAddr> {
        let entry = self.entry(now, protocol, external)?;
        let inside = entry.inside;
        let whole = self.rules.filters_by_socket;
        let own = std::iter::once(entry).filter(|_| !whole);
        let all = self.table.of_socket(now, protocol, inside).filter(|_| whole);
        if !own.chain(all).any(|entry| self.lets_in(entry, source)) {
            return None;
        }
        if self.rules.inbound_refreshes {
            let ends = now + self.lifetime(protocol);
            self.table.entry_mut(now, protocol, external.port())?.ends = ends;
        }
        Some(inside)
    }

    /// What becomes of a packet from inside to the outside address.
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

    /// Whose packet to `destination` an ICMP error from outside quotes, that left from `external`. Changes nothing.
    #[must_use]
    pub fn lookup_inbound(
        &self,
        now: Instant,
        protocol: Protocol,
        external: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let entry = self.entry(now, protocol, external)?;
        entry.used.contains(&destination).then_some(entry.inside)
    }

    /// Where the outside knows `inside` when it talks to `destination`, if a mapping lives. Changes nothing.
    #[must_use]
    pub fn lookup_outbound(
        &self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let port = self.table.port(now, (protocol, inside, self.towards(destination)))?;
        Some(SocketAddr::new(self.outside, port))
    }

    fn entry(&self, now: Instant, protocol: Protocol, external: SocketAddr) -> Option<&Entry> {
        self.table.entry(now, protocol, external.port()).filter(|_| external.ip() == self.outside)
    }

    const fn towards(&self, destination: SocketAddr) -> Towards {
        match self.rules.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some((destination.ip(), None)),
            Mapping::AddressAndPortDependent => Some((destination.ip(), Some(destination.port()))),
        }
    }

    fn map(&mut self, now: Instant, flow: (Protocol, SocketAddr, Towards)) -> Option<u16> {
        let (protocol, inside, _) = flow;
        if self.table.is_full(now, protocol, self.rules.table) {
            return None;
        }
        let taken = |port| self.table.entry(now, protocol, port).is_some();
        let port = self.ports.choose(now, &self.rules, inside.port(), taken)?;
        self.table.insert(flow, port, now + self.lifetime(protocol));
        Some(port)
    }

    fn lets_in(&self, entry: &Entry, source: SocketAddr) -> bool {
        match self.rules.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => entry.used.iter().any(|used| used.ip() == source.ip()),
            Filtering::AddressAndPortDependent => entry.used.contains(&source),
        }
    }

    fn lifetime(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp | Protocol::Icmp => self.rules.lifetime,
            Protocol::Tcp => self.rules.lifetime.max(TCP_LIFETIME),
        }
    }
}

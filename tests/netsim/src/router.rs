//! Routers between a network and the network above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{Allocation, Mapping};
use partyline_nat::{Hairpinned, Nat, Protocol, Rules};

const UDP: Protocol = Protocol::Udp;
/// The first port of explicit port mappings, below all that routers use for dynamic ones.
const FIRST_MAPPED_PORT: u16 = 2000;

/// A router's number.
pub type RouterId = usize;

/// The network behind a router, or the public Internet if `None`.
pub type Place = Option<RouterId>;

/// A home router or carrier-grade NAT: translates IPv4, filters IPv6, and maps ports on request.
#[derive(Debug)]
pub struct Router {
    /// The NAT for IPv4.
    pub nat: Nat,
    /// The network on its external side.
    pub above: Place,
    /// True if UDP passes.
    pub udp: bool,
    rules_v6: Rules,
    /// The IPv6 firewall's state, one filter per internal address.
    filters_v6: BTreeMap<IpAddr, Nat>,
    pinholes: BTreeSet<SocketAddr>,
    port_mappings: BTreeMap<u16, PortMapping>,
}

#[derive(Debug)]
struct PortMapping {
    inside: SocketAddr,
    /// The sources of packets that came in by this mapping; responses to them leave by it.
    remotes: BTreeSet<SocketAddr>,
}

impl Router {
    pub(crate) fn new(above: Place, nat: Nat) -> Self {
        let rules = *nat.rules();
        let (filters_v6, pinholes, port_mappings) = Default::default();
        let mut router = Self { nat, above, udp: true, rules_v6: rules, filters_v6, pinholes, port_mappings };
        router.set_rules_v6(rules);
        router
    }

    /// Makes the IPv6 firewall filter, and expire its state, as these rules say. It translates nothing.
    pub fn set_rules_v6(&mut self, rules: Rules) {
        let (mapping, allocation) = (Mapping::EndpointIndependent, Allocation::Preserving);
        self.rules_v6 = Rules { mapping, allocation, ports: (1, u16::MAX), ..rules };
    }

    /// Maps a port to an internal socket as UPnP IGD does, or opens a pinhole for an IPv6 socket. Returns the external
    /// address.
    pub fn map_port(&mut self, inside: SocketAddr) -> SocketAddr {
        if inside.is_ipv6() {
            self.pinholes.insert(inside);
            return inside;
        }
        let known = self.port_mappings.iter().find(|(_, mapping)| mapping.inside == inside);
        let port = known.map_or(FIRST_MAPPED_PORT + self.port_mappings.len() as u16, |(port, _)| *port);
        let mapping = || PortMapping { inside, remotes: BTreeSet::new() };
        self.port_mappings.entry(port).or_insert_with(mapping);
        SocketAddr::new(self.nat.outside(), port)
    }

    pub(crate) fn outbound(
        &mut self,
        now: Instant,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let answers =
            |mapping: &PortMapping| mapping.inside == inside && mapping.remotes.contains(&destination);
        if let Some((port, _)) = self.port_mappings.iter().find(|(_, mapping)| answers(mapping)) {
            return Some(SocketAddr::new(self.nat.outside(), *port));
        }
        self.nat.outbound(now, UDP, inside, destination)
    }

    pub(crate) fn inbound(
        &mut self,
        now: Instant,
        external: SocketAddr,
        source: SocketAddr,
    ) -> Option<SocketAddr> {
        if let Some(mapping) = self.port_mappings.get_mut(&external.port()) {
            mapping.remotes.insert(source);
            return Some(mapping.inside);
        }
        self.nat.inbound(now, UDP, external, source)
    }

    pub(crate) fn hairpin(
        &mut self,
        now: Instant,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Hairpinned> {
        if self.port_mappings.contains_key(&destination.port()) && self.nat.rules().hairpin {
            let source = self.outbound(now, inside, destination)?;
            let inside = self.inbound(now, destination, source)?;
            return Some(Hairpinned { source, inside });
        }
        self.nat.hairpin(now, UDP, inside, destination)
    }

    /// Notes an IPv6 packet from inside. Returns `None` if the firewall's table is full.
    pub(crate) fn outbound_v6(
        &mut self,
        now: Instant,
        inside: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        self.filter_v6(inside.ip()).outbound(now, UDP, inside, destination)
    }

    /// Returns true if the firewall lets in an IPv6 packet.
    pub(crate) fn lets_in_v6(&mut self, now: Instant, inside: SocketAddr, source: SocketAddr) -> bool {
        self.pinholes.contains(&inside)
            || self.filter_v6(inside.ip()).inbound(now, UDP, inside, source).is_some()
    }

    fn filter_v6(&mut self, inside: IpAddr) -> &mut Nat {
        let rules = self.rules_v6;
        self.filters_v6.entry(inside).or_insert_with(|| Nat::new(0, inside, rules))
    }
}

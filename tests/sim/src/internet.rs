//! Homes and carriers: routers that translate addresses with `core/nat`, one above the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{Allocation, Mapping};
use partyline_nat::{Nat, Protocol, Rules};

const UDP: Protocol = Protocol::Udp;
/// The first port that routers open on request, below all that they use for mappings.
const FIRST_OPENED: u16 = 2000;

/// The inside of a router, by its number; `None` is the public internet.
pub type Place = Option<usize>;

/// A router.
pub struct Router {
    /// What it does to IPv4.
    pub nat: Nat,
    /// What it stands behind.
    pub above: Place,
    /// Whether UDP passes.
    pub udp: bool,
    /// Ports opened on request.
    opened: BTreeMap<u16, Opened>,
    /// IPv6 computers, each behind a filter that maps nothing.
    filters: BTreeMap<IpAddr, Nat>,
    /// What every IPv6 filter does.
    rules_v6: Rules,
    pinholes: BTreeSet<SocketAddr>,
}

struct Opened {
    inside: SocketAddr,
    /// Who came in by this port: answers to them leave by it.
    guests: BTreeSet<SocketAddr>,
}

/// All routers.
#[derive(Default)]
pub struct Internet {
    /// By number.
    pub routers: Vec<Router>,
    outsides: BTreeMap<(Place, IpAddr), usize>,
}

/// A datagram once it has gone up as far as it must: where its way down begins, and who it seems to be from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Below what.
    pub below: Place,
    /// The source as it is now.
    pub from: SocketAddr,
    /// The destination as it is now.
    pub to: SocketAddr,
}

impl Router {
    fn out(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let known = self.opened.iter().find(|(_, open)| open.inside == from && open.guests.contains(&to));
        if let Some((port, _)) = known {
            return Some(SocketAddr::new(self.nat.outside(), *port));
        }
        self.nat.outbound(now, UDP, from, to)
    }

    fn inward(&mut self, now: Instant, to: SocketAddr, from: SocketAddr) -> Option<SocketAddr> {
        if let Some(open) = self.opened.get_mut(&to.port()) {
            open.guests.insert(from);
            return Some(open.inside);
        }
        self.nat.inbound(now, UDP, to, from)
    }

    fn hairpin(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if self.opened.contains_key(&to.port()) && self.nat.rules().hairpin {
            let source = self.out(now, from, to)?;
            return Some((source, self.inward(now, to, source)?));
        }
        let turned = self.nat.hairpin(now, UDP, from, to)?;
        Some((turned.source, turned.inside))
    }

    fn filter(&mut self, inside: IpAddr) -> &mut Nat {
        let rules = self.rules_v6;
        self.filters.entry(inside).or_insert_with(|| Nat::new(0, inside, rules))
    }
}

impl Internet {
    /// Adds a router below another; `rules_v6` says whose packets its IPv6 firewall lets in, and for how long.
    pub fn add(&mut self, above: Place, nat: Nat, rules_v6: Rules, udp: bool) -> usize {
        let number = self.routers.len();
        self.outsides.insert((above, nat.outside()), number);
        let rules_v6 = Rules {
            mapping: Mapping::EndpointIndependent,
            allocation: Allocation::Preserving,
            ports: (1, u16::MAX),
            ..rules_v6
        };
        let (opened, filters, pinholes) = Default::default();
        self.routers.push(Router { nat, above, udp, opened, filters, rules_v6, pinholes });
        number
    }

    /// The address at which the public internet sees a place.
    #[must_use]
    pub fn public_ip(&self, place: usize) -> IpAddr {
        let router = &self.routers[place];
        router.above.map_or_else(|| router.nat.outside(), |above| self.public_ip(above))
    }

    /// Opens a port for an inside socket, as UPnP does; returns where the router says it is.
    pub fn open(&mut self, place: usize, inside: SocketAddr) -> SocketAddr {
        let router = &mut self.routers[place];
        if inside.is_ipv6() {
            router.pinholes.insert(inside);
            return inside;
        }
        let known = router.opened.iter().find(|(_, open)| open.inside == inside).map(|(port, _)| *port);
        let port = known.unwrap_or_else(|| FIRST_OPENED + router.opened.len() as u16);
        router.opened.entry(port).or_insert_with(|| Opened { inside, guests: BTreeSet::new() });
        SocketAddr::new(router.nat.outside(), port)
    }

    /// Takes a datagram from a computer up through the routers above it.
    pub fn up(&mut self, now: Instant, place: usize, from: SocketAddr, to: SocketAddr) -> Option<Turned> {
        let router = &mut self.routers[place];
        if !router.udp {
            return None;
        }
        if to.is_ipv6() {
            router.filter(from.ip()).outbound(now, UDP, from, to)?;
            return Some(Turned { below: None, from, to });
        }
        if to.ip() == router.nat.outside() {
            let (from, to) = router.hairpin(now, from, to)?;
            return Some(Turned { below: Some(place), from, to });
        }
        let (shared, above) = (is_shared(to.ip()), router.above);
        if is_private(to.ip()) || shared && above.is_none() {
            return None;
        }
        let from = router.out(now, from, to)?;
        match above {
            None => Some(Turned { below: None, from, to }),
            Some(above) if shared => Some(Turned { below: Some(above), from, to }),
            Some(above) => self.up(now, above, from, to),
        }
    }

    /// Takes a datagram down to the place of the computer that it is for, and says which address there.
    pub fn down(&mut self, now: Instant, turned: Turned) -> Option<(Place, SocketAddr)> {
        let Turned { mut below, from, mut to } = turned;
        if let IpAddr::V6(ip) = to.ip() {
            return self.down_v6(now, from, to, place_v6(ip)?);
        }
        while let Some(number) = self.outsides.get(&(below, to.ip())).copied() {
            let router = &mut self.routers[number];
            to = router.inward(now, to, from).filter(|_| router.udp)?;
            below = Some(number);
        }
        Some((below, to))
    }

    fn down_v6(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        place: usize,
    ) -> Option<(Place, SocketAddr)> {
        let router = self.routers.get_mut(place).filter(|router| router.udp)?;
        if !router.pinholes.contains(&to) {
            router.filter(to.ip()).inbound(now, UDP, to, from)?;
        }
        Some((Some(place), to))
    }
}

/// The IPv6 address of a computer at a place.
#[must_use]
pub const fn address_v6(place: usize, host: u16) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, place as u16, 0, 0, 0, host)
}

fn place_v6(ip: std::net::Ipv6Addr) -> Option<usize> {
    let [0x2001, 0xdb8, 1, place, ..] = ip.segments() else { return None };
    Some(place.into())
}

fn is_private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_private())
}

/// Addresses between a carrier and its customers (RFC 6598).
fn is_shared(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64)
}

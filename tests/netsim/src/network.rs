//! Hosts, the routers above them, and the way of a datagram from one host to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_nat::{Hairpinned, Nat};

use crate::{
    card::{Card, Overlay},
    dice::Dice,
    line::{Line, Transmitter},
    router::{Place, Router, RouterId},
};

/// The delay between two hosts on one network.
const LAN_LATENCY: Duration = Duration::from_millis(1);

/// A host's number.
pub type HostId = usize;

/// A computer: a client or a server.
#[derive(Debug)]
pub struct Host {
    /// Its line to the middle of the Internet.
    pub line: Line,
    /// The wireless link between it and its router, if there is one. What is lost there never reaches the NAT.
    pub wireless: Option<Line>,
    /// The broadcast domain that it is in.
    pub lan: u32,
    /// True if it receives nothing.
    pub asleep: bool,
    /// Its cards beside the real one. They stay when it moves.
    pub cards: Vec<Card>,
    place: Place,
    addresses: Vec<IpAddr>,
    uplink: Transmitter,
    downlink: Transmitter,
}

impl Host {
    /// Returns the network that it is in.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Returns its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns the address from which it sends to a destination: that of the card that leads there, or the first of the
    /// real card.
    #[must_use]
    pub fn source_to(&self, destination: IpAddr) -> Option<IpAddr> {
        let of_card = self.card_to(destination).map(|card| card.network.addr());
        let real = || self.addresses.iter().find(|ip| ip.is_ipv6() == destination.is_ipv6()).copied();
        of_card.or_else(real)
    }

    fn card_to(&self, destination: IpAddr) -> Option<&Card> {
        self.cards.iter().find(|card| card.network.contains(&destination))
    }
}

/// A datagram with the addresses that it has at this point of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The source address.
    pub source: SocketAddr,
    /// The destination address.
    pub destination: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
    /// The host that sent it, unless it was injected into the public Internet.
    pub sender: Option<HostId>,
}

/// What happens to a datagram in the middle of the Internet besides the properties of the lines: the additional delay,
/// or `None` if it is lost. The second argument is a random number.
pub type Interference = Box<dyn FnMut(&Datagram, u32) -> Option<Duration>>;

/// A datagram between two points of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    datagram: Datagram,
    next: Hop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    /// The router of the sender.
    FirstRouter,
    /// The routers below this network, down to the receiver's.
    Below(Place),
    /// The receiver.
    Host(HostId),
}

/// A datagram at the host it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The receiver.
    pub host: HostId,
    /// The source as the receiver sees it.
    pub source: SocketAddr,
    /// The receiver's own address.
    pub destination: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// What became of a datagram at a point of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It goes on; twice if it was duplicated, and not at all if it was lost.
    InFlight(Vec<(Duration, InFlight)>),
    /// It has arrived.
    Arrived(Delivery),
}

const LOST: Progress = Progress::InFlight(Vec::new());

/// All hosts and routers.
pub struct Network {
    /// The hosts by number.
    pub hosts: Vec<Host>,
    /// The routers by number.
    pub routers: Vec<Router>,
    /// Other VPNs by number.
    pub overlays: Vec<Overlay>,
    /// The fate of datagrams in the middle of the Internet.
    pub interference: Interference,
    /// Routers by their external address.
    externals: BTreeMap<(Place, IpAddr), RouterId>,
    /// Hosts by address; IPv6 addresses are global and have no place.
    by_address: BTreeMap<(Place, IpAddr), HostId>,
    /// The host last found at a public address. It has to be checked, since hosts move.
    by_public_address: BTreeMap<IpAddr, HostId>,
    /// Pairs of public addresses between which nothing passes.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            routers: Vec::new(),
            overlays: Vec::new(),
            interference: Box::new(|_, _| Some(Duration::ZERO)),
            externals: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_public_address: BTreeMap::new(),
            cuts: BTreeSet::new(),
        }
    }
}

impl Network {
    /// Adds a router whose external side is in `above`. Its IPv6 firewall filters as its NAT does, until
    /// [`Router::set_rules_v6`] says otherwise.
    pub fn add_router(&mut self, above: Place, nat: Nat) -> RouterId {
        let router = self.routers.len();
        self.externals.insert((above, nat.outside()), router);
        self.routers.push(Router::new(above, nat));
        router
    }

    /// Replaces a router's NAT by another one, with another external address perhaps.
    pub fn replace_nat(&mut self, router: RouterId, nat: Nat) {
        let above = self.routers[router].above;
        self.externals.remove(&(above, self.routers[router].nat.outside()));
        self.externals.insert((above, nat.outside()), router);
        self.routers[router].nat = nat;
    }

    /// Adds a host.
    pub fn add_host(&mut self, place: Place, addresses: impl Into<Vec<IpAddr>>, line: Line) -> HostId {
        let host = self.hosts.len();
        self.hosts.push(Host {
            line,
            wireless: None,
            lan: u32::MAX,
            asleep: false,
            cards: Vec::new(),
            place: None,
            addresses: Vec::new(),
            uplink: Transmitter::default(),
            downlink: Transmitter::default(),
        });
        self.move_host(host, place, addresses);
        host
    }

    /// Moves a host to another network, where it has other addresses.
    pub fn move_host(&mut self, host: HostId, place: Place, addresses: impl Into<Vec<IpAddr>>) {
        self.by_address.retain(|_, at| *at != host);
        let moved = &mut self.hosts[host];
        (moved.place, moved.addresses) = (place, addresses.into());
        for address in &moved.addresses {
            self.by_address.insert(key(place, *address), host);
        }
    }

    /// Returns true if a host receives what is sent to it.
    #[must_use]
    pub fn is_awake(&self, host: HostId) -> bool {
        !self.hosts[host].asleep
    }

    /// Returns the other hosts of a host's broadcast domain.
    pub fn neighbors(&self, host: HostId) -> impl Iterator<Item = HostId> {
        let others = (0..self.hosts.len()).filter(move |other| *other != host);
        others.filter(move |other| self.hosts[*other].lan == self.hosts[host].lan)
    }

    /// Returns the other hosts that a multicast on another VPN reaches from a host, with its own address there.
    pub fn overlay_neighbors(&self, host: HostId) -> impl Iterator<Item = (HostId, IpAddr)> {
        let cards =
            self.hosts[host].cards.iter().filter_map(|card| Some((card.overlay?, card.network.addr())));
        let carries = |overlay: usize| self.overlays[overlay].up && self.overlays[overlay].multicast;
        let is_on = move |other: usize, overlay: usize| {
            other != host && self.hosts[other].cards.iter().any(|card| card.overlay == Some(overlay))
        };
        let others = move |(overlay, own)| {
            (0..self.hosts.len()).filter(move |other| is_on(*other, overlay)).map(move |other| (other, own))
        };
        cards.filter(move |(overlay, _)| carries(*overlay)).flat_map(others)
    }

    /// Returns the IPv4 address at which the public Internet sees a host.
    #[must_use]
    pub fn public_address(&self, host: HostId) -> Option<IpAddr> {
        match self.hosts[host].place {
            Some(router) => Some(self.external_address(router)),
            None => self.hosts[host].addresses.first().copied(),
        }
    }

    fn external_address(&self, router: RouterId) -> IpAddr {
        let router = &self.routers[router];
        router.above.map_or_else(|| router.nat.outside(), |above| self.external_address(above))
    }

    /// Cuts the path between the networks that two hosts are in now, in both directions.
    pub fn cut(&mut self, one: HostId, other: HostId) {
        let v6 = |host: HostId| self.hosts[host].addresses.iter().copied().find(IpAddr::is_ipv6);
        let v4 = self.public_address(one).zip(self.public_address(other));
        let pairs = [v4, v6(one).zip(v6(other))].into_iter().flatten().filter(|(a, b)| a != b);
        self.cuts.extend(pairs.flat_map(|(a, b)| [(a, b), (b, a)]));
    }

    /// Opens all paths that were cut.
    pub fn restore_cuts(&mut self) {
        self.cuts.clear();
    }

    /// Sends a datagram. Returns it at the next point of its way, with the delay until it is there.
    pub fn send(&mut self, now: Instant, dice: &mut Dice, datagram: Datagram) -> Vec<(Duration, InFlight)> {
        if let Some(card) =
            datagram.sender.and_then(|host| self.hosts[host].card_to(datagram.destination.ip()))
        {
            return self.send_by_card(dice, *card, datagram);
        }
        match datagram.sender.and_then(|host| self.hosts[host].wireless) {
            Some(wireless) => {
                let delay = wireless.carry(dice);
                delay
                    .map(|delay| (delay, InFlight { datagram, next: Hop::FirstRouter }))
                    .into_iter()
                    .collect()
            }
            None => self.leave(now, dice, datagram),
        }
    }

    /// Sends a datagram into the network of a card that is not the real one.
    fn send_by_card(&self, dice: &mut Dice, card: Card, datagram: Datagram) -> Vec<(Duration, InFlight)> {
        let to = datagram.destination.ip();
        if to == card.network.addr() {
            let itself =
                datagram.sender.map(|host| (LAN_LATENCY, InFlight { datagram, next: Hop::Host(host) }));
            return itself.into_iter().collect();
        }
        let overlay = card.overlay.map(|overlay| self.overlays[overlay]).filter(|overlay| overlay.up);
        let is_there = |there: &Card| there.overlay == card.overlay && there.network.addr() == to;
        let receiver = self.hosts.iter().position(|host| host.cards.iter().any(is_there));
        let Some((overlay, host)) = overlay.zip(receiver) else { return Vec::new() };
        let delay = overlay.line.carry(dice).into_iter();
        delay.map(|delay| (delay, InFlight { datagram: datagram.clone(), next: Hop::Host(host) })).collect()
    }

    /// Takes a datagram that has reached the next point of its way further.
    pub fn advance(&mut self, now: Instant, dice: &mut Dice, flight: InFlight) -> Progress {
        let InFlight { mut datagram, next } = flight;
        let host = match next {
            Hop::FirstRouter => return Progress::InFlight(self.leave(now, dice, datagram)),
            Hop::Host(host) => host,
            Hop::Below(place) => {
                let Some((host, destination)) = self.descend(now, place, &datagram) else { return LOST };
                datagram.destination = destination;
                if let Some(wireless) = self.hosts[host].wireless {
                    let flight = InFlight { datagram, next: Hop::Host(host) };
                    let delay = wireless.carry(dice);
                    return Progress::InFlight(delay.map(|delay| (delay, flight)).into_iter().collect());
                }
                host
            }
        };
        if self.hosts[host].asleep {
            return LOST;
        }
        let Datagram { source, destination, bytes, .. } = datagram;
        Progress::Arrived(Delivery { host, source, destination, bytes })
    }

    /// Takes a datagram out of the network that its sender is in.
    fn leave(&mut self, now: Instant, dice: &mut Dice, mut datagram: Datagram) -> Vec<(Duration, InFlight)> {
        let Some(router) = datagram.sender.and_then(|host| self.hosts[host].place) else {
            return self.cross(now, dice, None, datagram);
        };
        if self.has_neighbor(router, datagram.destination.ip()) {
            return vec![(LAN_LATENCY, InFlight { datagram, next: Hop::Below(Some(router)) })];
        }
        let (source, destination) = (datagram.source, datagram.destination);
        let Some(ascended) = self.ascend(now, router, source, destination) else { return Vec::new() };
        (datagram.source, datagram.destination) = (ascended.source, ascended.destination);
        self.cross(now, dice, ascended.below, datagram)
    }

    fn has_neighbor(&self, router: RouterId, address: IpAddr) -> bool {
        let found = self.by_address.get(&key(Some(router), address)).map(|host| &self.hosts[*host]);
        found.is_some_and(|host| host.place == Some(router) && !host.asleep)
    }

    /// Takes a datagram over the lines at both ends.
    fn cross(
        &mut self,
        now: Instant,
        dice: &mut Dice,
        below: Place,
        datagram: Datagram,
    ) -> Vec<(Duration, InFlight)> {
        let Some(delays) = self.delays(now, dice, &datagram) else { return Vec::new() };
        let flight = InFlight { datagram, next: Hop::Below(below) };
        delays.into_iter().flatten().map(|delay| (delay, flight.clone())).collect()
    }

    /// Returns the delay of a datagram, after that of its duplicate if there is one, or `None` if it is lost.
    fn delays(
        &mut self,
        now: Instant,
        dice: &mut Dice,
        datagram: &Datagram,
    ) -> Option<[Option<Duration>; 2]> {
        let number = dice.number();
        let extra = (self.interference)(datagram, number)?;
        let ends = (datagram.source.ip(), datagram.destination.ip());
        if self.cuts.contains(&ends) {
            return None;
        }
        let (sender, receiver) = (datagram.sender, self.host_at_public_address(ends.1));
        let len = datagram.bytes.len();
        let near = sender.map_or(Line::IDEAL, |host| self.hosts[host].line);
        let far = receiver.map_or(Line::GOOD, |host| self.hosts[host].line);
        let carried = near.carry(dice).zip(far.carry(dice)).map(|(near, far)| near + far)?;
        let up = sender.map(|host| self.hosts[host].uplink.transmit(now, near.rate, len));
        let down = receiver.map(|host| self.hosts[host].downlink.transmit(now, far.rate, len));
        let queued = up.unwrap_or(Some(Duration::ZERO))? + down.unwrap_or(Some(Duration::ZERO))?;
        let delay = carried + queued + extra;
        let duplicate = dice.happens(near.duplication + far.duplication);
        let later = delay + near.jitter.max(Duration::from_millis(1));
        Some([duplicate.then_some(later), Some(delay)])
    }

    /// Returns a host of the network at a public address. Its line is the one that leads there, since the hosts of a
    /// home share it.
    fn host_at_public_address(&mut self, address: IpAddr) -> Option<HostId> {
        let is_at = |host: &HostId| {
            self.hosts[*host].addresses.contains(&address)
                && (address.is_ipv6() || self.hosts[*host].place.is_none())
                || self.public_address(*host) == Some(address)
        };
        let known = self.by_public_address.get(&address).copied().filter(is_at);
        let found = known.or_else(|| (0..self.hosts.len()).find(is_at))?;
        self.by_public_address.insert(address, found);
        Some(found)
    }

    /// Translates a datagram on its way up through the routers.
    fn ascend(
        &mut self,
        now: Instant,
        router: RouterId,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Ascended> {
        let number = router;
        let router = self.routers.get_mut(router).filter(|router| router.udp)?;
        if destination.is_ipv6() {
            router.outbound_v6(now, source, destination)?;
            return Some(Ascended { below: None, source, destination });
        }
        if destination.ip() == router.nat.outside() {
            let Hairpinned { source, inside } = router.hairpin(now, source, destination)?;
            return Some(Ascended { below: Some(number), source, destination: inside });
        }
        let (shared, above) = (is_shared(destination.ip()), router.above);
        if is_private(destination.ip()) || shared && above.is_none() {
            return None;
        }
        let source = router.outbound(now, source, destination)?;
        match above {
            None => Some(Ascended { below: None, source, destination }),
            Some(above) if shared => Some(Ascended { below: Some(above), source, destination }),
            Some(above) => self.ascend(now, above, source, destination),
        }
    }

    /// Translates a datagram on its way down. Returns the host that it is for, and its address there.
    fn descend(
        &mut self,
        now: Instant,
        mut place: Place,
        datagram: &Datagram,
    ) -> Option<(HostId, SocketAddr)> {
        let mut destination = datagram.destination;
        if destination.is_ipv6() {
            return self.descend_v6(now, place, datagram);
        }
        while let Some(number) = self.externals.get(&(place, destination.ip())).copied() {
            let router = &mut self.routers[number];
            destination = router.inbound(now, destination, datagram.source).filter(|_| router.udp)?;
            place = Some(number);
        }
        Some((*self.by_address.get(&(place, destination.ip()))?, destination))
    }

    fn descend_v6(
        &mut self,
        now: Instant,
        place: Place,
        datagram: &Datagram,
    ) -> Option<(HostId, SocketAddr)> {
        let destination = datagram.destination;
        let host = *self.by_address.get(&(None, destination.ip()))?;
        let home = self.hosts[host].place;
        if let Some(router) = home.filter(|_| home != place) {
            let router = self.routers.get_mut(router).filter(|router| router.udp)?;
            if !router.lets_in_v6(now, destination, datagram.source) {
                return None;
            }
        }
        Some((host, destination))
    }
}

/// A datagram as it leaves the last router on its way up.
struct Ascended {
    /// The network below which its receiver is.
    below: Place,
    source: SocketAddr,
    destination: SocketAddr,
}

const fn key(place: Place, address: IpAddr) -> (Place, IpAddr) {
    (if address.is_ipv6() { None } else { place }, address)
}

const fn is_private(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_private())
}

/// Returns true for addresses between a carrier and its customers (RFC 6598).
fn is_shared(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 100 && address.octets()[1] & 0xC0 == 64)
}

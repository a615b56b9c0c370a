//! A home network behind a NAT, STUN servers outside, and virtual time.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the lab")]

mod server;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::SocketId;
use partyline_nat::{Hairpinned, Protocol};
use partyline_netcheck::{Config, Event, FilteringProbeRequest, Netcheck, PortPair, ProbeRound, StunServer};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

pub use partyline_nat::{Nat, Rules};
pub use server::{Manners, Server};

/// The inside computer's address; the tunnel's socket is at the first port, probe sockets follow.
pub const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
pub const TUNNEL_PORT: u16 = 41641;
/// The same computer's IPv6 address, where it has one: no NAT and no firewall is in its way.
pub const INSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7));
/// The NAT's outside address.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));

pub const UDP: Protocol = Protocol::Udp;

/// The home's NAT.
pub fn nat(seed: u64, rules: Rules) -> Nat {
    Nat::new(seed, OUTSIDE, rules)
}

/// The quality of the access line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The fraction of packets lost each way, 0 to 1.
    pub loss: f64,
    /// The shortest one-way delay.
    pub latency: Duration,
    /// Up to this much is added to the delay; more than the distance of two packets reorders them.
    pub jitter: Duration,
}

impl Line {
    pub const GOOD: Self = Self { loss: 0.0, latency: Duration::from_millis(20), jitter: Duration::ZERO };
}

/// A datagram in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    inwards: bool,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
}

/// Another member, which can send from two ports.
pub struct Friend {
    /// The NAT between it and the Internet.
    pub nat: Option<Nat>,
    /// Its sockets; these are public addresses if it has no NAT.
    pub sockets: [SocketAddr; 2],
    /// Which of its sockets can send.
    pub works: [bool; 2],
}

impl Friend {
    /// Returns a member with a public address.
    pub fn open() -> Self {
        let sockets = [41_641, 50_000].map(|port| ([11, 0, 7, 1], port).into());
        Self { nat: None, sockets, works: [true; 2] }
    }

    /// Returns a member behind a NAT of its own.
    pub fn behind(seed: u64, rules: Rules) -> Self {
        let sockets = [41_641, 50_000].map(|port| ([192, 168, 7, 7], port).into());
        Self { nat: Some(Nat::new(seed, [11, 0, 7, 1].into(), rules)), sockets, works: [true; 2] }
    }

    fn seen_from(&mut self, now: Instant, index: usize, remote: SocketAddr) -> Option<SocketAddr> {
        let socket = self.sockets[index];
        self.nat.as_mut().map_or(Some(socket), |nat| nat.outbound(now, UDP, socket, remote))
    }
}

/// The machine under test with everything around it.
pub struct World {
    pub netcheck: Netcheck,
    pub nat: Option<Nat>,
    pub servers: Vec<Server>,
    pub events: Vec<(Duration, Event)>,
    /// Datagrams sent by the inside computer, by destination.
    pub sent: BTreeMap<SocketAddr, u32>,
    /// Whether servers ignore RESPONSE-PORT.
    pub ignores_response_port: bool,
    /// The address from which a member answers filtering probe requests, if there is one.
    pub observer: Option<SocketAddr>,
    /// A member that can send from two ports, if there is one.
    pub friend: Option<Friend>,
    /// The filtering probe requests so far.
    pub probe_requests: Vec<FilteringProbeRequest>,
    pub start: Instant,
    pub now: Instant,
    line: Line,
    rng: ChaCha12Rng,
    heap: std::collections::BinaryHeap<Reverse<(Instant, u64, Packet)>>,
    packets: u64,
}

impl World {
    pub fn new(seed: u64, nat: Option<Nat>, servers: Vec<Server>, line: Line, probe_sockets: u16) -> Self {
        Self::with_config(seed, nat, servers, line, probe_sockets, Config::default())
    }

    pub fn with_config(
        seed: u64,
        nat: Option<Nat>,
        servers: Vec<Server>,
        line: Line,
        probe_sockets: u16,
        config: Config,
    ) -> Self {
        #[allow(clippy::disallowed_methods, reason = "some instant to count virtual time from")]
        let now = Instant::now();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut own = [0; 32];
        rng.fill_bytes(&mut own);
        let mut netcheck = Netcheck::new(now, own, config);
        netcheck.probe_sockets_opened(now, &opened(probe_sockets));
        netcheck.set_local_addresses(now, vec![SocketAddr::new(local_ip(nat.as_ref()), TUNNEL_PORT)]);
        let list = servers.iter().enumerate().map(|(i, s)| StunServer::new(format!("stun{i}"), s.address));
        netcheck.set_servers(now, list.collect());
        let (events, sent, heap, probe_requests) = Default::default();
        let (ignores_response_port, start, packets) = (false, now, 0);
        Self {
            netcheck,
            nat,
            servers,
            events,
            sent,
            ignores_response_port,
            observer: None,
            friend: None,
            probe_requests,
            start,
            now,
            line,
            rng,
            heap,
            packets,
        }
    }

    /// Opens so many sockets for the next measurement.
    pub fn open_probe_sockets(&mut self, count: u16) {
        self.netcheck.probe_sockets_opened(self.now, &opened(count));
    }

    /// Runs for a span of virtual time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.drain();
            let packet = self.heap.peek().map(|Reverse((at, ..))| *at);
            let timer = self.netcheck.poll_timeout();
            let Some(next) = [packet, timer].into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            assert!(next >= self.now || timer == Some(next), "time runs forward");
            self.now = self.now.max(next);
            if packet.is_some_and(|at| at <= self.now) {
                let Some(Reverse((_, _, packet))) = self.heap.pop() else { unreachable!() };
                self.deliver(packet);
            } else {
                self.netcheck.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    /// Runs until the measurement is over, at most two minutes.
    pub fn measure(&mut self) {
        for _ in 0..1200 {
            self.run(Duration::from_millis(100));
            if self.netcheck.report().finished {
                break;
            }
        }
    }

    /// Sends from outside to the inside computer.
    pub fn inject(&mut self, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.send(Packet { inwards: true, source, destination, bytes });
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.netcheck.poll_transmit() {
            let port = port_of(transmit.socket);
            *self.sent.entry(transmit.destination).or_default() += 1;
            let v6 = transmit.destination.is_ipv6();
            let own = if v6 { INSIDE_V6 } else { local_ip(self.nat.as_ref()) };
            let source = SocketAddr::new(own, port);
            self.send(Packet {
                inwards: false,
                source,
                destination: transmit.destination,
                bytes: transmit.bytes,
            });
        }
        while let Some(event) = self.netcheck.poll_event() {
            if let Event::RequestFilteringProbe(request) = event {
                self.probe_requests.push(request);
                self.observer.into_iter().for_each(|from| self.inject(from, request.to, request.packet()));
                self.offer_ports();
            }
            if let Event::RequestProbeRound(round) = event {
                self.send_round(round);
            }
            self.events.push((self.now - self.start, event));
        }
    }

    /// The friend learns the reflexive addresses of its sockets and offers them.
    fn offer_ports(&mut self) {
        let (now, server) = (self.now, self.servers[0].address);
        let Some(friend) = &mut self.friend else { return };
        if let [Some(first), Some(second)] = [0, 1].map(|index| friend.seen_from(now, index, server)) {
            self.netcheck.set_port_pair(now, PortPair { first, second });
        }
    }

    /// The friend sends from both ports to both sockets, unless the request is lost.
    fn send_round(&mut self, round: ProbeRound) {
        if self.chance() < self.line.loss {
            return;
        }
        for to in round.to {
            for index in [0, 1] {
                let Some(friend) = self.friend.as_mut().filter(|friend| friend.works[index]) else {
                    continue;
                };
                if let Some(source) = friend.seen_from(self.now, index, to) {
                    self.inject(source, to, round.packet());
                }
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { inwards, source, destination, bytes } = packet;
        if inwards {
            self.receive(source, destination, &bytes);
            return;
        }
        let seen = match &mut self.nat {
            Some(nat) if source.is_ipv4() => nat.outbound(self.now, UDP, source, destination),
            _ => Some(source),
        };
        let Some(seen) = seen else { return };
        if let (IpAddr::V4(_), true, Some(nat)) =
            (destination.ip(), destination.ip() == OUTSIDE, &mut self.nat)
        {
            let turned = nat.hairpin(self.now, UDP, source, destination);
            return turned
                .into_iter()
                .for_each(|Hairpinned { source, inside }| self.hand_over(inside, source, &bytes));
        }
        let answers: Vec<_> =
            self.servers.iter().filter_map(|server| server.answer(destination, seen, &bytes)).collect();
        let to = if self.ignores_response_port { seen } else { Server::reply_to(seen, &bytes) };
        for (from, bytes) in answers {
            self.send(Packet { inwards: true, source: from, destination: to, bytes });
        }
    }

    fn receive(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let inside = match &mut self.nat {
            Some(nat) if destination.is_ipv4() => nat.inbound(self.now, UDP, destination, source),
            _ => Some(destination),
        };
        let Some(inside) = inside else { return };
        self.hand_over(inside, source, bytes);
    }

    fn hand_over(&mut self, inside: SocketAddr, source: SocketAddr, bytes: &[u8]) {
        let socket = socket_at(inside.port());
        self.netcheck.handle_datagram(self.now, socket, source, bytes);
    }

    fn send(&mut self, packet: Packet) {
        if self.chance() < self.line.loss {
            // A packet lost before the NAT makes no mapping; one lost behind it does.
            if let (false, Some(nat), true) =
                (packet.inwards, &mut self.nat, self.rng.next_u32().is_multiple_of(2))
                && packet.source.is_ipv4()
            {
                nat.outbound(self.now, UDP, packet.source, packet.destination);
            }
            return;
        }
        let late = self.line.jitter.mul_f64(self.chance());
        self.packets += 1;
        self.heap.push(Reverse((self.now + self.line.latency + late, self.packets, packet)));
    }

    fn chance(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }
}

fn opened(count: u16) -> Vec<(SocketId, Option<u16>)> {
    (0..count).map(SocketId::probe).map(|id| (id, Some(port_of(id)))).collect()
}

fn port_of(socket: SocketId) -> u16 {
    if socket == SocketId::MAIN {
        TUNNEL_PORT
    } else {
        TUNNEL_PORT + (socket.0 - SocketId::probe(0).0 + 1) * 7
    }
}

fn socket_at(port: u16) -> SocketId {
    if port == TUNNEL_PORT { SocketId::MAIN } else { SocketId::probe((port - TUNNEL_PORT) / 7 - 1) }
}

fn local_ip(nat: Option<&Nat>) -> IpAddr {
    if nat.is_some() { INSIDE } else { OUTSIDE }
}

/// A server with two addresses and two ports.
pub fn full_server() -> Server {
    Server::new([11, 0, 1, 1], 3478).with_other([11, 0, 1, 2], 3479)
}

//! A small internet in virtual time: homes behind NATs, a TURN server, a signalling channel, and members that send
//! each other numbered tunnel messages.

#![allow(dead_code, missing_docs, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

mod line;
pub mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, PathKind};
use partyline_paths::{
    Config, Event, Handled, Hop, Local, Paths, PeerId, PeerParams, RelayServer, RelayTransport, SocketId,
    StreamId,
};
use partyline_wire::probe::Tag;

use self::turn::{Client, Output, TurnServer};

pub const LATENCY: Duration = Duration::from_millis(20);
pub const SIGNALLING: Duration = Duration::from_millis(40);

/// The NAT between a home and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// None.
    Open,
    /// Endpoint-independent mapping and address-and-port-dependent filtering.
    Cone,
    /// Address-and-port-dependent mapping and filtering.
    Symmetric,
}

/// A datagram on its way; tests decide what happens to it.
#[derive(Debug, Clone)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    /// The home that sent it, if it was not the server.
    pub sender: Option<usize>,
}

enum Item {
    Udp(Packet),
    ToServer(Client, Vec<u8>),
    ToStream(usize, StreamId, Vec<u8>),
    Opened(usize, StreamId, bool),
    Signal { to: usize, about: usize, candidates: Vec<Candidate> },
}

pub struct Home {
    pub paths: Paths,
    pub nat: Nat,
    pub lan: u8,
    pub host: SocketAddr,
    pub public: IpAddr,
    pub udp_blocked: bool,
    pub events: Vec<(Instant, PeerId, Option<PathKind>)>,
    pub received: BTreeSet<(usize, u64)>,
    pub duplicates: usize,
    /// How often its machine reported another public address.
    pub public_address_changes: usize,
    pub sent_packets: usize,
    pub candidates: Vec<Candidate>,
    mappings: BTreeMap<Option<SocketAddr>, u16>,
    contacted: BTreeSet<(u16, SocketAddr)>,
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub homes: Vec<Home>,
    /// TURN servers; the first also serves streams.
    pub servers: Vec<TurnServer>,
    /// Selects the packets that are lost.
    pub lost: Box<dyn FnMut(&Packet) -> bool>,
    /// Returns the extra delay of a packet.
    pub delay: Box<dyn FnMut(&Packet) -> Duration>,
    pub record: Option<Vec<Packet>>,
    /// Whether announcements are passed on.
    pub signalling: bool,
    queue: BTreeMap<(Instant, u64), Item>,
    order: u64,
    sequence: u64,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            homes: Vec::new(),
            servers: vec![TurnServer::new("203.0.113.1:3478".parse().unwrap())],
            lost: Box::new(|_| false),
            delay: Box::new(|_| Duration::ZERO),
            record: None,
            signalling: true,
            queue: BTreeMap::new(),
            order: 0,
            sequence: 0,
        }
    }

    /// Adds a home with one member, on a LAN of its own unless another is named.
    pub fn home(&mut self, nat: Nat, config: Config) -> usize {
        let index = self.homes.len();
        let number = u8::try_from(index).unwrap() + 1;
        let public: IpAddr = format!("198.51.100.{number}").parse().unwrap();
        let ip = if nat == Nat::Open { public } else { format!("192.168.{number}.2").parse().unwrap() };
        self.homes.push(Home {
            paths: Paths::new([number; 32], config),
            nat,
            lan: number,
            host: SocketAddr::new(ip, 20_000),
            public,
            udp_blocked: false,
            events: Vec::new(),
            received: BTreeSet::new(),
            duplicates: 0,
            public_address_changes: 0,
            sent_packets: 0,
            candidates: Vec::new(),
            mappings: BTreeMap::new(),
            contacted: BTreeSet::new(),
        });
        index
    }

    /// Gives the home's machine its own addresses.
    pub fn gather(&mut self, home: usize) {
        let now = self.now;
        let h = &mut self.homes[home];
        let mut local = vec![Candidate { kind: CandidateKind::Host, address: h.host }];
        if h.nat != Nat::Open {
            let port = h.map("203.0.113.99:1".parse().unwrap());
            local.push(Candidate {
                kind: CandidateKind::ServerReflexive,
                address: SocketAddr::new(h.public, port),
            });
        }
        h.paths.set_local(now, local);
        self.drain(home);
    }

    /// Another TURN server, on its own address.
    pub fn another_server(&mut self) {
        let number = self.servers.len() + 1;
        self.servers.push(TurnServer::new(format!("203.0.113.{number}:3478").parse().unwrap()));
    }

    /// Tells the home's machine of the TURN servers, in their order.
    pub fn relays(&mut self, home: usize, transports: &[RelayTransport]) {
        let way = |number: usize, address: SocketAddr, transport: RelayTransport| RelayServer {
            name: format!("relay {number}"),
            transport,
            address,
            host: "relay.test".into(),
            username: "user".into(),
            password: "secret".into(),
        };
        let ways = |(number, server): (usize, &TurnServer)| {
            let address = server.address;
            transports.iter().map(move |transport| way(number, address, *transport)).collect::<Vec<_>>()
        };
        let servers = self.servers.iter().enumerate().flat_map(ways).collect();
        let now = self.now;
        self.homes[home].paths.set_relays(now, servers);
        self.drain(home);
    }

    /// Makes two homes peers of each other; candidates come by signalling. The lower number leads.
    pub fn introduce(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            self.signal(other, me);
            let candidates = Vec::new();
            self.set_peer(me, other, candidates);
        }
    }

    pub fn set_peer(&mut self, me: usize, other: usize, candidates: Vec<Candidate>) {
        let now = self.now;
        self.homes[me].paths.set_peer(now, PeerId(other as u32), params(me, other, candidates));
        self.drain(me);
    }

    /// Queues a tunnel message; returns its number, or `None` if there is no route.
    pub fn send(&mut self, from: usize, to: usize) -> Option<u64> {
        let now = self.now;
        let route = self.homes[from].paths.route(now, PeerId(to as u32))?;
        self.sequence += 1;
        let mut message = vec![4, 0, 0, 0, from as u8];
        message.extend(self.sequence.to_be_bytes());
        for hop in std::iter::once(route.primary).chain(route.secondary) {
            self.put(from, hop, &message);
        }
        Some(self.sequence)
    }

    fn put(&mut self, from: usize, hop: Hop, message: &[u8]) {
        let mut bytes = hop.header(message.len()).map(Vec::from).unwrap_or_default();
        bytes.extend(message);
        bytes.resize(bytes.len() + hop.padding(message.len()), 0);
        self.transmit(from, hop.local, hop.destination, bytes);
    }

    /// Runs until then, sending a message each way at this interval where there is a route.
    pub fn exchange(&mut self, a: usize, b: usize, span: Duration, every: Duration) -> Vec<(usize, u64)> {
        let end = self.now + span;
        let mut sent = Vec::new();
        while self.now < end {
            for (from, to) in [(a, b), (b, a)] {
                sent.extend(self.send(from, to).map(|number| (from, number)));
            }
            self.run(every);
        }
        sent
    }

    /// Runs for a span of time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Runs until something holds; panics if it does not within the span.
    pub fn run_to(&mut self, span: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        assert!(self.run_until(self.now + span, &holds), "{what} did not happen within {span:?}");
        self.now - self.start
    }

    fn run_until(&mut self, end: Instant, holds: impl Fn(&Self) -> bool) -> bool {
        loop {
            if holds(self) {
                return true;
            }
            let timers = self.homes.iter().filter_map(|home| home.paths.poll_timeout());
            let next = timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { return false };
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let item = entry.remove();
            self.arrive(item);
        }
        for home in 0..self.homes.len() {
            if self.homes[home].paths.poll_timeout().is_some_and(|at| at <= now) {
                self.homes[home].paths.handle_timeout(now);
                self.drain(home);
            }
        }
    }

    /// Carries out the output of a machine.
    pub fn drain(&mut self, home: usize) {
        while let Some(transmit) = self.homes[home].paths.poll_transmit() {
            self.homes[home].sent_packets += 1;
            self.transmit(home, transmit.local, transmit.destination, transmit.bytes);
        }
        while let Some(event) = self.homes[home].paths.poll_event() {
            match event {
                Event::LocalCandidates(candidates) => {
                    self.homes[home].candidates = candidates;
                    (0..self.homes.len()).filter(|to| *to != home).for_each(|to| self.signal(home, to));
                }
                Event::PathChanged { peer, kind, .. } => {
                    let now = self.now;
                    self.homes[home].events.push((now, peer, kind));
                }
                Event::OpenStream { stream, transport, address, .. } => {
                    let server = &self.servers[0];
                    let works = transport == RelayTransport::Tls && server.alive && server.address == address;
                    self.later(2 * LATENCY, Item::Opened(home, stream, works));
                }
                Event::PublicAddressChanged => self.homes[home].public_address_changes += 1,
                Event::CloseStream(_)
                | Event::Sampled { .. }
                | Event::OpenSockets(_)
                | Event::CloseSocket(_)
                | Event::Attempted { .. }
                | Event::Signal { .. } => {}
            }
        }
    }

    fn signal(&mut self, about: usize, to: usize) {
        if self.signalling {
            let candidates = self.homes[about].candidates.clone();
            self.later(SIGNALLING, Item::Signal { to, about, candidates });
        }
    }

    fn transmit(&mut self, home: usize, local: Local, dst: SocketAddr, bytes: Vec<u8>) {
        if let Local::Stream(stream) = local {
            return self.later(LATENCY, Item::ToServer(Client::Stream(home, stream.0), bytes));
        }
        let h = &mut self.homes[home];
        if h.udp_blocked {
            return;
        }
        let lan = self.homes.iter().position(|other| other.host == dst && other.lan == self.homes[home].lan);
        let h = &mut self.homes[home];
        let from = if lan.is_some() || h.nat == Nat::Open {
            h.host
        } else {
            let port = h.map(dst);
            h.contacted.insert((port, dst));
            SocketAddr::new(h.public, port)
        };
        self.launch(Packet { from, to: dst, bytes, sender: Some(home) });
    }

    /// Puts a datagram on its way, from wherever it claims to be.
    pub fn launch(&mut self, packet: Packet) {
        if let Some(record) = &mut self.record {
            record.push(packet.clone());
        }
        if !(self.lost)(&packet) {
            let delay = LATENCY + (self.delay)(&packet);
            self.later(delay, Item::Udp(packet));
        }
    }

    fn later(&mut self, delay: Duration, item: Item) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), item);
    }

    fn arrive(&mut self, item: Item) {
        let now = self.now;
        match item {
            Item::Udp(packet) => {
                if let Some(at) = self.server_at(packet.to) {
                    self.reach(at, &packet);
                } else if let Some(home) = self.homes.iter().position(|home| home.lets_in(&packet)) {
                    self.receive(home, Local::Socket(SocketId::MAIN), packet.from, &packet.bytes);
                }
            }
            Item::ToServer(client, bytes) => {
                let outputs = self.servers[0].handle(client, &bytes);
                self.serve(0, outputs);
            }
            Item::ToStream(home, stream, bytes) => {
                let address = self.servers[0].address;
                self.receive(home, Local::Stream(stream), address, &bytes);
            }
            Item::Opened(home, stream, true) => self.homes[home].paths.stream_opened(now, stream),
            Item::Opened(home, stream, false) => self.homes[home].paths.stream_closed(now, stream),
            Item::Signal { to, about, candidates } => self.set_peer(to, about, candidates),
        }
        (0..self.homes.len()).for_each(|home| self.drain(home));
    }

    /// The server that an address, or a relayed address, belongs to.
    fn server_at(&self, address: SocketAddr) -> Option<usize> {
        self.servers.iter().position(|server| server.address == address || server.owns(address))
    }

    fn reach(&mut self, at: usize, packet: &Packet) {
        let server = &mut self.servers[at];
        let outputs = if packet.to == server.address {
            server.handle(Client::Udp(packet.from), &packet.bytes)
        } else {
            server.handle_relayed(packet.from, packet.to, &packet.bytes).into_iter().collect()
        };
        self.serve(at, outputs);
    }

    fn serve(&mut self, at: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::ToClient(Client::Udp(to), bytes) => {
                    let from = self.servers[at].address;
                    self.launch(Packet { from, to, bytes, sender: None });
                }
                Output::ToClient(Client::Stream(home, stream), bytes) => {
                    self.later(LATENCY, Item::ToStream(home, StreamId(stream), bytes));
                }
                Output::FromRelayed(from, to, bytes) if self.servers[at].owns(to) => {
                    let outputs = self.servers[at].handle_relayed(from, to, &bytes);
                    self.serve(at, outputs.into_iter().collect());
                }
                Output::FromRelayed(from, to, bytes) => self.launch(Packet { from, to, bytes, sender: None }),
            }
        }
    }

    fn receive(&mut self, home: usize, local: Local, src: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let h = &mut self.homes[home];
        if let Handled::Tunnel { payload, path } = h.paths.handle_datagram(now, local, src, bytes) {
            let [_, _, _, _, from, number @ ..] = &bytes[payload] else { panic!("cut short") };
            let from = usize::from(*from);
            let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
            if !h.received.insert((from, number)) {
                h.duplicates += 1;
            }
            h.paths.on_authenticated(now, PeerId(from as u32), path);
        }
        self.drain(home);
    }

    /// Returns the kind of path in use from one home to the other.
    pub fn kind(&self, from: usize, to: usize) -> Option<PathKind> {
        self.homes[from].paths.view(self.now, PeerId(to as u32)).and_then(|view| view.kind)
    }

    /// Whether all of these messages arrived.
    pub fn missing(&self, sent: &[(usize, u64)], at: impl Fn(usize) -> usize) -> Vec<(usize, u64)> {
        sent.iter().filter(|message| !self.homes[at(message.0)].received.contains(message)).copied().collect()
    }
}

impl Home {
    fn map(&mut self, dst: SocketAddr) -> u16 {
        let key = (self.nat == Nat::Symmetric).then_some(dst);
        let next = 40_000 + 7 * u16::try_from(self.mappings.len()).unwrap();
        *self.mappings.entry(key).or_insert(next)
    }

    fn lets_in(&self, packet: &Packet) -> bool {
        if self.udp_blocked {
            return false;
        }
        let open = self.nat == Nat::Open || packet.from.ip().to_string().starts_with("192.168.");
        (packet.to == self.host && open)
            || (packet.to.ip() == self.public && self.contacted.contains(&(packet.to.port(), packet.from)))
    }

    /// Makes the router lose its filter state while it keeps its mappings.
    pub fn lose_filter_state(&mut self) {
        self.contacted.clear();
    }

    /// Moves the home to another network, with another address inside and outside.
    pub fn roam(&mut self, host: &str, public: &str) {
        (self.host, self.public) = (host.parse().unwrap(), public.parse().unwrap());
        self.mappings.clear();
        self.contacted.clear();
    }
}

/// Returns what one home knows about another.
pub fn params(me: usize, other: usize, candidates: Vec<Candidate>) -> PeerParams {
    let tag = |home: usize| Tag([home as u8 + 1; 8]);
    PeerParams {
        probe_key: [(10 + me + other) as u8; 32],
        local_tag: tag(me),
        remote_tag: tag(other),
        controlling: me < other,
        nat: partyline_model::NatProfile::default(),
        candidates,
    }
}

/// Two homes that know each other and the server, not yet run.
pub fn pair(a: Nat, b: Nat, config: Config) -> World {
    let mut world = World::new();
    world.home(a, config.clone());
    world.home(b, config);
    for home in 0..2 {
        world.relays(home, &[RelayTransport::Udp, RelayTransport::Tls]);
        world.gather(home);
    }
    world.introduce(0, 1);
    world
}

//! Two machines behind real models of NATs, in virtual time: 20 ms one way between homes and to servers, 40 ms for a
//! signal by a server, a TURN server and one that answers STUN.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

#[path = "../world/turn.rs"]
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, Method, NatProfile, PathKind};
use partyline_nat::{Nat, Protocol, Rules};
use partyline_paths::{
    Config, Event, Handled, Hop, Local, Paths, PeerId, PeerParams, RelayServer, RelayTransport, SocketId,
};
use partyline_wire::probe::Tag;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessageBuilder,
    attributes::stun::XorMappedAddress, methods::BINDING,
};
use turn::{Client, Output, TurnServer};

pub const LATENCY: Duration = Duration::from_millis(20);
const UDP: Protocol = Protocol::Udp;

/// One computer behind one NAT.
pub struct Home {
    pub paths: Paths,
    pub nat: Nat,
    pub inside: IpAddr,
    pub profile: NatProfile,
    pub sockets: BTreeMap<SocketId, u16>,
    pub most_sockets: usize,
    pub candidates: Vec<Candidate>,
    pub kinds: Vec<(Instant, Option<PathKind>)>,
    pub received: BTreeSet<u64>,
    pub duplicates: usize,
    pub datagrams: usize,
    next_port: u16,
}

enum Item {
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Announce { to: usize, candidates: Vec<Candidate>, nat: NatProfile },
    Signal { to: usize, bytes: Vec<u8> },
}

pub struct Lab {
    pub now: Instant,
    pub start: Instant,
    pub homes: [Home; 2],
    pub loss: f64,
    pub jitter: Duration,
    turn: TurnServer,
    stun: SocketAddr,
    rng: ChaCha12Rng,
    queue: BTreeMap<(Instant, u64), Item>,
    order: u64,
    number: u64,
    /// Tunnel messages sent, and by whom.
    pub sent: Vec<(usize, u64)>,
}

fn profile(rules: &Rules, public: IpAddr) -> NatProfile {
    NatProfile {
        mapping: Some(rules.mapping),
        filtering: Some(rules.filtering),
        allocation: Some(rules.allocation),
        public: vec![public],
        udp_blocked: Some(false),
        ..NatProfile::default()
    }
}

impl Lab {
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    pub fn new(one: Rules, other: Rules, config: &Config, seed: u64) -> Self {
        let now = Instant::now();
        let home = |index: u8, rules: Rules| {
            let public = IpAddr::from([198, 51, 100, index + 1]);
            let mut machine_seed = [index + 1; 32];
            machine_seed[..8].copy_from_slice(&seed.to_be_bytes());
            Home {
                paths: Paths::new(machine_seed, config.clone()),
                nat: Nat::new(seed * 2 + u64::from(index), public, rules),
                inside: IpAddr::from([192, 168, index + 1, 2]),
                profile: profile(&rules, public),
                sockets: BTreeMap::from([(SocketId::MAIN, 20_000)]),
                most_sockets: 0,
                candidates: Vec::new(),
                kinds: Vec::new(),
                received: BTreeSet::new(),
                duplicates: 0,
                datagrams: 0,
                next_port: 33_000 + u16::from(index) * 500,
            }
        };
        Self {
            now,
            start: now,
            homes: [home(0, one), home(1, other)],
            loss: 0.0,
            jitter: Duration::ZERO,
            turn: TurnServer::new("203.0.113.1:3478".parse().unwrap()),
            stun: "203.0.113.99:3478".parse().unwrap(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            order: 0,
            number: 0,
            sent: Vec::new(),
        }
    }

    /// Lets both homes gather candidates and allocate relays at the same time.
    pub fn go_online(&mut self) {
        for home in 0..2 {
            let now = self.now;
            let stun = self.stun;
            let relay = RelayServer {
                name: "relay".into(),
                transport: RelayTransport::Udp,
                address: self.turn.address,
                host: "relay.test".into(),
                username: "user".into(),
                password: "secret".into(),
            };
            let h = &mut self.homes[home];
            let main = SocketAddr::new(h.inside, 20_000);
            let seen = h.nat.outbound(now, UDP, main, stun).unwrap();
            let local = [(CandidateKind::Host, main), (CandidateKind::ServerReflexive, seen)];
            h.paths.set_nat(now, h.profile.clone(), vec![stun]);
            h.paths.set_local(now, local.map(|(kind, address)| Candidate { kind, address }).to_vec());
            h.paths.set_relays(now, vec![relay]);
            self.drain(home);
        }
    }

    /// Keeps alive the mappings that the STUN server has seen, as the network check does.
    pub fn refresh(&mut self) {
        for home in &mut self.homes {
            let main = SocketAddr::new(home.inside, 20_000);
            assert!(home.nat.outbound(self.now, UDP, main, self.stun).is_some());
        }
    }

    fn later(&mut self, delay: Duration, item: Item) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), item);
    }

    fn chance(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / f64::from(u32::MAX)
    }

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.loss > 0.0 && self.chance() < self.loss {
            return;
        }
        let jitter = if self.jitter.is_zero() { Duration::ZERO } else { self.jitter.mul_f64(self.chance()) };
        self.later(LATENCY + jitter, Item::Packet { from, to, bytes });
    }

    fn transmit(&mut self, home: usize, local: Local, dst: SocketAddr, bytes: Vec<u8>) {
        let Local::Socket(socket) = local else { panic!("no streams here") };
        let now = self.now;
        let h = &mut self.homes[home];
        let Some(port) = h.sockets.get(&socket) else { return };
        h.datagrams += 1;
        let inside = SocketAddr::new(h.inside, *port);
        if matches!(dst.ip(), IpAddr::V4(ip) if ip.is_private()) {
            return;
        }
        if let Some(from) = h.nat.outbound(now, UDP, inside, dst) {
            self.launch(from, dst, bytes);
        }
    }

    pub fn drain(&mut self, home: usize) {
        while let Some(transmit) = self.homes[home].paths.poll_transmit() {
            self.transmit(home, transmit.local, transmit.destination, transmit.bytes);
        }
        while let Some(event) = self.homes[home].paths.poll_event() {
            self.act(home, event);
        }
    }

    fn act(&mut self, home: usize, event: Event) {
        let (now, to) = (self.now, 1 - home);
        match event {
            Event::LocalCandidates(candidates) => {
                let nat = self.homes[home].profile.clone();
                self.homes[home].candidates.clone_from(&candidates);
                self.later(2 * LATENCY, Item::Announce { to, candidates, nat });
            }
            Event::PathChanged { kind, path, .. } => {
                if std::env::var_os("TRACE").is_some() {
                    println!("{:?} home {home}: {kind:?} by {path:?}", now - self.start);
                }
                self.homes[home].kinds.push((now, kind));
            }
            Event::OpenSockets(ids) => {
                let h = &mut self.homes[home];
                let mut opened = Vec::new();
                for id in ids {
                    h.next_port = 33_000 + (h.next_port - 33_000 + 37) % 20_000;
                    h.sockets.insert(id, h.next_port);
                    opened.push((id, Some(h.next_port)));
                }
                h.most_sockets = h.most_sockets.max(h.sockets.len());
                h.paths.sockets_opened(now, &opened);
                self.drain(home);
            }
            Event::CloseSocket(id) => {
                if std::env::var_os("TRACE").is_some() {
                    println!("{:?} home {home}: closes {id:?}", now - self.start);
                }
                assert!(self.homes[home].sockets.remove(&id).is_some(), "{id:?} was not open");
            }
            Event::Signal { bytes, .. } => self.later(2 * LATENCY, Item::Signal { to, bytes }),
            Event::OpenStream { .. } | Event::CloseStream(_) => {}
            #[allow(unreachable_patterns)]
            _ => {}
        }
    }

    fn arrive(&mut self, item: Item) {
        let now = self.now;
        match item {
            Item::Packet { from, to, bytes } if to == self.stun => self.answer(from, &bytes),
            Item::Packet { from, to, bytes } if to == self.turn.address => {
                let outputs = self.turn.handle(Client::Udp(from), &bytes);
                self.serve(outputs);
            }
            Item::Packet { from, to, bytes } if self.turn.owns(to) => {
                let outputs = self.turn.handle_relayed(from, to, &bytes);
                self.serve(outputs.into_iter().collect());
            }
            Item::Packet { from, to, bytes } => {
                let Some(home) = (0..2).find(|home| self.homes[*home].nat.outside() == to.ip()) else {
                    return;
                };
                let h = &mut self.homes[home];
                let Some(inside) = h.nat.inbound(now, UDP, to, from) else {
                    if std::env::var_os("TRACE").is_some() {
                        println!(
                            "{:?} home {home}: its NAT drops {from} to {to} ({})",
                            now - self.start,
                            bytes[0]
                        );
                    }
                    return;
                };
                let socket = h.sockets.iter().find(|(_, port)| **port == inside.port()).map(|(id, _)| *id);
                if let Some(socket) = socket {
                    self.receive(home, socket, from, &bytes);
                }
            }
            Item::Announce { to, candidates, nat } => {
                let params = params(to, nat, candidates);
                self.homes[to].paths.set_peer(now, PeerId(0), params);
                self.drain(to);
            }
            Item::Signal { to, bytes } => {
                self.homes[to].paths.handle_signal(now, PeerId(0), &bytes);
                self.drain(to);
            }
        }
    }

    fn serve(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::ToClient(Client::Udp(to), bytes) => self.launch(self.turn.address, to, bytes),
                Output::ToClient(Client::Stream(..), _) => {}
                Output::FromRelayed(from, to, bytes) if self.turn.owns(to) => {
                    let outputs = self.turn.handle_relayed(from, to, &bytes);
                    self.serve(outputs.into_iter().collect());
                }
                Output::FromRelayed(from, to, bytes) => self.launch(from, to, bytes),
            }
        }
    }

    fn answer(&mut self, from: SocketAddr, bytes: &[u8]) {
        let (request, _) = MessageDecoderBuilder::default().build().decode(bytes).unwrap();
        let message = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(*request.transaction_id())
            .with_attribute(XorMappedAddress::from(from))
            .build();
        let mut buffer = [0; 128];
        let len = MessageEncoderBuilder::default().build().encode(&mut buffer, &message).unwrap();
        self.launch(self.stun, from, buffer[..len].to_vec());
    }

    fn receive(&mut self, home: usize, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let h = &mut self.homes[home];
        if let Handled::Tunnel { payload, path } =
            h.paths.handle_datagram(now, Local::Socket(socket), from, bytes)
        {
            let number = u64::from_be_bytes(bytes[payload][4..12].try_into().unwrap());
            if !h.received.insert(number) {
                h.duplicates += 1;
            }
            h.paths.on_authenticated(now, PeerId(0), path);
        }
        self.drain(home);
    }

    /// Sends a tunnel message, if there is a route.
    pub fn send(&mut self, home: usize) {
        let Some(route) = self.homes[home].paths.route(self.now, PeerId(0)) else { return };
        self.number += 1;
        let mut message = vec![4, 0, 0, 0];
        message.extend(self.number.to_be_bytes());
        self.sent.push((home, self.number));
        for hop in std::iter::once(route.primary).chain(route.secondary) {
            self.put(home, hop, &message);
        }
    }

    fn put(&mut self, home: usize, hop: Hop, message: &[u8]) {
        let mut bytes = hop.header(message.len()).map(Vec::from).unwrap_or_default();
        bytes.extend(message);
        self.transmit(home, hop.local, hop.destination, bytes);
    }

    pub fn run_until(&mut self, end: Instant, holds: impl Fn(&Self) -> bool) -> bool {
        let mut stalled = 0;
        loop {
            if holds(self) {
                return true;
            }
            let timers = self.homes.iter().filter_map(|home| home.paths.poll_timeout());
            let next = timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return false;
            };
            stalled = if next > self.now { 0 } else { stalled + 1 };
            assert!(stalled < 10_000, "time stands still");
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
        for home in 0..2 {
            if self.homes[home].paths.poll_timeout().is_some_and(|at| at <= now) {
                self.homes[home].paths.handle_timeout(now);
                self.drain(home);
            }
        }
    }

    /// Runs with a message each way every 20 ms, from each home that has a validated path.
    pub fn exchange(&mut self, span: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + span;
        while self.now < end {
            for home in 0..2 {
                if self.is_checked(home) {
                    self.send(home);
                }
            }
            let until = self.now + Duration::from_millis(20);
            if self.run_until(until, &holds) {
                return true;
            }
        }
        false
    }

    pub fn is_direct(&self) -> bool {
        let direct = |home: &Home| matches!(home.kinds.last(), Some((_, Some(PathKind::Direct))));
        self.homes.iter().all(direct) && self.has_path()
    }

    /// Whether both have a path on which a check was answered.
    pub fn has_path(&self) -> bool {
        (0..2).all(|home| self.is_checked(home))
    }

    fn is_checked(&self, home: usize) -> bool {
        let view = self.homes[home].paths.view(self.now, PeerId(0));
        view.is_some_and(|view| view.quality.rtt_ms.is_some())
    }

    /// Returns the method that found the path in use.
    pub fn method(&self) -> Option<Method> {
        let worked = |home: &Home| {
            let why = home.paths.view(self.now, PeerId(0))?.attempts;
            let mut worked = why.into_iter().filter(|a| a.outcome == partyline_model::AttemptOutcome::Worked);
            worked
                .find(|a| matches!(a.method, Method::Punch | Method::Predict | Method::Spray))
                .map(|a| a.method)
        };
        let (one, other) = (worked(&self.homes[0]), worked(&self.homes[1]));
        [Some(Method::Predict), Some(Method::Spray)]
            .into_iter()
            .find(|m| one == *m || other == *m)
            .unwrap_or(one)
    }

    /// Returns the number of messages that did not arrive.
    pub fn missing(&self) -> usize {
        self.sent.iter().filter(|(home, number)| !self.homes[1 - home].received.contains(number)).count()
    }
}

fn params(me: usize, nat: NatProfile, candidates: Vec<Candidate>) -> PeerParams {
    let tag = |home: usize| Tag([home as u8 + 1; 8]);
    PeerParams {
        probe_key: [7; 32],
        local_tag: tag(me),
        remote_tag: tag(1 - me),
        controlling: me == 0,
        nat,
        candidates,
    }
}

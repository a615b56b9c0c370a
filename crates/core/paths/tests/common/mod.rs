//! Path machines at home: members behind NATs, TURN servers, a signaling channel, and numbered tunnel messages between the
//! members. Datagrams and signals take 20 ms and 40 ms one way.

#![allow(dead_code, missing_docs, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

mod interference;
mod relay;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use partyline_model::{
    Allocation, AttemptOutcome, Candidate, CandidateKind, Filtering, Mapping, Method, NatProfile, PathKind,
};
use partyline_nat::{Protocol, Rules};
use partyline_paths::{
    Config, Event, Handled, Hop, Local, Paths, PeerId, PeerParams, RelayTransport, SocketId, StreamId,
};
use partyline_tests_netsim as netsim;
use partyline_tests_netsim::{
    Datagram, Delivery, Direction, HostId, Line, Output, RouterId, Segment, Simulation, StunServer,
};
use partyline_wire::probe::Tag;

use self::{interference::Interference, relay::Relay};

pub const LATENCY: Duration = Duration::from_millis(20);
pub const SIGNALING: Duration = Duration::from_millis(40);

/// The port of a member's main socket.
const MAIN_PORT: u16 = 20_000;
/// The range of the ports that a member's system chooses.
const FIRST_PORT: u16 = 33_000;
const PORTS: u16 = 20_000;

/// Both ends of a datagram's way have a line like this.
const LINE: Line = Line { latency: Duration::from_millis(10), ..Line::IDEAL };

/// The NAT between a home and the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// None: the member has a public address.
    Open,
    /// Endpoint-independent mapping, address-and-port-dependent filtering, and preserved ports.
    Cone,
    /// Address-and-port-dependent mapping and filtering, and random ports.
    Symmetric,
    /// Any other.
    Other(Rules),
}

impl Nat {
    const fn rules(self) -> Option<Rules> {
        let strict = Filtering::AddressAndPortDependent;
        match self {
            Self::Open => None,
            Self::Cone => Some(Rules::new(Mapping::EndpointIndependent, strict, Allocation::Preserving)),
            Self::Symmetric => Some(Rules::new(Mapping::AddressAndPortDependent, strict, Allocation::Random)),
            Self::Other(rules) => Some(rules),
        }
    }
}

/// What the harness itself schedules.
pub enum Item {
    Announce { to: usize, about: usize, candidates: Vec<Candidate> },
    Signal { to: usize, from: usize, bytes: Vec<u8> },
    Connect { home: usize, stream: StreamId, transport: RelayTransport, address: SocketAddr },
    Refused { home: usize, stream: StreamId },
}

/// A member's home: its path machine, its computer and its router.
pub struct Home {
    pub paths: Paths,
    pub host: HostId,
    pub router: Option<RouterId>,
    /// The address of its main socket.
    pub address: SocketAddr,
    /// The NAT behavior that it has measured and reports.
    pub profile: NatProfile,
    /// Changes of the path in use.
    pub changes: Vec<(Instant, PeerId, Option<PathKind>)>,
    /// The tunnel messages it received, by sender and number.
    pub received: BTreeSet<(usize, u64)>,
    pub duplicates: usize,
    /// How often its machine reported another public address.
    pub public_address_changes: usize,
    /// Datagrams that its machine sent by itself.
    pub sent_packets: usize,
    pub candidates: Vec<Candidate>,
    pub most_sockets: usize,
    /// How many flows its sprays may create, once its machine has found its router full.
    pub spray_limit: Option<u32>,
    sockets: BTreeMap<SocketId, u16>,
    next_port: u16,
    streams: BTreeMap<StreamId, u32>,
}

pub struct World {
    pub net: Simulation<Item>,
    pub start: Instant,
    pub homes: Vec<Home>,
    /// TURN servers, which also serve TLS.
    pub relays: Vec<Relay>,
    /// Whether announcements are passed on.
    pub signaling: bool,
    /// All tunnel messages sent so far, by sender and number.
    pub sent: Vec<(usize, u64)>,
    interference: Rc<RefCell<Interference>>,
    stun: StunServer,
    stun_host: HostId,
    seed: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with_seed(1)
    }

    pub fn with_seed(seed: u64) -> Self {
        let mut net = Simulation::new(seed);
        let interference = Rc::new(RefCell::new(Interference::default()));
        let shared = interference.clone();
        net.network.interference = Box::new(move |datagram, _| shared.borrow_mut().judge(datagram));
        let stun = StunServer::new([203, 0, 113, 99], 3478);
        let stun_host = net.network.add_host(None, stun.ips(), LINE);
        let mut world = Self {
            start: net.now().instant,
            net,
            homes: Vec::new(),
            relays: Vec::new(),
            signaling: true,
            sent: Vec::new(),
            interference,
            stun,
            stun_host,
            seed,
        };
        world.add_relay();
        world
    }

    pub fn now(&self) -> Instant {
        self.net.now().instant
    }

    /// Adds a home with one member.
    pub fn home(&mut self, nat: Nat, config: Config) -> usize {
        let number = u8::try_from(self.homes.len()).unwrap() + 1;
        let public = IpAddr::from([198, 51, 100, number]);
        let Some(rules) = nat.rules() else { return self.add_home(None, public, config) };
        let nat = partyline_nat::Nat::new(self.seed * 2 + u64::from(number), public, rules);
        let router = self.net.network.add_router(None, nat);
        self.add_home(Some(router), [192, 168, number, 2].into(), config)
    }

    /// Adds a member on the network of another one.
    pub fn housemate(&mut self, of: usize, config: Config) -> usize {
        let number = u8::try_from(self.homes.len()).unwrap() + 2;
        let IpAddr::V4(ip) = self.homes[of].address.ip() else { panic!("an IPv6 address") };
        let [a, b, c, _] = ip.octets();
        self.add_home(self.homes[of].router, [a, b, c, number].into(), config)
    }

    fn add_home(&mut self, router: Option<RouterId>, ip: IpAddr, config: Config) -> usize {
        let index = self.homes.len();
        let number = u8::try_from(index).unwrap() + 1;
        let mut seed = [number; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        self.homes.push(Home {
            paths: Paths::new(seed, config),
            host: self.net.network.add_host(router, [ip], LINE),
            router,
            address: SocketAddr::new(ip, MAIN_PORT),
            profile: NatProfile::default(),
            changes: Vec::new(),
            received: BTreeSet::new(),
            duplicates: 0,
            public_address_changes: 0,
            sent_packets: 0,
            candidates: Vec::new(),
            most_sockets: 0,
            spray_limit: None,
            sockets: BTreeMap::from([(SocketId::MAIN, MAIN_PORT)]),
            next_port: FIRST_PORT + u16::from(number) * 500,
            streams: BTreeMap::new(),
        });
        index
    }

    /// Gives a member another address in its network.
    pub fn set_address(&mut self, home: usize, ip: IpAddr) {
        let h = &mut self.homes[home];
        h.address.set_ip(ip);
        self.net.network.move_host(h.host, h.router, [ip]);
    }

    /// Moves a member to another network, with another private and public address.
    pub fn roam(&mut self, home: usize, ip: [u8; 4], public: [u8; 4]) {
        let router = self.homes[home].router.expect("a member behind a NAT");
        let rules = *self.net.network.routers[router].nat.rules();
        self.net.network.replace_nat(router, partyline_nat::Nat::new(77, public.into(), rules));
        self.set_address(home, ip.into());
        self.net.streams.break_all_of(self.homes[home].host);
    }

    /// Lets UDP pass a home's router, or not.
    pub fn block_udp(&mut self, home: usize, blocked: bool) {
        let router = self.homes[home].router.expect("a member behind a NAT");
        self.net.network.routers[router].udp = !blocked;
    }

    /// Makes a router lose its filter state. As it preserves ports, its mappings come back the same.
    pub fn lose_filter_state(&mut self, home: usize) {
        let router = self.homes[home].router.expect("a member behind a NAT");
        self.net.network.routers[router].nat.reset();
    }

    /// Tells the member's machine its own addresses, those that a STUN server sees included.
    pub fn gather(&mut self, home: usize) {
        let now = self.now();
        let reflexive = self.reflexive(home);
        let h = &mut self.homes[home];
        let reflexive = reflexive.map(|address| (CandidateKind::ServerReflexive, address));
        let local = [Some((CandidateKind::Host, h.address)), reflexive].into_iter().flatten();
        h.paths.set_local(now, local.map(|(kind, address)| Candidate { kind, address }).collect());
        self.drain(home);
    }

    /// Tells the member's machine how its NAT behaves, as the network check has measured it.
    pub fn measure_nat(&mut self, home: usize) {
        let now = self.now();
        let h = &mut self.homes[home];
        let nat = &self.net.network.routers[h.router.expect("a NAT")].nat;
        h.profile = NatProfile {
            mapping: Some(nat.rules().mapping),
            filtering: Some(nat.rules().filtering),
            allocation: Some(nat.rules().allocation),
            public: vec![nat.outside()],
            udp_blocked: Some(false),
            ..NatProfile::default()
        };
        h.paths.set_nat(now, h.profile.clone(), vec![self.stun.address]);
    }

    /// Returns the address at which the STUN server sees a member's main socket. Keeps that mapping alive, as the
    /// network check does.
    pub fn reflexive(&mut self, home: usize) -> Option<SocketAddr> {
        let (now, h) = (self.now(), &self.homes[home]);
        let nat = &mut self.net.network.routers[h.router?].nat;
        nat.outbound(now, Protocol::Udp, h.address, self.stun.address)
    }

    /// Adds a TURN server at an address of its own.
    pub fn add_relay(&mut self) {
        let relay = Relay::new(&mut self.net, self.relays.len());
        self.relays.push(relay);
    }

    /// Tells the member's machine the TURN servers, in their order.
    pub fn set_relays(&mut self, home: usize, transports: &[RelayTransport]) {
        let entries = |relay: &Relay| transports.iter().map(|by| relay.entry(*by)).collect::<Vec<_>>();
        let servers = self.relays.iter().flat_map(entries).collect();
        let now = self.now();
        self.homes[home].paths.set_relays(now, servers);
        self.drain(home);
    }

    /// Makes two members peers of each other, who learn each other's candidates by signaling. The lower number is
    /// controlling.
    pub fn introduce(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            self.announce(other, me);
            self.set_peer(me, other, Vec::new());
        }
    }

    pub fn set_peer(&mut self, me: usize, other: usize, candidates: Vec<Candidate>) {
        let now = self.now();
        let nat = self.homes.get(other).map(|home| home.profile.clone()).unwrap_or_default();
        let params = PeerParams { nat, ..params(me, other, candidates) };
        self.homes[me].paths.set_peer(now, PeerId(other as u32), params);
        self.drain(me);
    }

    /// Makes the network lose these datagrams from now on.
    pub fn lose(&mut self, lost: impl FnMut(&Datagram) -> bool + 'static) {
        self.interference.borrow_mut().lost = Box::new(lost);
    }

    /// Makes the network delay datagrams from now on.
    pub fn delay(&mut self, delay: impl FnMut(&Datagram) -> Duration + 'static) {
        self.interference.borrow_mut().delay = Box::new(delay);
    }

    /// Makes the network lose this fraction of the datagrams and delay each by up to `jitter` more.
    pub fn add_loss_and_jitter(&mut self, seed: u64, loss: f64, jitter: Duration) {
        let mut dice = netsim::Dice::new(seed);
        let mut more = netsim::Dice::new(seed + 1_000_000);
        self.lose(move |_| dice.happens(loss));
        self.delay(move |_| jitter.mul_f64(more.unit()));
    }

    /// Records all datagrams that are sent from now on, lost ones included.
    pub fn record(&mut self) {
        self.interference.borrow_mut().record = Some(Vec::new());
    }

    /// Returns the datagrams recorded so far.
    pub fn recorded(&self) -> Vec<Datagram> {
        self.interference.borrow().record.clone().expect("a record")
    }

    /// Sends a tunnel message. Returns its number, or `None` if there is no route.
    pub fn send(&mut self, from: usize, to: usize) -> Option<u64> {
        let now = self.now();
        let route = self.homes[from].paths.route(now, PeerId(to as u32))?;
        let number = self.sent.len() as u64 + 1;
        let mut message = vec![4, 0, 0, 0, from as u8];
        message.extend(number.to_be_bytes());
        for hop in std::iter::once(route.primary).chain(route.secondary) {
            self.put(from, hop, &message);
        }
        self.sent.push((from, number));
        Some(number)
    }

    fn put(&mut self, from: usize, hop: Hop, message: &[u8]) {
        let mut bytes = hop.header(message.len()).map(Vec::from).unwrap_or_default();
        bytes.extend(message);
        bytes.resize(bytes.len() + hop.padding(message.len()), 0);
        self.transmit(from, hop.local, hop.destination, bytes);
    }

    /// Runs for a span of time with a message each way at this interval, where there is a route. Returns the messages.
    pub fn exchange(&mut self, a: usize, b: usize, span: Duration, every: Duration) -> Vec<(usize, u64)> {
        let (end, first) = (self.now() + span, self.sent.len());
        while self.now() < end {
            self.send(a, b);
            self.send(b, a);
            self.run(every);
        }
        self.sent[first..].to_vec()
    }

    /// Runs until something holds, at most for a span of time, with a message each way every 20 ms from each of the
    /// first two members whose path is validated. Returns true if it holds.
    pub fn exchange_until(&mut self, span: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now() + span;
        while self.now() < end {
            for (from, to) in [(0, 1), (1, 0)] {
                if self.is_validated(from, to) {
                    self.send(from, to);
                }
            }
            if self.run_until(self.now() + Duration::from_millis(20), &holds) {
                return true;
            }
        }
        false
    }

    /// Runs for a span of time.
    pub fn run(&mut self, span: Duration) {
        self.run_until(self.now() + span, |_| false);
    }

    /// Runs until something holds; panics if it does not within the span. Returns the time since the start.
    pub fn run_to(&mut self, span: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        assert!(self.run_until(self.now() + span, &holds), "{what} did not happen within {span:?}");
        self.net.elapsed()
    }

    fn run_until(&mut self, end: Instant, holds: impl Fn(&Self) -> bool) -> bool {
        let mut stalled = 0;
        loop {
            if holds(self) {
                return true;
            }
            let timers = self.homes.iter().filter_map(|home| home.paths.poll_timeout());
            let Some(next) = timers.chain(self.net.next_at()).min().filter(|at| *at <= end) else {
                self.net.advance_to(end);
                return false;
            };
            stalled = if next > self.now() { 0 } else { stalled + 1 };
            assert!(stalled < 10_000, "time stands still");
            self.step(next.max(self.now()));
        }
    }

    fn step(&mut self, now: Instant) {
        while let Some(event) = self.net.next(now) {
            match event {
                netsim::Event::Datagram(delivery) => self.deliver(&delivery),
                netsim::Event::Segment(segment) => self.on_segment(segment),
                netsim::Event::Other(item) => self.on_item(item),
            }
        }
        self.net.advance_to(now);
        self.relays.iter_mut().for_each(|relay| relay.server.handle_timeout(self.net.now()));
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
            self.act(home, event);
        }
    }

    fn act(&mut self, home: usize, event: Event) {
        let now = self.now();
        match event {
            Event::LocalCandidates(candidates) => {
                self.homes[home].candidates = candidates;
                (0..self.homes.len()).filter(|to| *to != home).for_each(|to| self.announce(home, to));
            }
            Event::PathChanged { peer, kind, .. } => self.homes[home].changes.push((now, peer, kind)),
            Event::PublicAddressChanged => self.homes[home].public_address_changes += 1,
            Event::OpenSockets(ids) => {
                let opened = self.homes[home].open_sockets(ids);
                self.homes[home].paths.sockets_opened(now, &opened);
                self.drain(home);
            }
            Event::CloseSocket(id) => {
                assert!(self.homes[home].sockets.remove(&id).is_some(), "{id:?} was not open");
            }
            Event::Signal { peer, bytes } => {
                let to = peer.0 as usize;
                // Peers that a test made up have no home.
                if to < self.homes.len() {
                    self.net.schedule(SIGNALING, Item::Signal { to, from: home, bytes });
                }
            }
            Event::OpenStream { stream, transport, address, .. } => {
                self.net.schedule(LATENCY, Item::Connect { home, stream, transport, address });
            }
            Event::CloseStream(stream) => self.hang_up(home, stream),
            Event::RouterFull { spray_limit } => self.homes[home].spray_limit = Some(spray_limit),
            Event::Sampled { .. } | Event::Attempted { .. } => {}
        }
    }

    fn announce(&mut self, about: usize, to: usize) {
        if self.signaling {
            let candidates = self.homes[about].candidates.clone();
            self.net.schedule(SIGNALING, Item::Announce { to, about, candidates });
        }
    }

    fn transmit(&mut self, home: usize, local: Local, destination: SocketAddr, bytes: Vec<u8>) {
        let h = &self.homes[home];
        match local {
            Local::Stream(stream) => {
                if let Some(number) = h.streams.get(&stream) {
                    self.net.write(*number, Direction::ToServer, bytes);
                }
            }
            Local::Socket(socket) => {
                let port = h.sockets.get(&socket).filter(|_| h.address.is_ipv6() == destination.is_ipv6());
                if let Some(port) = port {
                    self.net.send(h.host, SocketAddr::new(h.address.ip(), *port), destination, bytes);
                }
            }
            Local::Member(_) => panic!("no member relays here"),
        }
    }

    fn on_item(&mut self, item: Item) {
        let now = self.now();
        match item {
            Item::Announce { to, about, candidates } => self.set_peer(to, about, candidates),
            Item::Signal { to, from, bytes } => {
                self.homes[to].paths.handle_signal(now, PeerId(from as u32), &bytes);
                self.drain(to);
            }
            Item::Connect { home, stream, transport, address } => {
                self.connect(home, stream, transport, address);
            }
            Item::Refused { home, stream } => {
                self.homes[home].paths.stream_closed(now, stream);
                self.drain(home);
            }
        }
    }

    fn deliver(&mut self, delivery: &Delivery) {
        if delivery.host == self.stun_host {
            let response = self.stun.respond(delivery.destination, delivery.source, &delivery.bytes);
            let Datagram { source, destination, bytes, .. } = response.expect("a well-formed request");
            self.net.send(self.stun_host, source, destination, bytes);
        } else if let Some(relay) = self.relays.iter().position(|relay| relay.host == delivery.host) {
            let outputs = self.relays[relay].server.receive(self.net.now(), delivery);
            self.send_from_relay(relay, outputs);
        } else if let Some(home) = self.homes.iter().position(|home| home.host == delivery.host)
            && let Some(socket) = self.homes[home].socket_at(delivery.destination.port())
        {
            self.receive(home, Local::Socket(socket), delivery.source, &delivery.bytes);
        }
    }

    fn send_from_relay(&mut self, relay: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Datagram { source, destination, bytes } => {
                    self.net.send(self.relays[relay].host, source, destination, bytes);
                }
                Output::Stream { stream, bytes } => self.net.write(stream, Direction::ToClient, bytes),
            }
        }
    }

    fn receive(&mut self, home: usize, local: Local, source: SocketAddr, bytes: &[u8]) {
        let now = self.now();
        let h = &mut self.homes[home];
        if let Handled::Tunnel { payload, path } = h.paths.handle_datagram(now, local, source, bytes) {
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

    fn connect(&mut self, home: usize, stream: StreamId, transport: RelayTransport, address: SocketAddr) {
        let host = self.homes[home].host;
        let serves = |relay: &&mut Relay| relay.address() == address && self.net.network.is_awake(relay.host);
        let relay = self.relays.iter_mut().find(serves).filter(|_| transport == RelayTransport::Tls);
        let Some(relay) = relay else {
            return self.net.schedule(LATENCY, Item::Refused { home, stream });
        };
        let number = self.net.streams.open(self.net.now().instant, host, relay.host);
        let client = self.net.network.public_address(host).expect("a public address");
        relay.server.connect(number, SocketAddr::new(client, FIRST_PORT + number as u16));
        self.homes[home].streams.insert(stream, number);
        // Empty data tells the client that it is connected.
        self.net.write(number, Direction::ToClient, Vec::new());
    }

    fn hang_up(&mut self, home: usize, stream: StreamId) {
        let Some(stream) = self.homes[home].streams.remove(&stream) else { return };
        let client = self.homes[home].host;
        let end = Segment { stream, client, direction: Direction::ToServer, bytes: None };
        self.net.schedule_segment(LATENCY, end);
    }

    fn on_segment(&mut self, segment: Segment) {
        let Segment { stream, client, direction, bytes } = segment;
        if direction == Direction::ToServer {
            return self.on_segment_to_server(stream, bytes);
        }
        let now = self.now();
        let home = self.homes.iter().position(|home| home.host == client).expect("a member");
        let known = self.homes[home].streams.iter().find(|(_, number)| **number == stream);
        let Some(id) = known.map(|(id, _)| *id) else { return };
        match bytes {
            None => {
                self.homes[home].streams.remove(&id);
                self.homes[home].paths.stream_closed(now, id);
                self.drain(home);
            }
            Some(bytes) if bytes.is_empty() => {
                self.homes[home].paths.stream_opened(now, id);
                self.drain(home);
            }
            Some(bytes) => {
                // What was on its way when the member moved to another network is lost.
                let Some((_, server)) = self.net.streams.ends(stream) else { return };
                let relay = self.relays.iter().find(|relay| relay.host == server).expect("its server");
                self.receive(home, Local::Stream(id), relay.address(), &bytes);
            }
        }
    }

    fn on_segment_to_server(&mut self, stream: u32, bytes: Option<Vec<u8>>) {
        let Some((_, host)) = self.net.streams.ends(stream) else { return };
        let relay = self.relays.iter().position(|relay| relay.host == host).expect("its server");
        match bytes {
            None => {
                self.relays[relay].server.disconnect(stream);
                self.net.streams.remove(stream);
            }
            Some(bytes) if self.net.network.is_awake(host) => {
                let outputs = self.relays[relay].server.read(self.net.now(), stream, &bytes);
                self.send_from_relay(relay, outputs);
            }
            Some(_) => {}
        }
    }

    /// Switches a TURN server's computer off or on; its state stays.
    pub fn set_relay_alive(&mut self, relay: usize, alive: bool) {
        self.net.network.hosts[self.relays[relay].host].asleep = !alive;
    }

    /// Restarts a TURN server, which loses its allocations and streams.
    pub fn restart_relay(&mut self, relay: usize) {
        let seed = self.net.dice.seed();
        self.relays[relay].restart(seed);
        for (stream, client) in self.net.streams.remove_all_to(self.relays[relay].host) {
            let end = Segment { stream, client, direction: Direction::ToClient, bytes: None };
            self.net.schedule_segment(LATENCY, end);
        }
    }

    /// Returns the number of allocations of each TURN server.
    pub fn allocations(&self) -> Vec<u64> {
        self.relays.iter().map(|relay| relay.server.allocations()).collect()
    }

    /// Returns the kind of the path in use from one member to another.
    pub fn kind(&self, from: usize, to: usize) -> Option<PathKind> {
        self.homes[from].paths.view(self.now(), PeerId(to as u32)).and_then(|view| view.kind)
    }

    /// Returns true if the paths of the first two members to each other are of this kind.
    pub fn both(&self, kind: impl Into<Option<PathKind>>) -> bool {
        let kind = kind.into();
        self.kind(0, 1) == kind && self.kind(1, 0) == kind
    }

    /// Returns true if a check on the path in use was answered.
    pub fn is_validated(&self, from: usize, to: usize) -> bool {
        let view = self.homes[from].paths.view(self.now(), PeerId(to as u32));
        view.is_some_and(|view| view.quality.rtt_ms.is_some())
    }

    /// Returns true if the first two members have validated paths to each other.
    pub fn has_paths(&self) -> bool {
        self.is_validated(0, 1) && self.is_validated(1, 0)
    }

    /// Returns true if those paths are direct.
    pub fn is_direct(&self) -> bool {
        self.both(PathKind::Direct) && self.has_paths()
    }

    /// Returns the method that found the direct path between the first two members.
    pub fn method(&self) -> Option<Method> {
        let worked = |home: usize| {
            let attempts = self.homes[home].paths.view(self.now(), PeerId(1 - home as u32))?.attempts;
            let worked = attempts.into_iter().filter(|a| a.outcome == AttemptOutcome::Worked);
            let mut methods = worked.map(|a| a.method);
            methods.find(|m| matches!(m, Method::Punch | Method::Predict | Method::Spray))
        };
        let found = [worked(0), worked(1)];
        let special = [Method::Predict, Method::Spray].into_iter().find(|m| found.contains(&Some(*m)));
        special.or(found[0])
    }

    /// Returns those of the messages that did not arrive, between the first two members.
    pub fn missing(&self, sent: &[(usize, u64)]) -> Vec<(usize, u64)> {
        sent.iter().filter(|message| !self.homes[1 - message.0].received.contains(message)).copied().collect()
    }
}

impl Home {
    /// Returns the number of sockets that are open, the main one included.
    pub fn open_socket_count(&self) -> usize {
        self.sockets.len()
    }

    fn open_sockets(&mut self, ids: Vec<SocketId>) -> Vec<(SocketId, Option<u16>)> {
        let mut opened = Vec::new();
        for id in ids {
            self.next_port = FIRST_PORT + (self.next_port - FIRST_PORT + 37) % PORTS;
            self.sockets.insert(id, self.next_port);
            opened.push((id, Some(self.next_port)));
        }
        self.most_sockets = self.most_sockets.max(self.sockets.len());
        opened
    }

    fn socket_at(&self, port: u16) -> Option<SocketId> {
        if port == MAIN_PORT {
            return Some(SocketId::MAIN);
        }
        self.sockets.iter().find(|(_, open)| **open == port).map(|(id, _)| *id)
    }
}

/// Returns what one member knows about another.
pub fn params(me: usize, other: usize, candidates: Vec<Candidate>) -> PeerParams {
    let tag = |home: usize| Tag([home as u8 + 1; 8]);
    PeerParams {
        probe_key: [(10 + me + other) as u8; 32],
        local_tag: tag(me),
        remote_tag: tag(other),
        controlling: me < other,
        nat: NatProfile::default(),
        candidates,
    }
}

/// Two members that know each other and the TURN server, not yet run.
pub fn pair(a: Nat, b: Nat, config: Config) -> World {
    let mut world = World::new();
    world.home(a, config.clone());
    world.home(b, config);
    for home in 0..2 {
        world.set_relays(home, &[RelayTransport::Udp, RelayTransport::Tls]);
        world.gather(home);
    }
    world.introduce(0, 1);
    world
}

//! The world: its queue, its clock, and what happens when something arrives.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{AppError, ErrorCode, Now, Timestamp, Topic};
use partyline_node::{DeviceInput, Node, Output, PACKET_ROOM, ServerId, ServerInput, StreamInput};
use partyline_rendezvous::{ConnectionId, Limits};
use partyline_wire::rendezvous::ClientFrame;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::{
    member::{Member, Out},
    relay::{self, RelayHost},
    server::{Said, Server},
};

/// Where the rendezvous is.
pub const SERVER: &str = "wss://party.test";
const BEACON_PORT: u16 = 20_555;
const LATENCY: Duration = Duration::from_millis(20);
/// How often a node may be called at one moment before it is taken to spin.
const SPIN: usize = 200;

/// A datagram that is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// What the network does to a datagram: how long it takes on top of the usual, or `None` if it is lost.
pub type Network = Box<dyn FnMut(&Datagram, u32) -> Option<Duration>>;

enum Item {
    Datagram(Datagram),
    Beacon { to: usize, from: SocketAddr, bytes: Vec<u8> },
    Connect(usize, ServerId),
    ToServer(ConnectionId, Vec<u8>),
    Hangup(ConnectionId),
    ToMember(usize, ServerId, ConnectionId, Vec<u8>),
    Closed(usize, ServerId, Option<ConnectionId>),
    NoStream(usize, partyline_node::StreamId),
}

/// A small internet.
pub struct World {
    /// The time.
    pub now: Now,
    /// Everybody.
    pub members: Vec<Member>,
    /// What happens to datagrams; is handed a random number beside each.
    pub network: Network,
    /// The server's limits when it starts next.
    pub limits: Limits,
    /// Frames to and from the server are lost while its connections stand.
    pub frozen: bool,
    /// Topics that members have entered, in the order they did.
    pub topics: Vec<Topic>,
    pub(crate) server: Option<Server>,
    pub(crate) relay: Option<RelayHost>,
    /// Whether the server grants the relay.
    pub grants: bool,
    /// Beacons take up to this long, so that they overtake each other.
    pub beacon_jitter: Duration,
    rng: ChaCha20Rng,
    queue: BTreeMap<(Instant, u64), Item>,
    order: u64,
}

impl World {
    /// A world without members and servers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Now { instant: Instant::now(), unix: Timestamp(1_790_000_000_000) },
            members: Vec::new(),
            network: Box::new(|_, _| Some(Duration::ZERO)),
            limits: Limits { connections_per_address: 1_000, ..Limits::default() },
            frozen: false,
            topics: Vec::new(),
            server: None,
            relay: None,
            grants: true,
            beacon_jitter: Duration::from_millis(1),
            rng: ChaCha20Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            order: 0,
        }
    }

    /// Adds a computer on a LAN of its own and starts it; returns its number.
    pub fn member(&mut self) -> usize {
        let number = u32::try_from(self.members.len()).expect("a number");
        self.member_on(1_000 + number)
    }

    /// The same on a LAN that it may share.
    pub fn member_on(&mut self, lan: u32) -> usize {
        let index = self.members.len();
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 1, 0).to_bits() + index as u32);
        self.members.push(Member::new(IpAddr::V4(ip), lan));
        self.start(index);
        index
    }

    /// Starts a member's program with what is on its disk.
    pub fn start(&mut self, who: usize) {
        let (seed, server) = (self.seed(), self.server.is_some());
        self.members[who].start(self.now, seed, server);
        self.settle(who);
    }

    /// Kills a member's program: its sockets and devices are gone, its disk stays.
    pub fn kill(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.node = None;
        member.devices.clear();
        for connection in std::mem::take(&mut member.connections).into_values() {
            self.put(LATENCY, Item::Hangup(connection));
        }
    }

    /// Starts rendezvous and relay.
    pub fn start_server(&mut self) {
        let offer = self.grants.then(relay::offer);
        let (server, relay) = (self.seed(), self.seed());
        self.server = Some(Server::new(self.now, self.limits.clone(), offer, server));
        self.relay = Some(RelayHost::new(self.now, relay));
    }

    /// Kills both: all that they knew is gone, all connections break.
    pub fn kill_server(&mut self) {
        (self.server, self.relay) = (None, None);
        for who in 0..self.members.len() {
            for (link, connection) in std::mem::take(&mut self.members[who].connections) {
                self.put(LATENCY, Item::Closed(who, link, Some(connection)));
            }
        }
    }

    /// Gives a member another address, as another network does. Its connections hang until somebody notices.
    pub fn move_to(&mut self, who: usize, ip: Ipv4Addr) {
        let port = self.members[who].address.port();
        self.members[who].address = SocketAddr::from((ip, port));
        let network = self.members[who].network();
        self.with(who, |node, now| node.handle_network(now, network));
    }

    /// Does something with a running node, and then what it asks for.
    pub fn with<R: Default>(&mut self, who: usize, what: impl FnOnce(&mut Node, Now) -> R) -> R {
        let now = self.now;
        let result = self.members[who].node.as_mut().map(|node| what(node, now)).unwrap_or_default();
        self.settle(who);
        result
    }

    /// The name of a member's connection to the server.
    #[must_use]
    pub fn link(&self, who: usize) -> ServerId {
        *self.members[who].connections.keys().next().expect("a connection")
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now.instant + span;
        while self.step(end) {}
        self.advance(end);
    }

    /// Moves the wall clock alone.
    pub fn set_clock(&mut self, unix: Timestamp) {
        self.now.unix = unix;
    }

    /// Goes to the next moment at which something happens, if it is not after `end`.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let due = |(who, member): (usize, &Member)| Some((member.node.as_ref()?.poll_timeout()?, who));
        let timer = self.members.iter().enumerate().filter_map(due).min();
        let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (arrival, timer) {
            (Some(at), timer) if timer.is_none_or(|(due, _)| at <= due) && at <= end => {
                self.advance(at);
                let item = self.queue.pop_first().expect("the first").1;
                self.arrive(item);
            }
            (_, Some((due, who))) if due <= end => {
                self.advance(due);
                self.members[who].wakes += 1;
                self.with(who, |node, now| node.handle_timeout(now));
            }
            _ => return false,
        }
        true
    }

    fn advance(&mut self, to: Instant) {
        let span = to.saturating_duration_since(self.now.instant);
        self.now = Now { instant: self.now.instant + span, unix: self.now.unix.plus(span) };
        let now = self.now;
        if let Some(server) = self.server.as_mut().filter(|server| server.core.poll_timeout() <= now.instant)
        {
            server.core.handle_timeout(now);
        }
        if let Some(relay) = &mut self.relay {
            relay.core.handle_timeout(now);
            relay.obey(now);
        }
    }

    fn arrive(&mut self, item: Item) {
        match item {
            Item::Datagram(datagram) => self.deliver(datagram),
            Item::Beacon { to, from, bytes } => {
                self.with(to, |node, now| node.handle_beacon(now, from, &bytes));
            }
            Item::Connect(who, link) => self.connect(who, link),
            Item::ToServer(..) | Item::ToMember(..) if self.frozen => {}
            Item::ToServer(connection, bytes) => {
                let now = self.now;
                if let Some(server) = &mut self.server {
                    server.core.handle_frame(now, connection, &bytes);
                }
                self.serve();
            }
            Item::Hangup(connection) => {
                let now = self.now;
                if let Some(server) = &mut self.server {
                    server.disconnect(now, connection);
                }
                self.serve();
            }
            Item::ToMember(who, link, connection, bytes) => {
                if self.members[who].connections.get(&link) == Some(&connection) {
                    self.with(who, |node, now| node.handle_server(now, link, ServerInput::Frame(bytes)));
                }
            }
            Item::Closed(who, link, connection) => {
                let known = self.members[who].connections.get(&link).copied();
                if known.is_none() || known == connection {
                    self.members[who].connections.remove(&link);
                    let input = ServerInput::Closed(connection.is_none().then(unreachable_server));
                    self.with(who, |node, now| node.handle_server(now, link, input));
                }
            }
            Item::NoStream(who, id) => {
                self.with(who, |node, now| {
                    node.handle_stream(now, id, StreamInput::Closed);
                });
            }
        }
    }

    fn deliver(&mut self, Datagram { from, to, bytes }: Datagram) {
        if to.ip() == relay::address().ip() {
            let now = self.now;
            let sent = self.relay.as_mut().map(|relay| relay.receive(now, from, to, &bytes));
            sent.into_iter().flatten().for_each(|(from, to, bytes)| self.send(Datagram { from, to, bytes }));
        } else if let Some(who) = self.members.iter().position(|member| member.address == to) {
            let mut packet = vec![0; bytes.len().max(PACKET_ROOM)];
            let came = self.with(who, |node, now| node.handle_datagram(now, from, &bytes, &mut packet));
            if let Some((party, len)) = came {
                packet.truncate(len);
                self.members[who].received.push((party, packet));
            }
        }
    }

    fn connect(&mut self, who: usize, link: ServerId) {
        let (now, ip) = (self.now, self.members[who].address.ip());
        let connection = self.server.as_mut().and_then(|server| server.connect(now, who, link, ip));
        let Some(connection) = connection else {
            return self.put(LATENCY, Item::Closed(who, link, None));
        };
        self.members[who].connections.insert(link, connection);
        self.with(who, |node, now| node.handle_server(now, link, ServerInput::Opened));
        self.serve();
    }

    fn serve(&mut self) {
        let said = self.server.as_mut().map(Server::say);
        for said in said.into_iter().flatten() {
            self.put(
                LATENCY,
                match said {
                    Said::Frame(who, link, connection, bytes) => Item::ToMember(who, link, connection, bytes),
                    Said::Closed(who, link, connection) => Item::Closed(who, link, Some(connection)),
                },
            );
        }
    }

    /// Does what a node asks for, until it asks for nothing.
    pub(crate) fn settle(&mut self, who: usize) {
        for _ in 0..SPIN {
            self.perform_all(who);
            let now = self.now;
            let Some(node) = self.members[who].node.as_mut() else { return };
            if node.poll_timeout().is_none_or(|at| at > now.instant) {
                return;
            }
            node.handle_timeout(now);
        }
        panic!("member {who} asks for the same moment for ever");
    }

    fn perform_all(&mut self, who: usize) {
        loop {
            let (now, mut out) = (self.now, Out::default());
            let member = &mut self.members[who];
            let Some(node) = member.node.as_mut() else { return };
            node.flush(now, &mut out);
            let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
            member.received.extend(out.packets);
            let from = member.address;
            for (to, bytes) in out.datagrams {
                self.members[who].datagrams += 1;
                self.send(Datagram { from, to, bytes });
            }
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.perform(who, output));
        }
    }

    fn perform(&mut self, who: usize, output: Output) {
        let now = self.now;
        let member = &mut self.members[who];
        let Some(node) = member.node.as_mut() else { return };
        match output {
            Output::Datagram { destination, bytes } => {
                member.datagrams += 1;
                let from = member.address;
                self.send(Datagram { from, to: destination, bytes });
            }
            // This world has one socket for each member.
            Output::SocketsOpen { ids } => {
                let none: Vec<_> = ids.into_iter().map(|id| (id, None)).collect();
                node.handle_sockets(now, &none);
            }
            Output::DeviceUp { party, device } => {
                member.devices.insert(party, device);
                member.devices_made += 1;
                node.handle_device(party, DeviceInput::Up("party0".to_owned()));
            }
            Output::DeviceDown { party } => drop(member.devices.remove(&party)),
            Output::ServerOpen { id, .. } => self.put(LATENCY, Item::Connect(who, id)),
            Output::ServerSend { id, frame } => {
                member.frames += 1;
                if let Ok(ClientFrame::Enter { topic, .. }) = ClientFrame::decode(&frame) {
                    self.topics.push(topic);
                }
                if let Some(connection) = member.connections.get(&id).copied() {
                    self.put(LATENCY, Item::ToServer(connection, frame));
                }
            }
            Output::ServerClose { id } => {
                if let Some(connection) = member.connections.get(&id).copied() {
                    self.put(LATENCY, Item::Hangup(connection));
                    self.put(LATENCY, Item::Closed(who, id, Some(connection)));
                }
            }
            Output::StreamOpen { id, .. } => self.put(LATENCY, Item::NoStream(who, id)),
            Output::Resolve { host, port } => {
                let address = SocketAddr::new(relay::address().ip(), port);
                let addresses = if host == relay::HOST { vec![address] } else { Vec::new() };
                node.handle_resolved(now, host, port, addresses);
            }
            Output::Beacon { to, bytes } => self.beacon(who, to, &bytes),
            Output::Save => member.disk = Some(node.save()),
            Output::Answer { request, result } => drop(member.answers.insert(request, *result)),
            Output::Spares { .. } | Output::SpareSend { .. } | Output::Reach { .. } => {}
            Output::Stopped => self.kill(who),
            // This world has neither streams nor spare sockets.
            _ => {}
        }
    }

    fn beacon(&mut self, from: usize, to: Option<SocketAddr>, bytes: &[u8]) {
        let (lan, ip) = (self.members[from].lan, self.members[from].address.ip());
        let hears = |(who, member): (usize, &Member)| {
            let meant = to.is_none_or(|to| to.ip() == member.address.ip());
            (who != from && member.lan == lan && meant).then_some(who)
        };
        let hearers: Vec<usize> = self.members.iter().enumerate().filter_map(hears).collect();
        for to in hearers {
            let from = SocketAddr::new(ip, BEACON_PORT);
            let delay = self.beacon_jitter.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX));
            self.put(delay, Item::Beacon { to, from, bytes: bytes.to_vec() });
        }
    }

    fn send(&mut self, datagram: Datagram) {
        let chance = self.rng.next_u32();
        if let Some(delay) = (self.network)(&datagram, chance) {
            self.put(LATENCY + delay, Item::Datagram(datagram));
        }
    }

    fn put(&mut self, after: Duration, item: Item) {
        self.order += 1;
        self.queue.insert((self.now.instant + after, self.order), item);
    }

    /// A seed for one machine.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}

fn unreachable_server() -> AppError {
    AppError::new(ErrorCode::ServerUnreachable, "The server cannot be reached.", "Partyline keeps trying.")
}

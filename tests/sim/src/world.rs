//! The world: its queue, its clock, and what can be done to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Now, Timestamp, Topic};
use partyline_node::{Node, PortMappingReport, ServerId, StreamId};
use partyline_rendezvous::{ConnectionId, Limits};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::{
    internet::{Internet, Place, Turned},
    member::Member,
    relay::{self, RelayHost},
    server::Server,
    trace::Trace,
    wires::{Found, Pipe},
};

/// Where the rendezvous is.
pub const SERVER: &str = "wss://party.test";
/// One way between a member with a good line and a server.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);

/// A datagram that is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// From where, as the public internet sees it.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// What the network does to a datagram: how long it takes on top of the usual, or `None` if it is lost.
pub type Network = Box<dyn FnMut(&Datagram, u32) -> Option<Duration>>;

pub(crate) enum Item {
    Datagram(Turned, Vec<u8>),
    Beacon { to: usize, from: SocketAddr, bytes: Vec<u8> },
    Connect(usize, ServerId),
    ToServer(usize, ConnectionId, Vec<u8>),
    Hangup(ConnectionId),
    ToMember(usize, ServerId, ConnectionId, Vec<u8>),
    Closed(usize, ServerId, Option<ConnectionId>),
    OpenStream(usize, StreamId),
    StreamUp(u32, Vec<u8>),
    StreamDown(usize, StreamId, u32, Option<Vec<u8>>),
    StreamHangup(u32),
    Reached(usize, IpAddr),
    Mapped(usize),
    Save(usize),
}

/// A small internet.
pub struct World {
    /// The time.
    pub now: Now,
    /// Everybody.
    pub members: Vec<Member>,
    /// Routers.
    pub internet: Internet,
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
    /// Whether the relay has IPv6 addresses too.
    pub relay_v6: bool,
    /// Beacons take up to this long, so that they overtake each other.
    pub beacon_jitter: Duration,
    /// What went over the wires so far.
    pub trace: Trace,
    pub(crate) rng: ChaCha20Rng,
    queue: BTreeMap<(Instant, u64), Item>,
    order: u64,
    timers: BTreeSet<(Instant, usize)>,
    due: Vec<Option<Instant>>,
    pub(crate) pipes: BTreeMap<u32, Pipe>,
    /// Networks that no datagrams go between, by their public addresses.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    /// Where members were found last, so that finding one takes no longer in a large party.
    pub(crate) found: Found,
}

impl World {
    /// A world without members and servers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let now = Now { instant: Instant::now(), unix: Timestamp(1_790_000_000_000) };
        Self {
            now,
            members: Vec::new(),
            internet: Internet::default(),
            network: Box::new(|_, _| Some(Duration::ZERO)),
            limits: Limits { connections_per_address: 1_000, ..Limits::default() },
            frozen: false,
            topics: Vec::new(),
            server: None,
            relay: None,
            grants: true,
            relay_v6: false,
            beacon_jitter: Duration::from_millis(1),
            trace: Trace::new(now.instant),
            rng: ChaCha20Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            order: 0,
            timers: BTreeSet::new(),
            due: Vec::new(),
            pipes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            found: Found::default(),
        }
    }

    /// Adds a computer on a LAN of its own and starts it; returns its number.
    pub fn member(&mut self) -> usize {
        let number = u32::try_from(self.members.len()).expect("a number");
        self.member_on(1_000 + number)
    }

    /// The same on a LAN that it may share.
    pub fn member_on(&mut self, lan: u32) -> usize {
        let index = self.add(lan);
        self.start(index);
        index
    }

    /// Adds a computer with a public address that does not run yet; returns its number.
    pub fn add(&mut self, lan: u32) -> usize {
        let index = self.members.len();
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 1, 0).to_bits() + index as u32);
        self.members.push(Member::new(IpAddr::V4(ip), lan));
        index
    }

    /// Starts a member's program with what is on its disk.
    pub fn start(&mut self, who: usize) {
        let (seed, server, now) = (self.seed(), self.server.is_some(), self.now_of(who));
        self.members[who].start(now, seed, server);
        self.settle(who);
    }

    /// Kills a member's program: its sockets and devices are gone, its disk stays.
    pub fn kill(&mut self, who: usize) {
        let member = &mut self.members[who];
        (member.node, member.unsaved) = (None, false);
        member.devices.clear();
        member.opened.clear();
        let streams = std::mem::take(&mut member.streams);
        for connection in std::mem::take(&mut member.connections).into_values() {
            self.put(LATENCY, Item::Hangup(connection));
        }
        streams.into_values().for_each(|number| self.put(LATENCY, Item::StreamHangup(number)));
        self.note_deadline(who);
    }

    /// Starts rendezvous and relay.
    pub fn start_server(&mut self) {
        let offer = self.grants.then(relay::offer);
        let server = self.seed();
        self.server = Some(Server::new(self.now, self.limits.clone(), offer, server));
        self.start_relay();
    }

    /// Starts the relay alone.
    pub fn start_relay(&mut self) {
        let seed = self.seed();
        self.relay = Some(RelayHost::new(seed));
    }

    /// Kills both: all that they knew is gone, all connections break.
    pub fn kill_server(&mut self) {
        self.server = None;
        self.kill_relay();
        for who in 0..self.members.len() {
            for (link, connection) in std::mem::take(&mut self.members[who].connections) {
                self.put(LATENCY, Item::Closed(who, link, Some(connection)));
            }
        }
    }

    /// Gives a member another address, as another network does. Its connections hang until somebody notices.
    pub fn move_to(&mut self, who: usize, ip: Ipv4Addr) {
        self.members[who].address.set_ip(ip.into());
        let network = self.members[who].network();
        self.with(who, |node, now| node.handle_network(now, network));
    }

    /// Moves a member's computer to another home. Packets of its connections go nowhere from now on.
    pub fn roam(&mut self, who: usize, home: Place, ip: IpAddr, v6: Option<std::net::Ipv6Addr>) {
        let member = &mut self.members[who];
        member.set_place(home, ip, v6);
        let connections = member.connections.values().copied();
        member.stale.extend(connections);
        self.break_pipes(who);
        let network = self.members[who].network();
        self.with(who, |node, now| {
            node.handle_port_mapping(now, PortMappingReport::default());
            node.handle_network(now, network);
        });
    }

    /// Puts a member's computer to sleep, or wakes it.
    pub fn sleep(&mut self, who: usize, asleep: bool) {
        self.members[who].asleep = asleep;
        if asleep {
            self.note_deadline(who);
        } else {
            self.with(who, Node::handle_wake);
        }
    }

    /// Has a member's router open the port of its tunnel's sockets, in a second.
    pub fn map_port(&mut self, who: usize) {
        self.put(Duration::from_secs(1), Item::Mapped(who));
    }

    /// Cuts the way between the networks that two members are in now, until [`Self::mend`].
    pub fn cut(&mut self, one: usize, other: usize) {
        for (a, b) in self.ways(one, other) {
            self.cuts.extend([(a, b), (b, a)]);
        }
    }

    /// All ways are open again.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    fn ways(&self, one: usize, other: usize) -> Vec<(IpAddr, IpAddr)> {
        let v4 = (self.public_ip(one), self.public_ip(other));
        let v6 = self.members[one].v6.zip(self.members[other].v6).map(|(a, b)| (a.ip(), b.ip()));
        [Some(v4), v6].into_iter().flatten().filter(|(a, b)| a != b).collect()
    }

    pub(crate) fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cuts.contains(&(from.ip(), to.ip()))
    }

    /// The time as a member's own clocks have it.
    pub(crate) fn now_of(&self, who: usize) -> Now {
        let unix = self.now.unix.0.saturating_add_signed(self.members[who].skew_ms);
        Now { instant: self.now.instant, unix: Timestamp(unix) }
    }

    /// Does something with a running node, and then what it asks for.
    pub fn with<R: Default>(&mut self, who: usize, what: impl FnOnce(&mut Node, Now) -> R) -> R {
        let now = self.now_of(who);
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
        let timer = self.timers.first().copied();
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
            relay.handle_timeout(now);
        }
    }

    /// Takes note of when a member wants to be woken.
    pub(crate) fn note_deadline(&mut self, who: usize) {
        self.due.resize(self.members.len(), None);
        let member = &self.members[who];
        let node = member.node.as_ref().filter(|_| !member.asleep);
        let due = node.and_then(Node::poll_timeout);
        let before = std::mem::replace(&mut self.due[who], due);
        if before != due {
            before.map(|at| self.timers.remove(&(at, who)));
            due.map(|at| self.timers.insert((at, who)));
        }
    }

    pub(crate) fn put(&mut self, after: Duration, item: Item) {
        self.order += 1;
        self.queue.insert((self.now.instant + after, self.order), item);
    }

    /// A number from 0 to 1.
    pub(crate) fn chance(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// A seed for one machine.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}

//! A member: a node, and what stands for its sockets, devices and disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{AppError, Now, PartyId, Reply, Settings};
use partyline_node::{
    Config, Deliver, DeviceConfig, Egress, Local, LocalNetwork, NetcheckConfig, Node, PathsConfig, RequestId,
    ServerId, SocketId, StreamId, Transmit,
};
use partyline_rendezvous::ConnectionId;

use crate::{internet::Place, world::SERVER};

/// The port of everybody's tunnel socket.
const PORT: u16 = 20_000;
/// Where sockets lent to the network check begin.
const FIRST_SPARE: u16 = 50_000;

/// How a member's packets fare on its own line, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// One way, at least.
    pub latency: Duration,
    /// Up to this much longer; more than the distance of two packets reorders them.
    pub jitter: Duration,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Share of packets that arrive twice, 0 to 1.
    pub twice: f64,
}

impl Line {
    /// Ten milliseconds, nothing lost.
    pub const GOOD: Self =
        Self { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0.0, twice: 0.0 };
}

/// A member's computer.
pub struct Member {
    /// Its part in all its parties; `None` while its program does not run.
    pub node: Option<Node>,
    /// The address of its tunnel socket.
    pub address: SocketAddr,
    /// The same for IPv6.
    pub v6: Option<SocketAddr>,
    /// Behind which router it is.
    pub home: Place,
    /// Its line to the internet.
    pub line: Line,
    /// The LAN it is on; beacons stay there.
    pub lan: u32,
    /// How far its wall clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// Its network devices as they were last asked for.
    pub devices: BTreeMap<PartyId, DeviceConfig>,
    /// How often a device was made.
    pub devices_made: usize,
    /// Packets that came for its devices.
    pub received: Vec<(PartyId, Vec<u8>)>,
    /// What is on its disk.
    pub disk: Option<Vec<u8>>,
    /// Whether its disk is behind.
    pub(crate) unsaved: bool,
    /// Answers to its commands.
    pub answers: BTreeMap<RequestId, Result<Reply, AppError>>,
    /// How often it was woken by nothing but time.
    pub wakes: usize,
    /// Messages it sent on its devices' behalf or its own, by UDP.
    pub datagrams: usize,
    /// Frames it sent to servers.
    pub frames: usize,
    /// Whether its computer sleeps.
    pub asleep: bool,
    /// When it was connected to a server for the first time since its program started.
    pub online: Option<Instant>,
    /// Fresh sockets it lends to each network check.
    pub spares: u8,
    /// Sockets opened besides the main one, and their ports.
    pub(crate) opened: BTreeMap<SocketId, u16>,
    next_spare: u16,
    /// Connections whose packets go nowhere any more, since the network under them is another one.
    pub(crate) stale: BTreeSet<ConnectionId>,
    pub(crate) streams: BTreeMap<StreamId, u32>,
    pub(crate) runs: u32,
    pub(crate) connections: BTreeMap<ServerId, ConnectionId>,
    pub(crate) next_request: RequestId,
}

impl Member {
    pub(crate) fn new(ip: IpAddr, lan: u32) -> Self {
        Self {
            node: None,
            address: SocketAddr::new(ip, PORT),
            v6: None,
            home: None,
            line: Line::GOOD,
            lan,
            skew_ms: 0,
            devices: BTreeMap::new(),
            devices_made: 0,
            received: Vec::new(),
            disk: None,
            unsaved: false,
            answers: BTreeMap::new(),
            wakes: 0,
            datagrams: 0,
            frames: 0,
            asleep: false,
            online: None,
            spares: 0,
            opened: BTreeMap::new(),
            next_spare: FIRST_SPARE,
            stale: BTreeSet::new(),
            streams: BTreeMap::new(),
            runs: 0,
            connections: BTreeMap::new(),
            next_request: 0,
        }
    }

    /// How many sockets it has open besides the tunnel's and those lent to its own check.
    #[must_use]
    pub fn opened_sockets(&self) -> usize {
        self.opened.keys().filter(|id| !id.is_probe()).count()
    }

    /// Moves it to a computer of these addresses.
    pub fn set_place(&mut self, home: Place, ip: IpAddr, v6: Option<Ipv6Addr>) {
        self.home = home;
        self.address.set_ip(ip);
        self.v6 = v6.map(|ip| SocketAddr::new(ip.into(), PORT));
    }

    pub(crate) fn start(&mut self, now: Now, seed: [u8; 32], server: bool) {
        let config = Config {
            settings: Settings {
                servers: if server { vec![SERVER.to_owned()] } else { Vec::new() },
                ..Settings::default()
            },
            version: "test".to_owned(),
            paths: PathsConfig::default(),
            netcheck: NetcheckConfig { probe_sockets: self.spares, ..NetcheckConfig::default() },
        };
        let mut node = Node::new(now, seed, config, self.disk.as_deref()).expect("state that can be read");
        node.handle_network(now, self.network());
        self.node = Some(node);
        self.runs += 1;
        self.online = None;
    }

    /// What its system lists.
    #[must_use]
    pub fn network(&self) -> LocalNetwork {
        let at_home = self.home.is_some() && self.address.is_ipv4();
        let prefix = || ipnet::IpNet::new(self.address.ip(), 24).expect("a prefix").trunc();
        LocalNetwork {
            addresses: [Some(self.address), self.v6].into_iter().flatten().map(|a| a.ip()).collect(),
            prefixes: if at_home { vec![prefix()] } else { Vec::new() },
            routers: Vec::new(),
            port_v4: Some(self.address.port()),
            port_v6: self.v6.map(|address| address.port()),
        }
    }

    /// Opens fresh sockets, in place of open ones of the same ids.
    pub(crate) fn open(&mut self, ids: Vec<SocketId>) -> Vec<(SocketId, Option<u16>)> {
        let ports: Vec<_> = ids.into_iter().map(|id| (id, self.fresh_port())).collect();
        self.opened.extend(ports.iter().copied());
        ports.into_iter().map(|(id, port)| (id, Some(port))).collect()
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        self.opened.remove(&id);
    }

    fn fresh_port(&mut self) -> u16 {
        let port = self.next_spare;
        self.next_spare = port.checked_add(1).unwrap_or(FIRST_SPARE);
        port
    }

    /// The socket at an address, if it is one of this computer's.
    pub(crate) fn socket(&self, to: SocketAddr) -> Option<SocketId> {
        if to == self.address || Some(to) == self.v6 {
            return Some(SocketId::MAIN);
        }
        let mut opened = self.opened.iter().filter(|_| to.ip() == self.address.ip());
        opened.find(|(_, port)| **port == to.port()).map(|(id, _)| *id)
    }

    /// The address that packets of a socket leave from.
    pub(crate) fn source(&self, socket: SocketId, to: SocketAddr) -> Option<SocketAddr> {
        match socket {
            SocketId::MAIN if to.is_ipv6() => self.v6,
            SocketId::MAIN => Some(self.address),
            opened => self.beside(self.opened.get(&opened)?, to),
        }
    }

    fn beside(&self, port: &u16, to: SocketAddr) -> Option<SocketAddr> {
        to.is_ipv4().then(|| SocketAddr::new(self.address.ip(), *port))
    }
}

/// What leaves a node in one go.
#[derive(Default)]
pub(crate) struct Out {
    pub messages: Vec<(Local, SocketAddr, Vec<u8>)>,
    pub packets: Vec<(PartyId, Vec<u8>)>,
}

impl Egress for Out {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        let messages = bytes.chunks(segment).map(|message| (local, destination, message.to_vec()));
        self.messages.extend(messages);
    }

    fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
        self.packets.push((party, packet.to_vec()));
    }
}

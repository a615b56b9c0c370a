//! A member: a node, and what stands for its sockets, devices and disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{AppError, MemberView, Now, PartyId, PartyView, Reply, Settings, Snapshot, Timestamp};
use partyline_node::{
    Config, Deliver, DeviceConfig, DeviceInput, Egress, HostAddress, Local, LocalNetwork, NetcheckConfig,
    Node, Output, PACKET_ROOM, PathsConfig, RequestId, ServerId, SocketId, StreamId, StreamInput, Transmit,
};
use partyline_tests_netsim::{Delivery, Direction, HostId, Network};
use partyline_wire::rendezvous::ClientFrame;

use crate::{
    cards,
    item::Item,
    packet, relay,
    rendezvous::{Connection, SERVER},
    wires::{LATENCY, RELAY, Wires},
};

/// The port of every tunnel socket.
pub(crate) const TUNNEL_PORT: u16 = 20_000;
/// The first port of the other sockets that a node opens.
const FIRST_OTHER_PORT: u16 = 50_000;
const BEACON_PORT: u16 = 20_555;
/// The longest time for which the disk may be behind the node.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node may be called at one moment before the run is aborted.
const MAX_CALLS_PER_MOMENT: usize = 200;
/// Room for the longest message on a stream.
const STREAM_ROOM: usize = 66_000;

/// A member's computer and program.
pub struct Member {
    /// Its node; `None` while its program does not run.
    pub node: Option<Node>,
    /// Its number.
    pub number: usize,
    /// Its computer.
    pub host: HostId,
    /// How far its wall clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// Its network devices as they were last configured.
    pub devices: BTreeMap<PartyId, DeviceConfig>,
    /// How often a device was made.
    pub devices_made: usize,
    /// The packets that its devices received.
    pub received: Vec<(PartyId, Vec<u8>)>,
    /// The saved state.
    pub disk: Option<Vec<u8>>,
    /// The answers to its commands.
    pub answers: BTreeMap<RequestId, Result<Reply, AppError>>,
    /// How often a timeout woke it.
    pub wakes: usize,
    /// Datagrams sent.
    pub datagrams: usize,
    /// Frames sent to the rendezvous server.
    pub frames: usize,
    /// When it was first connected to the server since its program started.
    pub online: Option<Instant>,
    /// Probe sockets for each network check.
    pub probe_sockets: u8,
    /// IPv6 addresses that its system still lists, though new connections should not use them.
    pub deprecated: Vec<IpAddr>,
    /// True if the disk is behind the node.
    pub(crate) unsaved: bool,
    /// Connections over a network that it has left: their packets are lost.
    pub(crate) stale: BTreeSet<Connection>,
    pub(crate) connections: BTreeMap<ServerId, Connection>,
    /// Attempts to connect that go on, by their numbers.
    pub(crate) opening: BTreeMap<ServerId, u32>,
    attempts: u32,
    /// The ports of sockets other than the tunnel's.
    ports: BTreeMap<SocketId, u16>,
    next_port: u16,
    streams: BTreeMap<StreamId, u32>,
    next_request: RequestId,
}

impl Member {
    pub(crate) fn new(number: usize, host: HostId) -> Self {
        Self {
            node: None,
            number,
            host,
            skew_ms: 0,
            devices: BTreeMap::new(),
            devices_made: 0,
            received: Vec::new(),
            disk: None,
            answers: BTreeMap::new(),
            wakes: 0,
            datagrams: 0,
            frames: 0,
            online: None,
            probe_sockets: 0,
            deprecated: Vec::new(),
            unsaved: false,
            stale: BTreeSet::new(),
            connections: BTreeMap::new(),
            opening: BTreeMap::new(),
            attempts: 0,
            ports: BTreeMap::new(),
            next_port: FIRST_OTHER_PORT,
            streams: BTreeMap::new(),
            next_request: 0,
        }
    }

    /// Returns the number of open sockets, without the tunnel's and those of the network check.
    #[must_use]
    pub fn opened_sockets(&self) -> usize {
        self.ports.keys().filter(|id| !id.is_probe()).count()
    }

    /// Returns the number for the next command.
    pub(crate) fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        self.next_request
    }

    /// Starts its program with what is on its disk.
    pub(crate) fn start(&mut self, server: bool, wires: &mut Wires) {
        let config = Config {
            settings: Settings {
                servers: if server { vec![SERVER.to_owned()] } else { Vec::new() },
                ..Settings::default()
            },
            version: "test".to_owned(),
            paths: PathsConfig::default(),
            netcheck: NetcheckConfig { probe_sockets: self.probe_sockets, ..NetcheckConfig::default() },
        };
        let (seed, now) = (wires.net.dice.seed(), self.clock(wires));
        let mut node = Node::new(now, seed, config, self.disk.as_deref()).expect("state that can be read");
        // As the engine does, so that the sequence numbers of this run are reserved.
        self.disk = Some(node.save());
        node.handle_network(now, self.local_network(&wires.net.network));
        self.node = Some(node);
        self.online = None;
        self.drive(wires);
    }

    /// Kills its program: its sockets and devices are gone, its disk stays.
    pub(crate) fn kill(&mut self, wires: &mut Wires) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            wires.schedule(LATENCY, Item::HangUp(connection));
        }
        for stream in std::mem::take(&mut self.streams).into_values() {
            wires.close_stream(LATENCY, stream, self.host, Direction::ToServer);
        }
        self.cut_power();
    }

    /// Ends its program without a word: its disk stays, and nobody learns that its connections are gone.
    pub(crate) fn cut_power(&mut self) {
        (self.node, self.unsaved) = (None, false);
        self.devices.clear();
        self.ports.clear();
        self.connections.clear();
        self.opening.clear();
        self.streams.clear();
    }

    /// Returns the time by its own clocks.
    pub(crate) fn clock(&self, wires: &Wires) -> Now {
        let now = wires.now();
        Now { unix: Timestamp(now.unix.0.saturating_add_signed(self.skew_ms)), ..now }
    }

    /// Calls its node if it runs, and carries out what the node asks for.
    pub(crate) fn with<R: Default>(
        &mut self,
        wires: &mut Wires,
        call: impl FnOnce(&mut Node, Now) -> R,
    ) -> R {
        let now = self.clock(wires);
        let result = self.node.as_mut().map(|node| call(node, now)).unwrap_or_default();
        self.drive(wires);
        result
    }

    /// Returns the moment at which its node has to be woken.
    pub(crate) fn poll_timeout(&self, wires: &Wires) -> Option<Instant> {
        self.node.as_ref().filter(|_| !wires.is_asleep(self.host))?.poll_timeout()
    }

    /// Hands a datagram to the node.
    pub(crate) fn on_datagram(&mut self, datagram: &Delivery, wires: &mut Wires) {
        let Delivery { source, destination, bytes, .. } = datagram;
        let Some(socket) = self.socket_at(*destination) else { return };
        let (mut scratch, mut out) = (vec![0; bytes.len().max(PACKET_ROOM)], Outbox::default());
        self.with(wires, |node, now| {
            node.handle_datagram(now, socket, *source, bytes, &mut scratch, &mut out);
        });
        self.send_out(out, wires);
    }

    /// Hands stream data to the node, or tells it that the stream is open or closed.
    pub(crate) fn on_stream(&mut self, stream: u32, bytes: Option<Vec<u8>>, wires: &mut Wires) {
        let known = self.streams.iter().find(|(_, number)| **number == stream).map(|(id, _)| *id);
        let Some(id) = known else { return };
        let input = match bytes {
            None => {
                self.streams.remove(&id);
                StreamInput::Closed
            }
            Some(bytes) if bytes.is_empty() => StreamInput::Opened,
            Some(bytes) => StreamInput::Data(bytes),
        };
        let (mut scratch, mut out) = (vec![0; STREAM_ROOM], Outbox::default());
        self.with(wires, |node, now| node.handle_stream(now, id, input, &mut scratch, &mut out));
        self.send_out(out, wires);
    }

    /// Takes note of the number of a stream that has reached the relay.
    pub(crate) fn on_stream_numbered(&mut self, id: StreamId, stream: u32) {
        self.streams.insert(id, stream);
    }

    /// Writes the node's state to the disk, if that is behind.
    pub(crate) fn save(&mut self) {
        if let Some(node) = self.node.as_ref().filter(|_| self.unsaved) {
            self.disk = Some(node.save());
            self.unsaved = false;
        }
    }

    /// Carries out what the node asks for, until it asks for nothing and waits for a later moment.
    fn drive(&mut self, wires: &mut Wires) {
        for _ in 0..MAX_CALLS_PER_MOMENT {
            self.perform_all(wires);
            let (now, asleep) = (self.clock(wires), wires.is_asleep(self.host));
            let Some(node) = self.node.as_mut().filter(|_| !asleep) else { return };
            if node.poll_timeout().is_none_or(|at| at > now.instant) {
                return;
            }
            node.handle_timeout(now);
        }
        panic!("member {} asks for the same moment for ever", self.number);
    }

    fn perform_all(&mut self, wires: &mut Wires) {
        loop {
            let (now, mut out) = (self.clock(wires), Outbox::default());
            let Some(node) = self.node.as_mut() else { return };
            node.flush(now, &mut out);
            let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
            self.send_out(out, wires);
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.perform(output, wires));
        }
    }

    fn perform(&mut self, output: Output, wires: &mut Wires) {
        let (who, now) = (self.number, self.clock(wires));
        let Some(node) = self.node.as_mut() else { return };
        match output {
            Output::OpenSockets { ids } => self.open_sockets(ids, now),
            Output::CloseSocket { id } => drop(self.ports.remove(&id)),
            Output::DeviceUp { party, device } => {
                self.devices.insert(party, device);
                self.devices_made += 1;
                node.handle_device(now, party, DeviceInput::Up("party0".to_owned()));
            }
            Output::DeviceDown { party } => drop(self.devices.remove(&party)),
            Output::ServerOpen { id, .. } => {
                self.attempts += 1;
                self.opening.insert(id, self.attempts);
                wires.schedule(LATENCY, Item::Connect(who, id, self.attempts));
            }
            Output::ServerSend { id, frame } => self.send_to_server(id, frame, wires),
            Output::ServerClose { id } => {
                if let Some(connection) = self.connections.get(&id).copied() {
                    wires.schedule(LATENCY, Item::HangUp(connection));
                    wires.schedule(LATENCY, Item::Closed(who, id, Some(connection)));
                } else if self.opening.remove(&id).is_some() {
                    wires.schedule(LATENCY, Item::Closed(who, id, None));
                }
            }
            Output::StreamOpen { id, address, .. } => {
                wires.schedule(LATENCY, Item::OpenStream(who, id, address.ip()));
            }
            Output::StreamClose { id } => {
                if let Some(stream) = self.streams.remove(&id) {
                    wires.close_stream(LATENCY, stream, self.host, Direction::ToServer);
                }
            }
            Output::AskTime { request, .. } => {
                node.handle_server_time(request, Some(wires.net.now().unix));
            }
            Output::Resolve { host, port } => {
                let addresses = wires.resolve(&host, port);
                node.handle_resolved(now, host, port, addresses);
            }
            Output::Beacon { to, bytes } => self.send_beacon(to, &bytes, wires),
            Output::Save => self.save_soon(wires),
            Output::Answer { request, result } => {
                self.save();
                self.answers.insert(request, *result);
            }
            Output::Reach { address } if relay::owns(address.ip(), wires.moves) => {
                wires.schedule(LATENCY * 2, Item::Reached(who, address.ip()));
            }
            Output::Reach { .. } | Output::KeepaliveServers { .. } | Output::PathAttempted { .. } => {}
            Output::Stopped => {
                self.unsaved = true;
                self.save();
                self.kill(wires);
            }
        }
    }

    /// Sends and delivers what left the node.
    fn send_out(&mut self, out: Outbox, wires: &mut Wires) {
        self.received.extend(out.packets);
        for (local, destination, bytes) in out.messages {
            match local {
                Local::Socket(socket) => self.send(socket, destination, bytes, wires),
                Local::Stream(id) => {
                    if let Some(stream) = self.streams.get(&id) {
                        wires.trace.message(wires.net.now().instant, self.number, bytes.len());
                        wires.net.write(*stream, Direction::ToServer, bytes);
                    }
                }
            }
        }
    }

    fn send(&mut self, socket: SocketId, destination: SocketAddr, bytes: Vec<u8>, wires: &mut Wires) {
        self.datagrams += 1;
        let ip = wires.net.network.hosts[self.host].source_to(destination.ip());
        let port = match socket {
            SocketId::MAIN => Some(TUNNEL_PORT),
            other => self.ports.get(&other).copied().filter(|_| destination.is_ipv4()),
        };
        if let Some((ip, port)) = ip.zip(port) {
            wires.send(self.host, SocketAddr::new(ip, port), destination, bytes);
        }
    }

    fn open_sockets(&mut self, ids: Vec<SocketId>, now: Now) {
        let mut opened = Vec::new();
        for id in ids {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_OTHER_PORT);
            self.ports.insert(id, port);
            opened.push((id, Some(port)));
        }
        if let Some(node) = &mut self.node {
            node.handle_sockets_opened(now, &opened);
        }
    }

    fn socket_at(&self, destination: SocketAddr) -> Option<SocketId> {
        if destination.port() == TUNNEL_PORT {
            return Some(SocketId::MAIN);
        }
        let mut opened = self.ports.iter().filter(|_| destination.is_ipv4());
        opened.find(|(_, port)| **port == destination.port()).map(|(id, _)| *id)
    }

    fn send_to_server(&mut self, id: ServerId, frame: Vec<u8>, wires: &mut Wires) {
        self.frames += 1;
        wires.trace.message(wires.net.now().instant, self.number, frame.len());
        if let Ok(ClientFrame::Enter { topic, .. }) = ClientFrame::decode(&frame) {
            wires.topics.push(topic);
        }
        if let Some(connection) = self.connections.get(&id).copied() {
            wires.schedule(LATENCY, Item::ToServer(self.number, connection, frame));
        }
    }

    /// Sends a beacon to the members on its LAN, or to one of them.
    fn send_beacon(&self, to: Option<SocketAddr>, bytes: &[u8], wires: &mut Wires) {
        let network = &wires.net.network;
        let own = address(network, self.host, false).into_iter();
        let on_lan = own.flat_map(|own| network.neighbors(self.host).map(move |host| (host, own)));
        let is_meant = |(host, _): &(HostId, IpAddr)| {
            to.is_none_or(|to| {
                network.hosts[*host].addresses().contains(&to.ip()) || has_card(network, *host, to)
            })
        };
        let reached = on_lan.chain(network.overlay_neighbors(self.host)).filter(is_meant);
        for (host, from) in reached.collect::<Vec<_>>() {
            let delay = wires.beacon_jitter.mul_f64(wires.net.dice.unit());
            let from = SocketAddr::new(from, BEACON_PORT);
            let item = Item::Beacon { to: member_on(host), from, bytes: bytes.to_vec() };
            wires.schedule(delay, item);
        }
    }

    /// Schedules a save, as the engine writes at most once a second what nobody waits for.
    fn save_soon(&mut self, wires: &mut Wires) {
        if !self.unsaved {
            self.unsaved = true;
            // The first state is written at once: no other member may learn of a device that could be lost.
            let delay = if self.disk.is_some() { SAVE_INTERVAL } else { Duration::ZERO };
            wires.schedule(delay, Item::Save(self.number));
        }
    }

    /// Returns what its system lists.
    pub(crate) fn local_network(&self, network: &Network) -> LocalNetwork {
        let host = &network.hosts[self.host];
        let (v4, v6) = (address(network, self.host, false), address(network, self.host, true));
        let at_home = v4.filter(|_| host.place().is_some());
        let home = at_home.map(|ip| ipnet::IpNet::new(ip, 24).expect("a prefix").trunc());
        let usable = [v4, v6].into_iter().flatten().map(HostAddress::from);
        let deprecated = self.deprecated.iter().map(|ip| HostAddress { deprecated: true, ..(*ip).into() });
        let further = deprecated.chain(host.cards.iter().map(cards::listed));
        LocalNetwork {
            addresses: usable.chain(further).collect(),
            routes: cards::routes(&host.cards, home),
            prefixes: home.into_iter().chain(host.cards.iter().map(|card| card.network.trunc())).collect(),
            routed: Vec::new(),
            routers: Vec::new(),
            port_v4: v4.map(|_| TUNNEL_PORT),
            port_v6: v6.map(|_| TUNNEL_PORT),
        }
    }

    /// Returns what it shows.
    pub(crate) fn snapshot(&self, now: Now) -> Snapshot {
        self.node.as_ref().expect("a running program").snapshot(now)
    }

    /// Returns what it shows of its first party.
    pub(crate) fn party(&self, now: Now) -> Option<PartyView> {
        self.snapshot(now).parties.into_iter().next()
    }

    /// Returns what it shows of another member of its first party.
    pub(crate) fn sees(&self, other: &Self, now: Now) -> Option<MemberView> {
        let id = other.node.as_ref()?.device();
        self.party(now)?.members.into_iter().find(|member| member.id == id)
    }

    /// Returns its address in its first party.
    pub(crate) fn party_address(&self) -> Ipv4Addr {
        self.devices.values().next().expect("a device").v4.addr()
    }

    /// Returns the senders of the packets with this payload that its devices received.
    pub(crate) fn heard(&self, payload: &[u8]) -> Vec<IpAddr> {
        let opened = self.received.iter().filter_map(|(_, packet)| packet::open(packet));
        opened.filter(|(_, heard)| *heard == payload).map(|(from, _)| from.into()).collect()
    }
}

/// Returns the member whose computer this is.
pub(crate) const fn member_on(host: HostId) -> usize {
    host - RELAY - 1
}

/// Returns a host's address of one family.
pub(crate) fn address(network: &Network, host: HostId, v6: bool) -> Option<IpAddr> {
    network.hosts[host].addresses().iter().copied().find(|ip| ip.is_ipv6() == v6)
}

fn has_card(network: &Network, host: HostId, at: SocketAddr) -> bool {
    network.hosts[host].cards.iter().any(|card| card.network.addr() == at.ip())
}

/// What leaves a node in one call.
#[derive(Default)]
struct Outbox {
    messages: Vec<(Local, SocketAddr, Vec<u8>)>,
    packets: Vec<(PartyId, Vec<u8>)>,
}

impl Egress for Outbox {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        let messages = bytes.chunks(segment).map(|message| (local, destination, message.to_vec()));
        self.messages.extend(messages);
    }

    fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
        self.packets.push((party, packet.to_vec()));
    }
}

//! A member: a node, and what stands for its sockets, devices and disk.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use partyline_model::{AppError, Now, PartyId, Reply, Settings};
use partyline_node::{
    Config, DeviceConfig, Egress, LocalNetwork, NetcheckConfig, Node, PathsConfig, RequestId, ServerId,
};
use partyline_rendezvous::ConnectionId;

use crate::world::SERVER;

/// The port of everybody's tunnel socket.
const PORT: u16 = 20_000;

/// A member's computer.
pub struct Member {
    /// Its part in all its parties; `None` while its program does not run.
    pub node: Option<Node>,
    /// The address of its tunnel socket.
    pub address: SocketAddr,
    /// The LAN it is on; beacons stay there.
    pub lan: u32,
    /// Its network devices as they were last asked for.
    pub devices: BTreeMap<PartyId, DeviceConfig>,
    /// How often a device was made.
    pub devices_made: usize,
    /// Packets that came for its devices.
    pub received: Vec<(PartyId, Vec<u8>)>,
    /// What is on its disk.
    pub disk: Option<Vec<u8>>,
    /// Answers to its commands.
    pub answers: BTreeMap<RequestId, Result<Reply, AppError>>,
    /// How often it was woken by nothing but time.
    pub wakes: usize,
    /// Messages it sent on its devices' behalf or its own, by UDP.
    pub datagrams: usize,
    /// Frames it sent to servers.
    pub frames: usize,
    pub(crate) runs: u32,
    pub(crate) connections: BTreeMap<ServerId, ConnectionId>,
    pub(crate) next_request: RequestId,
}

impl Member {
    pub(crate) fn new(ip: IpAddr, lan: u32) -> Self {
        Self {
            node: None,
            address: SocketAddr::new(ip, PORT),
            lan,
            devices: BTreeMap::new(),
            devices_made: 0,
            received: Vec::new(),
            disk: None,
            answers: BTreeMap::new(),
            wakes: 0,
            datagrams: 0,
            frames: 0,
            runs: 0,
            connections: BTreeMap::new(),
            next_request: 0,
        }
    }

    pub(crate) fn start(&mut self, now: Now, seed: [u8; 32], server: bool) {
        let config = Config {
            settings: Settings {
                servers: if server { vec![SERVER.to_owned()] } else { Vec::new() },
                ..Settings::default()
            },
            version: "test".to_owned(),
            paths: PathsConfig::default(),
            netcheck: NetcheckConfig::default(),
        };
        let mut node = Node::new(now, seed, config, self.disk.as_deref()).expect("state that can be read");
        node.handle_network(now, self.network());
        self.node = Some(node);
        self.runs += 1;
    }

    /// What its system lists.
    #[must_use]
    pub fn network(&self) -> LocalNetwork {
        LocalNetwork {
            addresses: vec![self.address.ip()],
            prefixes: Vec::new(),
            routers: Vec::new(),
            port_v4: Some(self.address.port()),
            port_v6: None,
        }
    }
}

/// What leaves a node in one go.
#[derive(Default)]
pub(crate) struct Out {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub packets: Vec<(PartyId, Vec<u8>)>,
}

impl Egress for Out {
    fn datagrams(&mut self, destination: SocketAddr, segment: usize, bytes: &[u8]) {
        self.datagrams.extend(bytes.chunks(segment.max(1)).map(|datagram| (destination, datagram.to_vec())));
    }

    fn datagrams_from(&mut self, _: partyline_node::SocketId, _: SocketAddr, _: usize, _: &[u8]) {}

    fn stream(&mut self, _: partyline_node::StreamId, _: &[u8]) {}

    fn packet(&mut self, party: PartyId, packet: &[u8]) {
        self.packets.push((party, packet.to_vec()));
    }
}

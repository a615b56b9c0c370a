//! The nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_dht::{Item, NodeId, secure_id};
use partyline_model::is_public;
use partyline_wire::krpc::{
    Body, Contact, Contacts, Message, Method, Put, Query, Response, compact_contacts, error_code,
};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng as _};

/// Nodes in one bucket of a routing table, and in a response.
const BUCKET: usize = 8;
/// How many nodes around a target are looked at for the closest.
const NEIGHBORHOOD: usize = 64;
/// The standard deviation of the logarithm of round-trip times.
const RTT_SPREAD: f64 = 0.5;

/// What the nodes are like. Shares are from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct DhtMix {
    /// Number of nodes, dead ones that others still name included.
    pub nodes: usize,
    /// Share of nodes that do not answer.
    pub dead: f64,
    /// Share of the others that have no BEP 44: a third ignores `get`, a third answers it like `find_node`, and a third
    /// with an error.
    pub without_items: f64,
    /// Share of nodes whose id follows from their address (BEP 42).
    pub secure: f64,
    /// Share of hostile nodes: a third answers garbage, a third names nodes that do not exist right at the target, and a third
    /// keeps the first item it was given, whatever it answers.
    pub hostile: f64,
    /// Nodes that an attacker has placed closer to each target than all others, with ids that do not follow from their
    /// addresses. They name each other, and store nothing.
    pub sybils: usize,
    /// Share of datagrams that are lost, each way.
    pub loss: f64,
    /// Median round-trip time.
    pub rtt: Duration,
}

impl DhtMix {
    /// A network without any trouble, of 5,000 nodes.
    pub const HEALTHY: Self = Self {
        nodes: 5_000,
        dead: 0.0,
        without_items: 0.0,
        secure: 0.6,
        hostile: 0.0,
        sybils: 0,
        loss: 0.0,
        rtt: Duration::from_millis(110),
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dead,
    /// libtorrent: keeps its item if another one has the same sequence number.
    Keeps,
    /// The Rust crate `mainline`: replaces it.
    Replaces,
    IgnoresGet,
    AnswersGetWithNodes,
    RefusesGet,
    Garbage,
    NamesFakes,
    KeepsFirst,
    Sybil,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    kind: Kind,
    rtt: Duration,
    items: BTreeMap<NodeId, Item>,
}

/// All nodes.
#[derive(Debug)]
pub struct DhtNetwork {
    mix: DhtMix,
    rng: ChaCha12Rng,
    /// In order.
    ids: Vec<NodeId>,
    /// In the order of their ids.
    nodes: Vec<Node>,
    by_address: BTreeMap<SocketAddr, usize>,
    sybils: Vec<(NodeId, Node)>,
}

impl DhtNetwork {
    /// Makes a network from a seed.
    #[must_use]
    pub fn new(seed: u64, mix: DhtMix) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut nodes: Vec<(NodeId, Node)> = (0..mix.nodes).map(|_| Self::node(&mut rng, &mix)).collect();
        nodes.sort_by_key(|(id, _)| *id);
        let by_address = nodes.iter().enumerate().map(|(index, (_, node))| (node.address, index)).collect();
        let (ids, nodes) = nodes.into_iter().unzip();
        Self { mix, rng, ids, nodes, by_address, sybils: Vec::new() }
    }

    fn node(rng: &mut ChaCha12Rng, mix: &DhtMix) -> (NodeId, Node) {
        let address = random_address(rng);
        let id = if unit(rng) < mix.secure { secure_id(address.ip(), rng) } else { random_id(rng) };
        let third = |kinds: [Kind; 3], rng: &mut ChaCha12Rng| kinds[rng.next_u32() as usize % 3];
        let kind = if unit(rng) < mix.dead {
            Kind::Dead
        } else if unit(rng) < mix.hostile {
            third([Kind::Garbage, Kind::NamesFakes, Kind::KeepsFirst], rng)
        } else if unit(rng) < mix.without_items {
            third([Kind::IgnoresGet, Kind::AnswersGetWithNodes, Kind::RefusesGet], rng)
        } else if unit(rng) < 0.25 {
            Kind::Replaces
        } else {
            Kind::Keeps
        };
        (id, Node { address, kind, rtt: log_normal(rng, mix.rtt), items: BTreeMap::new() })
    }

    /// Returns the address of a random node, which may be dead.
    pub fn any_node(&mut self) -> SocketAddr {
        let index = self.rng.next_u32() as usize % self.nodes.len();
        self.nodes[index].address
    }

    /// Returns the address of a random node that answers.
    pub fn any_live_node(&mut self) -> SocketAddr {
        loop {
            let index = self.rng.next_u32() as usize % self.nodes.len();
            if matches!(self.nodes[index].kind, Kind::Keeps | Kind::Replaces) {
                return self.nodes[index].address;
            }
        }
    }

    /// Returns an address at which there is no node.
    pub fn no_node(&mut self) -> SocketAddr {
        random_address(&mut self.rng)
    }

    /// Returns random bytes.
    pub fn random(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Lets the attacker place its nodes around a target, instead of around the former one.
    pub fn attack(&mut self, target: NodeId) {
        self.sybils = (0..self.mix.sybils)
            .map(|_| {
                let mut id = random_id(&mut self.rng);
                // Closer than any honest node of so small a network.
                id.0[..4].copy_from_slice(&target.0[..4]);
                let rtt = log_normal(&mut self.rng, self.mix.rtt);
                let address = random_address(&mut self.rng);
                (id, Node { address, kind: Kind::Sybil, rtt, items: BTreeMap::new() })
            })
            .collect();
    }

    /// Lets a share of the nodes around a target leave.
    pub fn leave(&mut self, target: &NodeId, share: f64) {
        for index in self.neighborhood(target) {
            if unit(&mut self.rng) < share {
                self.nodes[index].kind = Kind::Dead;
                self.nodes[index].items.clear();
            }
        }
    }

    /// Delivers a datagram, and returns the response and the time after which it arrives, if any does.
    pub fn deliver(&mut self, from: SocketAddr, to: SocketAddr, query: &[u8]) -> Option<(Duration, Vec<u8>)> {
        if unit(&mut self.rng) < self.mix.loss || unit(&mut self.rng) < self.mix.loss {
            return None;
        }
        let message = Message::decode(query).ok()?;
        let Body::Query(query) = message.body else { return None };
        let index = self.by_address.get(&to).copied();
        let node = index.map(|index| &self.nodes[index]);
        let sybil = self.sybils.iter().find(|(_, node)| node.address == to);
        let (kind, rtt) = node.or(sybil.map(|(_, node)| node)).map(|node| (node.kind, node.rtt))?;
        let jitter = 0.9 + 0.2 * unit(&mut self.rng);
        let reply = match (kind, index) {
            (Kind::Sybil, _) => Some(self.sybil_reply(sybil.map(|(id, _)| *id)?, &message, &query, from)),
            (_, Some(index)) => self.reply(index, kind, &message, &query, from),
            _ => None,
        };
        reply.map(|reply| (rtt.mul_f64(jitter), reply))
    }

    fn reply(
        &mut self,
        index: usize,
        kind: Kind,
        message: &Message<'_>,
        query: &Query<'_>,
        from: SocketAddr,
    ) -> Option<Vec<u8>> {
        let target = match query.method {
            Method::FindNode { target, .. } | Method::Get { target, .. } => target,
            Method::Put(put) => return Some(self.store(index, kind, message, &put, from)),
            Method::Ping | Method::Other => return None,
        };
        let gets = matches!(query.method, Method::Get { .. });
        let contacts = match kind {
            Kind::Dead => return None,
            Kind::IgnoresGet if gets => return None,
            Kind::RefusesGet if gets => return Some(error(message, error_code::METHOD_UNKNOWN, from)),
            Kind::Garbage => return Some([&b"d1:rd2:id"[..], &self.random()].concat()),
            Kind::NamesFakes => self.fakes(&target),
            _ => self.closest_known(index, &target),
        };
        let contacts = compact_contacts(&contacts, false);
        let mut response = Response {
            contacts: Contacts { nodes: Some(&contacts), nodes6: None },
            ..Response::new(self.ids[index])
        };
        if gets && kind != Kind::AnswersGetWithNodes {
            response.token = Some(b"token");
            if let Some(item) = self.nodes[index].items.get(&target) {
                response.key = Some(&item.key);
                response.seq = Some(item.seq);
                response.signature = Some(&item.signature);
                response.value = Some(&item.value);
            }
        }
        Some(respond(message, response, from))
    }

    fn store(
        &mut self,
        index: usize,
        kind: Kind,
        message: &Message<'_>,
        put: &Put<'_>,
        from: SocketAddr,
    ) -> Vec<u8> {
        let item = Item {
            key: *put.key,
            salt: put.salt.to_vec(),
            seq: put.seq,
            value: put.value.to_vec(),
            signature: *put.signature,
        };
        let target = item.target();
        let held = self.nodes[index].items.get(&target).map(|held| held.seq);
        let conflict = match (held, put.cas) {
            _ if kind == Kind::KeepsFirst => None,
            (Some(held), Some(cas)) if held != cas => Some(error_code::CAS_MISMATCH),
            (Some(held), _) if held > put.seq => Some(error_code::SEQ_TOO_OLD),
            _ => None,
        };
        if let Some(code) = conflict {
            return error(message, code, from);
        }
        let keeps =
            held.is_some() && (kind == Kind::KeepsFirst || kind == Kind::Keeps && held == Some(put.seq));
        if !keeps {
            self.nodes[index].items.insert(target, item);
        }
        respond(message, Response::new(self.ids[index]), from)
    }

    fn sybil_reply(&self, id: NodeId, message: &Message<'_>, query: &Query<'_>, from: SocketAddr) -> Vec<u8> {
        let others: Vec<_> = self
            .sybils
            .iter()
            .take(BUCKET)
            .map(|(id, node)| Contact { id: *id, address: node.address })
            .collect();
        let contacts = compact_contacts(&others, false);
        let mut response = Response::new(id);
        if !matches!(query.method, Method::Put(_)) {
            response.contacts.nodes = Some(&contacts);
            response.token = Some(b"token");
        }
        respond(message, response, from)
    }

    /// Returns what a node knows to be closest to a target: the bucket of its routing table, which has any nodes that share
    /// one bit more with the target than the node itself; near the target, the closest nodes of all but a few.
    fn closest_known(&self, index: usize, target: &NodeId) -> Vec<Contact> {
        let shared = common_bits(&self.ids[index], target);
        let (first, end) = self.sharing(target, shared + 1);
        if end - first > BUCKET {
            let mut numbers = Numbers(index as u64 ^ (shared as u64) << 32);
            return (0..BUCKET)
                .map(|_| self.contact(first + numbers.next() as usize % (end - first)))
                .collect();
        }
        let mut numbers = Numbers(index as u64);
        let mut known: Vec<_> = self.neighborhood(target).map(|index| self.contact(index)).collect();
        known.retain(|_| !numbers.next().is_multiple_of(10));
        known.extend(self.sybils.iter().map(|(id, node)| Contact { id: *id, address: node.address }));
        known.sort_by_key(|contact| contact.id.distance(target));
        // A routing table has room for few of the sybils among the others.
        let mut sybils = 0;
        known.retain(|contact| {
            sybils += usize::from(!self.by_address.contains_key(&contact.address));
            self.by_address.contains_key(&contact.address) || sybils <= BUCKET / 2
        });
        known.truncate(BUCKET);
        known
    }

    fn fakes(&mut self, target: &NodeId) -> Vec<Contact> {
        let mut fake = || {
            let mut id = random_id(&mut self.rng);
            id.0[..6].copy_from_slice(&target.0[..6]);
            Contact { id, address: random_address(&mut self.rng) }
        };
        (0..BUCKET).map(|_| fake()).collect()
    }

    fn contact(&self, index: usize) -> Contact {
        Contact { id: self.ids[index], address: self.nodes[index].address }
    }

    fn neighborhood(&self, target: &NodeId) -> std::ops::Range<usize> {
        let middle = self.ids.partition_point(|id| id < target);
        middle.saturating_sub(NEIGHBORHOOD / 2)..(middle + NEIGHBORHOOD / 2).min(self.ids.len())
    }

    /// Returns the range of nodes that share that many bits with the target.
    fn sharing(&self, target: &NodeId, bits: usize) -> (usize, usize) {
        let (mut first, mut last) = (*target, *target);
        for bit in bits.min(160)..160 {
            let mask = 0x80 >> (bit % 8);
            first.0[bit / 8] &= !mask;
            last.0[bit / 8] |= mask;
        }
        (self.ids.partition_point(|id| *id < first), self.ids.partition_point(|id| *id <= last))
    }
}

fn respond(message: &Message<'_>, response: Response<'_>, to: SocketAddr) -> Vec<u8> {
    Message { transaction: message.transaction, ip: Some(to), body: Body::Response(response) }.encode()
}

fn error(message: &Message<'_>, code: i64, to: SocketAddr) -> Vec<u8> {
    Message { transaction: message.transaction, ip: Some(to), body: Body::Error { code } }.encode()
}

fn common_bits(a: &NodeId, b: &NodeId) -> usize {
    let distance = a.distance(b);
    let zeros = distance.0.iter().take_while(|byte| **byte == 0).count();
    8 * zeros + distance.0.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize)
}

fn random_id(rng: &mut ChaCha12Rng) -> NodeId {
    let mut id = NodeId::default();
    rng.fill_bytes(&mut id.0);
    id
}

fn random_address(rng: &mut ChaCha12Rng) -> SocketAddr {
    loop {
        let ip = IpAddr::from((rng.next_u32()).to_be_bytes());
        let port = 1024 + (rng.next_u32() % 60_000) as u16;
        if is_public(ip) && matches!(ip, IpAddr::V4(v4) if (1..224).contains(&v4.octets()[0])) {
            return SocketAddr::new(ip, port);
        }
    }
}

fn unit(rng: &mut ChaCha12Rng) -> f64 {
    f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
}

/// Draws from a log-normal distribution with the given median (Box and Muller's method).
fn log_normal(rng: &mut ChaCha12Rng, median: Duration) -> Duration {
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(rng)).cos();
    median.mul_f64((RTT_SPREAD * normal).exp())
}

/// Numbers that are the same for the same seed (SplitMix64), since a routing table does not change with each query.
struct Numbers(u64);

impl Numbers {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

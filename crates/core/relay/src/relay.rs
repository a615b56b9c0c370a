//! The relay as one machine: packets and time in, packets and wishes out.
//!
//! After each input, poll [`Relay::poll_transmit`] and [`Relay::poll_event`] until both are dry. The packet path does not
//! queue: [`Relay::handle_client`] and [`Relay::handle_peer`] return at once where to send which part of the buffer.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use partyline_model::Now;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use slab::Slab;

use crate::{
    Listener, RelayAddress, Settings,
    allocation::{Allocation, Client, ClientTransport, RelaySocket},
    counters::Counters,
    credentials::{Credentials, Refusal},
    frame::{self, Class, Packet},
    limit::{Bucket, Rate, SourceLimit, neighbourhood},
    request::{NotARequest, Reply, Request},
};

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Consumed: it was a control message, or dropped and counted.
    Consumed,
    /// From a relayed address to a peer.
    ToPeer {
        /// The socket to send from.
        socket: RelaySocket,
        /// The address to send to.
        peer: SocketAddr,
        /// The part of the packet's buffer to send.
        range: Range<usize>,
    },
    /// To a client.
    ToClient {
        /// To whom.
        client: Client,
        /// The part of the packet's buffer to send.
        range: Range<usize>,
    },
}

/// A control message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Over which transport; the listener may be another than the request came in on (RFC 5780).
    pub transport: ClientTransport,
    /// The address to send to.
    pub destination: SocketAddr,
    /// The message.
    pub payload: Vec<u8>,
}

/// A wish for the owner of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Bind a socket, then call [`Relay::handle_socket_opened`].
    OpenSocket {
        /// What to call it.
        socket: RelaySocket,
        /// The local address to bind it to.
        address: SocketAddr,
    },
    /// Close the socket.
    CloseSocket {
        /// Which.
        socket: RelaySocket,
    },
}

/// The relay's state.
#[derive(Debug)]
pub struct Relay {
    pub(crate) settings: Settings,
    pub(crate) listeners: Vec<Listener>,
    /// IPv4, IPv6.
    pub(crate) addresses: [Option<RelayAddress>; 2],
    pub(crate) credentials: Credentials,
    pub(crate) allocations: Slab<Allocation>,
    pub(crate) clients: HashMap<Client, usize, FixedState>,
    /// Public relayed addresses.
    pub(crate) relayed: HashMap<SocketAddr, RelaySocket, FixedState>,
    pub(crate) per_user: HashMap<String, usize, FixedState>,
    pub(crate) per_address: HashMap<IpAddr, usize, FixedState>,
    /// When each allocation ends.
    pub(crate) ends: BTreeSet<(u64, usize)>,
    pub(crate) bandwidth: Bucket,
    pub(crate) bandwidth_rate: Option<Rate>,
    pub(crate) allocation_rate: Option<Rate>,
    pub(crate) strangers: SourceLimit,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) hasher: FixedState,
    pub(crate) counters: Counters,
    epoch: Instant,
    transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

impl Relay {
    /// A relay without allocations. Listeners are addressed by their index; at most one relay address per family counts.
    #[must_use]
    pub fn new(
        now: Now,
        settings: Settings,
        listeners: Vec<Listener>,
        relay: &[RelayAddress],
        seed: [u8; 32],
    ) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let hasher = FixedState::with_seed(rng.next_u64());
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let of_family = |v6: bool| relay.iter().find(|address| address.public.is_ipv6() == v6).copied();
        let quotas = &settings.quotas;
        Self {
            credentials: Credentials::new(&settings, nonce_key, rng.next_u64()),
            addresses: [of_family(false), of_family(true)],
            bandwidth_rate: quotas.bandwidth.map(|rate| Rate::new(rate, 1)),
            allocation_rate: quotas.bandwidth_per_allocation.map(|rate| Rate::new(rate, 1)),
            strangers: SourceLimit::new(quotas.unauthenticated_per_second, rng.next_u64()),
            settings,
            listeners,
            allocations: Slab::new(),
            clients: HashMap::with_hasher(hasher.clone()),
            relayed: HashMap::with_hasher(hasher.clone()),
            per_user: HashMap::with_hasher(hasher.clone()),
            per_address: HashMap::with_hasher(hasher.clone()),
            ends: BTreeSet::new(),
            bandwidth: Bucket::default(),
            rng,
            hasher,
            counters: Counters::default(),
            epoch: now.instant,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A datagram or stream frame from a client.
    pub fn handle_client(&mut self, now: Now, client: Client, packet: &mut Packet<'_>) -> Forward {
        match frame::classify(packet.bytes()) {
            Class::Channel => self.forward_channel(now, client, packet),
            Class::Send => self.forward_send(now, client, packet),
            Class::Stun => self.control(now, client, packet.bytes()),
            Class::Classic => self.classic(now, client, packet.bytes()),
            Class::Unknown => self.malformed(),
        }
    }

    /// A client's connection is gone, and its allocation with it (RFC 8656, section 4).
    pub fn handle_disconnect(&mut self, client: Client) {
        if let Some(&allocation) = self.clients.get(&client) {
            self.remove(allocation);
        }
    }

    /// Ends the allocations whose time is over.
    pub fn handle_timeout(&mut self, now: Now) {
        let now_ns = self.ns(now);
        while let Some(&(end, allocation)) = self.ends.first() {
            if end > now_ns {
                break;
            }
            self.remove(allocation);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| self.epoch + Duration::from_nanos(*end))
    }

    /// The next control message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next wish.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { allocations_active: self.allocations.len() as u64, ..self.counters }
    }

    pub(crate) fn ns(&self, now: Now) -> u64 {
        now.instant.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    pub(crate) fn transaction(&mut self) -> [u8; 12] {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        id
    }

    pub(crate) fn malformed(&mut self) -> Forward {
        self.counters.dropped.malformed += 1;
        Forward::Consumed
    }

    pub(crate) fn reply(&mut self, client: Client, reply: Reply) {
        if let Some(payload) = reply.encode() {
            self.transmits.push_back(Transmit {
                transport: client.transport,
                destination: client.address,
                payload,
            });
        }
    }

    pub(crate) fn transmit(&mut self, transport: ClientTransport, destination: SocketAddr, payload: Vec<u8>) {
        self.transmits.push_back(Transmit { transport, destination, payload });
    }

    /// Whether a stranger may have another answer now; counts where not.
    pub(crate) fn admits(&mut self, now: Now, client: Client) -> bool {
        let admitted = self.strangers.take(self.ns(now), client.address.ip());
        if !admitted {
            self.counters.dropped.rate_limited += 1;
        }
        admitted
    }

    /// A STUN message that is no Send indication.
    fn control(&mut self, now: Now, client: Client, bytes: &[u8]) -> Forward {
        // Whoever has an allocation has shown credentials; all others share a rate by address before anything is parsed.
        let standing = self.clients.get(&client).copied();
        if standing.is_none() && !self.admits(now, client) {
            return Forward::Consumed;
        }
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(NotARequest::Indication) => return Forward::Consumed,
            Err(NotARequest::Garbage) => return self.malformed(),
            Err(NotARequest::Broken { method, id }) => {
                if standing.is_none() || self.admits(now, client) {
                    let method = stun_rs::MessageType::from(method).method();
                    self.reply(client, Reply::error(method, id.into(), 400));
                }
                return Forward::Consumed;
            }
        };
        self.counters.requests += 1;
        match request.method() {
            stun_rs::methods::BINDING => self.binding(client, &request),
            method if is_turn(method) => self.authenticated(now, client, &request, standing),
            _ => return self.malformed(),
        }
        Forward::Consumed
    }

    fn authenticated(&mut self, now: Now, client: Client, request: &Request<'_>, standing: Option<usize>) {
        let username =
            standing.and_then(|at| self.allocations.get(at)).map(|allocation| &*allocation.username);
        let fingerprint = request.has_fingerprint();
        let source = client.address.ip();
        let reply = match self.credentials.check(now, request, source, username) {
            Ok(identity) => {
                let signature = identity.signature.clone();
                let reply = match request.method() {
                    stun_rs::methods::ALLOCATE => self.allocate(now, client, request, identity, standing),
                    _ => self.manage(now, request, &identity, standing),
                };
                reply.map(|reply| reply.signed(signature))
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Unauthenticated { wrong: true }) {
                    self.counters.refused.unauthenticated += 1;
                }
                let admitted = standing.is_none() || self.admits(now, client);
                admitted.then(|| self.credentials.refuse(now, request, source, refusal))
            }
        };
        if let Some(reply) = reply {
            self.reply(client, reply.fingerprint(fingerprint));
        }
    }

    /// Ends an allocation: its sockets are to be closed and its places in all tables are free.
    pub(crate) fn remove(&mut self, at: usize) {
        let Some(allocation) = self.allocations.try_remove(at) else { return };
        self.ends.remove(&(allocation.expires_ns, at));
        self.clients.remove(&allocation.client);
        for address in allocation.relayed.into_iter().flatten() {
            self.relayed.remove(&address);
            self.events.push_back(Event::CloseSocket { socket: RelaySocket::new(at, address.is_ipv6()) });
        }
        decrement(&mut self.per_user, crate::credentials::quota_name(&allocation.username));
        decrement(&mut self.per_address, &neighbourhood(allocation.client.address.ip()));
    }
}

fn is_turn(method: stun_rs::MessageMethod) -> bool {
    use stun_rs::methods::{ALLOCATE, CHANNEL_BIND, CREATE_PERMMISSION, REFRESH};
    [ALLOCATE, REFRESH, CREATE_PERMMISSION, CHANNEL_BIND].contains(&method)
}

/// Counts one less; what counts nothing is forgotten, so that the table holds the living only.
fn decrement<K, Q>(counts: &mut HashMap<K, usize, FixedState>, key: &Q)
where
    K: std::hash::Hash + Eq,
    Q: std::hash::Hash + hashbrown::Equivalent<K> + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

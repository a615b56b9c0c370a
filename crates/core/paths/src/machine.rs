//! The machine: hands every input to the peer or relay it concerns, and keeps their deadlines.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, NatProfile};
use partyline_wire::{
    probe::{Tag, TransactionId},
    punch::Signal,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    api::{
        Config, Counters, Event, Hop, Path, PeerId, PeerParams, PeerView, RelayServer, Route, SocketId,
        StreamId, Transmit, Via,
    },
    explain,
    pair::Pair,
    peer::{self, Env, Peer},
    punch::{Budget, Sockets},
    relays::{RelayChange, Relays},
    schedule::{Deadlines, Pacer},
};

/// Checks that go out at once; further ones follow at the configured pace (RFC 8445, section 14, whose 50 ms suit
/// thousands of streams rather than a party).
const BURST: u32 = 16;
/// So many times slower is the pace of checks that only measure, and have one of their own: where many peers come at once,
/// those that are found do not hold up those that are not.
const MEASURING: u32 = 2;
/// How soon a packet that went out makes the machine look whether one came back.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Relays,
    Peer(PeerId),
}

/// Paths to every peer of every party of this device.
pub struct Paths {
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    pub(crate) by_tags: BTreeMap<(Tag, Tag), PeerId>,
    pub(crate) shared: Shared,
    deadlines: Deadlines<Key>,
    announced: Vec<Candidate>,
    pub(crate) counters: Counters,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    local: Vec<Candidate>,
    pub(crate) relays: Relays,
    pub(crate) direct: BTreeSet<PeerId>,
    pacer: Pacer,
    /// For checks that only measure.
    measuring: Pacer,
    pub(crate) open_checks: BTreeMap<TransactionId, PeerId>,
    counter: u64,
    rng: ChaCha20Rng,
    nat: NatProfile,
    observers: Vec<SocketAddr>,
    pub(crate) sockets: Sockets,
    budget: Budget,
    /// Packets from one port that stand for a path to another; see [`Peer::handle_response`].
    pub(crate) aliases: BTreeMap<Path, Path>,
    pub(crate) out: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

impl Shared {
    fn env(&mut self, now: Instant) -> Env<'_> {
        Env {
            now,
            config: &self.config,
            local: &self.local,
            relays: &mut self.relays,
            direct: &self.direct,
            pacer: &mut self.pacer,
            measuring: &mut self.measuring,
            open_checks: &mut self.open_checks,
            counter: &mut self.counter,
            rng: &mut self.rng,
            nat: &self.nat,
            observers: &self.observers,
            sockets: &mut self.sockets,
            budget: &mut self.budget,
            aliases: &mut self.aliases,
            out: &mut self.out,
            events: &mut self.events,
        }
    }
}

impl Paths {
    /// A machine without peers. The seed must not repeat from run to run.
    #[must_use]
    pub fn new(seed: [u8; 32], config: Config) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let relay_rng = ChaCha20Rng::from_rng(&mut rng).unwrap_or_else(|_| ChaCha20Rng::from_seed(seed));
        let relays = Relays::new(relay_rng, config.keepalive);
        Self {
            peers: BTreeMap::new(),
            by_tags: BTreeMap::new(),
            deadlines: Deadlines::new(),
            announced: Vec::new(),
            counters: Counters::default(),
            shared: Shared {
                pacer: Pacer::new(config.pace, BURST),
                measuring: Pacer::new(config.pace * MEASURING, BURST),
                config,
                local: Vec::new(),
                relays,
                direct: BTreeSet::new(),
                open_checks: BTreeMap::new(),
                counter: 0,
                rng,
                nat: NatProfile::default(),
                observers: Vec::new(),
                sockets: Sockets::default(),
                budget: Budget::default(),
                aliases: BTreeMap::new(),
                out: VecDeque::new(),
                events: VecDeque::new(),
            },
        }
    }

    /// Takes all candidates that the caller has gathered: host, mapped, reflexive. A host address that is gone means
    /// that the network is another one.
    pub fn set_local(&mut self, now: Instant, candidates: Vec<Candidate>) {
        let lost = |c: &Candidate| c.kind == CandidateKind::Host && !candidates.contains(c);
        let moved = self.shared.local.iter().any(lost);
        self.shared.local = candidates;
        self.announce();
        self.sync_all(now);
        if moved {
            self.network_changed(now);
        }
    }

    /// The network is another one, or the computer slept: everything is checked again, the relay carries meanwhile.
    pub fn network_changed(&mut self, now: Instant) {
        let Shared { relays, out, events, .. } = &mut self.shared;
        relays.network_changed(now, out, events);
        self.settle(now);
        self.each(now, |peer, env| peer.network_changed(env.now));
    }

    /// Takes what our own NAT does, as far as it is known, and servers that say where they see a socket (STUN).
    pub fn set_nat(&mut self, now: Instant, nat: NatProfile, observers: Vec<SocketAddr>) {
        self.shared.observers = observers;
        self.shared.observers.retain(SocketAddr::is_ipv4);
        if self.shared.nat != nat {
            self.shared.nat = nat;
            self.each(now, |_, _| ());
        }
    }

    /// Sockets that [`Event::OpenSockets`] asked for are open on these ports, or could not be opened.
    pub fn sockets_opened(&mut self, now: Instant, opened: &[(SocketId, Option<u16>)]) {
        let owner = opened.iter().find_map(|(id, _)| self.shared.sockets.owner(*id));
        if let Some(owner) = owner {
            self.with_peer(now, owner, |peer, env| peer.sockets_opened(env, opened));
        }
    }

    /// Takes a signal of a peer's; see [`Event::Signal`].
    pub fn handle_signal(&mut self, now: Instant, id: PeerId, bytes: &[u8]) {
        match Signal::decode(bytes) {
            Ok(signal) => {
                self.with_peer(now, id, |peer, env| peer.on_signal(env, signal));
            }
            Err(_) => self.counters.malformed += 1,
        }
    }

    /// Takes all ways to all relays, preferred relay first. New credentials count from the next allocation on.
    pub fn set_relays(&mut self, now: Instant, servers: Vec<RelayServer>) {
        if self.shared.config.relay {
            let Shared { relays, out, events, .. } = &mut self.shared;
            relays.set(now, servers, out, events);
            relays.handle_timeout(now, out, events);
            self.settle(now);
        }
    }

    /// What is tried is decided anew, except for the keepalive. Paths that are not wanted any more are given up at once.
    pub fn configure(&mut self, now: Instant, config: Config) {
        let Shared { relays, out, events, .. } = &mut self.shared;
        if !config.relay {
            relays.set(now, Vec::new(), out, events);
        }
        let keepalive = self.shared.config.keepalive;
        self.shared.config = Config { keepalive, ..config };
        self.settle(now);
        self.each(now, Peer::reconsider);
    }

    /// How long a path may be silent before it is kept alive, as the network turned out to need it.
    pub fn set_keepalive(&mut self, keepalive: Duration) {
        self.shared.config.keepalive = keepalive.max(Duration::from_secs(1));
    }

    /// Takes what is known about a peer, or that it changed.
    pub fn set_peer(&mut self, now: Instant, id: PeerId, params: PeerParams) {
        match self.peers.get_mut(&id) {
            Some(peer) if peer.is_same_run(&params) => {
                peer.controlling = params.controlling;
                peer.nat = params.nat;
                peer.set_candidates(params.candidates);
            }
            _ => {
                self.remove_peer(now, id);
                self.by_tags.insert((params.local_tag, params.remote_tag), id);
                self.peers.insert(id, Peer::new(now, id, params));
            }
        }
        self.with_peer(now, id, Peer::sync);
    }

    /// Forgets a peer.
    pub fn remove_peer(&mut self, now: Instant, id: PeerId) {
        if let Some(mut peer) = self.peers.remove(&id) {
            self.by_tags.remove(&peer.tags());
            self.deadlines.set(Key::Peer(id), None);
            self.shared.direct.remove(&id);
            peer.close(&mut self.shared.env(now));
            self.shared.budget.note(now, id, false);
        }
    }

    /// The tunnel has authenticated a message of this peer that came by this path.
    pub fn on_authenticated(&mut self, now: Instant, id: PeerId, path: Path) {
        if !path.leads_to(id) {
            return;
        }
        match self.peers.get_mut(&id).and_then(|peer| peer.pair_mut(path)) {
            Some(pair) => pair.came_back(now),
            None => {
                self.with_peer(now, id, |peer, env| peer.authenticated(env, path));
            }
        }
    }

    /// Measures the path in use to a peer now, unless that was done within a second.
    pub fn measure(&mut self, now: Instant, id: PeerId) {
        self.with_peer(now, id, |peer, _| peer.measure(now));
    }

    /// Where a tunnel message goes that is about to be sent. To be asked for each message, or for each batch of
    /// messages sent at one time, since this is how the machine learns that packets go out.
    pub fn route(&mut self, now: Instant, id: PeerId) -> Option<Route> {
        let route = self.peers.get_mut(&id)?.route(now, &self.shared.relays);
        self.deadlines.by(Key::Peer(id), now + LOOK);
        route
    }

    /// How to answer by the very path a tunnel message came by, before there is a route.
    #[must_use]
    pub fn hop(&self, path: Path) -> Option<Hop> {
        peer::hop(&self.shared.relays, path)
    }

    /// A stream asked for by [`Event::OpenStream`] is connected.
    pub fn stream_opened(&mut self, now: Instant, stream: StreamId) {
        self.shared.relays.stream_opened(now, stream, &mut self.shared.out);
        self.settle(now);
    }

    /// A stream could not be connected, was closed by the server, or lost its framing.
    pub fn stream_closed(&mut self, now: Instant, stream: StreamId) {
        self.shared.relays.stream_closed(now, stream);
        self.settle(now);
    }

    /// The next datagram or stream message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.out.pop_front()
    }

    /// The next thing to know or do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new();
        while let Some(key) = self.deadlines.pop_due(now) {
            due.push(key);
        }
        for key in due {
            match key {
                Key::Peer(id) => {
                    self.with_peer(now, id, |_, _| ());
                }
                Key::Relays => {
                    let Shared { relays, out, events, .. } = &mut self.shared;
                    relays.handle_timeout(now, out, events);
                    self.settle(now);
                }
            }
        }
    }

    /// What the user may see of a peer's paths.
    #[must_use]
    pub fn view(&self, now: Instant, id: PeerId) -> Option<PeerView> {
        let peer = self.peers.get(&id)?;
        let Shared { relays, config, local, .. } = &self.shared;
        let pair = peer.selected.and_then(|path| peer.pair(path));
        let relay = pair.and_then(|pair| match pair.path.via {
            Via::Relay(id) => relays.get(id).map(|allocation| allocation.server.name.clone()),
            Via::Socket(_) | Via::Member(_) => None,
        });
        let ago = |at: &Instant| now.saturating_duration_since(*at);
        Some(PeerView {
            kind: pair.map(Pair::carries),
            remote: pair.and_then(|pair| self.far_end(pair.path)),
            relay,
            through: pair.and_then(|pair| pair.path.through()),
            age: peer.age(now),
            quality: pair.map(|pair| pair.estimate.view()).unwrap_or_default(),
            attempts: explain::attempts(peer, relays, config, local, now),
            history: peer.history.iter().map(|(at, kind)| (ago(at), *kind)).collect(),
        })
    }

    /// Datagrams dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Does something with a peer, then whatever has become due for it.
    pub(crate) fn with_peer<R>(
        &mut self,
        now: Instant,
        id: PeerId,
        what: impl FnOnce(&mut Peer, &mut Env<'_>) -> R,
    ) -> Option<R> {
        let peer = self.peers.get_mut(&id)?;
        let mut env = self.shared.env(now);
        let result = what(peer, &mut env);
        let next = peer.drive(&mut env);
        let direct = peer.is_direct();
        self.note_direct(id, direct);
        self.deadlines.set(Key::Peer(id), next);
        self.deadlines.set(Key::Relays, self.shared.relays.deadline());
        Some(result)
    }

    fn each(&mut self, now: Instant, mut what: impl FnMut(&mut Peer, &mut Env<'_>)) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(now, id, &mut what);
        }
    }

    fn sync_all(&mut self, now: Instant) {
        self.each(now, Peer::sync);
    }

    /// Tells peers what became of the relays.
    pub(crate) fn settle(&mut self, now: Instant) {
        for change in self.shared.relays.take_changes() {
            match change {
                RelayChange::Allocations => {
                    self.announce();
                    self.sync_all(now);
                }
                RelayChange::Moved => self.shared.events.push_back(Event::PublicAddressChanged),
                RelayChange::Bound(id, remote) => {
                    let path = Path { via: Via::Relay(id), remote };
                    let concerned = self.peers.values().filter(|peer| peer.pair(path).is_some());
                    for peer in concerned.map(|peer| peer.id).collect::<Vec<_>>() {
                        self.with_peer(now, peer, |peer, _| peer.bound(path));
                    }
                }
            }
        }
        self.deadlines.set(Key::Relays, self.shared.relays.deadline());
    }

    /// Says what to announce, if that changed: what was given, and what the relays gave.
    fn announce(&mut self) {
        let mut candidates = self.shared.local.clone();
        for allocation in self.shared.relays.offered() {
            let reflexive = allocation.mapped().map(|address| (CandidateKind::ServerReflexive, address));
            let relayed = allocation.relayed().map(|address| (CandidateKind::Relayed, address));
            for (kind, address) in reflexive.into_iter().chain(relayed) {
                if candidates.iter().all(|known| known.address != address) {
                    candidates.push(Candidate { kind, address });
                }
            }
        }
        if candidates != self.announced {
            self.announced.clone_from(&candidates);
            self.shared.events.push_back(Event::LocalCandidates(candidates));
        }
    }
}

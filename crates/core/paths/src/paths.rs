//! The machine itself: passes every input to the peer or relay it concerns, and keeps their deadlines.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use partyline_model::{
    Candidate, CandidateKind, DeviceId, NatProfile, PartyId, RouteTarget, SocketId, StreamId,
};
use partyline_timing::Deadlines;
use partyline_wire::{
    datagram::{self, Kind},
    probe::{self, Claim, Tag},
    punch::Signal,
};
use tracing::{debug, trace};

use crate::{
    address::canonical,
    api::{Config, Event, Handled, PeerParams, PeerView, RelayServer, Transmit},
    context::{Context, Shared, hop},
    counters::Counters,
    explain,
    pair::CandidatePair,
    path::{Hop, Local, MemberRelay, Path, PeerId, Route, Via},
    peer::Peer,
    peer_names::PeerNames,
    relays::{AttemptState, RelayChange},
    remote::Refusal,
    turn::ServerMessage,
};

/// How soon after a packet was sent the machine looks whether one came back.
const SENT_PACKET_POLL_DELAY: Duration = Duration::from_millis(200);
/// The shortest keepalive interval.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Relays,
    Peer(PeerId),
}

/// The paths to every peer of every party of this computer.
///
/// Invariant: after every call that drives a peer (`with_peer`), its timer is set to when it has something to do;
/// [`Self::route`] only brings the timer forward, and [`Self::set_keepalive`] and packets on known paths leave it as it
/// is. The set of direct peers in [`crate::context::Device`] is always up to date.
pub struct Paths {
    peers: BTreeMap<PeerId, Peer>,
    names: PeerNames,
    by_tags: BTreeMap<(Tag, Tag), PeerId>,
    shared: Shared,
    timers: Deadlines<Timer>,
    announced: Vec<Candidate>,
    counters: Counters,
}

impl Paths {
    /// Creates a machine without peers. The seed must be secret and fresh.
    #[must_use]
    pub fn new(seed: [u8; 32], config: Config) -> Self {
        Self {
            peers: BTreeMap::new(),
            names: PeerNames::default(),
            by_tags: BTreeMap::new(),
            shared: Shared::new(seed, config),
            timers: Deadlines::new(),
            announced: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes all candidates that the caller has gathered: host, mapped, reflexive. A host candidate that is gone means
    /// that the network is another one.
    pub fn set_local(&mut self, now: Instant, mut candidates: Vec<Candidate>) {
        candidates.retain(|candidate| !self.shared.device.is_excluded(candidate.address.ip()));
        let lost = |c: &Candidate| c.kind == CandidateKind::Host && !candidates.contains(c);
        let moved = self.shared.device.candidates.iter().any(lost);
        debug!(count = candidates.len(), moved, "local candidates set");
        self.shared.device.candidates = candidates;
        self.announce();
        self.for_each_peer(now, Peer::sync_pairs);
        if moved {
            self.network_changed(now);
        }
    }

    /// Reacts to another network, or to the computer having slept: everything is checked again, while relays carry the
    /// packets.
    pub fn network_changed(&mut self, now: Instant) {
        debug!("network changed; checking every path again");
        let (relays, mut out) = self.shared.relays();
        relays.on_network_changed(now, &mut out);
        self.drain_relay_changes(now);
        self.for_each_peer(now, |peer, ctx| peer.on_network_changed(ctx.now));
    }

    /// Takes the behavior of our own NAT, as far as it is known, and STUN servers that report at which address they
    /// see a socket.
    pub fn set_nat(&mut self, now: Instant, nat: NatProfile, stun_servers: Vec<SocketAddr>) {
        let device = &mut self.shared.device;
        device.stun_servers = stun_servers;
        device.stun_servers.retain(SocketAddr::is_ipv4);
        if device.nat != nat {
            debug!(?nat, "local NAT profile set");
            device.nat = nat;
            self.for_each_peer(now, |_, _| ());
        }
    }

    /// Takes what is known about a network that the computer has come to: how many flows sprays may create there, if its
    /// router was seen to be full; see [`Event::RouterFull`].
    pub fn set_spray_limit(&mut self, limit: Option<u32>) {
        debug!(?limit, "spray limit set");
        self.shared.pacing.sprays.table.on_network(limit);
    }

    /// Takes sockets that [`Event::OpenSockets`] asked for: each with its port, or `None` if it could not be opened.
    pub fn sockets_opened(&mut self, now: Instant, opened: &[(SocketId, Option<u16>)]) {
        let failed = opened.iter().filter(|(_, port)| port.is_none()).count();
        debug!(count = opened.len(), failed, "punch sockets opened");
        let owner = opened.iter().find_map(|(id, _)| self.shared.sockets.owner(*id));
        if let Some(owner) = owner {
            self.with_peer(now, owner, |peer, ctx| peer.on_sockets_opened(ctx, opened));
        }
    }

    /// Takes a signal of a peer; see [`Event::Signal`].
    pub fn handle_signal(&mut self, now: Instant, id: PeerId, bytes: &[u8]) {
        match Signal::decode(bytes) {
            Ok(signal) => {
                self.with_peer(now, id, |peer, ctx| peer.handle_signal(ctx, signal));
            }
            Err(error) => {
                self.counters.malformed_signal += 1;
                let _span = self.names.span(id).entered();
                debug!(reason = %error, "signal dropped");
            }
        }
    }

    /// Takes all relay servers with all their transports, preferred relay first. Ignored while [`Config::relay`] is off:
    /// call it again after [`Self::configure`] has turned relays on. New credentials count from the next allocation on.
    pub fn set_relays(&mut self, now: Instant, servers: Vec<RelayServer>) {
        if self.shared.device.config.relay {
            let (relays, mut out) = self.shared.relays();
            relays.set_servers(now, servers, &mut out);
            relays.handle_timeout(now, &mut out);
            self.drain_relay_changes(now);
        }
    }

    /// Returns the addresses of relay servers that granted an allocation.
    pub fn granting_relays(&self) -> impl Iterator<Item = SocketAddr> {
        let granted = |state| matches!(state, AttemptState::Granted(_));
        self.shared
            .relays
            .states()
            .filter(move |(_, state)| granted(*state))
            .map(|(server, _)| server.address)
    }

    /// Returns the addresses of relay servers that did not respond when they were asked last. They may still do over
    /// another transport.
    pub fn silent_relays(&self) -> impl Iterator<Item = SocketAddr> {
        self.shared.relays.states().filter(|(_, state)| state.is_silent()).map(|(server, _)| server.address)
    }

    /// Returns the addresses of relay servers that granted an allocation and have not answered for two seconds since they
    /// were asked for it.
    pub fn unanswering_relays(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        self.shared.relays.unanswered(now)
    }

    /// Returns the relayed addresses that servers granted.
    pub fn relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.shared.relays.announced().filter_map(|allocation| allocation.relayed())
    }

    /// Asks relay servers at once whether they still know us, because they may be elsewhere.
    pub fn verify_relays(&mut self, now: Instant) {
        let (relays, mut out) = self.shared.relays();
        relays.verify(now, &mut out);
    }

    /// Applies another configuration, except for its keepalive. Paths that are not permitted any more are given up at
    /// once.
    pub fn configure(&mut self, now: Instant, config: Config) {
        debug!(direct = config.direct, relay = config.relay, methods = ?config.methods, "configuration set");
        if !config.relay {
            let (relays, mut out) = self.shared.relays();
            relays.set_servers(now, Vec::new(), &mut out);
        }
        let keepalive = self.shared.device.config.keepalive;
        self.shared.device.config = Config { keepalive, ..config };
        self.drain_relay_changes(now);
        self.for_each_peer(now, Peer::apply_config);
    }

    /// Takes the networks that the paths themselves carry, which are those of the parties. No candidate inside them is
    /// announced or checked, and nothing that arrives from inside them is a path: it would lead through itself.
    ///
    /// The candidates of this computer follow with the next [`Self::set_local`].
    pub fn set_excluded(&mut self, now: Instant, networks: Vec<IpNet>) {
        if networks == self.shared.device.excluded {
            return;
        }
        debug!(?networks, "networks excluded from paths");
        self.shared.device.excluded = networks;
        self.for_each_peer(now, Peer::apply_config);
    }

    /// Returns true for an address inside a party: nothing outside the tunnel goes there or comes from there.
    #[must_use]
    pub fn is_excluded(&self, address: IpAddr) -> bool {
        self.shared.device.is_excluded(address)
    }

    /// Takes the networks that this computer reaches otherwise than by a default route. What is routed into a party is
    /// excluded like its range; what another VPN carries is checked only while nothing else works.
    ///
    /// The candidates of this computer follow with the next [`Self::set_local`].
    pub fn set_routes(&mut self, now: Instant, routes: Vec<(IpNet, RouteTarget)>) {
        if routes == self.shared.device.routes {
            return;
        }
        debug!(?routes, "routes set");
        self.shared.device.routes = routes;
        self.for_each_peer(now, Peer::apply_config);
    }

    /// Sets how long a path may be silent before it is kept alive, as the network turned out to need it.
    pub fn set_keepalive(&mut self, keepalive: Duration) {
        debug!(keepalive_ms = keepalive.as_millis(), "keepalive set");
        self.shared.device.config.keepalive = keepalive.max(MIN_KEEPALIVE);
    }

    /// Takes what is known about a peer, or what changed about it.
    pub fn set_peer(&mut self, now: Instant, id: PeerId, params: PeerParams) {
        match self.peers.get_mut(&id) {
            Some(peer) if peer.remote().is_same_run(&params) => {
                self.names.span(id).in_scope(|| peer.update(params));
            }
            _ => {
                self.discard(now, id, "its key changed");
                self.by_tags.insert((params.local_tag, params.remote_tag), id);
                let peer = self.names.span(id).in_scope(|| Peer::new(now, id, params));
                self.peers.insert(id, peer);
                self.count_peers();
            }
        }
        self.with_peer(now, id, Peer::sync_pairs);
    }

    /// Names a peer in logs. To be called before [`Self::set_peer`], whose log has the name, too; a peer without a name
    /// appears by its number.
    pub fn name_peer(&mut self, id: PeerId, party: PartyId, device: DeviceId) {
        self.names.set(id, party, device);
    }

    /// Forgets a peer and its name.
    pub fn remove_peer(&mut self, now: Instant, id: PeerId) {
        self.discard(now, id, "not a member");
        self.names.remove(id);
    }

    fn count_peers(&mut self) {
        self.shared.device.peer_count = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
    }

    fn discard(&mut self, now: Instant, id: PeerId, reason: &'static str) {
        if let Some(peer) = self.peers.remove(&id) {
            let _span = self.names.span(id).entered();
            self.by_tags.remove(&peer.remote().session.tags());
            self.timers.set(Timer::Peer(id), None);
            self.shared.device.direct_peers.remove(&id);
            self.count_peers();
            peer.close(&mut self.shared.context(now), reason);
        }
    }

    /// Notes that the tunnel has authenticated a message of this peer that arrived by this path.
    pub fn on_authenticated(&mut self, now: Instant, id: PeerId, path: Path) {
        let Some(peer) = self.peers.get_mut(&id).filter(|_| path.leads_to(id)) else { return };
        if !peer.on_authenticated(now, path) {
            self.with_peer(now, id, |peer, ctx| peer.learn_authenticated(ctx, path));
        }
    }

    /// Measures the path in use to a peer, unless that was done within a second.
    pub fn measure(&mut self, now: Instant, id: PeerId) {
        self.with_peer(now, id, |peer, _| peer.measure(now));
    }

    /// Returns where a tunnel message goes that is about to be sent. Call it for each message, or for each batch of
    /// messages sent at one time, since this is how the machine learns that packets go out.
    pub fn route(&mut self, now: Instant, id: PeerId) -> Option<Route> {
        let route = self.peers.get_mut(&id)?.route(now, &self.shared.relays);
        self.timers.bring_forward(Timer::Peer(id), now + SENT_PACKET_POLL_DELAY);
        route
    }

    /// Returns how to answer by the very path a tunnel message arrived by, before there is a route.
    #[must_use]
    pub fn hop(&self, path: Path) -> Option<Hop> {
        hop(&self.shared.relays, path)
    }

    /// Returns true if a peer is reached directly: then it may relay for others, and others may relay to it.
    #[must_use]
    pub fn is_direct(&self, id: PeerId) -> bool {
        self.shared.device.direct_peers.contains(&id)
    }

    /// Returns the round trip time to a peer that is reached directly.
    #[must_use]
    pub fn direct_rtt(&self, id: PeerId) -> Option<Duration> {
        let peer = self.peers.get(&id).filter(|_| self.is_direct(id))?;
        peer.selected_pair()?.quality().rtt()
    }

    /// Returns the peers for which another member should be asked to relay.
    #[must_use]
    pub fn peers_wanting_member_relay(&self, now: Instant) -> Vec<PeerId> {
        let config = &self.shared.device.config;
        if !config.methods.member_relay {
            return Vec::new();
        }
        let wanting = |(_, peer): &(&PeerId, &Peer)| peer.wants_member_relay(now, config.direct_timeout);
        self.peers.iter().filter(wanting).map(|(id, _)| *id).collect()
    }

    /// Takes the offer of a peer that is reached directly to relay to another one, to which it has the given round trip
    /// time.
    pub fn offer_member_relay(&mut self, now: Instant, relay: MemberRelay, remaining_rtt: Duration) {
        let Some(rtt) = self.direct_rtt(relay.through) else {
            debug!(through = %relay.through, reason = "not reached directly", "member relay offer ignored");
            return;
        };
        self.with_peer(now, relay.to, |peer, ctx| {
            peer.on_member_relay_offer(ctx, relay, rtt + remaining_rtt);
        });
    }

    /// Notes that a stream asked for by [`Event::OpenStream`] is connected.
    pub fn stream_opened(&mut self, now: Instant, stream: StreamId) {
        let (relays, mut out) = self.shared.relays();
        relays.on_stream_opened(now, stream, &mut out);
        self.drain_relay_changes(now);
    }

    /// Notes that a stream could not be connected, was closed by the server, or lost its framing.
    pub fn stream_closed(&mut self, now: Instant, stream: StreamId) {
        self.shared.relays.on_stream_closed(now, stream);
        self.drain_relay_changes(now);
    }

    /// Takes a datagram from a socket, one message from a stream, or what a member has forwarded.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: Local,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Handled {
        let source = canonical(source);
        if matches!(local, Local::Socket(_)) && self.shared.device.is_excluded(source.ip()) {
            self.counters.inside_party += 1;
            return dropped(source, bytes, "inside a party");
        }
        match (datagram::classify(bytes), local) {
            (Kind::ChannelData, _) => self.handle_channel_data(now, local, source, bytes),
            (Kind::Stun, _) => self.handle_stun(now, local, source, bytes),
            (Kind::WireGuard, Local::Socket(socket)) => {
                let path = Path { via: Via::Socket(socket), remote: source };
                let path = self.shared.aliases.resolve(path);
                Handled::Tunnel { payload: 0..bytes.len(), path }
            }
            (Kind::WireGuard, Local::Member(relay)) => {
                Handled::Tunnel { payload: 0..bytes.len(), path: relay.path() }
            }
            _ => {
                self.counters.unrecognized += 1;
                dropped(source, bytes, "unrecognized")
            }
        }
    }

    fn handle_channel_data(
        &mut self,
        now: Instant,
        local: Local,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Handled {
        match self.shared.relays.channel_data(local, source, bytes) {
            Some((id, remote, payload)) => {
                self.handle_relayed(now, Path { via: Via::Relay(id), remote }, payload, bytes)
            }
            None => {
                self.counters.unknown_channel += 1;
                dropped(source, bytes, "unknown channel")
            }
        }
    }

    /// Takes what a relay server delivered: a check or a tunnel message.
    fn handle_relayed(&mut self, now: Instant, path: Path, payload: Range<usize>, bytes: &[u8]) -> Handled {
        let data = bytes.get(payload.clone()).unwrap_or_default();
        match datagram::classify(data) {
            Kind::WireGuard => Handled::Tunnel { payload, path },
            Kind::Stun => match self.handle_probe(now, path, data) {
                Handled::Foreign => {
                    self.counters.unsolicited += 1;
                    dropped(path.remote, data, "relayed STUN message of nobody")
                }
                handled => handled,
            },
            _ => {
                self.counters.unrecognized += 1;
                dropped(path.remote, data, "unrecognized")
            }
        }
    }

    fn handle_stun(&mut self, now: Instant, local: Local, source: SocketAddr, bytes: &[u8]) -> Handled {
        let (relays, mut out) = self.shared.relays();
        match relays.handle_message(now, local, source, bytes, &mut out) {
            Some((id, ServerMessage::Data { peer, payload })) => {
                let path = Path { via: Via::Relay(id), remote: canonical(peer) };
                return self.handle_relayed(now, path, payload, bytes);
            }
            Some(_) => {
                self.drain_relay_changes(now);
                return Handled::Consumed;
            }
            None => {}
        }
        match local {
            Local::Socket(socket) => {
                self.handle_probe(now, Path { via: Via::Socket(socket), remote: source }, bytes)
            }
            Local::Member(relay) => self.handle_probe(now, relay.path(), bytes),
            Local::Stream(_) => {
                self.counters.unsolicited += 1;
                dropped(source, bytes, "response to no request")
            }
        }
    }

    fn handle_probe(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Handled {
        let result = match probe::peek(bytes) {
            Some(Claim::Request { recipient, sender }) => {
                let Some(id) = self.by_tags.get(&(recipient, sender)).copied() else {
                    trace!(%path, reason = "unknown tags", "STUN request of nobody we know");
                    return Handled::Foreign;
                };
                if path.leads_to(id) {
                    let path = self.shared.aliases.resolve(path);
                    self.with_peer(now, id, |peer, ctx| peer.handle_request(ctx, path, bytes))
                } else {
                    Some(Err(Refusal::Unsolicited))
                }
            }
            Some(Claim::Response(transaction)) => {
                let Some(id) = self.shared.transactions.peer_of(transaction) else {
                    return Handled::Foreign;
                };
                let result =
                    self.with_peer(now, id, |peer, ctx| peer.handle_response(ctx, path, transaction, bytes));
                if result == Some(Ok(())) {
                    self.shared.transactions.close(transaction);
                }
                result
            }
            None => return Handled::Foreign,
        };
        match result {
            Some(Err(refusal)) => self.count_refusal(path, bytes, refusal),
            Some(Ok(())) | None => Handled::Consumed,
        }
    }

    fn count_refusal(&mut self, path: Path, bytes: &[u8], refusal: Refusal) -> Handled {
        let (counter, reason) = match refusal {
            Refusal::Unauthenticated => (&mut self.counters.unauthenticated, "check not authentic"),
            Refusal::Replayed => (&mut self.counters.replayed, "check replayed"),
            Refusal::Unsolicited => (&mut self.counters.unsolicited, "response to no request"),
        };
        *counter += 1;
        dropped(path.remote, bytes, reason)
    }

    /// Returns the next datagram or stream message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] is to be called; `None` if nothing is due before the next input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<Timer> = std::iter::from_fn(|| self.timers.pop_due(now)).collect();
        for timer in due {
            match timer {
                Timer::Peer(id) => {
                    self.with_peer(now, id, |_, _| ());
                }
                Timer::Relays => {
                    let (relays, mut out) = self.shared.relays();
                    relays.handle_timeout(now, &mut out);
                    self.drain_relay_changes(now);
                }
            }
        }
    }

    /// Returns what the user may see of a peer's paths.
    #[must_use]
    pub fn view(&self, now: Instant, id: PeerId) -> Option<PeerView> {
        let peer = self.peers.get(&id)?;
        let pair = peer.selected_pair();
        let relay = pair.and_then(|pair| match pair.path.via {
            Via::Relay(id) => self.shared.relays.get(id).map(|allocation| allocation.server.name.clone()),
            Via::Socket(_) | Via::Member(_) => None,
        });
        let ago = |(at, kind)| (now.saturating_duration_since(at), kind);
        Some(PeerView {
            kind: pair.map(CandidatePair::path_kind),
            remote: pair.and_then(|pair| self.first_address(pair.path)),
            relay,
            through: pair.and_then(|pair| pair.path.through()),
            age: peer.selection().age(now),
            quality: pair.map(|pair| pair.quality().view()).unwrap_or_default(),
            attempts: explain::attempts(peer, &self.shared.relays, &self.shared.device, now),
            history: peer.selection().history().map(ago).collect(),
            no_hairpin: peer.separating_nat(&self.shared.device),
        })
    }

    /// Returns the address that packets on a path are sent to first, for display.
    fn first_address(&self, path: Path) -> Option<SocketAddr> {
        let Some(through) = path.through() else { return Some(path.remote) };
        self.peers.get(&through)?.selection().path().map(|path| path.remote)
    }

    /// Returns the counters of datagrams and signals dropped so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Calls a function with a peer, and then does whatever has become due for it.
    fn with_peer<R>(
        &mut self,
        now: Instant,
        id: PeerId,
        call: impl FnOnce(&mut Peer, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let peer = self.peers.get_mut(&id)?;
        let _span = self.names.span(id).entered();
        let mut ctx = self.shared.context(now);
        let result = call(peer, &mut ctx);
        let next = peer.drive(&mut ctx);
        let direct_peers = &mut self.shared.device.direct_peers;
        let changed = if peer.is_direct() { direct_peers.insert(id) } else { direct_peers.remove(&id) };
        if changed {
            debug!(direct = peer.is_direct(), "peer may relay for others while it is direct");
        }
        self.timers.set(Timer::Peer(id), next);
        self.timers.set(Timer::Relays, self.shared.relays.deadline());
        if let Some(spray_limit) = self.shared.pacing.sprays.table.take_news() {
            self.shared.events.push_back(Event::RouterFull { spray_limit });
            // The sprays towards other peers end, too.
            self.peers.keys().for_each(|id| self.timers.bring_forward(Timer::Peer(*id), now));
        }
        Some(result)
    }

    fn for_each_peer(&mut self, now: Instant, mut call: impl FnMut(&mut Peer, &mut Context<'_>)) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(now, id, &mut call);
        }
    }

    /// Passes what became of the relays on to the peers.
    fn drain_relay_changes(&mut self, now: Instant) {
        for change in self.shared.relays.take_changes() {
            match change {
                RelayChange::Allocations => {
                    trace!("allocations changed; updating every peer's pairs");
                    self.announce();
                    self.for_each_peer(now, Peer::sync_pairs);
                }
                RelayChange::PublicAddress => self.shared.events.push_back(Event::PublicAddressChanged),
                RelayChange::ChannelBound(id, remote) => {
                    let path = Path { via: Via::Relay(id), remote };
                    let uses = |(_, peer): &(&PeerId, &Peer)| peer.pairs().get(path).is_some();
                    for id in self.peers.iter().filter(uses).map(|(id, _)| *id).collect::<Vec<_>>() {
                        self.with_peer(now, id, |peer, _| peer.on_channel_bound(path));
                    }
                }
            }
        }
        self.timers.set(Timer::Relays, self.shared.relays.deadline());
    }

    /// Reports the candidates to announce if they changed: those given by the caller and those given by relays.
    fn announce(&mut self) {
        let mut candidates = self.shared.device.candidates.clone();
        for allocation in self.shared.relays.announced() {
            let reflexive = allocation.mapped().map(|address| (CandidateKind::ServerReflexive, address));
            let relayed = allocation.relayed().map(|address| (CandidateKind::Relayed, address));
            for (kind, address) in reflexive.into_iter().chain(relayed) {
                if candidates.iter().all(|known| known.address != address) {
                    candidates.push(Candidate { kind, address });
                }
            }
        }
        if candidates != self.announced {
            debug!(count = candidates.len(), ?candidates, "candidates to announce changed");
            self.announced.clone_from(&candidates);
            self.shared.events.push_back(Event::LocalCandidates(candidates));
        }
    }
}

fn dropped(source: SocketAddr, bytes: &[u8], reason: &'static str) -> Handled {
    trace!(%source, len = bytes.len(), reason, "datagram dropped");
    Handled::Consumed
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use partyline_model::CardKind;

    use super::*;
    use crate::testing;

    const MAIN: Local = Local::Socket(SocketId::MAIN);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn paths() -> (Paths, Instant) {
        (Paths::new([1; 32], Config::default()), Instant::now())
    }

    fn params(key: u8) -> PeerParams {
        PeerParams {
            probe_key: [key; 32],
            candidates: vec![Candidate { kind: CandidateKind::Host, address: ([198, 51, 100, 2], 1).into() }],
            ..testing::params()
        }
    }

    fn source() -> SocketAddr {
        ([198, 51, 100, 2], 1).into()
    }

    fn host(address: [u8; 4]) -> Candidate {
        Candidate { kind: CandidateKind::Host, address: (address, 1).into() }
    }

    #[test]
    fn no_path_leads_into_a_party() {
        let (mut paths, now) = paths();
        let inside = ([10, 80, 7, 2], 4).into();
        let mut message = [0; 32];
        message[0] = 4;
        paths.set_peer(
            now,
            PeerId(1),
            PeerParams { candidates: vec![host([10, 80, 7, 9]), host([198, 51, 100, 2])], ..params(7) },
        );
        paths.set_local(now, vec![host([10, 80, 7, 1]), host([192, 0, 2, 1])]);
        let targets = |paths: &mut Paths| {
            let sent = std::iter::from_fn(|| paths.poll_transmit());
            sent.map(|transmit| transmit.destination.ip()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(targets(&mut paths).contains(&[10, 80, 7, 9].into()), "an ordinary address as yet");
        let Handled::Tunnel { .. } = paths.handle_datagram(now, MAIN, inside, &message) else {
            panic!("taken for a tunnel message as yet")
        };
        while paths.poll_event().is_some() {}
        paths.set_excluded(now, vec!["10.80.7.0/24".parse().unwrap()]);
        paths.set_local(now, vec![host([10, 80, 7, 1]), host([192, 0, 2, 1])]);
        assert!(matches!(
            paths.poll_event(),
            Some(Event::LocalCandidates(local)) if local == [host([192, 0, 2, 1])]
        ));
        targets(&mut paths);
        for _ in 0..50 {
            let Some(at) = paths.poll_timeout() else { break };
            paths.handle_timeout(at);
        }
        let sent = targets(&mut paths);
        assert!(
            sent.contains(&[198, 51, 100, 2].into()) && !sent.contains(&[10, 80, 7, 9].into()),
            "{sent:?}"
        );
        assert_eq!(paths.handle_datagram(now, MAIN, inside, &message), Handled::Consumed);
        assert_eq!(paths.counters().inside_party, 1);
    }

    /// Lets a peer that never answers be checked for a span, and returns where checks went.
    fn checked(paths: &mut Paths, now: &mut Instant, span: Duration) -> BTreeSet<IpAddr> {
        let end = *now + span;
        let mut targets = BTreeSet::new();
        while let Some(at) = paths.poll_timeout().filter(|at| *at < end) {
            paths.handle_timeout(at);
            targets.extend(std::iter::from_fn(|| paths.poll_transmit()).map(|sent| sent.destination.ip()));
        }
        *now = end;
        targets
    }

    #[test]
    fn what_is_routed_into_a_party_or_another_vpn_is_no_ordinary_address() {
        let ((mut paths, mut now), card) = (paths(), |kind| RouteTarget::Card(kind));
        let [party, vpn, inside, ordinary] =
            [[203, 0, 113, 5], [10, 147, 17, 2], [10, 147, 18, 2], [198, 51, 100, 2]];
        let routes = [
            ("203.0.113.0/24", RouteTarget::Party),
            ("10.147.0.0/16", card(CardKind::Overlay)),
            ("10.147.18.0/24", card(CardKind::Physical)),
        ];
        let routes = routes.map(|(network, target)| (network.parse().unwrap(), target)).to_vec();
        paths.set_routes(now, routes);
        let candidates = [party, vpn, inside, ordinary].map(host).to_vec();
        paths.set_peer(now, PeerId(1), PeerParams { candidates, ..params(7) });
        let mut seen: BTreeSet<IpAddr> =
            std::iter::from_fn(|| paths.poll_transmit()).map(|s| s.destination.ip()).collect();
        seen.extend(checked(&mut paths, &mut now, Duration::from_millis(1900)));
        assert_eq!(seen, BTreeSet::from([inside.into(), ordinary.into()]));
        assert!(
            checked(&mut paths, &mut now, Duration::from_secs(1)).contains(&vpn.into()),
            "nothing answers"
        );
        paths.set_routes(now, Vec::new());
        let seen = checked(&mut paths, &mut now, Duration::from_secs(1));
        assert!(
            seen.contains(&party.into()) && seen.contains(&vpn.into()),
            "ordinary addresses now: {seen:?}"
        );
    }

    #[test]
    fn what_is_dropped_is_counted_by_reason() {
        let (mut paths, now) = paths();
        paths.set_peer(now, PeerId(1), params(7));
        assert_eq!(paths.handle_datagram(now, MAIN, source(), &[0xff; 40]), Handled::Consumed);
        paths.handle_datagram(now, MAIN, source(), &[0x40, 0, 0, 4, 1, 2, 3, 4]);
        paths.handle_signal(now, PeerId(1), &[9, 9]);
        let counters = paths.counters();
        assert_eq!((counters.unrecognized, counters.unknown_channel, counters.malformed_signal), (1, 1, 1));
    }

    #[test]
    fn announced_candidates_are_reported_once() {
        let (mut paths, now) = paths();
        let list = params(7).candidates;
        paths.set_local(now, list.clone());
        paths.set_local(now, list.clone());
        assert_eq!(paths.poll_event(), Some(Event::LocalCandidates(list)));
        assert_eq!(paths.poll_event(), None);
    }

    #[test]
    fn another_key_discards_the_peers_state() {
        let (mut paths, now) = paths();
        paths.set_peer(now, PeerId(1), params(7));
        assert!(paths.poll_transmit().is_some());
        paths.set_peer(now, PeerId(1), params(7));
        assert_eq!(paths.poll_transmit(), None, "checks are under way");
        paths.set_peer(now, PeerId(1), params(8));
        assert!(paths.poll_transmit().is_some());
    }

    #[test]
    fn a_removed_peer_needs_no_timer() {
        let (mut paths, now) = paths();
        paths.set_peer(now, PeerId(1), params(7));
        assert!(paths.poll_timeout().is_some());
        paths.remove_peer(now, PeerId(1));
        assert_eq!((paths.poll_timeout(), paths.view(now, PeerId(1))), (None, None));
    }

    #[test]
    fn members_are_wanted_as_relays_after_the_direct_timeout_unless_switched_off() {
        let (mut paths, now) = paths();
        paths.set_peer(now, PeerId(1), params(7));
        let later = now + Config::default().direct_timeout;
        assert_eq!(paths.peers_wanting_member_relay(now), []);
        assert_eq!(paths.peers_wanting_member_relay(later), [PeerId(1)]);
        let mut config = Config::default();
        config.methods.member_relay = false;
        paths.configure(later, config);
        assert_eq!(paths.peers_wanting_member_relay(later), []);
    }

    #[test]
    fn an_authenticated_packet_from_a_new_address_is_a_path_at_once() {
        let (mut paths, now) = paths();
        paths.set_peer(now, PeerId(1), PeerParams { candidates: Vec::new(), ..params(7) });
        assert_eq!(paths.route(now, PeerId(1)), None);
        let handled = paths.handle_datagram(now, MAIN, source(), &[4, 0, 0, 0, 1]);
        let Handled::Tunnel { path, .. } = handled else { panic!("{handled:?}") };
        paths.on_authenticated(now, PeerId(1), path);
        let route = paths.route(now, PeerId(1)).unwrap();
        assert_eq!(route.primary.destination, source());
    }
}

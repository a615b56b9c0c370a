//! One peer: its candidates, the pairs they make, and the checks between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, Mapping, NatProfile, PathKind};
use partyline_wire::probe::{ProbeError, ProbeKey, ReplayWindow, Request, Response, Tag, TransactionId};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;

use crate::{
    MAX_REMOTE_CANDIDATES,
    api::{Config, Event, Hop, Local, Path, PeerId, PeerParams, SocketId, Transmit, Via},
    pair::{Pair, State},
    pairing::{forget, permitted},
    punch::{Budget, PortOrder, Punch, Sockets, Traffic, indication, question},
    relays::Relays,
    schedule::Pacer,
};

/// Answers that may come from another port than was asked, remembered over all peers.
const MAX_ALIASES: usize = 1024;
/// RFC 8445's priority of a peer-reflexive candidate.
const PROBE_PRIORITY: u32 = (110 << 24) | (0xffff << 8) | 0xff;

/// What all peers share, lent to one of them for the time of a call.
pub(crate) struct Env<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) local: &'a [Candidate],
    pub(crate) relays: &'a mut Relays,
    /// Peers with a direct path: those that may pass packets on.
    pub(crate) direct: &'a BTreeSet<PeerId>,
    pub(crate) pacer: &'a mut Pacer,
    pub(crate) measuring: &'a mut Pacer,
    pub(crate) open_checks: &'a mut BTreeMap<TransactionId, PeerId>,
    pub(crate) counter: &'a mut u64,
    pub(crate) rng: &'a mut ChaCha20Rng,
    pub(crate) nat: &'a NatProfile,
    pub(crate) observers: &'a [SocketAddr],
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) budget: &'a mut Budget,
    pub(crate) aliases: &'a mut BTreeMap<Path, Path>,
    pub(crate) out: &'a mut VecDeque<Transmit>,
    pub(crate) events: &'a mut VecDeque<Event>,
}

impl Env<'_> {
    /// Sends a probe along a path. Through a relay it is lost while there is no channel.
    fn send(&mut self, path: Path, mut probe: Vec<u8>) {
        if let Via::Member(passage) = path.via
            && !self.direct.contains(&passage.through)
        {
            return;
        }
        let Some(hop) = hop(self.relays, path) else { return };
        if let Some(header) = hop.header(probe.len()) {
            let padding = hop.padding(probe.len());
            probe.splice(..0, header);
            probe.resize(probe.len() + padding, 0);
        }
        self.out.push_back(Transmit { local: hop.local, destination: hop.destination, bytes: probe });
    }
}

/// The way out along a path, if there is one now.
pub(crate) fn hop(relays: &Relays, path: Path) -> Option<Hop> {
    match path.via {
        Via::Socket(socket) => Some(Hop { local: Local::Socket(socket), destination: path.remote, channel: None }),
        Via::Relay(allocation) => relays.hop(allocation, path.remote),
        Via::Member(passage) => Some(Hop { local: Local::Member(passage), destination: path.remote, channel: None }),
    }
}

/// Why a probe was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Forged,
    Replayed,
    Stray,
}

impl From<ProbeError> for Refusal {
    fn from(_: ProbeError) -> Self {
        Self::Forged
    }
}

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    key: ProbeKey,
    local_tag: Tag,
    remote_tag: Tag,
    pub(crate) controlling: bool,
    pub(crate) nat: NatProfile,
    pub(crate) punch: Punch,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) pairs: Vec<Pair>,
    window: ReplayWindow,
    pub(crate) selected: Option<Path>,
    /// Whether a check was answered on it.
    pub(crate) proven: bool,
    /// The path the controlling side has settled on.
    pub(crate) nominated: Option<Path>,
    pub(crate) history: VecDeque<(Instant, Option<PathKind>)>,
    /// Peers that would pass packets on to this one, with the round trip through them.
    pub(crate) offers: Vec<(PeerId, Duration)>,
    /// The path that is better than the one in use, and the samples there were when that began.
    pub(crate) lead: Option<(Path, u32)>,
    /// Since when it is known.
    pub(crate) known: Instant,
    pub(crate) traffic: Traffic,
    /// Ports to try when they have to be guessed, once some were.
    pub(crate) ports: Option<PortOrder>,
}

impl Peer {
    pub(crate) fn new(now: Instant, id: PeerId, params: PeerParams) -> Self {
        let mut peer = Self {
            id,
            key: ProbeKey::new(&params.probe_key),
            local_tag: params.local_tag,
            remote_tag: params.remote_tag,
            controlling: params.controlling,
            nat: params.nat,
            punch: Punch::default(),
            candidates: params.candidates,
            pairs: Vec::new(),
            window: ReplayWindow::default(),
            selected: None,
            proven: false,
            nominated: None,
            history: VecDeque::new(),
            offers: Vec::new(),
            lead: None,
            known: now,
            traffic: Traffic::default(),
            ports: None,
        };
        peer.candidates.truncate(MAX_REMOTE_CANDIDATES);
        peer
    }

    /// Whether these parameters belong to the same run of the same peer.
    pub(crate) fn is_same_run(&self, params: &PeerParams) -> bool {
        self.key == ProbeKey::new(&params.probe_key) && self.tags() == (params.local_tag, params.remote_tag)
    }

    /// Our tag and the peer's.
    pub(crate) fn tags(&self) -> (Tag, Tag) {
        (self.local_tag, self.remote_tag)
    }

    /// Takes other candidates.
    pub(crate) fn set_candidates(&mut self, mut candidates: Vec<Candidate>) {
        candidates.truncate(MAX_REMOTE_CANDIDATES);
        self.candidates = candidates;
    }

    pub(crate) fn pair(&self, path: Path) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.path == path)
    }

    pub(crate) fn pair_mut(&mut self, path: Path) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.path == path)
    }

    /// Answers a check and takes it as a sign of life.
    pub(crate) fn handle_request(
        &mut self,
        env: &mut Env<'_>,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let request = Request::open(bytes, &self.key)?;
        if !self.window.accept(request.id.counter()) {
            return Err(Refusal::Replayed);
        }
        // An answer would tell the peer that it may use this path.
        let kind = self.pair(path).map_or(CandidateKind::PeerReflexive, |pair| pair.kind);
        if !permitted(env.config, path, kind) {
            return Ok(());
        }
        let (now, follows) = (env.now, !self.controlling);
        if let Some(pair) = self.learn(env, path) {
            pair.heard = Some(now);
            if pair.state != State::Valid {
                pair.trigger();
            }
            if request.nominate && follows {
                self.nominated = Some(path);
            }
        }
        self.punch_heard(env, path, request.id);
        let response = Response { id: request.id, mapped: path.remote };
        if let Ok(bytes) = response.encode(&self.key) {
            env.send(path, bytes);
        }
        if self.selected == Some(path) {
            self.keep_asymmetric(env, path);
        }
        Ok(())
    }

    /// Where the peer's packets come from another port than ours go to, or by another mapping in our router than ours
    /// leave by, those get something too (RFC 8445, section 11): nothing else would go out by the mapping that lets
    /// them in, and it would lapse.
    fn keep_asymmetric(&mut self, env: &mut Env<'_>, path: Path) {
        let Some(pair) = self.pair_mut(path).filter(|pair| pair.asymmetry_due(env.now)) else { return };
        pair.kept = Some(env.now);
        let changes =
            !matches!(env.nat.mapping, Some(Mapping::EndpointIndependent | Mapping::AddressDependent));
        let heard = self.pairs.iter().filter(|pair| changes || pair.heard.is_some()).map(|pair| pair.path);
        let beside = |other: &Path| other.via == path.via && other.remote.ip() == path.remote.ip();
        let aliases = env.aliases.iter().filter(|(_, asked)| **asked == path).map(|(source, _)| *source);
        let openings = self.pair(path).into_iter().flat_map(|pair| &pair.openings);
        let openings = openings.map(|remote| Path { remote: *remote, ..path });
        let mut others: BTreeSet<Path> = heard.filter(beside).chain(aliases).chain(openings).collect();
        others.remove(&path);
        for other in others {
            *env.counter += 1;
            let bytes = indication(*env.counter);
            env.send(other, bytes);
        }
    }

    /// Takes the answer to a check; it must come from where the check went (RFC 8445, section 7.2.5.2.1), or from another
    /// port there. A NAT whose mapping depends on the destination answers from one port what it heard at another; if
    /// it also lets both in, packets go to the one and come from the other, and sending to that would make a third.
    pub(crate) fn handle_response(
        &mut self,
        env: &mut Env<'_>,
        path: Path,
        id: TransactionId,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        if env.observers.contains(&path.remote) && self.punch.sampled(env.now, id, bytes) {
            return Ok(());
        }
        let response = Response::open(bytes, &self.key)?;
        let asked = self.asked(response.id).ok_or(Refusal::Stray)?;
        if asked.via != path.via || asked.remote.ip() != path.remote.ip() {
            return Err(Refusal::Stray);
        }
        if self.pair(asked).is_none() {
            self.promote(env, asked, response.id);
        }
        let (peer, in_use) = (self.id, self.selected == Some(asked));
        let pair = self.pair_mut(asked).ok_or(Refusal::Stray)?;
        let before = pair.state;
        let rtt = pair.answered(env.now, response.id).ok_or(Refusal::Stray)?;
        env.events.extend(pair.tried(before));
        if in_use {
            let kind = pair.carries();
            env.events.push_back(Event::Sampled { peer, rtt: Some(rtt), kind });
        }
        if asked != path && self.pair(path).is_none() && env.aliases.len() < MAX_ALIASES {
            env.aliases.insert(path, asked);
        }
        Ok(())
    }

    /// Where the check went that has this id.
    fn asked(&self, id: TransactionId) -> Option<Path> {
        let checked = self.pairs.iter().find(|pair| pair.open_ids().any(|open| open == id));
        checked.map(|pair| pair.path).or_else(|| Some(self.punch.probed(id)?.0))
    }

    /// A probe of a round was answered: it is a path.
    fn promote(&mut self, env: &mut Env<'_>, path: Path, id: TransactionId) {
        let Some((_, sent)) = self.punch.probed(id) else { return };
        if let Some(pair) = self.learn(env, path) {
            pair.checked(sent, id);
        }
    }

    /// Sends a probe of a round; the round keeps its id.
    pub(crate) fn probe(&self, env: &mut Env<'_>, path: Path) -> Option<TransactionId> {
        let id = TransactionId::new(*env.counter, env.rng.next_u32());
        *env.counter += 1;
        let (recipient, sender) = (self.remote_tag, self.local_tag);
        let request = Request { id, recipient, sender, priority: PROBE_PRIORITY, nominate: false };
        let bytes = request.encode(&self.key).ok()?;
        env.open_checks.insert(id, self.id);
        env.send(path, bytes);
        Some(id)
    }

    /// Asks a server where it sees a socket.
    pub(crate) fn ask(&self, env: &mut Env<'_>, socket: SocketId, server: SocketAddr, id: TransactionId) {
        env.open_checks.insert(id, self.id);
        env.out.push_back(Transmit { local: Local::Socket(socket), destination: server, bytes: question(id) });
    }

    /// The tunnel authenticated a packet of this peer.
    pub(crate) fn authenticated(&mut self, env: &mut Env<'_>, path: Path) {
        let now = env.now;
        let known = self.pair(path).is_some();
        if let Some(pair) = self.learn(env, path) {
            pair.came_back(now);
            if !known {
                pair.trigger();
            }
        }
    }

    /// The relay is ready to exchange packets with this address.
    pub(crate) fn bound(&mut self, path: Path) {
        if let Some(pair) = self.pair_mut(path) {
            pair.bound();
        }
    }

    /// The network may be another one: nothing that was measured directly counts any more, until it is again.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.punch.start_over();
        for pair in &mut self.pairs {
            if pair.state == State::Valid {
                pair.trigger();
                pair.unanswered = now.checked_sub(pair.patience()).or(Some(now));
            } else {
                pair.restart();
            }
        }
    }

    /// Does what is due, and says when the next thing will be.
    pub(crate) fn drive(&mut self, env: &mut Env<'_>) -> Option<Instant> {
        for pair in &mut self.pairs {
            let before = pair.state;
            let gone = pair.expire(env.now);
            env.events.extend(pair.tried(before));
            for (id, lost) in gone {
                env.open_checks.remove(&id);
                if lost && self.selected == Some(pair.path) {
                    let kind = pair.carries();
                    env.events.push_back(Event::Sampled { peer: self.id, rtt: None, kind });
                }
            }
        }
        self.drop_failed_offers();
        self.choose(env.now, env.events);
        self.doubt_relays(env);
        let mut next: Option<Instant> = None;
        for at in 0..self.pairs.len() {
            let due = self
                .pairs
                .get(at)
                .and_then(|pair| pair.next_check(env.now, self.role(pair, env.now), env.config.keepalive));
            let mut due = due;
            if due.is_some_and(|at| at <= env.now) {
                due = self.take_turn(env, at);
            }
            let turns = self.pairs.get(at).and_then(|pair| pair.turns_at(env.now));
            next = [next, due, turns].into_iter().flatten().min();
        }
        [next, self.drive_punch(env)].into_iter().flatten().min()
    }

    /// Checks a pair if it is its turn; returns when to look again.
    fn take_turn(&mut self, env: &mut Env<'_>, at: usize) -> Option<Instant> {
        let pair = self.pairs.get_mut(at)?;
        let pacer = if pair.only_measures() { &mut *env.measuring } else { &mut *env.pacer };
        pair.turn = pair.turn.filter(|turn| *turn > env.now).or_else(|| pacer.queue(env.now).err());
        if pair.turn.is_none() { self.check(env, at) } else { pair.turn }
    }

    /// A relayed path in trouble may mean that the server restarted: ask it.
    fn doubt_relays(&self, env: &mut Env<'_>) {
        for pair in self.pairs.iter().filter(|pair| pair.suspect(env.now)) {
            if let Via::Relay(id) = pair.path.via
                && let Some(allocation) = env.relays.get_mut(id)
            {
                allocation.verify(env.now, env.out);
            }
        }
    }

    /// Sends a check on a pair; returns when its next one is due.
    fn check(&mut self, env: &mut Env<'_>, at: usize) -> Option<Instant> {
        let controlling = self.controlling;
        let pair = self.pairs.get_mut(at)?;
        let id = TransactionId::new(*env.counter, env.rng.next_u32());
        *env.counter += 1;
        pair.checked(env.now, id);
        let (path, priority) = (pair.path, priority(pair));
        let nominate = controlling && self.selected == Some(path);
        let request = Request { id, recipient: self.remote_tag, sender: self.local_tag, priority, nominate };
        if let Ok(bytes) = request.encode(&self.key) {
            env.open_checks.insert(id, self.id);
            env.send(path, bytes);
        }
        if self.selected == Some(path) {
            self.keep_asymmetric(env, path);
        }
        let pair = self.pairs.get(at)?;
        pair.next_check(env.now, self.role(pair, env.now), env.config.keepalive)
    }

    /// Gives back what the pairs hold.
    pub(crate) fn close(&mut self, env: &mut Env<'_>) {
        for pair in std::mem::take(&mut self.pairs) {
            forget(&pair, env);
        }
        env.sockets.of(self.id).into_iter().for_each(|socket| env.sockets.close(socket, env.events));
    }

    /// How long the path in use has been in use.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.history.back().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since))
    }
}

/// RFC 8445's priority, with our tiers as type preferences.
fn priority(pair: &Pair) -> u32 {
    let preference = [126, 110, 20, 10, 0].get(usize::from(pair.tier())).copied().unwrap_or(0);
    (preference << 24) | (0xffff << 8) | 0xff
}

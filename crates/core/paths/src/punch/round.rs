//! One attempt by both sides together: agreed on by signals, prepared, begun at one moment, and over after seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Allocation, CandidateKind, Mapping, Method};
use partyline_wire::{
    probe::TransactionId,
    punch::{Body, NatPolicies, PunchAction, PunchPlan, Signal},
};
use rand_core::RngCore;

use super::{
    meet::Meet,
    prepare::{self, Seen},
    sample::Sampler,
    sockets::Fresh,
    spray::{Opening, Spraying},
};
use crate::{
    api::{Event, Path, SocketId, Via},
    peer::{Env, Peer},
    strategy::Side,
};

/// When an offer is repeated, and how often it is made.
const OFFER_AGAIN: Duration = Duration::from_millis(700);
const OFFERS: u32 = 4;
/// One way of a signal, where no round trip is known, and at most.
const ONE_WAY: Duration = Duration::from_millis(40);
const LONGEST_WAY: Duration = Duration::from_millis(250);
/// The longest an opened socket is waited for.
const OPENING: Duration = Duration::from_secs(2);
/// More ports than this were tried, not chosen.
const MOST_OPENED: usize = 8;

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is a direct path.
    Connected,
    /// Everything was tried.
    Failed,
    /// The other side would not, or did not answer.
    Refused,
    /// The other side is busy with other members: says nothing about the method.
    Busy,
    /// The other side's round takes its place.
    Superseded,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Sockets are being opened.
    Opening {
        until: Instant,
    },
    /// Servers are asked.
    Sampling(Sampler),
    /// The other side is waited for.
    Offering {
        again: Instant,
        tries: u32,
    },
    /// Both begin at this moment.
    Waiting(Instant),
    Meeting(Meet),
    Open(Opening),
    Spray(Spraying, Meet),
}

/// Probes under way, to know what an answer answers.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    pub(super) sent: BTreeMap<TransactionId, (Path, Instant)>,
    pub(crate) count: u32,
}

impl Probes {
    pub(crate) fn send(&mut self, peer: &Peer, env: &mut Env<'_>, path: Path) {
        if let Some(id) = peer.probe(env, path) {
            self.sent.insert(id, (path, env.now));
            self.count += 1;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(super) number: u32,
    pub(super) part: PunchAction,
    pub(super) me: Side,
    pub(super) began: Instant,
    pub(super) stage: Stage,
    pub(super) requested: BTreeSet<SocketId>,
    pub(super) opened: Vec<Fresh>,
    pub(super) senders: Vec<Fresh>,
    /// Our own terms, once they are known.
    pub(super) mine: Option<PunchPlan>,
    pub(super) theirs: Option<PunchPlan>,
    pub(super) offered: bool,
    pub(super) probes: Probes,
    /// Questions to servers.
    pub(super) asked: Vec<TransactionId>,
    /// Sockets on which the other side was told that it was heard.
    pub(super) told: BTreeSet<Via>,
}

impl Round {
    /// Prepares a round: asks for sockets. `theirs` are the other side's terms if it has offered it.
    pub(crate) fn prepare(
        peer: &Peer,
        env: &mut Env<'_>,
        me: Side,
        part: PunchAction,
        (number, theirs): (u32, Option<PunchPlan>),
    ) -> Option<Self> {
        let needs = prepare::needs(&me, part);
        let samples = if env.observers.is_empty() { 0 } else { needs.samples };
        let requested = env.sockets.request(peer.id, samples + needs.senders, env.events)?;
        Some(Self {
            number,
            part,
            me,
            began: env.now,
            stage: Stage::Opening { until: env.now + OPENING },
            requested: requested.into_iter().collect(),
            opened: Vec::new(),
            senders: Vec::new(),
            mine: None,
            offered: theirs.is_none(),
            theirs,
            probes: Probes::default(),
            asked: Vec::new(),
            told: BTreeSet::new(),
        })
    }

    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether it was proposed by this side.
    pub(crate) const fn is_ours(&self) -> bool {
        self.offered
    }

    pub(crate) const fn method(&self) -> Method {
        match self.part {
            PunchAction::Predict => Method::Predict,
            PunchAction::Open { .. } | PunchAction::Spray { .. } => Method::Spray,
        }
    }

    pub(crate) const fn kind(&self) -> CandidateKind {
        match self.part {
            PunchAction::Predict => CandidateKind::Predicted,
            PunchAction::Open { .. } | PunchAction::Spray { .. } => CandidateKind::Sprayed,
        }
    }

    pub(crate) fn holds(&self, id: SocketId) -> bool {
        self.requested.contains(&id)
    }

    /// Whether packets went there in this round.
    pub(crate) fn is_target(&self, path: Path) -> bool {
        match &self.stage {
            Stage::Meeting(meet) => meet.is_target(path),
            Stage::Open(opening) => opening.holds(path),
            Stage::Spray(_, meet) => {
                meet.is_target(path) || self.probes.sent.values().any(|(sent, _)| *sent == path)
            }
            _ => false,
        }
    }

    /// Ports of the peer to which probes went by the near end of a path, if they were chosen and not merely tried.
    pub(crate) fn opened_to(&self, path: Path) -> BTreeSet<SocketAddr> {
        let beside = |sent: &Path| sent.via == path.via && sent.remote.ip() == path.remote.ip();
        let sent = self.probes.sent.values().map(|(sent, _)| sent).filter(|sent| beside(sent));
        let ports: BTreeSet<SocketAddr> = sent.map(|sent| sent.remote).collect();
        if ports.len() > MOST_OPENED { BTreeSet::new() } else { ports }
    }

    pub(crate) fn probed(&self, id: TransactionId) -> Option<(Path, Instant)> {
        self.probes.sent.get(&id).copied()
    }

    /// Sockets were opened, or could not be.
    pub(crate) fn opened(&mut self, env: &mut Env<'_>, opened: &[(SocketId, Option<u16>)]) {
        for (id, port) in opened {
            match port.filter(|_| self.requested.contains(id)) {
                Some(port) => self.opened.push(Fresh { id: *id, port }),
                None => {
                    self.requested.remove(id);
                    env.sockets.close(*id, env.events);
                }
            }
        }
        // In the order of their numbers, whatever order they were opened in.
        self.opened.sort_by_key(|fresh| self.requested.iter().position(|id| *id == fresh.id));
    }

    /// Goes on as far as possible; says when to go on.
    pub(crate) fn drive(&mut self, peer: &mut Peer, env: &mut Env<'_>) -> Result<Option<Instant>, Outcome> {
        loop {
            match self.step(peer, env)? {
                Some(next) => return Ok(Some(next)),
                None => continue,
            }
        }
    }

    /// One step; `None` if another can be made at once.
    fn step(&mut self, peer: &mut Peer, env: &mut Env<'_>) -> Result<Option<Instant>, Outcome> {
        match &mut self.stage {
            Stage::Opening { until } => {
                let until = *until;
                if self.opened.len() < self.requested.len() {
                    return if env.now < until { Ok(Some(until)) } else { Err(Outcome::Failed) };
                }
                self.sample(env);
                Ok(None)
            }
            Stage::Sampling(sampler) => {
                let salt = env.rng.next_u32();
                let fresh = TransactionId::new(*env.counter, salt);
                if let Some((socket, observer, id)) = sampler.ask(env.now, fresh) {
                    *env.counter += u64::from(id == fresh);
                    self.asked.push(id);
                    peer.ask(env, socket.id, observer, id);
                }
                if !sampler.is_done() {
                    return Ok(sampler.deadline(env.now));
                }
                self.say(peer, env);
                Ok(None)
            }
            Stage::Offering { again, tries } => {
                if env.now < *again {
                    return Ok(Some(*again));
                }
                if *tries >= OFFERS {
                    return Err(Outcome::Refused);
                }
                (*again, *tries) = (env.now + OFFER_AGAIN, *tries + 1);
                self.repeat(peer, env);
                Ok(None)
            }
            Stage::Waiting(start) => {
                let start = *start;
                if env.now < start {
                    return Ok(Some(start));
                }
                self.start(peer, env)?;
                Ok(None)
            }
            Stage::Meeting(meet) => meet.drive(peer, env, &mut self.probes).map(Some).ok_or(Outcome::Failed),
            Stage::Open(opening) => {
                opening.drive(peer, env, &mut self.probes).map(Some).ok_or(Outcome::Failed)
            }
            Stage::Spray(spraying, meet) => {
                let tried = spraying.drive(peer, env, &mut self.probes);
                for (socket, remote) in
                    spraying.take_found().into_iter().flat_map(|at| self.senders.iter().map(move |s| (s, at)))
                {
                    meet.add(env.now, Path { via: Via::Socket(socket.id), remote });
                }
                let met = meet.drive(peer, env, &mut self.probes);
                tried.into_iter().chain(met).min().map(Some).ok_or(Outcome::Failed)
            }
        }
    }

    fn sample(&mut self, env: &Env<'_>) {
        let needs = prepare::needs(&self.me, self.part);
        let samples = if env.observers.is_empty() { 0 } else { needs.samples };
        self.senders = self.opened.split_off(samples.min(self.opened.len()));
        self.stage = Stage::Sampling(Sampler::new(env.observers.to_vec(), self.opened.clone()));
    }

    /// The preparation is over: tells the other side.
    fn say(&mut self, peer: &Peer, env: &mut Env<'_>) {
        let Stage::Sampling(sampler) = &self.stage else { return };
        let findings = sampler.findings(self.me.nat.allocation);
        let lead = if self.theirs.is_some() { way(peer) } else { way(peer) * 2 };
        let (me, part) = (&self.me, self.part);
        let endpoints = prepare::endpoints(me, part, &self.senders, &findings, env.local, lead, env.now);
        let nat = NatPolicies { allocation: findings.allocation, ..self.me.nat };
        self.me.nat = nat;
        self.mine = Some(PunchPlan { action: part, nat, endpoints });
        self.stage = if self.theirs.is_some() {
            Stage::Waiting(env.now + way(peer))
        } else {
            Stage::Offering { again: env.now + OFFER_AGAIN, tries: 1 }
        };
        self.repeat(peer, env);
    }

    /// Says our terms, perhaps once more.
    pub(crate) fn repeat(&self, peer: &Peer, env: &mut Env<'_>) {
        let Some(terms) = self.mine.clone() else { return };
        let body = if self.offered { Body::Offer(terms) } else { Body::Answer(terms) };
        signal(peer, env, self.number, body);
    }

    /// The other side has answered.
    pub(crate) fn answered(&mut self, now: Instant, terms: PunchPlan) {
        if matches!(self.stage, Stage::Offering { .. }) {
            self.theirs = Some(terms);
            self.stage = Stage::Waiting(now);
        }
    }

    /// A server may have answered a sample.
    pub(crate) fn sampled(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        if let Stage::Sampling(sampler) = &mut self.stage { sampler.heard(now, id, bytes) } else { false }
    }

    fn start(&mut self, peer: &Peer, env: &mut Env<'_>) -> Result<(), Outcome> {
        let theirs = self.theirs.as_ref().ok_or(Outcome::Failed)?;
        let known = peer.addresses();
        let mut targets: Vec<SocketAddr> = theirs.endpoints.clone();
        // Packets go to the member's own addresses only, whatever it says.
        targets.retain(|target| known.contains(&target.ip()) && target.port() != 0);
        let foretold = !targets.is_empty();
        targets.extend(prepare::main(&peer.candidates).filter(|_| !foretold));
        let first = *targets.first().ok_or(Outcome::Failed)?;
        self.stage = match (self.part, theirs.action) {
            (PunchAction::Open { .. }, PunchAction::Spray { packets }) => {
                Stage::Open(Opening::new(env.now, self.senders.clone(), first, packets))
            }
            (PunchAction::Spray { packets }, PunchAction::Open { .. }) => {
                let via = self.via_of_spray();
                Stage::Spray(Spraying::new(env.now, via, first.ip(), packets), Meet::default())
            }
            (PunchAction::Predict, PunchAction::Predict) => {
                Stage::Meeting(self.meet(env.now, &targets, foretold))
            }
            _ => return Err(Outcome::Refused),
        };
        Ok(())
    }

    fn via_of_spray(&self) -> Via {
        match (Seen::of(&self.me), self.senders.first()) {
            (Seen::Steady, Some(socket)) => Via::Socket(socket.id),
            _ => Via::Socket(SocketId::MAIN),
        }
    }

    /// Each of our sockets to each of their endpoints, or where every destination shows another port, one to one.
    fn meet(&self, now: Instant, targets: &[SocketAddr], foretold: bool) -> Meet {
        let mut meet = Meet::default();
        let main = [Fresh { id: SocketId::MAIN, port: 0 }];
        let (seen, senders) = match Seen::of(&self.me) {
            seen @ (Seen::Shared | Seen::Random) => (seen, &main[..]),
            seen => (seen, &self.senders[..]),
        };
        // The others are kept for what the first one hears.
        let count = if seen == Seen::Once && !foretold { 1 } else { senders.len() };
        for (at, socket) in senders.iter().take(count).enumerate() {
            let own = targets.get(at).or(targets.last()).into_iter();
            let all = targets.iter().filter(|_| seen != Seen::Once);
            for remote in all.chain(own.filter(|_| seen == Seen::Once)) {
                meet.add(now, Path { via: Via::Socket(socket.id), remote: *remote });
            }
        }
        meet
    }

    /// The other side's packet reached us on this path, by its transaction id.
    pub(crate) fn heard(&mut self, peer: &Peer, env: &mut Env<'_>, path: Path, id: TransactionId) {
        let theirs = self.theirs.as_ref();
        let changes =
            Seen::of(&self.me) == Seen::Once || self.me.nat.mapping != Some(Mapping::AddressDependent);
        match &mut self.stage {
            // Our answer leaves from another port than the one that was found, and may not be let in.
            Stage::Open(opening) if changes && opening.holds(path) && opening.target() != path.remote => {
                if theirs.is_some_and(|terms| !terms.endpoints.is_empty()) {
                    if self.told.insert(path.via) {
                        signal(peer, env, self.number, Body::ProbeReceived(id.0));
                    }
                } else if self.told.insert(path.via) {
                    opening.retarget(env.now, path.remote);
                }
            }
            // A port that was not foretold: meet it from sockets that have sent nothing yet.
            Stage::Meeting(meet)
                if Seen::of(&self.me) == Seen::Once
                    && !meet.is_target(path)
                    && is_sender(&self.senders, path.via)
                    && self.told.insert(path.via) =>
            {
                for socket in self.senders.iter().skip(1) {
                    meet.add(env.now, Path { via: Via::Socket(socket.id), remote: path.remote });
                }
            }
            _ => {}
        }
    }

    /// A probe of ours reached the other side, whose answer may not reach us: meets it from where it expects us.
    pub(crate) fn was_heard(&mut self, id: TransactionId) {
        let Some((path, _)) = self.probes.sent.get(&id).copied() else { return };
        if let Stage::Spray(spraying, _) = &mut self.stage
            && !self.senders.is_empty()
        {
            spraying.found.get_or_insert(path.remote);
            // A counter has to be moved on to the port that was foretold.
            if !matches!(self.me.nat.allocation, Some(Allocation::Contiguous { .. })) {
                spraying.stop();
            }
        }
    }
}

fn is_sender(senders: &[Fresh], via: Via) -> bool {
    senders.iter().any(|socket| via == Via::Socket(socket.id))
}

/// One way of a signal, as far as it is known.
fn way(peer: &Peer) -> Duration {
    let relayed = peer.selected.and_then(|path| peer.pair(path)).and_then(|pair| pair.estimate.rtt());
    relayed.map_or(ONE_WAY, |rtt| rtt / 2).min(LONGEST_WAY)
}

pub(crate) fn signal(peer: &Peer, env: &mut Env<'_>, round: u32, body: Body) {
    let bytes = Signal { attempt: round, body }.encode();
    env.events.push_back(Event::Signal { peer: peer.id, bytes });
}

impl Peer {
    /// Every address the member says it has, as far as a stranger could be there too.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let announced = self.candidates.iter().map(|c| c.address.ip());
        announced.chain(self.nat.public.iter().copied()).filter(IpAddr::is_ipv4).collect()
    }
}

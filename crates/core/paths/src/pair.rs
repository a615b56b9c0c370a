//! One path to a peer and what checks have shown of it.
//!
//! All local candidates share one socket, so a pair (RFC 8445, section 6.1.2) is told apart by the near end, the
//! socket or an allocation, and the remote address. It is first checked with doubling gaps; an answer makes it valid,
//! silence makes it fail until a later round. From then on it is judged by packets: as soon as one goes out, one must
//! come back in time (RFC 7675's consent, only stricter), and checks go out to provoke it where the traffic does not.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{CandidateKind, Method, PathKind};
use partyline_wire::probe::TransactionId;

use crate::{
    address::is_private,
    api::{Event, Path, RelayTransport, Via},
    quality::Estimate,
    role::Role,
};

/// Gap after the first check of a round; each further one doubles.
const FIRST_GAP: Duration = Duration::from_millis(100);
/// Gaps double up to this one.
const LONGEST_GAP: Duration = Duration::from_millis(1600);
/// Checks in a round after the first.
const LATER_ROUND: u32 = 3;
/// Pause after the first failed round; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// How soon after a packet without answer a check goes out.
const NUDGE: Duration = Duration::from_millis(200);
/// The least time without an answer that makes a path suspect.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time without an answer after which a path has failed.
pub(crate) const DROP_AFTER: Duration = Duration::from_secs(3);
/// How many round trips are measured before a path rests.
pub(crate) const SAMPLES: u32 = 3;
/// How often a path in use with traffic is measured.
const MEASURE: Duration = Duration::from_secs(2);
/// How often at most it is measured for whoever looks at it.
const LOOK: Duration = Duration::from_secs(1);
/// How often the best others are measured meanwhile, and how long after a packet there still is traffic.
const MEASURE_OTHERS: Duration = Duration::from_secs(10);
pub(crate) const BUSY: Duration = Duration::from_secs(2);
/// How often at most something goes out by other mappings that a path depends on; the shortest live 30 s.
const KEEP_OTHERS: Duration = Duration::from_secs(4);
/// Checks remembered as unanswered; older ones count as lost.
const MAX_OPEN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The relay has not bound a channel yet.
    Waiting,
    /// So many checks of this round went out.
    Checking(u32),
    /// A check was answered, and nothing has failed since.
    Valid,
    /// A round without answer.
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    id: TransactionId,
    sent: Instant,
    /// Whether silence says something about loss: the path was valid when the check went out.
    counts: bool,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) path: Path,
    /// How the remote address was learned.
    pub(crate) kind: CandidateKind,
    /// How our relay is reached, if it is used.
    pub(crate) transport: Option<RelayTransport>,
    pub(crate) state: State,
    /// Other ports of the peer's to which packets went when it was found: the mapping in our router by which the peer's
    /// packets come in may be one of those.
    pub(crate) openings: BTreeSet<SocketAddr>,
    /// When those got something last.
    pub(crate) kept: Option<Instant>,
    /// Kept only because it is in use or until another one is: one of its ends is no longer announced.
    pub(crate) outdated: bool,
    pub(crate) estimate: Estimate,
    /// When checking began, and how long it took to settle.
    pub(crate) began: Option<Instant>,
    pub(crate) took: Option<Duration>,
    /// The last authenticated packet that came in.
    pub(crate) heard: Option<Instant>,
    /// The last packet that went out.
    pub(crate) last_out: Option<Instant>,
    last_check: Option<Instant>,
    /// Since when packets went out and none came back.
    pub(crate) unanswered: Option<Instant>,
    failed_at: Option<Instant>,
    /// Rounds of checks that failed since it last was valid.
    pub(crate) rounds: u32,
    /// Spreads retries, 0.75 to 1.25.
    spread: f64,
    /// Checks in the first round.
    first_round: u32,
    urgent: bool,
    /// When the check that is due may go out.
    pub(crate) turn: Option<Instant>,
    open: Vec<Open>,
}

impl Pair {
    pub(crate) fn new(
        path: Path,
        kind: CandidateKind,
        transport: Option<RelayTransport>,
        spread: f64,
        patience: Duration,
    ) -> Self {
        let state = if matches!(path.via, Via::Relay(_)) { State::Waiting } else { State::Checking(0) };
        Self {
            path,
            kind,
            transport,
            state,
            openings: BTreeSet::new(),
            kept: None,
            outdated: false,
            estimate: Estimate::default(),
            began: None,
            took: None,
            heard: None,
            last_out: None,
            last_check: None,
            unanswered: None,
            failed_at: None,
            rounds: 0,
            spread,
            first_round: round_of(patience),
            urgent: false,
            turn: None,
            open: Vec::new(),
        }
    }

    /// What the user is told that carries the packets.
    pub(crate) fn carries(&self) -> PathKind {
        kind_of(self.path, self.kind)
    }

    /// The method under which it is explained.
    pub(crate) fn method(&self) -> Method {
        match (self.carries(), self.kind, self.transport) {
            (PathKind::MemberRelay, ..) => Method::MemberRelay,
            (PathKind::Relay, _, Some(RelayTransport::Tcp)) => Method::RelayTcp,
            (PathKind::Relay, _, Some(RelayTransport::Tls)) => Method::RelayTls,
            (PathKind::Relay, ..) => Method::RelayUdp,
            (PathKind::Lan, ..) => Method::Lan,
            (PathKind::DirectV6, ..) => Method::Ipv6,
            (PathKind::Mapped, ..) => Method::Mapped,
            (_, CandidateKind::Predicted, _) => Method::Predict,
            (_, CandidateKind::Sprayed, _) => Method::Spray,
            _ => Method::Punch,
        }
    }

    /// The class in which paths compete; less is better.
    pub(crate) fn tier(&self) -> u8 {
        match (self.carries(), self.transport) {
            (PathKind::MemberRelay | PathKind::Relay, _) if self.outdated => 5,
            (PathKind::Lan, _) => 0,
            (PathKind::DirectV6 | PathKind::Mapped | PathKind::Direct, _) => 1,
            (PathKind::MemberRelay, _) => 2,
            (PathKind::Relay, None | Some(RelayTransport::Udp)) => 3,
            (PathKind::Relay, _) => 4,
        }
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.tier() < 2
    }

    /// Starts a round at once, with all its checks.
    pub(crate) fn restart(&mut self) {
        if self.state != State::Waiting {
            self.state = State::Checking(0);
            (self.rounds, self.urgent, self.unanswered) = (0, false, None);
        }
    }

    /// The relay has bound the channel.
    pub(crate) fn bound(&mut self) {
        if self.state == State::Waiting {
            self.state = State::Checking(0);
        }
    }

    /// Checks as soon as the pace allows (RFC 8445's triggered check), starting over if it had failed.
    pub(crate) fn trigger(&mut self) {
        match self.state {
            State::Waiting => {}
            State::Failed => self.restart(),
            State::Checking(_) | State::Valid => {
                self.hasten();
                self.urgent = true;
            }
        }
    }

    /// A turn that was promised for measuring is too late for what comes now.
    fn hasten(&mut self) {
        if self.only_measures() {
            self.turn = None;
        }
    }

    /// Checks a path that is in order, for whoever looks at it; not again within a second.
    pub(crate) fn measure(&mut self, now: Instant) {
        let lately = self.last_check.is_some_and(|at| now < at + LOOK);
        if self.state == State::Valid && self.unanswered.is_none() && !lately {
            self.urgent = true;
        }
    }

    /// A packet goes out that wants an answer.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.hasten();
        self.last_out = Some(now);
        self.unanswered.get_or_insert(now);
    }

    /// A check goes out.
    pub(crate) fn checked(&mut self, now: Instant, id: TransactionId) {
        self.began.get_or_insert(now);
        self.last_check = Some(now);
        self.urgent = false;
        if self.state == State::Failed {
            self.state = State::Checking(0);
        }
        if let State::Checking(sent) = &mut self.state {
            *sent += 1;
        } else {
            self.sent(now);
        }
        self.open.push(Open { id, sent: now, counts: self.state == State::Valid });
    }

    /// A check of ours was answered on this path; `None` if it was not asked here. Makes the path valid.
    /// Returns the round trip.
    pub(crate) fn answered(&mut self, now: Instant, id: TransactionId) -> Option<Duration> {
        let at = self.open.iter().position(|open| open.id == id)?;
        let rtt = now - self.open.swap_remove(at).sent;
        self.estimate.answered(rtt);
        self.came_back(now);
        if self.state != State::Valid {
            (self.state, self.rounds, self.urgent) = (State::Valid, 0, false);
            self.took = self.began.map(|began| now - began);
        }
        Some(rtt)
    }

    /// The tunnel authenticated a packet that came this way, or a check was answered.
    pub(crate) fn came_back(&mut self, now: Instant) {
        self.heard = Some(now);
        self.unanswered = None;
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.estimate.rtt().map_or(PATIENCE, |rtt| (rtt * 4).max(PATIENCE))
    }

    /// Packets go out and none come back.
    pub(crate) fn suspect(&self, now: Instant) -> bool {
        self.unanswered.is_some_and(|since| now >= since + self.patience())
    }

    /// Valid, and not suspect.
    pub(crate) fn sound(&self, now: Instant) -> bool {
        self.state == State::Valid && !self.suspect(now)
    }

    /// Forgets checks that will not be answered any more, and fails if the time for that has come. Returns their ids,
    /// and whether the silence says something about loss.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(TransactionId, bool)> {
        let patience = self.patience() * 4;
        let over = |open: &Open| open.sent + patience <= now;
        let excess = self.open.len().saturating_sub(MAX_OPEN);
        let mut gone: Vec<Open> = self.open.drain(..excess).collect();
        gone.extend(self.open.extract_if(.., |open| over(open)));
        gone.iter().filter(|open| open.counts).for_each(|_| self.estimate.lost());
        if self.fails_at().is_some_and(|at| at <= now) {
            self.fail(now);
        }
        gone.into_iter().map(|open| (open.id, open.counts)).collect()
    }

    /// Whether it is time to keep the other mappings that the path depends on.
    pub(crate) fn asymmetry_due(&self, now: Instant) -> bool {
        self.kept.or(self.began).is_some_and(|at| at + KEEP_OTHERS <= now)
    }

    /// What has just come of being checked for the first time, or again after it had failed. Rounds tell for themselves
    /// what comes of the paths that they find.
    pub(crate) fn tried(&self, before: State) -> Option<Event> {
        let method = self.method();
        let worked = self.state == State::Valid && before != State::Valid;
        let failed = self.state == State::Failed && matches!(before, State::Checking(_)) && self.rounds == 1;
        let by_round = matches!(method, Method::Predict | Method::Spray);
        let took = self.took.unwrap_or_default();
        ((worked || failed) && !by_round).then_some(Event::Attempted { method, succeeded: worked, took })
    }

    /// Nothing waits for what its next check says: it works, as far as is known.
    pub(crate) const fn only_measures(&self) -> bool {
        matches!(self.state, State::Valid) && self.unanswered.is_none() && !self.urgent
    }

    /// No check went out since then.
    pub(crate) fn unchecked_since(&self, since: Instant) -> bool {
        self.last_check.is_none_or(|at| at < since)
    }

    /// The ids of all checks that wait for an answer.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = TransactionId> {
        self.open.iter().map(|open| open.id)
    }

    /// When it becomes suspect or fails, if nothing comes back.
    pub(crate) fn turns_at(&self, now: Instant) -> Option<Instant> {
        let suspect = self.unanswered.map(|since| since + self.patience()).filter(|at| *at > now);
        suspect.into_iter().chain(self.fails_at()).min()
    }

    fn fails_at(&self) -> Option<Instant> {
        match self.state {
            State::Checking(sent) if sent >= self.round_len() => self.last_check.map(|at| at + gap(sent)),
            State::Valid => self.unanswered.map(|since| since + DROP_AFTER.max(self.patience())),
            _ => None,
        }
    }

    fn fail(&mut self, now: Instant) {
        self.took = self.took.or(self.began.map(|began| now - began));
        (self.state, self.failed_at, self.unanswered) = (State::Failed, Some(now), None);
        (self.heard, self.estimate) = (None, Estimate::default());
        self.rounds += 1;
    }

    fn round_len(&self) -> u32 {
        if self.rounds == 0 { self.first_round } else { LATER_ROUND }
    }

    /// When the next check is due, given what the path is used for.
    pub(crate) fn next_check(&self, now: Instant, role: Role, keepalive: Duration) -> Option<Instant> {
        if self.urgent {
            return Some(now);
        }
        let last = self.last_check;
        match self.state {
            State::Waiting => None,
            State::Checking(0) => Some(now),
            State::Checking(sent) if sent < self.round_len() => last.map(|at| at + gap(sent)),
            State::Checking(_) => None,
            State::Failed => role.retries().and_then(|longest| {
                let pause = (FIRST_PAUSE * (1 << self.rounds.saturating_sub(1).min(8))).min(longest);
                self.failed_at.map(|at| at + pause.mul_f64(self.spread))
            }),
            State::Valid => self.next_of_valid(now, role, keepalive),
        }
    }

    fn next_of_valid(&self, now: Instant, role: Role, keepalive: Duration) -> Option<Instant> {
        let last = self.last_check?;
        if let Some(since) = self.unanswered {
            let nudge = self.estimate.rtt().map_or(NUDGE, |rtt| (rtt * 3 / 2).max(NUDGE));
            return Some(last.max(since) + nudge);
        }
        if self.estimate.samples() < SAMPLES {
            return Some(last + NUDGE);
        }
        let out = self.last_out.map_or(last, |at| at.max(last));
        let busy = out > last && now < out + MEASURE;
        match role {
            Role::InUse { .. } if busy => Some(last + MEASURE),
            Role::InUse { leading: true } => Some(out + keepalive),
            Role::InUse { leading: false } => {
                Some(self.heard.map_or(out, |at| at.max(out)) + keepalive * 4 / 3)
            }
            Role::Watched => Some(last + MEASURE_OTHERS),
            // The peer leads, and does not use what is better: perhaps it has lost it without our knowing.
            Role::Rival => Some(last + MEASURE),
            Role::Needed | Role::Spare => None,
        }
    }
}

/// What a path to an address that was learned in this way is.
pub(crate) fn kind_of(path: Path, kind: CandidateKind) -> PathKind {
    let ip = path.remote.ip();
    match (path.via, kind) {
        (Via::Member(_), _) => PathKind::MemberRelay,
        (Via::Relay(_), _) | (_, CandidateKind::Relayed) => PathKind::Relay,
        (_, CandidateKind::Lan) => PathKind::Lan,
        (_, CandidateKind::Mapped) => PathKind::Mapped,
        _ if is_private(ip) => PathKind::Lan,
        _ if ip.is_ipv6() => PathKind::DirectV6,
        _ => PathKind::Direct,
    }
}

fn gap(sent: u32) -> Duration {
    (FIRST_GAP * (1 << sent.saturating_sub(1).min(6))).min(LONGEST_GAP)
}

/// Checks that fit into so much time, the last one's wait included: 6 into 5 s.
fn round_of(patience: Duration) -> u32 {
    let ends = (1..).scan(Duration::ZERO, |end, sent| {
        *end += gap(sent);
        Some(*end)
    });
    u32::try_from(ends.take_while(|end| *end <= patience).count()).unwrap_or(u32::MAX).max(LATER_ROUND)
}

//! STUN client transactions (RFC 8489, section 6.2): requests go out, are repeated while unanswered, and end with an
//! answer, a refusal or silence.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use partyline_wire::credentials::Credentials;

use partyline_model::SocketId;

use crate::{
    DropCounters, StunCredentials, Transmit,
    rto::RoundTrips,
    stun::{self, Answer, Change, Flaw, Id},
};

/// Requests of one transaction (RFC 8489: Rc).
const MOST_REQUESTS: u32 = 7;
/// Each repetition waits twice as long as the one before, but no longer than this part of the patience.
const LONGEST_GAP: u32 = 5;
/// How often a request is repeated because the server wants to know who asks, or has another nonce.
const MOST_CHALLENGES: u8 = 2;
/// How long a finished transaction is remembered, so that late answers are known for what they are.
const REMEMBERED: Duration = Duration::from_secs(20);
/// More transactions than any measurement has; beyond it the oldest are forgotten.
const MOST_TRANSACTIONS: usize = 512;

/// What to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<P> {
    pub(crate) socket: SocketId,
    pub(crate) destination: SocketAddr,
    pub(crate) change: Change,
    /// Where a server that honours `change` answers from.
    pub(crate) expected: SocketAddr,
    pub(crate) purpose: P,
    /// How long to wait for an answer. Zero: one transmission, and its loss is nobody's concern.
    pub(crate) patience: Duration,
}

/// What came of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<P> {
    pub(crate) socket: SocketId,
    pub(crate) purpose: P,
    pub(crate) destination: SocketAddr,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// Whether the answer came from where it was asked to come from.
    pub(crate) honoured: bool,
    /// Whether it had been given up already.
    pub(crate) late: bool,
    /// The round trip, unless it is unclear which transmission was answered.
    pub(crate) rtt: Option<Duration>,
    /// `None`: refused, or sent elsewhere.
    pub(crate) answer: Option<Answer>,
    /// To where the server sends us.
    pub(crate) elsewhere: Option<SocketAddr>,
}

#[derive(Debug)]
struct Transaction<P> {
    query: Query<P>,
    asked: Instant,
    rto: Duration,
    requests: u32,
    challenges: u8,
    resend: Option<Instant>,
    ends: Instant,
    over: bool,
    answered: bool,
}

/// Everything asked and not yet forgotten.
#[derive(Debug)]
pub(crate) struct Client<P> {
    transactions: BTreeMap<Id, Transaction<P>>,
    transmits: VecDeque<Transmit>,
    round_trips: RoundTrips,
    /// By server address: what we say there if we are asked.
    credentials: BTreeMap<IpAddr, Credentials>,
    rng: ChaCha12Rng,
    pub(crate) dropped: DropCounters,
    /// Datagrams sent so far.
    pub(crate) sent: u32,
}

impl<P: Copy> Client<P> {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let rng = ChaCha12Rng::from_seed(seed);
        let (transactions, transmits, round_trips, credentials, dropped) = Default::default();
        Self { transactions, transmits, round_trips, credentials, rng, dropped, sent: 0 }
    }

    /// Forgets every transaction; answers to them are strangers' from now on.
    pub(crate) fn clear(&mut self) {
        self.transactions.clear();
        self.transmits.clear();
    }

    /// What to say to servers that want to know who asks; a challenge that is known already stays so.
    pub(crate) fn add_logins<'a>(&mut self, logins: impl Iterator<Item = (IpAddr, &'a StunCredentials)>) {
        for (server, login) in logins {
            if let (false, Some(credentials)) = (self.credentials.contains_key(&server), login.credentials())
            {
                self.credentials.insert(server, credentials);
            }
        }
    }

    pub(crate) fn forget_logins(&mut self) {
        self.credentials.clear();
    }

    pub(crate) fn ask(&mut self, now: Instant, query: Query<P>) {
        self.ask_again(now, query, 0);
    }

    fn ask_again(&mut self, now: Instant, query: Query<P>, challenges: u8) {
        if self.transactions.len() >= MOST_TRANSACTIONS {
            self.forget_oldest();
        }
        let id = self.token();
        let once = query.patience.is_zero();
        let ends = now + if once { REMEMBERED } else { query.patience };
        let rto = self.round_trips.rto(query.destination.ip());
        let resend = (!once).then_some(now + rto);
        self.transmit(id, &query);
        let (asked, requests, over, answered) = (now, 1, once, false);
        self.transactions.insert(
            id,
            Transaction { query, asked, rto, requests, challenges, resend, ends, over, answered },
        );
    }

    /// The outcome of a datagram: `None` if it is none of ours, `Some(None)` if it was to be dropped.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Option<Option<Heard<P>>> {
        let id = stun::answered_id(bytes)?;
        let transaction = self.transactions.get_mut(&id)?;
        let Query { destination, expected, purpose, .. } = transaction.query;
        if socket != transaction.query.socket || (source != destination && source != expected) {
            self.dropped.wrong_source += 1;
            return Some(None);
        }
        let mut elsewhere = None;
        // coturn signs no answer that it sends from elsewhere; such ones are as good as those of servers that sign none.
        let credentials = self.credentials.get_mut(&destination.ip()).filter(|_| source == destination);
        let answer = match stun::answer(bytes, destination, credentials) {
            Ok(answer) => Some(answer),
            Err(Flaw::Malformed) => {
                self.dropped.malformed += 1;
                return Some(None);
            }
            Err(Flaw::Challenge) if !transaction.answered && transaction.challenges < MOST_CHALLENGES => {
                let (query, challenges) = (transaction.query, transaction.challenges + 1);
                (transaction.over, transaction.answered) = (true, true);
                return self.challenged(now, query, challenges, bytes);
            }
            Err(Flaw::Redirection(to)) => {
                elsewhere = Some(to);
                None
            }
            Err(Flaw::Unusable | Flaw::Challenge) => {
                self.dropped.unusable += 1;
                None
            }
        };
        let once = transaction.query.patience.is_zero();
        if transaction.answered && !once {
            self.dropped.late += 1;
            return Some(None);
        }
        let late = transaction.over && !once;
        let rtt = (transaction.requests == 1).then(|| now.saturating_duration_since(transaction.asked));
        transaction.finish(now);
        transaction.answered = true;
        let asked = transaction.asked;
        rtt.into_iter().for_each(|rtt| self.round_trips.note(source.ip(), rtt));
        Some(Some(Heard {
            socket,
            purpose,
            destination,
            asked,
            answered: now,
            honoured: source == expected,
            late,
            rtt,
            answer,
            elsewhere,
        }))
    }

    /// Asks once more and says who we are; a refusal if we have nothing to say, or nothing else than before.
    fn challenged(
        &mut self,
        now: Instant,
        query: Query<P>,
        challenges: u8,
        bytes: &[u8],
    ) -> Option<Option<Heard<P>>> {
        let credentials = self.credentials.get_mut(&query.destination.ip());
        let fresh = credentials.zip(stun::message(bytes)).map(|(c, message)| c.on_challenge(&message));
        // Several questions may be under way with the old nonce: each is asked again.
        if matches!(fresh, Some(Ok(_))) {
            self.ask_again(now, query, challenges);
            return Some(None);
        }
        self.dropped.unusable += 1;
        let Query { socket, purpose, destination, .. } = query;
        let (asked, answered, honoured, late, rtt) = (now, now, false, false, None);
        let (answer, elsewhere) = (None, None);
        Some(Some(Heard {
            socket,
            purpose,
            destination,
            asked,
            answered,
            honoured,
            late,
            rtt,
            answer,
            elsewhere,
        }))
    }

    /// What a request was for that one of our sockets sent and another one got, through a NAT that turns packets
    /// around.
    pub(crate) fn echoed(&self, socket: SocketId, bytes: &[u8]) -> Option<P> {
        let transaction = self.transactions.get(&stun::requested_id(bytes)?)?;
        (transaction.query.socket != socket).then_some(transaction.query.purpose)
    }

    /// What a question was for that one of our sockets asked and another one got the answer to, as it wanted.
    pub(crate) fn forwarded(&self, socket: SocketId, source: SocketAddr, bytes: &[u8]) -> Option<P> {
        let query = &self.transactions.get(&stun::answered_id(bytes)?)?.query;
        let wanted = matches!(query.change, Change::ToPort(_)) && query.destination == source;
        (wanted && query.socket != socket && stun::answer(bytes, source, None).is_ok())
            .then_some(query.purpose)
    }

    /// Repeats what is due. Returns who stayed silent for good, and what was asked.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, P)> {
        self.transactions.retain(|_, t| !(t.over && t.ends <= now));
        let mut silent = Vec::new();
        let mut due = Vec::new();
        for (id, transaction) in self.transactions.iter_mut().filter(|(_, t)| !t.over) {
            if transaction.ends <= now {
                transaction.finish(now);
                silent.push((transaction.query.destination, transaction.query.purpose));
            } else if transaction.resend.is_some_and(|at| at <= now) {
                transaction.schedule(now);
                due.push((*id, transaction.query));
            }
        }
        due.iter().for_each(|(id, query)| self.transmit(*id, query));
        silent
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let open = self.transactions.values().filter(|t| !t.over);
        open.map(|t| t.resend.map_or(t.ends, |resend| resend.min(t.ends))).min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Twelve bytes that nobody can guess.
    pub(crate) fn token(&mut self) -> Id {
        let mut id = Id::default();
        self.rng.fill_bytes(&mut id);
        id
    }

    /// Sends something that only opens the NAT.
    pub(crate) fn indicate(&mut self, socket: SocketId, destination: SocketAddr) {
        let bytes = stun::indication(self.token());
        self.sent = self.sent.saturating_add(1);
        self.transmits.push_back(Transmit { socket, destination, bytes });
    }

    /// A span within a tenth of the given one.
    pub(crate) fn jittered(&mut self, span: Duration) -> Duration {
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        span.mul_f64(0.9 + 0.2 * share)
    }

    fn transmit(&mut self, id: Id, query: &Query<P>) {
        let bytes = stun::request(id, query.change, self.credentials.get(&query.destination.ip()));
        self.sent = self.sent.saturating_add(1);
        self.transmits.push_back(Transmit { socket: query.socket, destination: query.destination, bytes });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.transactions.iter().min_by_key(|(_, t)| t.asked).map(|(id, _)| *id);
        oldest.and_then(|id| self.transactions.remove(&id));
    }
}

impl<P> Transaction<P> {
    fn finish(&mut self, now: Instant) {
        self.over = true;
        self.resend = None;
        self.ends = now + REMEMBERED;
    }

    fn schedule(&mut self, now: Instant) {
        self.requests += 1;
        let gap = (self.rto * 2u32.pow(self.requests - 1)).min(self.query.patience / LONGEST_GAP);
        self.resend = (self.requests < MOST_REQUESTS).then(|| now + gap.max(self.rto));
    }
}

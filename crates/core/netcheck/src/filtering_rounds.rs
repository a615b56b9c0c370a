//! Rounds of requests to a server to respond from other addresses (RFC 5780, section 4.4).
//!
//! A response that arrives proves that the NAT let it in. One that does not may as well have been lost, so each round
//! also has a plain request, which shows how much is lost. Filtering is called closed when ten more plain responses came
//! than were lost, and of the others none. If those were lost too, with any probability that the plain ones leave open,
//! that would be an accident once in 300,000 (with k lost of n: (n+k)! (n+1)! / k! (2n+1)!).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::SocketId;
use tracing::{debug, trace};

use crate::{
    client::{Client, Delivery, Request},
    context::Reference,
    purpose::Purpose,
    stun::ResponseRouting,
};

/// The requests of one round.
const ROUND: [ResponseRouting; 3] =
    [ResponseRouting::Default, ResponseRouting::ChangePort, ResponseRouting::ChangeAddressAndPort];
const ROUND_INTERVAL: Duration = Duration::from_millis(40);
/// Plain responses to have beyond those that were lost.
const REQUIRED_LEAD: i32 = 10;
const MAX_ROUNDS: usize = 60;
const MAX_PROOF_ROUNDS: usize = 16;
/// How much longer than two round trips a response may take, and how long at most.
const RESPONSE_SLACK: Duration = Duration::from_millis(150);
const MAX_RESPONSE_WAIT: Duration = Duration::from_secs(2);

/// What the rounds are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To find out what passes the filter.
    Measure,
    /// To receive responses from the other port or address once the NAT was opened for them, so that their absence
    /// before meant something.
    Prove { port: bool, address: bool },
}

/// What the rounds showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Responses from the other address arrived.
    Open,
    /// None did; those from the other port did or did not.
    Closed { port_open: bool },
    /// The server does respond from where it is asked to.
    Proven,
    /// The server does not respond from where it is asked to.
    Unfit,
    /// Too much was lost to tell.
    Lossy,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    sent_at: Instant,
    plain: bool,
    port: bool,
    address: bool,
}

/// Rounds to one server from one socket.
#[derive(Debug)]
pub(crate) struct FilteringRounds {
    /// Tells the responses of several runs apart.
    run: u8,
    socket: SocketId,
    reference: Reference,
    goal: Goal,
    rounds: Vec<Round>,
    next_at: Instant,
    unfit: bool,
    /// The longest round trip so far.
    rtt: Option<Duration>,
}

impl FilteringRounds {
    pub(crate) fn new(now: Instant, run: u8, socket: SocketId, reference: Reference, goal: Goal) -> Self {
        debug!(server = %reference.server, other = %reference.other, ?socket, ?goal, "filtering rounds begin");
        Self { run, socket, reference, goal, rounds: Vec::new(), next_at: now, unfit: false, rtt: None }
    }

    /// Sends the next round if it is due. Returns what the rounds show, once they show something.
    pub(crate) fn step(&mut self, now: Instant, client: &mut Client) -> Option<Verdict> {
        if self.wants_round(now) && now >= self.next_at {
            self.send_round(now, client);
        }
        let verdict = self.verdict(now)?;
        let count = |kind: fn(&Round) -> bool| self.rounds.iter().filter(|round| kind(round)).count();
        debug!(
            server = %self.reference.server, goal = ?self.goal, ?verdict, count = self.rounds.len(),
            plain = count(|round| round.plain), port = count(|round| round.port),
            address = count(|round| round.address), "filtering rounds ended"
        );
        Some(verdict)
    }

    /// Takes a response. False if it belongs to another run.
    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        (run, round): (u8, u8),
        routing: ResponseRouting,
        honored: bool,
    ) -> bool {
        if run != self.run {
            return false;
        }
        let Some(round) = self.rounds.get_mut(usize::from(round)) else { return true };
        self.rtt = self.rtt.max(Some(now.saturating_duration_since(round.sent_at)));
        match routing {
            _ if !honored => self.unfit = true,
            ResponseRouting::Default | ResponseRouting::ToPort(_) => round.plain = true,
            ResponseRouting::ChangePort => round.port = true,
            ResponseRouting::ChangeAddressAndPort => round.address = true,
        }
        true
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let settling =
            self.rounds.iter().map(|round| round.sent_at + self.response_wait()).find(|at| *at > now);
        let sending = self.wants_round(now).then_some(self.next_at);
        [settling, sending].into_iter().flatten().min()
    }

    fn send_round(&mut self, now: Instant, client: &mut Client) {
        let round = u8::try_from(self.rounds.len()).unwrap_or(u8::MAX);
        for routing in ROUND {
            let request = Request {
                socket: self.socket,
                destination: self.reference.server,
                routing,
                expected_source: self.expected_source(routing),
                purpose: Purpose::FilteringRound { run: self.run, round, routing },
                delivery: Delivery::Once,
            };
            client.send(now, request);
        }
        trace!(run = self.run, round, server = %self.reference.server, "filtering round sent");
        self.rounds.push(Round { sent_at: now, plain: false, port: false, address: false });
        self.next_at = now + ROUND_INTERVAL;
    }

    fn expected_source(&self, routing: ResponseRouting) -> SocketAddr {
        match routing {
            ResponseRouting::Default | ResponseRouting::ToPort(_) => self.reference.server,
            ResponseRouting::ChangePort => self.reference.other_port(),
            ResponseRouting::ChangeAddressAndPort => self.reference.other,
        }
    }

    fn verdict(&self, now: Instant) -> Option<Verdict> {
        if self.unfit {
            return Some(Verdict::Unfit);
        }
        let any = |kind: fn(&Round) -> bool| self.rounds.iter().any(kind);
        let (port_open, open) = (any(|round| round.port), any(|round| round.address));
        match self.goal {
            Goal::Prove { port, address } if (port_open || !port) && (open || !address) => {
                Some(Verdict::Proven)
            }
            Goal::Prove { .. } => self.is_exhausted(now).then_some(Verdict::Unfit),
            Goal::Measure if open => Some(Verdict::Open),
            Goal::Measure if self.lead(now, false) >= REQUIRED_LEAD => Some(Verdict::Closed { port_open }),
            Goal::Measure => self.is_exhausted(now).then_some(Verdict::Lossy),
        }
    }

    /// Another round does not matter if the rounds that are under way can reach the lead.
    fn wants_round(&self, now: Instant) -> bool {
        match self.goal {
            Goal::Prove { .. } => self.rounds.len() < MAX_PROOF_ROUNDS,
            Goal::Measure => self.rounds.len() < MAX_ROUNDS && self.lead(now, true) < REQUIRED_LEAD,
        }
    }

    /// Returns how many more plain responses came than were lost, of the rounds that are over. With `optimistic`, rounds
    /// under way count as answered.
    fn lead(&self, now: Instant, optimistic: bool) -> i32 {
        let counts = |round: &Round| match (self.is_settled(round, now), round.plain) {
            (true, true) => 1,
            (true, false) => -1,
            (false, _) => i32::from(optimistic),
        };
        self.rounds.iter().map(counts).sum()
    }

    fn is_exhausted(&self, now: Instant) -> bool {
        !self.wants_round(now) && self.rounds.iter().all(|round| self.is_settled(round, now))
    }

    fn is_settled(&self, round: &Round, now: Instant) -> bool {
        round.sent_at + self.response_wait() <= now
    }

    fn response_wait(&self) -> Duration {
        (self.rtt.unwrap_or(self.reference.rtt) * 2 + RESPONSE_SLACK).min(MAX_RESPONSE_WAIT)
    }
}

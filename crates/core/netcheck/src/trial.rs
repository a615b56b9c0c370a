//! One filtering test: a server is asked, again and again, to answer from elsewhere (RFC 5780, section 4.4).
//!
//! An answer that arrives proves that the NAT let it in. An answer that does not arrive may as well have been lost,
//! so each round also asks a plain question, which tells how much is lost. Closed is said when ten more plain answers
//! came than were lost, and of the others none. If those were lost too, with any probability that the plain ones have
//! left open, that would be an accident once in 300,000 (with k lost of n: (n+k)! (n+1)! / k! (2n+1)!).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::SocketId;

use crate::{
    client::{Client, Query},
    stun::Change,
    survey::Purpose,
};

const PACE: Duration = Duration::from_millis(40);
/// Plain answers to have beyond those that were lost.
const LEAD: i32 = 10;
const MOST_ROUNDS: usize = 60;
const MOST_PROOFS: usize = 16;
/// How much longer than two round trips an answer may take.
const SPARE_TIME: Duration = Duration::from_millis(150);

/// A server with two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) server: SocketAddr,
    pub(crate) other: SocketAddr,
    pub(crate) rtt: Duration,
}

impl Reference {
    /// The server's first address with its other port.
    pub(crate) fn other_port(&self) -> SocketAddr {
        SocketAddr::new(self.server.ip(), self.other.port())
    }

    /// The server's other address with its first port.
    pub(crate) fn other_address(&self) -> SocketAddr {
        SocketAddr::new(self.other.ip(), self.server.port())
    }

    fn source(&self, change: Change) -> SocketAddr {
        match change {
            Change::Nothing | Change::ToPort(_) => self.server,
            Change::Port => self.other_port(),
            Change::AddressAndPort => self.other,
        }
    }
}

/// What a trial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To find out what passes.
    Measure,
    /// To see answers from elsewhere come in once the NAT has been opened for them, so that their absence before
    /// meant something.
    Prove { port: bool, address: bool },
}

/// What a trial found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answers came from the other address.
    Open,
    /// They did not; those from the other port did or did not.
    Closed { port_open: bool },
    /// The server can do what it was asked to do.
    Proven,
    /// The server answers from where it likes, or does not.
    Unfit,
    /// Too much was lost to tell.
    Lossy,
}

#[derive(Debug, Clone, Copy, Default)]
struct ProbeRound {
    plain: bool,
    port: bool,
    address: bool,
}

/// A filtering test in progress.
#[derive(Debug)]
pub(crate) struct Trial {
    socket: SocketId,
    pub(crate) reference: Reference,
    goal: Goal,
    rounds: Vec<(Instant, ProbeRound)>,
    next: Instant,
    unfit: bool,
    /// The longest round trip of a round so far.
    rtt: Option<Duration>,
}

impl Trial {
    pub(crate) fn new(now: Instant, socket: SocketId, reference: Reference, goal: Goal) -> Self {
        Self { socket, reference, goal, rounds: Vec::new(), next: now, unfit: false, rtt: None }
    }

    /// Sends the next round if it is time.
    pub(crate) fn step(&mut self, now: Instant, trial: u8, client: &mut Client<Purpose>) {
        if !self.wants_round(now) || now < self.next {
            return;
        }
        let round = u8::try_from(self.rounds.len()).unwrap_or(u8::MAX);
        for change in [Change::Nothing, Change::Port, Change::AddressAndPort] {
            let expected = self.reference.source(change);
            let purpose = Purpose::Trial { trial, round, change };
            let (socket, destination) = (self.socket, self.reference.server);
            client
                .ask(now, Query { socket, destination, change, expected, purpose, patience: Duration::ZERO });
        }
        self.rounds.push((now, ProbeRound::default()));
        self.next = now + PACE;
    }

    /// Takes an answer to a round.
    pub(crate) fn heard(&mut self, now: Instant, round: u8, change: Change, honoured: bool) {
        let Some((sent, round)) = self.rounds.get_mut(usize::from(round)) else { return };
        self.rtt = self.rtt.max(Some(now.saturating_duration_since(*sent)));
        match change {
            _ if !honoured => self.unfit = true,
            Change::Nothing | Change::ToPort(_) => round.plain = true,
            Change::Port => round.port = true,
            Change::AddressAndPort => round.address = true,
        }
    }

    /// What is found by now, if anything.
    pub(crate) fn verdict(&self, now: Instant) -> Option<Verdict> {
        if self.unfit {
            return Some(Verdict::Unfit);
        }
        let (port_open, open) = (self.any(|r| r.port), self.any(|r| r.address));
        match self.goal {
            Goal::Prove { port, address } if (port_open || !port) && (open || !address) => {
                Some(Verdict::Proven)
            }
            Goal::Prove { .. } => self.exhausted(now).then_some(Verdict::Unfit),
            Goal::Measure if open => Some(Verdict::Open),
            Goal::Measure if self.lead(now, false) >= LEAD => Some(Verdict::Closed { port_open }),
            Goal::Measure => self.exhausted(now).then_some(Verdict::Lossy),
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let settling = self.rounds.iter().map(|(at, _)| *at + self.settle()).find(|at| *at > now);
        let sending = self.wants_round(now).then_some(self.next);
        [settling, sending].into_iter().flatten().min()
    }

    /// Whether another round could still matter: not if the rounds that are under way can make the row.
    fn wants_round(&self, now: Instant) -> bool {
        match self.goal {
            Goal::Prove { .. } => self.rounds.len() < MOST_PROOFS,
            Goal::Measure => self.rounds.len() < MOST_ROUNDS && self.lead(now, true) < LEAD,
        }
    }

    /// How many more plain answers came than were lost, of the rounds that are over; `hoped`: if those that are under
    /// way turn out well.
    fn lead(&self, now: Instant, hoped: bool) -> i32 {
        let counts = |(at, round): &(Instant, ProbeRound)| match (self.settled(*at, now), round.plain) {
            (true, plain) => {
                if plain {
                    1
                } else {
                    -1
                }
            }
            (false, _) => i32::from(hoped),
        };
        self.rounds.iter().map(counts).sum()
    }

    fn any(&self, what: impl Fn(&ProbeRound) -> bool) -> bool {
        self.rounds.iter().any(|(_, round)| what(round))
    }

    fn exhausted(&self, now: Instant) -> bool {
        !self.wants_round(now) && self.rounds.iter().all(|(at, _)| self.settled(*at, now))
    }

    fn settled(&self, at: Instant, now: Instant) -> bool {
        at + self.settle() <= now
    }

    /// How long an answer may take.
    fn settle(&self) -> Duration {
        (self.rtt.unwrap_or(self.reference.rtt) * 2 + SPARE_TIME).min(Duration::from_secs(2))
    }
}

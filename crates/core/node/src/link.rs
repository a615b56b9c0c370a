//! One connection to one rendezvous server, shared by all parties that name it.
//!
//! It opens as soon as some party wants it, enters that party's topics, and after a failure tries again with jittered
//! exponential backoff. Losing it costs no established tunnel: members are kept until they are silent on every channel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{AppError, Handle, Topic};
use rand_core::RngCore;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A connection that has stood this long counts as good, and the next failure starts again at the first retry.
const SETTLED: Duration = Duration::from_secs(20);
/// How long a server may take to greet, and to answer when the connection is in doubt.
const PATIENCE: Duration = Duration::from_secs(8);

/// A place entered on the server.
#[derive(Debug, Default)]
pub struct Room {
    /// Revision of the own record that was last announced here.
    pub announced: u64,
    /// Whether the roster came, that is, whether the server took us in.
    pub entered: bool,
    /// Who is there besides us.
    pub present: BTreeSet<Handle>,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Instant },
    Opening,
    Open { since: Instant, challenge: Option<[u8; 32]>, answer_by: Option<Instant> },
}

/// The connection.
#[derive(Debug)]
pub struct ServerLink {
    /// Its URL, as the parties name it.
    pub url: String,
    /// Topics entered in the present connection.
    pub rooms: BTreeMap<Topic, Room>,
    /// Why it does not stand.
    pub problem: Option<AppError>,
    phase: Phase,
    failures: u32,
    /// The network that the connection is on is gone: the next one is made at once.
    moved: bool,
}

impl ServerLink {
    /// A link that wants to open at once.
    pub fn new(now: Instant, url: String) -> Self {
        Self {
            url,
            rooms: BTreeMap::new(),
            problem: None,
            phase: Phase::Waiting { until: now },
            failures: 0,
            moved: false,
        }
    }

    /// Whether the server has greeted us.
    pub fn is_ready(&self) -> bool {
        self.challenge().is_some()
    }

    /// The server's challenge, once it has greeted us.
    pub fn challenge(&self) -> Option<[u8; 32]> {
        match self.phase {
            Phase::Open { challenge, .. } => challenge,
            _ => None,
        }
    }

    /// When to call `due`.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Open { answer_by, .. } => answer_by,
            Phase::Opening => None,
        }
    }

    /// Whether the moment to open has come; marks the link as opening.
    pub fn due(&mut self, now: Instant) -> bool {
        let due = matches!(self.phase, Phase::Waiting { until } if until <= now);
        if due {
            self.phase = Phase::Opening;
        }
        due
    }

    /// Forget the waiting time, because the network changed.
    pub fn hurry(&mut self, now: Instant) {
        if let Phase::Waiting { until } = &mut self.phase {
            *until = now;
            self.failures = 0;
        }
    }

    /// The network under the connection is gone; returns whether there is one to be ended.
    pub fn moved(&mut self) -> bool {
        self.moved = matches!(self.phase, Phase::Open { .. } | Phase::Opening);
        self.moved
    }

    /// Whether the connection stands but has to show it now, by any word of the server's.
    pub fn doubt(&mut self, now: Instant) -> bool {
        let Phase::Open { answer_by, .. } = &mut self.phase else { return false };
        answer_by.get_or_insert(now + PATIENCE);
        true
    }

    /// The server said something.
    pub fn heard(&mut self) {
        if let Phase::Open { answer_by, .. } = &mut self.phase {
            *answer_by = None;
        }
    }

    /// Whether the server has failed to answer; said once, then the connection's end is to come.
    pub fn is_silent(&mut self, now: Instant) -> bool {
        let Phase::Open { answer_by, .. } = &mut self.phase else { return false };
        answer_by.take_if(|at| *at <= now).is_some()
    }

    /// The server did not take an announcement; it is to be made again, from the door on if we were not let in.
    pub fn try_again(&mut self, topic: &Topic, outside: bool) {
        let Some(room) = self.rooms.get_mut(topic) else { return };
        room.announced = 0;
        if outside || !room.entered {
            self.rooms.remove(topic);
        }
    }

    /// The WebSocket stands; the greeting is still to come.
    pub fn opened(&mut self, now: Instant) {
        self.phase = Phase::Open { since: now, challenge: None, answer_by: Some(now + PATIENCE) };
    }

    /// The server greeted us.
    pub fn welcomed(&mut self, challenge: [u8; 32]) {
        if let Phase::Open { challenge: slot, .. } = &mut self.phase {
            *slot = Some(challenge);
        }
        self.problem = None;
    }

    /// The connection ended or could not be made; it will be tried again.
    pub fn closed(&mut self, now: Instant, problem: Option<AppError>, rng: &mut impl RngCore) {
        let settled =
            matches!(self.phase, Phase::Open { since, challenge: Some(_), .. } if now >= since + SETTLED);
        self.failures = if settled { 0 } else { self.failures.saturating_add(1) };
        self.rooms.clear();
        self.problem = problem.or(self.problem.take());
        let pause = retry_after(self.failures, rng);
        let at_once = std::mem::take(&mut self.moved);
        self.phase = Phase::Waiting { until: if at_once { now } else { now + pause } };
    }
}

/// Between half and all of an exponentially growing span, so that the members of a lost server do not return in step.
fn retry_after(failures: u32, rng: &mut impl RngCore) -> Duration {
    let span = FIRST_RETRY.saturating_mul(1 << failures.min(8)).min(LAST_RETRY);
    span.mul_f64(0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX) / 2.0)
}

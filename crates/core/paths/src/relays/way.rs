//! One way of reaching one relay, and which of all ways are wanted.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_wire::credentials::Credentials;

use crate::{
    api::{AllocationId, RelayServer, RelayTransport},
    turn::Ending,
};

/// How long UDP is given before TCP and TLS are tried beside it.
const STREAM_DELAY: Duration = Duration::from_secs(1);
/// How long one relay is given before the next is tried beside it.
const NEXT_RELAY_DELAY: Duration = Duration::from_secs(4);
/// How long after a relay works the next is asked as well, so that the members' first packets go first.
const STANDBY_DELAY: Duration = Duration::from_millis(300);
/// The pause after a first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause while another relay works, and while none does.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const LONGEST_ALONE: Duration = Duration::from_secs(30);
/// An allocation that stood this long is asked for again at once when the server has forgotten it.
const SETTLED: Duration = Duration::from_secs(5);

/// How far a way of reaching a relay is, for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not tried, because a better one works or its time has not come.
    Idle,
    /// Being tried since then, perhaps after a failure.
    Trying(Instant, Option<Ending>),
    /// Works; it took that long.
    Live(Duration),
    /// Failed; it took that long.
    Failed(Duration, Ending),
}

pub(super) struct Way {
    pub(super) server: RelayServer,
    /// Time after a start at which it is tried.
    pub(super) stagger: Duration,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    pub(super) allocation: Option<AllocationId>,
    live_since: Option<Instant>,
    /// Where it saw us last.
    seen: Option<SocketAddr>,
    pub(super) retire_at: Option<Instant>,
    pub(super) standing: Standing,
    /// The challenge of the allocation before, which saves asking for one.
    pub(super) credentials: Option<Credentials>,
}

impl Way {
    /// A way to a relay that has so many better ones before it.
    pub(super) fn new(now: Instant, server: RelayServer, rank: usize) -> Self {
        let stagger = stagger(&server, rank);
        Self {
            server,
            stagger,
            not_before: now + stagger,
            failures: 0,
            allocation: None,
            live_since: None,
            seen: None,
            retire_at: None,
            standing: Standing::Idle,
            credentials: None,
        }
    }

    /// The same way, with other credentials or another rank of its relay.
    pub(super) fn renewed(self, server: RelayServer, rank: usize) -> Self {
        let known = |credentials: &Credentials| credentials.belong_to(&server.username, &server.password);
        let credentials = self.credentials.filter(known);
        Self { stagger: stagger(&server, rank), server, credentials, ..self }
    }

    pub(super) fn is(&self, server: &RelayServer) -> bool {
        (&self.server.name, self.server.transport, self.server.address)
            == (&server.name, server.transport, server.address)
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Live(_))
    }

    /// On another network nothing that happened counts.
    pub(super) fn start_over(&mut self, now: Instant) {
        (self.failures, self.not_before, self.seen) = (0, now + self.stagger, None);
    }

    /// How long it has been tried.
    fn tried(&self, now: Instant) -> Duration {
        if let Standing::Trying(since, _) = self.standing { now - since } else { Duration::ZERO }
    }

    /// Its server gave a relayed address, and sees us there; whether that was elsewhere before.
    pub(super) fn became_live(&mut self, now: Instant, seen: Option<SocketAddr>) -> bool {
        (self.standing, self.failures) = (Standing::Live(self.tried(now)), 0);
        self.live_since = Some(now);
        let before = std::mem::replace(&mut self.seen, seen);
        before.is_some() && seen.is_some() && before != seen
    }

    /// Its allocation is over; `spread` from 0 to 1 keeps members from returning in step. A server that was restarted,
    /// or sees us come from another address, gives another one for the asking.
    pub(super) fn ended(&mut self, now: Instant, ending: Ending, alone: bool, spread: f64) {
        let settled = self.live_since.take().is_some_and(|since| now >= since + SETTLED);
        self.standing = Standing::Failed(self.tried(now), ending);
        (self.allocation, self.retire_at) = (None, None);
        if settled && ending == Ending::Forgotten {
            self.not_before = now;
            return;
        }
        let longest = if alone { LONGEST_ALONE } else { LONGEST_PAUSE };
        let pause = (FIRST_PAUSE * (1 << self.failures.min(12))).min(longest);
        self.not_before = now + pause.mul_f64(0.5 + spread / 2.0);
        self.failures += 1;
    }
}

fn stagger(server: &RelayServer, rank: usize) -> Duration {
    let udp = server.transport == RelayTransport::Udp;
    let relay = NEXT_RELAY_DELAY * u32::try_from(rank).unwrap_or(u32::MAX);
    relay + if udp { Duration::ZERO } else { STREAM_DELAY }
}

/// The ways that work and are kept, by rank: the best, and the best to another relay, which stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    first: Option<usize>,
    standby: Option<usize>,
}

impl Kept {
    pub(super) fn of(ways: &[Way]) -> Self {
        let first = ways.iter().position(Way::is_live);
        let name = first.and_then(|at| ways.get(at)).map(|way| &way.server.name);
        let other = |way: &Way| way.is_live() && Some(&way.server.name) != name;
        Self { first, standby: first.and_then(|_| ways.iter().position(other)) }
    }

    /// Whether a way is kept, or worth having in place of one that is.
    pub(super) fn wants(self, ways: &[Way], rank: usize) -> bool {
        let Some(first) = self.first else { return true };
        let relay = |at: usize| ways.get(at).map(|way| &way.server.name);
        rank <= first || (relay(rank) != relay(first) && self.standby.is_none_or(|standby| rank <= standby))
    }
}

/// Once a relay works, another one is asked to stand by, those behind it with the usual delays.
pub(super) fn hasten(now: Instant, ways: &mut [Way]) {
    let kept = Kept::of(ways);
    if kept.first.is_none() || kept.standby.is_some() {
        return;
    }
    let wanted: Vec<bool> = (0..ways.len()).map(|rank| kept.wants(ways, rank)).collect();
    let behind = ways.iter_mut().zip(wanted).enumerate();
    let candidates = behind.filter(|(rank, (_, wanted))| *wanted && Some(*rank) > kept.first);
    let mut begins = None;
    for (_, (way, _)) in candidates {
        let begin = *begins.get_or_insert(way.stagger);
        if way.failures == 0 {
            let soon = now + STANDBY_DELAY + way.stagger.saturating_sub(begin);
            way.not_before = way.not_before.min(soon);
        }
    }
}

//! One transport address of one relay server, and how far the attempt to use it has come.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_timing::{Backoff, Jitter};
use partyline_wire::credentials::Credentials;
use tracing::debug;

use crate::{
    api::{RelayServer, RelayTransport},
    path::AllocationId,
    turn::AllocationEnd,
};

/// Head start of UDP before TCP and TLS are tried beside it.
const STREAM_DELAY: Duration = Duration::from_secs(1);
/// Head start of one relay before the next is tried beside it.
const NEXT_RELAY_DELAY: Duration = Duration::from_secs(4);
/// The pause after a first failure; each further one doubles.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause while another relay works.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(300);
/// Longest pause while none does.
const MAX_RETRY_PAUSE_ALONE: Duration = Duration::from_secs(30);
/// Least time an allocation must have been held to be requested again without pause after the server lost it.
const MIN_SETTLED_TIME: Duration = Duration::from_secs(5);

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// Not tried: a better one works, or its time has not come.
    Idle,
    /// Requested at this time, perhaps after an earlier end.
    Requesting(Instant, Option<AllocationEnd>),
    /// Granted after this time.
    Granted(Duration),
    /// Ended after this time.
    Ended(Duration, AllocationEnd),
}

impl AttemptState {
    /// Returns true if the server did not respond when it was asked last.
    pub(crate) const fn is_silent(self) -> bool {
        let end = match self {
            Self::Ended(_, end) | Self::Requesting(_, Some(end)) => end,
            Self::Idle | Self::Granted(_) | Self::Requesting(_, None) => return false,
        };
        matches!(end, AllocationEnd::NoResponse | AllocationEnd::StreamClosed)
    }

    /// Returns the name under which the state is logged.
    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Requesting(..) => "requesting",
            Self::Granted(_) => "granted",
            Self::Ended(..) => "ended",
        }
    }
}

/// A way to get a relayed address: a server, a transport, and the allocation that is requested or held by it.
pub(crate) struct RelayAttempt {
    pub(super) server: RelayServer,
    /// Head start of the better attempts: the delay after a start at which this one begins.
    pub(super) head_start: Duration,
    pub(super) not_before: Instant,
    backoff: Backoff,
    pub(super) allocation: Option<AllocationId>,
    granted_at: Option<Instant>,
    /// Our public address as the server last saw it.
    mapped: Option<SocketAddr>,
    /// When the allocation is given up, because a better one has taken its place.
    pub(super) retire_at: Option<Instant>,
    state: AttemptState,
    /// Credentials with the server's last challenge, which the next allocation need not ask for.
    credentials: Option<Credentials>,
}

impl RelayAttempt {
    /// Creates an attempt that waits for its turn. `rank` is the number of relays preferred over this one.
    pub(super) fn new(now: Instant, server: RelayServer, rank: usize) -> Self {
        let head_start = head_start(&server, rank);
        Self {
            server,
            head_start,
            not_before: now + head_start,
            backoff: Backoff::new(FIRST_RETRY_PAUSE, MAX_RETRY_PAUSE).with_jitter(Jitter::HALF),
            allocation: None,
            granted_at: None,
            mapped: None,
            retire_at: None,
            state: AttemptState::Idle,
            credentials: None,
        }
    }

    /// Takes over the server's new credentials and rank. A challenge is kept if the credentials are the same.
    pub(super) fn with_server(self, server: RelayServer, rank: usize) -> Self {
        let same = |credentials: &Credentials| credentials.belong_to(&server.username, &server.password);
        let credentials = self.credentials.filter(same);
        Self { head_start: head_start(&server, rank), server, credentials, ..self }
    }

    /// Returns true if this attempt leads to the same server by the same transport.
    pub(super) fn is_to(&self, server: &RelayServer) -> bool {
        (&self.server.name, self.server.transport, self.server.address)
            == (&server.name, server.transport, server.address)
    }

    pub(super) const fn state(&self) -> AttemptState {
        self.state
    }

    pub(super) const fn is_granted(&self) -> bool {
        matches!(self.state, AttemptState::Granted(_))
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.backoff.failures() > 0
    }

    /// Forgets failures, because they say nothing about another network.
    pub(super) fn retry_now(&mut self, now: Instant) {
        debug!(relay = %self.server.name, reason = "network changed", "relay failures forgotten");
        self.backoff.reset();
        (self.not_before, self.mapped) = (now + self.head_start, None);
    }

    /// Drops the allocation without counting a failure.
    pub(super) fn reset(&mut self, reason: &'static str) -> Option<AllocationId> {
        self.retire_at = None;
        self.transition(AttemptState::Idle, reason);
        self.allocation.take()
    }

    /// Notes that an allocation is being requested. Returns the credentials to use, if a challenge is known.
    pub(super) fn on_requested(&mut self, now: Instant, id: AllocationId) -> Option<Credentials> {
        let before = if let AttemptState::Ended(_, end) = self.state { Some(end) } else { None };
        self.allocation = Some(id);
        self.transition(AttemptState::Requesting(now, before), "its turn has come");
        self.credentials.take()
    }

    fn elapsed(&self, now: Instant) -> Duration {
        if let AttemptState::Requesting(since, _) = self.state { now - since } else { Duration::ZERO }
    }

    /// Notes that the allocation was granted. Returns true if the server now sees us at another public address.
    pub(super) fn on_granted(&mut self, now: Instant, mapped: Option<SocketAddr>) -> bool {
        self.transition(AttemptState::Granted(self.elapsed(now)), "allocation granted");
        self.backoff.reset();
        self.granted_at = Some(now);
        let before = std::mem::replace(&mut self.mapped, mapped);
        before.is_some() && mapped.is_some() && before != mapped
    }

    /// Notes that the allocation has ended, and schedules the next attempt. A server that was restarted, or sees us
    /// at another address, grants another one for the asking, so that there is no pause. `alone` bounds the pause while
    /// no other relay works; `share`, from 0 to 1, keeps members from returning in step.
    pub(super) fn on_ended(
        &mut self,
        now: Instant,
        end: AllocationEnd,
        alone: bool,
        share: f64,
        credentials: Option<Credentials>,
    ) {
        let settled = self.granted_at.take().is_some_and(|since| now >= since + MIN_SETTLED_TIME);
        self.transition(AttemptState::Ended(self.elapsed(now), end), "allocation ended");
        // Those of an earlier grant may have expired since.
        let same =
            |credentials: &Credentials| credentials.belong_to(&self.server.username, &self.server.password);
        let credentials = credentials.filter(same);
        (self.allocation, self.retire_at, self.credentials) = (None, None, credentials);
        let pause = if settled && end == AllocationEnd::Lost {
            Duration::ZERO
        } else {
            self.backoff.set_max(if alone { MAX_RETRY_PAUSE_ALONE } else { MAX_RETRY_PAUSE });
            self.backoff.next_delay_at(share)
        };
        self.not_before = now + pause;
        debug!(
            relay = %self.server.name, transport = ?self.server.transport, reason = ?end, alone,
            count = self.backoff.failures(), retry_ms = pause.as_millis(), "relay will be retried"
        );
    }

    fn transition(&mut self, to: AttemptState, reason: &'static str) {
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return;
        }
        let after_ms = match to {
            AttemptState::Granted(took) | AttemptState::Ended(took, _) => {
                u64::try_from(took.as_millis()).ok()
            }
            AttemptState::Idle | AttemptState::Requesting(..) => None,
        };
        debug!(
            relay = %self.server.name, transport = ?self.server.transport, from = from.name(), to = to.name(),
            reason, after_ms, "relay attempt changed state"
        );
    }
}

fn head_start(server: &RelayServer, rank: usize) -> Duration {
    let udp = server.transport == RelayTransport::Udp;
    let relay = NEXT_RELAY_DELAY * u32::try_from(rank).unwrap_or(u32::MAX);
    relay + if udp { Duration::ZERO } else { STREAM_DELAY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn server(transport: RelayTransport) -> RelayServer {
        RelayServer {
            name: "relay".into(),
            transport,
            address: "203.0.113.1:3478".parse().unwrap(),
            host: "relay.test".into(),
            username: "user".into(),
            password: "secret".into(),
        }
    }

    fn end(attempt: &mut RelayAttempt, now: Instant, end: AllocationEnd, alone: bool) -> Duration {
        attempt.on_ended(now, end, alone, 1.0, None);
        attempt.not_before - now
    }

    #[test]
    fn udp_has_a_second_and_each_relay_four_before_the_next() {
        let now = start();
        let delay = |transport, rank| RelayAttempt::new(now, server(transport), rank).not_before - now;
        assert_eq!(delay(RelayTransport::Udp, 0), Duration::ZERO);
        assert_eq!(delay(RelayTransport::Tls, 0), STREAM_DELAY);
        assert_eq!(delay(RelayTransport::Udp, 2), NEXT_RELAY_DELAY * 2);
    }

    #[test]
    fn pauses_double_and_stay_short_while_no_relay_works() {
        let now = start();
        let pauses = |alone| {
            let mut attempt = RelayAttempt::new(now, server(RelayTransport::Udp), 0);
            (0..12)
                .map(|_| end(&mut attempt, now, AllocationEnd::NoResponse, alone).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(pauses(false)[..4], [500, 1000, 2000, 4000]);
        assert_eq!((pauses(false)[11], pauses(true)[11]), (300_000, 30_000));
    }

    #[test]
    fn an_allocation_that_a_restarted_server_lost_is_requested_again_at_once() {
        let mut attempt = RelayAttempt::new(start(), server(RelayTransport::Udp), 0);
        let now = start();
        attempt.on_granted(now, None);
        assert_eq!(end(&mut attempt, now + MIN_SETTLED_TIME, AllocationEnd::Lost, false), Duration::ZERO);
        attempt.on_granted(now, None);
        assert!(end(&mut attempt, now, AllocationEnd::Lost, false) > Duration::ZERO, "not while it flaps");
    }

    #[test]
    fn credentials_of_an_earlier_grant_are_not_used_for_the_next_allocation() {
        let mut attempt = RelayAttempt::new(start(), server(RelayTransport::Udp), 0);
        for (username, kept) in [("user", true), ("earlier", false)] {
            let credentials = Credentials::new(username, "secret");
            attempt.on_ended(start(), AllocationEnd::Lost, true, 1.0, Some(credentials));
            assert_eq!(attempt.on_requested(start(), AllocationId(1)).is_some(), kept, "{username}");
        }
    }

    #[test]
    fn another_public_address_is_noticed_but_not_on_another_network() {
        let mut attempt = RelayAttempt::new(start(), server(RelayTransport::Udp), 0);
        let now = start();
        let seen = |host| Some(([198, 51, 100, host], 1).into());
        assert!(!attempt.on_granted(now, seen(1)));
        assert!(!attempt.on_granted(now, seen(1)));
        assert!(attempt.on_granted(now, seen(2)));
        attempt.retry_now(now);
        assert!(!attempt.on_granted(now, seen(3)));
    }
}

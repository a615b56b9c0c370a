//! Connection attempts as spans of a distributed trace.
//!
//! An attempt begins when a member needs a path: when it becomes known, and again when its path is lost. It ends when
//! a path without a relay server is proven, when a relayed one is all there is after [`ATTEMPT_TIMEOUT`], or when the
//! member is gone. Both members, and the rendezvous server between them, compute the same trace id.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId, PathKind};
use partyline_paths::PeerId;
use partyline_timing::Deadlines;
use tracing::{Span, debug, debug_span, field};

use crate::spans::peer_span;

/// How long a better path than a relay server is waited for.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Attempts that have not ended, and what is needed to begin another one.
#[derive(Debug, Default)]
pub(super) struct ConnectionAttempts {
    peers: BTreeMap<PeerId, Peer>,
    timeouts: Deadlines<PeerId>,
}

#[derive(Debug)]
struct Peer {
    party: PartyId,
    device: DeviceId,
    trace_id: [u8; 16],
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    span: Span,
    path: Option<PathKind>,
}

struct Hex([u8; 16]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Peer {
    fn begin(&mut self) {
        let span = debug_span!(
            "connection_attempt",
            trace_id = %Hex(self.trace_id),
            party = %self.party.short(),
            peer = %self.device.short(),
            method = field::Empty,
            outcome = field::Empty,
        );
        span.in_scope(|| debug!("connection attempt started"));
        self.attempt = Some(Attempt { span, path: None });
    }

    fn end(&mut self, outcome: &'static str) {
        let Some(Attempt { span, path, .. }) = self.attempt.take() else { return };
        span.record("outcome", outcome);
        span.in_scope(|| debug!(outcome, path = path.map(label), "connection attempt ended"));
    }
}

impl ConnectionAttempts {
    /// Begins an attempt for a member that became known.
    pub(super) fn start(
        &mut self,
        now: Instant,
        id: PeerId,
        (party, device): (PartyId, DeviceId),
        trace_id: [u8; 16],
    ) {
        self.peers.insert(id, Peer { party, device, trace_id, attempt: None });
        self.begin(now, id);
    }

    fn begin(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.begin();
            self.timeouts.set(id, Some(now + ATTEMPT_TIMEOUT));
        }
    }

    fn end(&mut self, id: PeerId, outcome: &'static str) {
        self.timeouts.set(id, None);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.end(outcome);
        }
    }

    /// Takes the kind of path that carries the member's packets now; `None` if none does.
    pub(super) fn on_path(&mut self, now: Instant, id: PeerId, path: Option<PathKind>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match (&mut peer.attempt, path) {
            (None, None) => self.begin(now, id),
            (Some(attempt), Some(kind)) => {
                attempt.path = path;
                attempt.span.record("method", label(kind));
                if !matches!(kind, PathKind::Relay | PathKind::Overlay) {
                    self.end(id, "connected");
                }
            }
            (Some(attempt), None) => attempt.path = None,
            (None, Some(_)) => {}
        }
    }

    /// Ends the attempt for a member that is gone.
    pub(super) fn remove(&mut self, id: PeerId) {
        self.end(id, "member_gone");
        self.peers.remove(&id);
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.next()
    }

    /// Ends attempts that have waited long enough for something better than a relay.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.timeouts.pop_due(now) {
            let attempt = self.peers.get(&id).and_then(|peer| peer.attempt.as_ref());
            let relayed = attempt.is_some_and(|attempt| attempt.path.is_some());
            self.end(id, if relayed { "relayed" } else { "failed" });
        }
    }

    /// Calls `act` within the span of the member's attempt, or a plain one for the member if none is going on.
    pub(super) fn in_scope<T>(&self, id: PeerId, act: impl FnOnce() -> T) -> T {
        let Some(peer) = self.peers.get(&id) else { return act() };
        let attempt = peer.attempt.as_ref().map(|attempt| attempt.span.clone());
        let plain = || peer_span(peer.party, peer.device);
        attempt.unwrap_or_else(plain).in_scope(act)
    }
}

const fn label(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Lan => "lan",
        PathKind::DirectV6 => "ipv6",
        PathKind::Mapped => "mapped",
        PathKind::Direct => "direct",
        PathKind::MemberRelay => "member_relay",
        PathKind::Relay => "relay",
        PathKind::Overlay => "overlay",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PeerId = PeerId(1);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn started() -> (Instant, ConnectionAttempts) {
        let (now, mut attempts) = (Instant::now(), ConnectionAttempts::default());
        attempts.start(now, ID, (PartyId([1; 32]), DeviceId([2; 32])), [0xab; 16]);
        (now, attempts)
    }

    fn is_going_on(attempts: &ConnectionAttempts) -> bool {
        attempts.peers.get(&ID).is_some_and(|peer| peer.attempt.is_some())
    }

    #[test]
    fn attempt_ends_with_a_path_of_our_own_and_begins_again_when_it_is_lost() {
        let (now, mut attempts) = started();
        attempts.on_path(now, ID, Some(PathKind::Relay));
        assert!(is_going_on(&attempts), "relayed is not the end");
        attempts.on_path(now, ID, Some(PathKind::Direct));
        assert!(!is_going_on(&attempts));
        attempts.on_path(now, ID, Some(PathKind::Relay));
        assert!(!is_going_on(&attempts), "another path is no new attempt");
        attempts.on_path(now, ID, None);
        assert!(is_going_on(&attempts));
        attempts.remove(ID);
        assert!(!is_going_on(&attempts));
    }

    #[test]
    fn attempt_that_stays_relayed_ends_after_a_while() {
        let (now, mut attempts) = started();
        attempts.on_path(now, ID, Some(PathKind::Relay));
        assert_eq!(attempts.poll_timeout(), Some(now + ATTEMPT_TIMEOUT));
        attempts.handle_timeout(now + ATTEMPT_TIMEOUT - Duration::from_secs(1));
        assert!(is_going_on(&attempts));
        attempts.handle_timeout(now + ATTEMPT_TIMEOUT);
        assert!(!is_going_on(&attempts) && attempts.poll_timeout().is_none());
    }

    #[test]
    fn trace_id_has_32_hex_digits() {
        assert_eq!(Hex([0xab; 16]).to_string(), "ab".repeat(16));
    }
}

//! One WebSocket connection to one rendezvous server, shared by all parties that name the server.
//!
//! A link opens as soon as a party wants it, waits for the server's challenge, enters the topics of those parties, and
//! after a failure retries with jittered exponential backoff. Losing a link costs no established tunnel: members are
//! kept until they are silent on every channel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{AppError, Handle, Now, Timestamp, Topic};
use partyline_party::{Membership, TopicAccess};
use partyline_wire::rendezvous::{ClientFrame, proof_message};
use rand_core::RngCore;
use tracing::debug;

/// Bounds of the pause before a retry.
const MIN_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// A connection that was up this long counts as good: the next failure starts again at the first retry.
const STABLE_AFTER: Duration = Duration::from_secs(20);
/// How long a server may take to send its challenge, and to answer once its liveness is in question.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);
/// Bounds of a relay grant's lifetime as it is trusted, since the server's clock and ours may differ.
const MIN_GRANT_LIFETIME: Duration = Duration::from_secs(60);
const MAX_GRANT_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Members that one room may list; more than any party has, so a server that lists more is not trusted.
const MAX_PRESENT: usize = 512;

/// A topic entered, or being entered, on the server.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Revision of the own record that was last announced here; 0 if none was.
    pub announced: u64,
    /// True once the whole roster came, which is how the server shows that it let this device in.
    pub entered: bool,
    /// Handles of the other members that the server lists.
    pub present: BTreeSet<Handle>,
}

impl Room {
    /// Notes that the server lists a member, as long as the list is plausible.
    pub(super) fn insert(&mut self, handle: Handle) {
        if self.present.len() < MAX_PRESENT {
            self.present.insert(handle);
        }
    }
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant },
    Opening,
    Open { since: Instant, challenge: Option<[u8; 32]>, answer_by: Option<Instant> },
}

/// The connection to one server.
#[derive(Debug)]
pub(super) struct ServerLink {
    /// The server's URL, as the parties name it.
    pub url: String,
    /// Topics entered over the present connection.
    pub rooms: BTreeMap<Topic, Room>,
    /// Why the server is not connected, for people.
    pub problem: Option<AppError>,
    state: State,
    failures: u32,
    /// True while a connection made over a lost network is being closed: the next one is opened at once.
    reopen_now: bool,
    /// When half of the relay grant's lifetime is over; `None` without a grant.
    renew_grant_at: Option<Instant>,
}

impl ServerLink {
    /// Returns a link that wants to open at once.
    pub(super) fn new(now: Instant, url: String) -> Self {
        Self {
            url,
            rooms: BTreeMap::new(),
            problem: None,
            state: State::Waiting { until: now },
            failures: 0,
            reopen_now: false,
            renew_grant_at: None,
        }
    }

    /// Returns true once the server has sent its challenge, so that topics can be entered.
    pub(super) fn is_ready(&self) -> bool {
        self.challenge().is_some()
    }

    /// Returns the server's challenge, which the proof of every topic signs.
    pub(super) fn challenge(&self) -> Option<[u8; 32]> {
        match self.state {
            State::Open { challenge, .. } => challenge,
            State::Waiting { .. } | State::Opening => None,
        }
    }

    /// Returns the moment to call [`Self::poll_open`] and [`Self::poll_silent`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Open { answer_by, .. } => answer_by,
            State::Opening => None,
        }
    }

    /// Returns true once when the moment to open the connection has come, and marks the link as opening.
    pub(super) fn poll_open(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Waiting { until } if until <= now);
        if due {
            debug!(server = %self.url, failures = self.failures, "server link opening");
            self.state = State::Opening;
        }
        due
    }

    /// Returns true once when the server has failed to answer; the caller closes the connection.
    pub(super) fn poll_silent(&mut self, now: Instant) -> bool {
        let State::Open { answer_by, .. } = &mut self.state else { return false };
        let silent = answer_by.take_if(|at| *at <= now).is_some();
        if silent {
            debug!(server = %self.url, reason = "no answer in 8 s", "server link closing");
        }
        silent
    }

    /// Drops the remaining pause before a retry, because the network changed.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            debug!(server = %self.url, reason = "network changed", "server link retries now");
            *until = now;
            self.failures = 0;
        }
    }

    /// Notes that the network under the connection is gone. Returns true if there is a connection to close; it is
    /// opened again as soon as its end is reported.
    pub(super) fn abandon(&mut self) -> bool {
        self.reopen_now = matches!(self.state, State::Open { .. } | State::Opening);
        if self.reopen_now {
            debug!(server = %self.url, reason = "local address gone", "server link closing");
        }
        self.reopen_now
    }

    /// Requires the server to send anything within [`RESPONSE_TIMEOUT`]. Returns true if the connection is open, so
    /// that a question can be sent.
    pub(super) fn require_liveness(&mut self, now: Instant) -> bool {
        let State::Open { answer_by, .. } = &mut self.state else { return false };
        answer_by.get_or_insert(now + RESPONSE_TIMEOUT);
        true
    }

    /// Notes that the server sent something, which proves that the connection works.
    pub(super) fn on_received(&mut self) {
        if let State::Open { answer_by, .. } = &mut self.state {
            *answer_by = None;
        }
    }

    /// Notes that the WebSocket is open; the server's challenge is still to come.
    pub(super) fn on_opened(&mut self, now: Instant) {
        debug!(server = %self.url, "server link open, waiting for the challenge");
        self.state = State::Open { since: now, challenge: None, answer_by: Some(now + RESPONSE_TIMEOUT) };
    }

    /// Takes the server's challenge.
    pub(super) fn on_welcome(&mut self, challenge: [u8; 32]) {
        if let State::Open { challenge: slot, .. } = &mut self.state {
            debug!(server = %self.url, "server link ready");
            *slot = Some(challenge);
        }
        self.problem = None;
    }

    /// Notes that the connection ended or could not be made, and plans the next attempt.
    pub(super) fn on_closed(&mut self, now: Instant, problem: Option<AppError>, rng: &mut impl RngCore) {
        let stable = matches!(
            self.state,
            State::Open { since, challenge: Some(_), .. } if now >= since + STABLE_AFTER
        );
        self.failures = if stable { 0 } else { self.failures.saturating_add(1) };
        self.rooms.clear();
        self.problem = problem.or(self.problem.take());
        let drawn = retry_after(self.failures, rng);
        let pause = if std::mem::take(&mut self.reopen_now) { Duration::ZERO } else { drawn };
        let reason = self.problem.as_ref().map_or("closed", |problem| problem.message.as_str());
        debug!(server = %self.url, reason, retry_ms = pause.as_millis(), "server link down");
        self.state = State::Waiting { until: now + pause };
    }

    /// Notes that the server refused an announcement for now. It is to be made again, after entering again if this
    /// device was not let in.
    pub(super) fn on_announcement_refused(&mut self, topic: &Topic, outside: bool) {
        let Some(room) = self.rooms.get_mut(topic) else { return };
        room.announced = 0;
        if outside || !room.entered {
            self.rooms.remove(topic);
        }
    }

    /// Notes a grant of relay credentials, to be renewed when half of its lifetime is over.
    pub(super) fn on_relay_grant(&mut self, now: Now, expires: Timestamp) {
        let lifetime = expires.since(now.unix).clamp(MIN_GRANT_LIFETIME, MAX_GRANT_LIFETIME);
        self.renew_grant_at = Some(now.instant + lifetime / 2);
    }

    /// Returns a topic on which to ask for relay credentials, if there is no fresh grant and a topic was entered.
    pub(super) fn grant_due(&self, now: Instant) -> Option<Topic> {
        let stale = self.renew_grant_at.is_none_or(|at| at <= now);
        let mut entered = self.rooms.iter().filter(|(_, room)| room.entered);
        entered.next().filter(|_| stale).map(|(topic, _)| *topic)
    }
}

/// Builds the frame that asks to be let in on a topic; `None` if the membership may not enter it.
pub(super) fn enter_frame(
    membership: &Membership,
    challenge: &[u8; 32],
    access: &TopicAccess,
    record: Vec<u8>,
) -> Option<ClientFrame> {
    let (topic, handle) = (access.topic, access.handle);
    let proof = membership.prove_topic_access(&topic, &proof_message(challenge, &topic, &handle))?;
    Some(ClientFrame::Enter { topic, handle, proof, record })
}

/// Draws between half and all of an exponentially growing span, so that the clients of a restarted server do not
/// return in step.
fn retry_after(failures: u32, rng: &mut impl RngCore) -> Duration {
    let span = MIN_RETRY.saturating_mul(1 << failures.min(8)).min(MAX_RETRY);
    span.mul_f64(0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn opened() -> (Instant, ServerLink) {
        let now = Instant::now();
        let mut link = ServerLink::new(now, "wss://server".into());
        assert!(link.poll_open(now) && !link.poll_open(now));
        link.on_opened(now);
        (now, link)
    }

    #[test]
    fn server_that_sends_no_challenge_is_closed_once() {
        let (now, mut link) = opened();
        assert_eq!(link.poll_timeout(), Some(now + RESPONSE_TIMEOUT));
        assert!(!link.poll_silent(now + RESPONSE_TIMEOUT - SECOND));
        assert!(link.poll_silent(now + RESPONSE_TIMEOUT) && !link.poll_silent(now + RESPONSE_TIMEOUT));
    }

    #[test]
    fn any_frame_proves_liveness() {
        let (now, mut link) = opened();
        link.on_received();
        link.on_welcome([1; 32]);
        assert!(link.is_ready() && link.poll_timeout().is_none());
        assert!(link.require_liveness(now));
        link.on_received();
        assert!(!link.poll_silent(now + 2 * RESPONSE_TIMEOUT));
    }

    #[test]
    fn retries_slow_down_until_a_connection_was_stable() {
        let (mut now, mut link) = opened();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for failures in 1..10 {
            link.on_closed(now, None, &mut rng);
            let span = MIN_RETRY.saturating_mul(1 << failures.min(8)).min(MAX_RETRY);
            let at = link.poll_timeout().expect("a retry");
            assert!((span / 2..=span).contains(&(at - now)), "{failures}");
            now = at;
            assert!(link.poll_open(now));
            link.on_opened(now);
        }
        link.on_welcome([1; 32]);
        now += STABLE_AFTER;
        link.on_closed(now, None, &mut rng);
        assert!(link.poll_timeout().expect("a retry") - now <= MIN_RETRY);
    }

    #[test]
    fn connection_of_a_lost_network_is_reopened_at_once() {
        let (now, mut link) = opened();
        assert!(link.abandon());
        link.on_closed(now, None, &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(link.poll_timeout(), Some(now));
        assert!(!link.abandon(), "nothing is open");
    }

    #[test]
    fn grant_is_renewed_at_half_of_its_lifetime_and_needs_an_entered_topic() {
        let (instant, mut link) = opened();
        let now = Now { instant, unix: Timestamp(0) };
        let topic = Topic([1; 32]);
        link.rooms.insert(topic, Room::default());
        assert_eq!(link.grant_due(instant), None);
        link.rooms.entry(topic).or_default().entered = true;
        assert_eq!(link.grant_due(instant), Some(topic));
        link.on_relay_grant(now, Timestamp(200_000));
        assert_eq!(link.grant_due(instant + 99 * SECOND), None);
        assert_eq!(link.grant_due(instant + 100 * SECOND), Some(topic));
        link.on_relay_grant(now, Timestamp(0));
        assert_eq!(link.grant_due(instant + 29 * SECOND), None, "an expired grant is trusted for a minute");
    }
}

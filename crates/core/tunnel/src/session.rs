//! One WireGuard session with one member: boringtun's state machine, with its clock kept out of the way.
//!
//! boringtun decides by itself when keys are too old to use, and answers data with passive keepalives. It reads its own
//! clock, and stamps events with the time of its last timer update; so it is *ticked* a few times a second and before
//! every handshake message. When to initiate a handshake is decided here, from the time passed in; see the crate's
//! documentation for which of two members initiates.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};
use rand_core::RngCore;
use tracing::{debug, trace};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{drops::DropReason, handshakes::HandshakeCounters};

/// How often boringtun's timers are updated while the session is in use.
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// Age of the keys at which the preferred initiator renews them, before WireGuard's own REKEY-AFTER-TIME of 120 s.
const REKEY_AFTER_PREFERRED: Duration = Duration::from_secs(115);
/// Age of the keys at which the other member renews them, well before REJECT-AFTER-TIME (180 s) ends them.
const REKEY_AFTER_FALLBACK: Duration = Duration::from_secs(150);
/// How long the other member waits for the preferred initiator before it initiates itself.
const FALLBACK_DELAY: Duration = Duration::from_secs(2);
/// Seconds until an unanswered initiation is repeated; the last one repeats. WireGuard's REKEY-TIMEOUT is 5 s. It is
/// approached from below, because a lost first packet is common while NAT mappings are created.
const RETRY_AFTER_S: [u64; 4] = [1, 2, 3, 5];
/// WireGuard's jitter of a repeated initiation, in milliseconds (whitepaper, section 6.1).
const MAX_RETRY_JITTER_MS: u32 = 333;

/// The first byte of a handshake initiation.
const MESSAGE_INITIATION: u8 = 1;
/// The first byte of a handshake response.
const MESSAGE_RESPONSE: u8 = 2;

/// Where a handshake response names its sender's index, and a data message the receiver's: 4 bytes.
const INDEX: std::ops::Range<usize> = 4..8;

/// What a datagram turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decapsulated {
    /// A packet of this length.
    Packet(usize),
    /// A keepalive or a cookie reply.
    Empty,
    /// A handshake message that has to be answered; the answer has this length.
    Reply(usize),
}

/// An initiation that was answered, whose initiator has yet to use the new keys.
struct Answered {
    at: Instant,
    /// Our receiver index in the data messages that use them.
    index: Index,
}

type Index = Option<[u8; 4]>;

pub(crate) struct Session {
    tunn: Tunn,
    /// True if this member's public key is the lower one.
    preferred_initiator: bool,
    has_path: bool,
    /// True while there are keys that both sides are known to have.
    ready: bool,
    last_handshake: Option<Instant>,
    answered: Option<Answered>,
    next_initiation: Option<Instant>,
    /// Why the next initiation is due, for the log.
    initiation_reason: &'static str,
    /// Initiations since the schedule was last reset.
    attempts: usize,
    next_tick: Instant,
    /// Origin of the ticks, so that those of all sessions coincide and wake the computer once.
    epoch: Instant,
    counters: HandshakeCounters,
}

impl Session {
    pub(crate) fn new(
        (now, epoch): (Instant, Instant),
        secret: &StaticSecret,
        peer: PublicKey,
        index: u32,
        limiter: Arc<RateLimiter>,
    ) -> Self {
        Self {
            preferred_initiator: PublicKey::from(secret).as_bytes() < peer.as_bytes(),
            tunn: Tunn::new(secret.clone(), peer, None, None, index, Some(limiter)),
            has_path: false,
            ready: false,
            last_handshake: None,
            answered: None,
            next_initiation: None,
            initiation_reason: "no keys",
            attempts: 0,
            next_tick: now,
            epoch,
            counters: HandshakeCounters::default(),
        }
    }

    /// Returns true if packets can be encrypted and there is a path to send them.
    pub(crate) const fn can_send(&self) -> bool {
        self.ready && self.has_path
    }

    pub(crate) const fn has_path(&self) -> bool {
        self.has_path
    }

    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Returns true if the next data message can change the state of the session.
    pub(crate) const fn is_unconfirmed(&self) -> bool {
        !self.ready || self.answered.is_some()
    }

    pub(crate) const fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    pub(crate) const fn counters(&self) -> &HandshakeCounters {
        &self.counters
    }

    /// Notes that datagrams can or cannot reach the member, or that they take another path now.
    pub(crate) fn set_path(&mut self, now: Instant, up: bool) {
        if self.has_path != up {
            self.has_path = up;
            self.schedule_initiation(now);
        } else if up && self.attempts > 0 {
            // The last initiation may have been lost on the path before: to a member that was restarted it went to a
            // socket that no longer exists, though there are still keys.
            self.next_initiation = Some(now);
            self.initiation_reason = "path changed before a response";
            debug!(reason = self.initiation_reason, "initiation brought forward");
        }
    }

    /// Initiates a handshake at the next [`Self::handle_timeout`], because the member has lost its keys.
    pub(crate) fn rekey(&mut self, now: Instant) {
        self.next_initiation = self.has_path.then_some(now);
        self.initiation_reason = "peer lost its keys";
        self.attempts = 0;
    }

    /// Schedules the next initiation from the age of the keys.
    fn schedule_initiation(&mut self, now: Instant) {
        self.attempts = 0;
        let (rekey_after, delay) = if self.preferred_initiator {
            (REKEY_AFTER_PREFERRED, Duration::ZERO)
        } else {
            (REKEY_AFTER_FALLBACK, FALLBACK_DELAY)
        };
        let due = match self.last_handshake {
            Some(last) if self.ready => (last + rekey_after).max(now),
            _ => now + delay,
        };
        self.initiation_reason = match (self.ready, self.preferred_initiator) {
            (true, _) => "age of the keys",
            (false, true) => "no keys",
            (false, false) => "preferred initiator is silent",
        };
        self.next_initiation = self.has_path.then_some(due);
        trace!(
            after_ms = (due - now).as_millis() as u64,
            scheduled = self.has_path,
            reason = self.initiation_reason,
            "next initiation scheduled"
        );
    }

    /// Returns the moment to call [`Self::handle_timeout`], or `None` while nothing can happen. Packets that wait for the
    /// session (`has_pending`) need ticks even without a path, so that they can expire.
    pub(crate) fn poll_timeout(&self, has_pending: bool) -> Option<Instant> {
        let live = self.has_path || self.ready || has_pending;
        let tick = live.then_some(self.next_tick);
        self.next_initiation.into_iter().chain(tick).min()
    }

    /// Handles timers that are due. Writes at most one datagram to `dst` and returns its length.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        rng: &mut impl RngCore,
        dst: &mut [u8],
    ) -> Option<usize> {
        if self.next_initiation.is_some_and(|at| at <= now) {
            return self.initiate(now, rng, dst);
        }
        (self.next_tick <= now).then(|| self.tick(now, dst)).flatten()
    }

    fn initiate(&mut self, now: Instant, rng: &mut impl RngCore, dst: &mut [u8]) -> Option<usize> {
        // Updates boringtun's notion of time; a datagram that it may want to send is superseded.
        self.tick(now, dst);
        let jitter = Duration::from_millis(u64::from(rng.next_u32() % MAX_RETRY_JITTER_MS));
        let retry = Duration::from_secs(RETRY_AFTER_S[self.attempts.min(RETRY_AFTER_S.len() - 1)]) + jitter;
        self.next_initiation = Some(now + retry);
        self.attempts += 1;
        self.counters.initiated += 1;
        debug!(
            attempt = self.attempts,
            reason = self.initiation_reason,
            retry_ms = retry.as_millis() as u64,
            "handshake initiated"
        );
        if self.attempts > 1 {
            self.counters.unanswered += 1;
        }
        self.initiation_reason = "no response";
        written(self.tunn.format_handshake_initiation(dst, true))
    }

    fn tick(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        let since = now.saturating_duration_since(self.epoch).as_nanos() / TICK_INTERVAL.as_nanos();
        self.next_tick = self.epoch + TICK_INTERVAL * u32::try_from(since + 1).unwrap_or(u32::MAX);
        let len = written(self.tunn.update_timers(dst));
        if self.ready && self.tunn.time_since_last_handshake().is_none() {
            self.on_keys_expired(now);
        }
        len
    }

    fn on_keys_expired(&mut self, now: Instant) {
        self.ready = false;
        self.counters.sessions_lost += 1;
        let after = self.last_handshake.map(|last| now.saturating_duration_since(last));
        debug!(
            after_ms = after.map(|after| after.as_millis() as u64),
            has_path = self.has_path,
            reason = "keys expired without a new handshake",
            "session lost"
        );
        self.schedule_initiation(now);
    }

    /// Encrypts a packet into `dst`, which must have room for it, [`crate::limits::WIREGUARD_OVERHEAD`] and a handshake
    /// message. Only while [`Self::can_send`].
    pub(crate) fn encapsulate(&mut self, packet: &[u8], dst: &mut [u8]) -> Option<usize> {
        written(self.tunn.encapsulate(packet, dst))
    }

    /// Decrypts a data message into `dst`, which must be at least as long as the datagram.
    pub(crate) fn decapsulate(
        &mut self,
        now: Instant,
        datagram: &[u8],
        dst: &mut [u8],
    ) -> Result<Decapsulated, DropReason> {
        let opened = match self.tunn.decapsulate(None, datagram, dst) {
            TunnResult::Done => Decapsulated::Empty,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Decapsulated::Packet(packet.len())
            }
            TunnResult::WriteToNetwork(reply) => Decapsulated::Reply(reply.len()),
            TunnResult::Err(error) => return Err(drop_reason(&error)),
        };
        if self.is_unconfirmed() {
            self.on_data_received(now, index_in(datagram));
        }
        Ok(opened)
    }

    /// An authentic data message proves that both sides have its keys. Those of an answered initiation are in use once their
    /// index is used; until then, packets under the keys before may still arrive. Where there were none before, the
    /// keys are those of an answered initiation in any case: of this one, or of an earlier one of a peer that repeated
    /// it.
    fn on_data_received(&mut self, now: Instant, index: Index) {
        let is_first = !self.ready;
        if let Some(answered) = self.answered.take_if(|answered| is_first || answered.index == index) {
            return self.on_completed(now, answered.at, "responder");
        }
        if !self.ready && self.tunn.time_since_last_handshake().is_some() {
            self.ready = true;
            debug!(reason = "data under known keys", "session ready");
            self.schedule_initiation(now);
        }
    }

    /// Handles a handshake message or a cookie reply; `dst` must have room for the answer.
    pub(crate) fn handle_handshake(
        &mut self,
        now: Instant,
        datagram: &[u8],
        dst: &mut [u8],
    ) -> Result<Decapsulated, DropReason> {
        let kind = datagram.first().copied().unwrap_or_default();
        self.tick(now, dst);
        match self.tunn.decapsulate(None, datagram, dst) {
            TunnResult::WriteToNetwork(reply) => {
                let (len, index) = (reply.len(), index_in(reply));
                if kind == MESSAGE_INITIATION {
                    self.on_initiation_answered(now, index);
                } else {
                    // A later handshake than any that was answered.
                    self.answered = None;
                    self.on_completed(now, now, "initiator");
                }
                Ok(Decapsulated::Reply(len))
            }
            TunnResult::Err(error) => {
                let reason = drop_reason(&error);
                self.counters.failed += 1;
                debug!(kind, reason = reason.label(), "handshake message rejected");
                Err(reason)
            }
            _ => {
                // A cookie has no answer; boringtun adds it to the next initiation. A response without an answer would be
                // a keepalive that boringtun did not send.
                let what = if kind == MESSAGE_RESPONSE { "response" } else { "cookie" };
                debug!(kind = what, "handshake message received");
                Ok(Decapsulated::Empty)
            }
        }
    }

    fn on_initiation_answered(&mut self, now: Instant, index: Index) {
        self.counters.answered += 1;
        debug!(repeated = self.answered.is_some(), "handshake answered");
        self.answered = Some(Answered { at: now, index });
    }

    /// Both sides have new keys, which were agreed on at a time.
    fn on_completed(&mut self, now: Instant, agreed_at: Instant, role: &'static str) {
        let was_ready = std::mem::replace(&mut self.ready, true);
        self.last_handshake = Some(agreed_at);
        self.counters.completed += 1;
        debug!(role, attempts = self.attempts, renewed = was_ready, "handshake completed");
        if !was_ready {
            debug!(role, "session ready");
        }
        self.schedule_initiation(now);
    }
}

fn index_in(datagram: &[u8]) -> Index {
    datagram.get(INDEX)?.try_into().ok()
}

fn written(result: TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
        _ => None,
    }
}

fn drop_reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::UnexpectedPacket => DropReason::Replayed,
        WireGuardError::InvalidAeadTag | WireGuardError::InvalidMac => DropReason::Unauthenticated,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::ConnectionExpired => {
            DropReason::ExpiredKeys
        }
        WireGuardError::WrongKey => DropReason::UnknownPeer,
        WireGuardError::UnderLoad => DropReason::HandshakeRateLimited,
        _ => DropReason::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::testing::{secrets, start};

    /// The session of each of two members; the first is the preferred initiator.
    fn sessions(now: Instant) -> [Session; 2] {
        let secrets = secrets(2);
        [0, 1].map(|us| {
            let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&secrets[us]), u64::MAX));
            let peer = PublicKey::from(&secrets[1 - us]);
            Session::new((now, now), &secrets[us], peer, us as u32, limiter)
        })
    }

    fn rng() -> ChaCha12Rng {
        ChaCha12Rng::from_seed([1; 32])
    }

    fn initiation(session: &mut Session, now: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; 148];
        let len = session.handle_timeout(now, &mut rng(), &mut buffer)?;
        Some(buffer[..len].to_vec())
    }

    fn answer(session: &mut Session, now: Instant, datagram: &[u8]) -> Vec<u8> {
        let mut buffer = [0; 148];
        let Ok(Decapsulated::Reply(len)) = session.handle_handshake(now, datagram, &mut buffer) else {
            panic!("no answer")
        };
        buffer[..len].to_vec()
    }

    #[test]
    fn responder_is_ready_once_the_initiator_uses_the_keys() {
        let now = start();
        let [mut a, mut b] = sessions(now);
        a.set_path(now, true);
        let initiation = initiation(&mut a, now).unwrap();
        let response = answer(&mut b, now, &initiation);
        assert!(!b.is_ready() && b.is_unconfirmed());
        let keepalive = answer(&mut a, now, &response);
        assert!(a.is_ready() && a.can_send());
        assert_eq!(b.decapsulate(now, &keepalive, &mut [0; 148]), Ok(Decapsulated::Empty));
        assert!(b.is_ready() && !b.is_unconfirmed() && !b.can_send(), "b has no path");
        assert_eq!((a.counters().initiated, a.counters().completed), (1, 1));
        assert_eq!((b.counters().answered, b.counters().completed), (1, 1));
    }

    /// Completes a handshake that the first session initiates.
    fn complete_handshake(sessions: &mut [Session; 2], now: Instant) {
        let [a, b] = sessions;
        a.rekey(now);
        let initiation = initiation(a, now).unwrap();
        let response = answer(b, now, &initiation);
        let keepalive = answer(a, now, &response);
        assert_eq!(b.decapsulate(now, &keepalive, &mut [0; 148]), Ok(Decapsulated::Empty));
    }

    #[test]
    fn data_under_the_keys_before_does_not_complete_an_answered_handshake() {
        let now = start();
        let mut sessions = sessions(now);
        sessions.iter_mut().for_each(|session| session.set_path(now, true));
        complete_handshake(&mut sessions, now);
        let [a, b] = &mut sessions;
        let mut in_flight = [0; 256];
        let packet: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let len = a.encapsulate(&packet, &mut in_flight).unwrap();
        let later = now + Duration::from_secs(115);
        a.rekey(later);
        let initiation = initiation(a, later).unwrap();
        let response = answer(b, later, &initiation);
        assert_eq!(b.decapsulate(later, &in_flight[..len], &mut [0; 256]), Ok(Decapsulated::Packet(20)));
        assert_eq!((b.counters().answered, b.counters().completed), (2, 1), "under the keys before");
        assert_eq!((b.last_handshake(), b.is_unconfirmed()), (Some(now), true));
        let keepalive = answer(a, later, &response);
        assert_eq!(b.decapsulate(later, &keepalive, &mut [0; 148]), Ok(Decapsulated::Empty));
        assert_eq!((b.counters().completed, b.last_handshake()), (2, Some(later)));
        assert!(!b.is_unconfirmed());
    }

    #[test]
    fn repeated_initiation_is_answered_twice_and_completed_once() {
        let now = start();
        let [mut a, mut b] = sessions(now);
        a.set_path(now, true);
        let first = initiation(&mut a, now).unwrap();
        answer(&mut b, now, &first);
        let later = a.next_initiation.unwrap();
        let second = initiation(&mut a, later).unwrap();
        let response = answer(&mut b, later, &second);
        let keepalive = answer(&mut a, later, &response);
        assert_eq!(b.decapsulate(later, &keepalive, &mut [0; 148]), Ok(Decapsulated::Empty));
        assert_eq!((b.counters().answered, b.counters().completed), (2, 1));
        assert_eq!((a.counters().initiated, a.counters().completed), (2, 1));
    }

    #[test]
    fn first_keys_in_use_complete_a_handshake_whichever_answer_arrived() {
        let now = start();
        let [mut a, mut b] = sessions(now);
        a.set_path(now, true);
        let first = initiation(&mut a, now).unwrap();
        let response = answer(&mut b, now, &first);
        let keepalive = answer(&mut a, now, &response);
        // The peer repeats itself while the answer is on its way, and the repetition overtakes the keepalive.
        let later = now + Duration::from_secs(1);
        a.rekey(later);
        let second = initiation(&mut a, later).unwrap();
        answer(&mut b, later, &second);
        assert_eq!(b.decapsulate(later, &keepalive, &mut [0; 148]), Ok(Decapsulated::Empty));
        assert!(b.is_ready() && b.last_handshake().is_some());
        assert_eq!((b.counters().answered, b.counters().completed), (2, 1));
    }

    #[test]
    fn unanswered_initiations_are_repeated_with_growing_delays() {
        let mut now = start();
        let [mut a, _] = sessions(now);
        a.set_path(now, true);
        let mut delays = Vec::new();
        for _ in 0..5 {
            assert!(initiation(&mut a, now).is_some());
            let next = a.next_initiation.unwrap();
            delays.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(delays, [1, 2, 3, 5, 5]);
        assert_eq!((a.counters().initiated, a.counters().unanswered), (5, 4));
    }

    #[test]
    fn fallback_initiator_waits_for_the_preferred_one() {
        let now = start();
        let [mut a, mut b] = sessions(now);
        a.set_path(now, true);
        b.set_path(now, true);
        assert_eq!(a.next_initiation, Some(now));
        assert_eq!(b.next_initiation, Some(now + FALLBACK_DELAY));
    }

    #[test]
    fn session_without_path_or_pending_packets_needs_no_timer() {
        let now = start();
        let [mut a, _] = sessions(now);
        assert_eq!(a.poll_timeout(false), None);
        assert_eq!(a.poll_timeout(true), Some(now));
        a.set_path(now, true);
        assert_eq!(a.poll_timeout(false), Some(now));
        a.set_path(now, false);
        assert_eq!(a.poll_timeout(false), None);
    }

    #[test]
    fn forged_handshake_messages_are_rejected_and_counted() {
        let now = start();
        let [mut a, mut b] = sessions(now);
        a.set_path(now, true);
        let mut initiation = initiation(&mut a, now).unwrap();
        initiation[20] ^= 1;
        let refused = b.handle_handshake(now, &initiation, &mut [0; 148]);
        assert_eq!(refused, Err(DropReason::Unauthenticated));
        assert_eq!(b.counters().failed, 1);
    }
}

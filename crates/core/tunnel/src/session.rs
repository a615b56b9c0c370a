//! One WireGuard session with one member: boringtun's machine, with its clock kept out of sight.
//!
//! boringtun decides by itself when keys are too old to use, and answers data with passive keepalives; for that it
//! must be *ticked* a few times a second, and before every handshake message, since it stamps events with the time of
//! its last tick. When to shake hands is decided here: see the crate's documentation for who leads.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};
use rand_core::RngCore;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{DropCounters, DropReason};

/// Room for the longest handshake message.
pub(crate) const HANDSHAKE_LEN: usize = 148;

const TICK: Duration = Duration::from_millis(250);
/// The leader renews keys at this age, before WireGuard's own 120 s; the other steps in well before they die at 180 s.
const RENEW_LEADER: Duration = Duration::from_secs(115);
const RENEW_FOLLOWER: Duration = Duration::from_secs(150);
/// How long the one that does not lead waits for the leader.
const COURTESY: Duration = Duration::from_secs(2);
/// Initiations are repeated after these seconds, then as often as the last; WireGuard's 5 s, approached from below
/// because a lost first packet is common while NAT mappings settle.
const RETRY: [u64; 4] = [1, 2, 3, 5];
const JITTER_MS: u32 = 333;

/// Packets that wait for a handshake, and how long they are worth sending: longer than the courtesy.
const WAITING: usize = 32;
const WORTH: Duration = Duration::from_secs(3);

/// A session as others may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Whether data can flow now: keys are agreed on.
    pub ready: bool,
    /// When the last handshake was completed.
    pub last_handshake: Option<Instant>,
    /// Packets received, and their bytes without WireGuard's.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets from and to this member that were dropped.
    pub drops: DropCounters,
}

/// What a datagram turned out to be.
pub(crate) enum Opened {
    /// A packet of this length.
    Packet(usize),
    /// A keepalive or a cookie.
    Nothing,
    /// A handshake message; the answer has this length.
    Reply(usize),
}

pub(crate) struct Session {
    tunn: Tunn,
    leads: bool,
    path: bool,
    ready: bool,
    last_handshake: Option<Instant>,
    /// When we answered a handshake that the initiator has yet to use.
    answered: Option<Instant>,
    next_attempt: Option<Instant>,
    attempts: usize,
    next_tick: Instant,
    /// What ticks are counted from, so that those of all sessions fall together and wake the computer once.
    epoch: Instant,
    waiting: VecDeque<(Instant, Vec<u8>)>,
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
            leads: PublicKey::from(secret).as_bytes() < peer.as_bytes(),
            tunn: Tunn::new(secret.clone(), peer, None, None, index, Some(limiter)),
            path: false,
            ready: false,
            last_handshake: None,
            answered: None,
            next_attempt: None,
            attempts: 0,
            next_tick: now,
            epoch,
            waiting: VecDeque::new(),
        }
    }

    /// Whether packets can be encrypted and there is a way to send them.
    pub(crate) const fn can_send(&self) -> bool {
        self.ready && self.path
    }

    pub(crate) const fn has_path(&self) -> bool {
        self.path
    }

    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) const fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    /// Says whether datagrams can reach the member, or that they take another way now.
    pub(crate) fn set_path(&mut self, now: Instant, up: bool) {
        if self.path != up {
            self.path = up;
            self.schedule(now);
        } else if up && !self.ready && self.attempts > 0 {
            // The way that the first message took may have led nowhere.
            self.next_attempt = Some(now);
        }
    }

    /// Shakes hands at the next [`Self::handle_timeout`], because the member has lost its keys.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.next_attempt = self.path.then_some(now);
        self.attempts = 0;
    }

    /// Plans the next handshake afresh.
    fn schedule(&mut self, now: Instant) {
        self.attempts = 0;
        let renewal = if self.leads { RENEW_LEADER } else { RENEW_FOLLOWER };
        let courtesy = if self.leads { Duration::ZERO } else { COURTESY };
        let due = match self.last_handshake {
            Some(last) if self.ready => (last + renewal).max(now),
            _ => now + courtesy,
        };
        self.next_attempt = self.path.then_some(due);
    }

    /// The moment to call [`Self::handle_timeout`]; `None` while nothing can happen.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let live = self.path || self.ready || !self.waiting.is_empty();
        let tick = live.then_some(self.next_tick);
        self.next_attempt.into_iter().chain(tick).min()
    }

    /// Lets time pass. Writes at most one datagram, and returns its length.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        rng: &mut impl RngCore,
        dst: &mut [u8],
    ) -> Option<usize> {
        if self.next_attempt.is_some_and(|at| at <= now) {
            return self.initiate(now, rng, dst);
        }
        (self.next_tick <= now).then(|| self.tick(now, dst)).flatten()
    }

    fn initiate(&mut self, now: Instant, rng: &mut impl RngCore, dst: &mut [u8]) -> Option<usize> {
        // Brings boringtun's notion of time up to date; what it may want to send is superseded.
        self.tick(now, dst);
        let seconds = RETRY[self.attempts.min(RETRY.len() - 1)];
        let jitter = Duration::from_millis(u64::from(rng.next_u32() % JITTER_MS));
        self.next_attempt = Some(now + Duration::from_secs(seconds) + jitter);
        self.attempts += 1;
        written(self.tunn.format_handshake_initiation(dst, true))
    }

    fn tick(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        let since = now.saturating_duration_since(self.epoch).as_nanos() / TICK.as_nanos();
        self.next_tick = self.epoch + TICK * u32::try_from(since + 1).unwrap_or(u32::MAX);
        let len = written(self.tunn.update_timers(dst));
        if self.ready && self.tunn.time_since_last_handshake().is_none() {
            self.ready = false;
            self.schedule(now);
        }
        len
    }

    /// Encrypts a packet into `dst`, which must have room for it, [`crate::OVERHEAD`] and a handshake message. Only
    /// while [`Self::can_send`].
    pub(crate) fn seal(&mut self, packet: &[u8], dst: &mut [u8]) -> Option<usize> {
        written(self.tunn.encapsulate(packet, dst))
    }

    /// Opens a data message into `dst`, which must be as long as the datagram at least.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        dst: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let opened = match self.tunn.decapsulate(None, datagram, dst) {
            TunnResult::Done => Ok(Opened::Nothing),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Opened::Packet(packet.len()))
            }
            TunnResult::WriteToNetwork(reply) => Ok(Opened::Reply(reply.len())),
            TunnResult::Err(error) => Err(reason(&error)),
        };
        if opened.is_ok() && (self.answered.is_some() || !self.ready) {
            self.confirm(now);
        }
        opened
    }

    /// The initiator has used the keys of a handshake we answered: they are agreed on.
    fn confirm(&mut self, now: Instant) {
        self.ready = self.tunn.time_since_last_handshake().is_some();
        if self.ready {
            self.last_handshake = self.answered.take().or(self.last_handshake);
            self.schedule(now);
        }
    }

    /// Takes a handshake message or a cookie; `dst` must have room for the answer.
    pub(crate) fn shake(
        &mut self,
        now: Instant,
        datagram: &[u8],
        dst: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let initiation = datagram.first() == Some(&1);
        self.tick(now, dst);
        match self.tunn.decapsulate(None, datagram, dst) {
            TunnResult::WriteToNetwork(reply) => {
                let len = reply.len();
                if initiation {
                    self.answered = Some(now);
                } else {
                    self.ready = true;
                    self.answered = None;
                    self.last_handshake = Some(now);
                    self.schedule(now);
                }
                Ok(Opened::Reply(len))
            }
            TunnResult::Err(error) => Err(reason(&error)),
            _ => Ok(Opened::Nothing),
        }
    }

    /// Keeps a packet until it can be sent. Returns how many older ones had to go.
    pub(crate) fn wait(&mut self, now: Instant, packet: &[u8]) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(since, _)| now.saturating_duration_since(*since) <= WORTH);
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        let gone = before - self.waiting.len();
        self.waiting.push_back((now, packet.to_vec()));
        gone
    }

    /// Discards what has waited too long. Returns how many packets that were.
    pub(crate) fn give_up(&mut self, now: Instant) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(since, _)| now.saturating_duration_since(*since) <= WORTH);
        before - self.waiting.len()
    }

    /// The next packet that waited, once it can be sent.
    pub(crate) fn next_waiting(&mut self) -> Option<Vec<u8>> {
        self.can_send().then(|| self.waiting.pop_front()).flatten().map(|(_, packet)| packet)
    }
}

fn written(result: TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
        _ => None,
    }
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::UnexpectedPacket => DropReason::Replay,
        WireGuardError::InvalidAeadTag | WireGuardError::InvalidMac => DropReason::Unauthentic,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::ConnectionExpired => {
            DropReason::Expired
        }
        WireGuardError::WrongKey => DropReason::UnknownPeer,
        WireGuardError::UnderLoad => DropReason::Flood,
        _ => DropReason::Malformed,
    }
}

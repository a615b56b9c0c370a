//! One candidate pair and what its connectivity checks have shown.
//!
//! A pair (RFC 8445, section 6.1.2) is identified by its [`Path`]. It is `Frozen` until its TURN channel is bound, then
//! `InProgress` while checks go out with doubling gaps. A response makes it `Valid`; silence makes it `Failed` until a
//! later series of checks, with growing pauses in between.
//!
//! A valid pair is judged by its packets: every packet that goes out expects an authenticated one back in time. This
//! is the consent freshness of RFC 7675, only much stricter. Where the traffic brings no response by itself, checks
//! are sent to provoke one. A pair that stays silent is *suspect* first, and then fails.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{CandidateKind, Method, PathKind};
use partyline_wire::probe::TransactionId;
use tracing::{debug, trace};

use crate::{
    address::is_private,
    api::{Event, RelayTransport},
    path::{Path, Via},
    quality::PathQuality,
};

/// Gap after the first check of a series; each further one doubles.
const FIRST_CHECK_GAP: Duration = Duration::from_millis(100);
/// Bounds the gaps within a series of checks.
const MAX_CHECK_GAP: Duration = Duration::from_millis(1600);
/// Checks in each series after the first.
const CHECKS_PER_RETRY: u32 = 3;
/// Pause after the first failed series; each further one doubles, up to [`PairUse::max_retry_pause`].
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between series for a pair that would be better than the path in use.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(600);
/// Longest pause between series while the peer cannot be reached at all.
const MAX_RETRY_UNREACHABLE: Duration = Duration::from_secs(10);
/// Least time after an unanswered packet at which a check is sent to provoke a response.
const MIN_PROVOKE_DELAY: Duration = Duration::from_millis(200);
/// Least time without a response that makes a pair suspect.
const MIN_SUSPECT_DELAY: Duration = Duration::from_millis(500);
/// Least time without a response after which a valid pair fails.
const MIN_FAILURE_DELAY: Duration = Duration::from_secs(3);
/// Round trips that are measured before a pair may rest or be compared by its quality.
pub(crate) const MIN_SAMPLES: u32 = 3;
/// Interval at which the path in use is measured while it carries traffic.
const MEASURE_INTERVAL: Duration = Duration::from_secs(2);
/// Least interval between measurements on request.
const MIN_REQUESTED_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the best alternatives are measured while there is traffic.
const MONITOR_INTERVAL: Duration = Duration::from_secs(10);
/// How long after the last packet a path counts as carrying traffic.
pub(crate) const TRAFFIC_TIMEOUT: Duration = Duration::from_secs(2);
/// Least interval at which further NAT mappings of a pair are kept alive; the shortest timeouts are 30 s.
const MAPPING_REFRESH_INTERVAL: Duration = Duration::from_secs(4);
/// Checks that may await a response at one time; older ones count as lost.
const MAX_OPEN_CHECKS: usize = 8;
/// How long a pair that has yielded to one of a worse tier stays behind it; each further time doubles.
pub(crate) const FIRST_YIELD: Duration = Duration::from_secs(60);
/// Bounds that time.
const MAX_YIELD: Duration = Duration::from_secs(1800);
/// A pair that was good for this long yields for [`FIRST_YIELD`] again.
const YIELD_FORGIVEN: Duration = Duration::from_secs(600);
/// Loss above which a pair is compared with those of worse tiers.
const POOR_LOSS: f32 = 0.10;
/// Round trip above which it is.
const POOR_RTT: Duration = Duration::from_millis(200);
/// Loss from which a pair is far worse than one that loses less than [`CLEAN_LOSS`].
const FAR_WORSE_LOSS: f32 = 0.25;
const CLEAN_LOSS: f32 = 0.05;
/// The round trip of a far worse pair is this many times that of the other, and longer by [`FAR_WORSE_RTT`].
const FAR_WORSE_RTT_FACTOR: u32 = 4;
const FAR_WORSE_RTT: Duration = Duration::from_millis(200);
/// Pairs are compared across tiers only by measurements this recent.
const COMPARED_WITHIN: Duration = Duration::from_secs(5);

/// The state of a pair; the names are those of RFC 8445, section 6.1.2.6, where they fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairState {
    /// The relay server has not bound a channel to the remote address yet, or the pair is kept as the last resort.
    Frozen,
    /// A series of checks is under way, of which this many were sent.
    InProgress(u32),
    /// A check was answered, and the pair has not failed since.
    Valid,
    /// A series of checks remained unanswered, or a valid pair fell silent.
    Failed,
}

/// What a pair is used for, which decides how often it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairUse {
    /// It carries the packets; the controlling side keeps it alive.
    Selected {
        /// Whether this side controls.
        controlling: bool,
    },
    /// It is direct and the path in use is not, or it is a relayed pair that is still missing as a spare.
    Wanted,
    /// No path carries packets, so every pair is needed.
    Required,
    /// It is among the best alternatives of the same tier while there is traffic.
    Monitored,
    /// The path in use is poor, and this one may be better by far although its tier is worse.
    Compared,
    /// None of the others applies: checks go on until three round trips are measured, and a failed pair is not retried.
    Idle,
}

impl PairUse {
    /// Returns the longest pause between two series of checks, or `None` if a failed pair is not retried.
    const fn max_retry_pause(self) -> Option<Duration> {
        match self {
            Self::Required => Some(MAX_RETRY_UNREACHABLE),
            Self::Wanted | Self::Selected { .. } => Some(MAX_RETRY_PAUSE),
            Self::Monitored | Self::Compared | Self::Idle => None,
        }
    }
}

/// A check that awaits its response.
#[derive(Debug, Clone, Copy)]
struct OpenCheck {
    id: TransactionId,
    sent: Instant,
    /// Whether its loss counts: the pair was valid when the check was sent.
    counts: bool,
}

/// A check that will not be answered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpiredCheck {
    pub(crate) id: TransactionId,
    /// Whether it counts as a lost sample of a valid pair.
    pub(crate) lost: bool,
}

/// That a pair was so much worse than one of a worse tier that it made way.
#[derive(Debug, Clone, Copy)]
struct Yielded {
    until: Instant,
    /// How often in a row.
    times: u32,
    over: bool,
}

/// One path to a peer with the state of its checks.
#[derive(Debug)]
pub(crate) struct CandidatePair {
    pub(crate) path: Path,
    /// How the remote address was learned.
    pub(crate) kind: CandidateKind,
    /// How the relay server is reached, if one is used.
    pub(crate) transport: Option<RelayTransport>,
    state: PairState,
    /// Other ports of the peer that packets went to when the pair was found. The mapping in our router by which the
    /// peer's packets arrive may belong to one of them.
    pub(crate) opened_ports: BTreeSet<SocketAddr>,
    /// When the mappings of those ports were last kept alive.
    mappings_kept_at: Option<Instant>,
    /// One of its ends is no longer announced; the pair is kept only until another one takes over.
    pub(crate) outdated: bool,
    quality: PathQuality,
    first_check_at: Option<Instant>,
    /// The time from the first check until the pair first became valid or failed.
    settled_after: Option<Duration>,
    /// The last authenticated packet that arrived.
    last_received: Option<Instant>,
    /// The last check that was answered.
    last_response: Option<Instant>,
    /// The last packet that was sent and expects a response.
    last_sent: Option<Instant>,
    last_check: Option<Instant>,
    /// Since when packets have gone out without any coming back.
    unanswered_since: Option<Instant>,
    suspect_reported: bool,
    failed_at: Option<Instant>,
    /// Series of checks that failed since the pair last was valid.
    failed_series: u32,
    /// Factor that spreads retries, from 0.75 to 1.25.
    retry_jitter: f64,
    /// Checks in the first series.
    first_series: u32,
    /// When the pair last yielded to one of a worse tier.
    yielded: Option<Yielded>,
    /// A check is due at once.
    check_now: bool,
    /// The pacer's promise when the check that is due may be sent.
    turn_at: Option<Instant>,
    open_checks: Vec<OpenCheck>,
}

impl CandidatePair {
    /// Creates a pair that is checked for about `timeout` before it fails for the first time. Pairs through an
    /// allocation start frozen (see [`Self::on_channel_bound`]), and so do those of another VPN (see
    /// [`Self::set_last_resort`]).
    pub(crate) fn new(
        path: Path,
        kind: CandidateKind,
        transport: Option<RelayTransport>,
        retry_jitter: f64,
        timeout: Duration,
    ) -> Self {
        let waits = matches!(path.via, Via::Relay(_)) || kind == CandidateKind::Overlay;
        let state = if waits { PairState::Frozen } else { PairState::InProgress(0) };
        Self {
            path,
            kind,
            transport,
            state,
            opened_ports: BTreeSet::new(),
            mappings_kept_at: None,
            outdated: false,
            quality: PathQuality::default(),
            first_check_at: None,
            settled_after: None,
            last_received: None,
            last_response: None,
            last_sent: None,
            last_check: None,
            unanswered_since: None,
            suspect_reported: false,
            failed_at: None,
            failed_series: 0,
            retry_jitter,
            first_series: series_within(timeout),
            yielded: None,
            check_now: false,
            turn_at: None,
            open_checks: Vec::new(),
        }
    }

    pub(crate) const fn state(&self) -> PairState {
        self.state
    }

    pub(crate) const fn is_valid(&self) -> bool {
        matches!(self.state, PairState::Valid)
    }

    pub(crate) const fn is_failed(&self) -> bool {
        matches!(self.state, PairState::Failed)
    }

    /// Returns true if at least one whole series of checks has failed since the pair last was valid.
    pub(crate) const fn has_failed_before(&self) -> bool {
        self.failed_series > 0
    }

    pub(crate) const fn quality(&self) -> &PathQuality {
        &self.quality
    }

    pub(crate) const fn last_received(&self) -> Option<Instant> {
        self.last_received
    }

    pub(crate) const fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered_since
    }

    pub(crate) const fn settled_after(&self) -> Option<Duration> {
        self.settled_after
    }

    /// Returns how long ago the first check was sent; zero before that.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.first_check_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// Returns true if no check was sent yet, or the first one at least `span` ago.
    pub(crate) fn is_older_than(&self, span: Duration, now: Instant) -> bool {
        self.first_check_at.is_none_or(|at| at + span <= now)
    }

    /// Returns true if the pair has carried packets lately.
    pub(crate) fn has_traffic(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|at| now < at + TRAFFIC_TIMEOUT)
    }

    /// Returns the kind of path shown to the user.
    pub(crate) fn path_kind(&self) -> PathKind {
        path_kind(self.path, self.kind)
    }

    /// Returns the method under which the pair is reported.
    pub(crate) fn method(&self) -> Method {
        match (self.path_kind(), self.kind, self.transport) {
            (PathKind::MemberRelay, ..) => Method::MemberRelay,
            (PathKind::Relay, _, transport) => transport.unwrap_or(RelayTransport::Udp).method(),
            (PathKind::Overlay, ..) => Method::Overlay,
            (PathKind::Lan, ..) => Method::Lan,
            (PathKind::DirectV6, ..) => Method::Ipv6,
            (PathKind::Mapped, ..) => Method::Mapped,
            (_, CandidateKind::Predicted, _) => Method::Predict,
            (_, CandidateKind::Sprayed, _) => Method::Spray,
            _ => Method::Punch,
        }
    }

    /// Returns the class in which pairs compete; lower is better.
    pub(crate) fn tier(&self) -> u8 {
        match (self.path_kind(), self.transport) {
            (PathKind::MemberRelay | PathKind::Relay, _) if self.outdated => 5,
            (PathKind::Lan, _) => 0,
            (PathKind::DirectV6 | PathKind::Mapped | PathKind::Direct, _) => 1,
            (PathKind::MemberRelay, _) => 2,
            (PathKind::Relay, None | Some(RelayTransport::Udp)) => 3,
            (PathKind::Relay, _) => 4,
            (PathKind::Overlay, _) => 6,
        }
    }

    /// Returns the pair's place in the choice of a path, lower is better: one that has yielded to a worse tier comes after
    /// all that have not.
    pub(crate) fn standing(&self) -> (bool, u8) {
        (self.has_yielded(), self.tier())
    }

    /// Returns true if another VPN or tunnel carries the pair's packets.
    pub(crate) fn is_overlay(&self) -> bool {
        self.kind == CandidateKind::Overlay
    }

    /// Returns true if packets on this pair need nobody to forward them.
    pub(crate) fn is_direct(&self) -> bool {
        self.tier() < 2
    }

    /// Returns true if the remote address was learned from the peer's packets rather than announced.
    pub(crate) const fn is_learned(&self) -> bool {
        use CandidateKind::{PeerReflexive, Predicted, Sprayed};
        matches!(self.kind, PeerReflexive | Predicted | Sprayed)
    }

    /// Returns the priority announced in checks (RFC 8445, section 5.1.2), with tiers as type preferences.
    pub(crate) fn priority(&self) -> u32 {
        let preference = [126, 110, 20, 10, 0].get(usize::from(self.tier())).copied().unwrap_or(0);
        (preference << 24) | (0xffff << 8) | 0xff
    }

    /// Starts a new series of checks at once, unless the pair is frozen.
    pub(crate) fn restart(&mut self, reason: &'static str) {
        if self.state != PairState::Frozen {
            self.transition(PairState::InProgress(0), reason);
            (self.failed_series, self.check_now) = (0, false);
            self.clear_unanswered();
        }
    }

    /// Unfreezes the pair: its relay server has bound the channel.
    pub(crate) fn on_channel_bound(&mut self) {
        self.restart_from_frozen("channel bound");
    }

    /// Checks a pair of another VPN, because nothing else works, or freezes it again, because something does.
    pub(crate) fn set_last_resort(&mut self, needed: bool) {
        match (needed, self.state) {
            (true, _) => self.restart_from_frozen("nothing else works"),
            (false, PairState::Frozen) => {}
            (false, _) => self.freeze("another path works"),
        }
    }

    /// Takes another kind of the remote address: it turned out to be of another VPN, or not to be.
    pub(crate) fn set_kind(&mut self, kind: CandidateKind) {
        let was_overlay = self.is_overlay();
        self.kind = kind;
        if self.is_overlay() && !was_overlay {
            self.freeze("behind another VPN");
        } else if was_overlay && !self.is_overlay() && !matches!(self.path.via, Via::Relay(_)) {
            self.restart_from_frozen("not behind another VPN");
        }
    }

    fn restart_from_frozen(&mut self, reason: &'static str) {
        if self.state == PairState::Frozen {
            self.transition(PairState::InProgress(0), reason);
        }
    }

    /// Forgets what was measured. Responses that are still under way count for nothing.
    fn freeze(&mut self, reason: &'static str) {
        self.transition(PairState::Frozen, reason);
        self.clear_unanswered();
        self.open_checks.iter_mut().for_each(|check| check.counts = false);
        (self.last_received, self.check_now, self.failed_series) = (None, false, 0);
        self.quality = PathQuality::default();
    }

    /// Sends a check as soon as the pace allows (RFC 8445, section 7.3.1.4); a failed pair starts over.
    pub(crate) fn trigger_check(&mut self, reason: &'static str) {
        match self.state {
            PairState::Frozen => {}
            PairState::Failed => self.restart(reason),
            PairState::InProgress(_) | PairState::Valid => {
                trace!(path = %self.path, reason, "check triggered");
                self.expedite();
                self.check_now = true;
            }
        }
    }

    /// Gives up a turn that was promised for a mere measurement, because the next check is worth more.
    fn expedite(&mut self) {
        if self.only_measures() {
            self.turn_at = None;
        }
    }

    /// Measures a valid pair on request, at most once a second.
    pub(crate) fn request_measurement(&mut self, now: Instant) {
        let recent = self.last_check.is_some_and(|at| now < at + MIN_REQUESTED_INTERVAL);
        if self.is_valid() && self.unanswered_since.is_none() && !recent {
            trace!(path = %self.path, "measurement requested");
            self.check_now = true;
        }
    }

    /// Demands a response as though packets had gone unanswered until now: after a change of network a valid pair
    /// is suspect until it is validated again, and the others are checked afresh.
    pub(crate) fn require_liveness(&mut self, now: Instant) {
        if self.is_valid() {
            self.trigger_check("network changed");
            self.unanswered_since = now.checked_sub(self.suspect_delay()).or(Some(now));
        } else {
            self.restart("network changed");
        }
    }

    /// Notes that a packet was sent that expects a response.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.expedite();
        self.last_sent = Some(now);
        self.unanswered_since.get_or_insert(now);
    }

    /// Notes that a check was sent.
    pub(crate) fn on_check_sent(&mut self, now: Instant, id: TransactionId) {
        self.first_check_at.get_or_insert(now);
        self.last_check = Some(now);
        self.check_now = false;
        if self.is_failed() {
            self.transition(PairState::InProgress(0), "retry");
        }
        if let PairState::InProgress(sent) = &mut self.state {
            *sent += 1;
        } else {
            self.on_sent(now);
        }
        self.open_checks.push(OpenCheck { id, sent: now, counts: self.is_valid() });
    }

    /// Takes the response to a check, which makes the pair valid. Returns the round trip time, or `None` if the
    /// check was not sent on this pair.
    pub(crate) fn on_response(&mut self, now: Instant, id: TransactionId) -> Option<Duration> {
        let at = self.open_checks.iter().position(|check| check.id == id)?;
        let rtt = now - self.open_checks.swap_remove(at).sent;
        if self.state == PairState::Frozen {
            return None;
        }
        self.quality.on_response(rtt);
        self.last_response = Some(now);
        self.on_received(now);
        if !self.is_valid() {
            self.settled_after = self.first_check_at.map(|at| now - at);
            self.transition(PairState::Valid, "check answered");
            (self.failed_series, self.check_now) = (0, false);
        }
        Some(rtt)
    }

    /// Notes an authenticated packet: from the tunnel, or the response to a check.
    pub(crate) fn on_received(&mut self, now: Instant) {
        self.last_received = Some(now);
        self.clear_unanswered();
    }

    /// Notes a check of the peer. It proves only that packets arrive, not that ours do.
    pub(crate) fn on_request(&mut self, now: Instant) {
        self.last_received = Some(now);
    }

    fn clear_unanswered(&mut self) {
        if std::mem::take(&mut self.suspect_reported) {
            debug!(path = %self.path, "path no longer suspect");
        }
        self.unanswered_since = None;
    }

    /// Returns how long a response may take before the pair is suspect.
    fn suspect_delay(&self) -> Duration {
        self.quality.rtt().map_or(MIN_SUSPECT_DELAY, |rtt| (rtt * 4).max(MIN_SUSPECT_DELAY))
    }

    /// Returns true if packets have gone out for longer than a response may take.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.unanswered_since.is_some_and(|since| now >= since + self.suspect_delay())
    }

    /// Returns true if the pair is valid and not suspect.
    pub(crate) fn is_sound(&self, now: Instant) -> bool {
        self.is_valid() && !self.is_suspect(now)
    }

    /// Expires checks that will not be answered any more, and fails the pair if its time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ExpiredCheck> {
        let timeout = self.suspect_delay() * 4;
        let excess = self.open_checks.len().saturating_sub(MAX_OPEN_CHECKS);
        let mut expired: Vec<OpenCheck> = self.open_checks.drain(..excess).collect();
        expired.extend(self.open_checks.extract_if(.., |check| check.sent + timeout <= now));
        for check in expired.iter().filter(|check| check.counts) {
            trace!(path = %self.path, after_ms = (now - check.sent).as_millis(), "check lost");
            self.quality.on_loss();
        }
        self.report_suspicion(now);
        if self.fails_at().is_some_and(|at| at <= now) {
            self.fail(now);
        }
        expired.into_iter().map(|check| ExpiredCheck { id: check.id, lost: check.counts }).collect()
    }

    fn report_suspicion(&mut self, now: Instant) {
        if let Some(since) = self.unanswered_since.filter(|_| self.is_sound_but_silent(now)) {
            self.suspect_reported = true;
            let after_ms = (now - since).as_millis();
            debug!(path = %self.path, after_ms, reason = "packets are not answered", "path suspect");
        }
    }

    fn is_sound_but_silent(&self, now: Instant) -> bool {
        self.is_valid() && self.is_suspect(now) && !self.suspect_reported
    }

    /// Returns true if it is time to keep alive the further mappings that the pair depends on.
    pub(crate) fn is_mapping_refresh_due(&self, now: Instant) -> bool {
        let last = self.mappings_kept_at.or(self.first_check_at);
        last.is_some_and(|at| at + MAPPING_REFRESH_INTERVAL <= now)
    }

    pub(crate) fn on_mappings_kept(&mut self, now: Instant) {
        self.mappings_kept_at = Some(now);
    }

    /// Returns the event to report if the pair has become valid or failed for the first time since it was in state
    /// `before`. Punch attempts report the outcome of the pairs they find themselves.
    pub(crate) fn attempt_event(&self, before: PairState) -> Option<Event> {
        let method = self.method();
        let succeeded = self.is_valid() && before != PairState::Valid;
        let gave_up =
            self.is_failed() && matches!(before, PairState::InProgress(_)) && self.failed_series == 1;
        let by_punching = matches!(method, Method::Predict | Method::Spray);
        let took = self.settled_after.unwrap_or_default();
        ((succeeded || gave_up) && !by_punching).then_some(Event::Attempted { method, succeeded, took })
    }

    /// Returns true if the next check only measures: as far as is known, the pair works.
    pub(crate) const fn only_measures(&self) -> bool {
        self.is_valid() && self.unanswered_since.is_none() && !self.check_now
    }

    /// Returns true if the pair is so lossy or slow that one of a worse tier may be better by far.
    pub(crate) fn is_poor(&self) -> bool {
        let slow = |rtt| rtt > POOR_RTT;
        self.quality.loss().is_some_and(|loss| loss > POOR_LOSS) || self.quality.rtt().is_some_and(slow)
    }

    /// Returns true if the pair loses or delays packets far more than another one, as both were measured just now.
    pub(crate) fn is_far_worse_than(&self, other: &Self, now: Instant) -> bool {
        let recent = other.last_response.is_some_and(|at| now < at + COMPARED_WITHIN);
        let enough = |quality: &PathQuality| quality.samples() >= MIN_SAMPLES;
        if !recent || !enough(&self.quality) || !enough(&other.quality) {
            return false;
        }
        let (loss, Some(other_loss)) = (self.quality.spread_loss(), other.quality.loss()) else {
            return false;
        };
        let (Some(rtt), Some(other_rtt)) = (self.quality.best_recent_rtt(), other.quality.rtt()) else {
            return false;
        };
        let clean = other_loss < CLEAN_LOSS;
        let slow = rtt > (other_rtt * FAR_WORSE_RTT_FACTOR).max(other_rtt + FAR_WORSE_RTT);
        clean && (loss > FAR_WORSE_LOSS || slow)
    }

    /// Returns true while the pair stays behind others because it was far worse than one of them.
    pub(crate) fn has_yielded(&self) -> bool {
        self.yielded.is_some_and(|yielded| !yielded.over)
    }

    /// Puts the pair behind all that have not yielded, for a while that grows each time.
    pub(crate) fn yield_to(&mut self, better: Path, now: Instant) {
        let lately = self.yielded.filter(|before| now < before.until + YIELD_FORGIVEN);
        let times = lately.map_or(1, |before| before.times + 1);
        let pause = (FIRST_YIELD * (1 << (times - 1).min(8))).min(MAX_YIELD).mul_f64(self.retry_jitter);
        let quality = self.quality.view();
        debug!(
            path = %self.path, %better, loss = quality.loss, rtt_ms = quality.rtt_ms, times,
            pause_s = pause.as_secs(), reason = "far worse", "path yields whatever its tier"
        );
        self.yielded = Some(Yielded { until: now + pause, times, over: false });
    }

    /// Lets the pair compete again once its time is over. What it was measured to be counts no more, unless it had to be
    /// used nevertheless.
    pub(crate) fn end_yield(&mut self, now: Instant, in_use: bool) {
        let Some(yielded) = self.yielded.as_mut().filter(|yielded| !yielded.over && yielded.until <= now)
        else {
            return;
        };
        yielded.over = true;
        debug!(path = %self.path, "path that had yielded is tried again");
        if !in_use {
            self.quality = PathQuality::default();
            self.restart("had yielded");
        }
    }

    /// Returns when the pair competes again, if it has yielded.
    fn yield_ends_at(&self) -> Option<Instant> {
        self.yielded.filter(|yielded| !yielded.over).map(|yielded| yielded.until)
    }

    /// Returns true if no check has been sent since the given moment.
    pub(crate) fn is_unchecked_since(&self, since: Instant) -> bool {
        self.last_check.is_none_or(|at| at < since)
    }

    /// Asks the pacer for a turn unless one is promised already, and returns when it is; `None` means now.
    pub(crate) fn await_turn(
        &mut self,
        now: Instant,
        ask: impl FnOnce() -> Result<(), Instant>,
    ) -> Option<Instant> {
        self.turn_at = self.turn_at.filter(|turn| *turn > now).or_else(|| ask().err());
        self.turn_at
    }

    /// Returns the ids of all checks that await a response.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = TransactionId> {
        self.open_checks.iter().map(|check| check.id)
    }

    /// Returns when the pair becomes suspect or fails, if nothing comes back.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        let suspect = self.unanswered_since.map(|since| since + self.suspect_delay()).filter(|at| *at > now);
        [suspect, self.fails_at(), self.yield_ends_at()].into_iter().flatten().min()
    }

    fn fails_at(&self) -> Option<Instant> {
        match self.state {
            PairState::InProgress(sent) if sent >= self.series_len() => {
                self.last_check.map(|at| at + check_gap(sent))
            }
            PairState::Valid => {
                self.unanswered_since.map(|since| since + MIN_FAILURE_DELAY.max(self.suspect_delay()))
            }
            _ => None,
        }
    }

    fn fail(&mut self, now: Instant) {
        let reason = if self.is_valid() { "packets are not answered" } else { "no check was answered" };
        self.settled_after = self.settled_after.or(self.first_check_at.map(|at| now - at));
        self.transition(PairState::Failed, reason);
        self.failed_at = Some(now);
        (self.unanswered_since, self.suspect_reported, self.last_received) = (None, false, None);
        self.quality = PathQuality::default();
        self.failed_series += 1;
    }

    fn series_len(&self) -> u32 {
        if self.failed_series == 0 { self.first_series } else { CHECKS_PER_RETRY }
    }

    /// Returns when the next check is due, given what the pair is used for.
    pub(crate) fn next_check(&self, now: Instant, used_as: PairUse, keepalive: Duration) -> Option<Instant> {
        if self.check_now {
            return Some(now);
        }
        match self.state {
            PairState::Frozen => None,
            PairState::InProgress(0) => Some(now),
            PairState::InProgress(sent) if sent < self.series_len() => {
                self.last_check.map(|at| at + check_gap(sent))
            }
            PairState::InProgress(_) => None,
            PairState::Failed => used_as.max_retry_pause().and_then(|longest| self.retry_at(longest)),
            PairState::Valid => self.next_check_of_valid(now, used_as, keepalive),
        }
    }

    fn retry_at(&self, longest: Duration) -> Option<Instant> {
        let doublings = self.failed_series.saturating_sub(1).min(8);
        let pause = (FIRST_RETRY_PAUSE * (1 << doublings)).min(longest);
        self.failed_at.map(|at| at + pause.mul_f64(self.retry_jitter))
    }

    fn next_check_of_valid(&self, now: Instant, used_as: PairUse, keepalive: Duration) -> Option<Instant> {
        let last = self.last_check?;
        if let Some(since) = self.unanswered_since {
            let delay =
                self.quality.rtt().map_or(MIN_PROVOKE_DELAY, |rtt| (rtt * 3 / 2).max(MIN_PROVOKE_DELAY));
            return Some(last.max(since) + delay);
        }
        if self.quality.samples() < MIN_SAMPLES {
            return Some(last + MIN_PROVOKE_DELAY);
        }
        let sent = self.last_sent.map_or(last, |at| at.max(last));
        let busy = sent > last && now < sent + TRAFFIC_TIMEOUT;
        match used_as {
            PairUse::Selected { .. } if busy => Some(last + MEASURE_INTERVAL),
            PairUse::Selected { controlling: true } => Some(sent + keepalive),
            // The controlled side steps in only if the keepalives of the other stop arriving.
            PairUse::Selected { controlling: false } => {
                Some(self.last_received.map_or(sent, |at| at.max(sent)) + keepalive * 4 / 3)
            }
            PairUse::Monitored => Some(last + MONITOR_INTERVAL),
            // The controlling side does not use the better path: perhaps it has lost it without our knowing.
            PairUse::Wanted => Some(last + MEASURE_INTERVAL),
            PairUse::Compared => Some(last + MEASURE_INTERVAL),
            PairUse::Required | PairUse::Idle => None,
        }
    }

    fn transition(&mut self, to: PairState, reason: &'static str) {
        let from = std::mem::replace(&mut self.state, to);
        if std::mem::discriminant(&from) != std::mem::discriminant(&to) {
            let after_ms = self.settled_after.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            debug!(
                path = %self.path, kind = ?self.kind, ?from, ?to, reason, after_ms,
                count = self.failed_series, "candidate pair changed state"
            );
        }
    }
}

/// Returns the kind of a path whose remote address was learned in the given way.
pub(crate) fn path_kind(path: Path, kind: CandidateKind) -> PathKind {
    let ip = path.remote.ip();
    match (path.via, kind) {
        (Via::Member(_), _) => PathKind::MemberRelay,
        (Via::Relay(_), _) | (_, CandidateKind::Relayed) => PathKind::Relay,
        (_, CandidateKind::Overlay) => PathKind::Overlay,
        (_, CandidateKind::Lan) => PathKind::Lan,
        (_, CandidateKind::Mapped) => PathKind::Mapped,
        _ if is_private(ip) => PathKind::Lan,
        _ if ip.is_ipv6() => PathKind::DirectV6,
        _ => PathKind::Direct,
    }
}

/// Returns the gap after the check with this number.
fn check_gap(sent: u32) -> Duration {
    (FIRST_CHECK_GAP * (1 << sent.saturating_sub(1).min(6))).min(MAX_CHECK_GAP)
}

/// Returns how many checks fit into `timeout`, the wait after the last one included: 6 into 5 s.
fn series_within(timeout: Duration) -> u32 {
    let ends = (1..).scan(Duration::ZERO, |end, sent| {
        *end += check_gap(sent);
        Some(*end)
    });
    let count = ends.take_while(|end| *end <= timeout).count();
    u32::try_from(count).unwrap_or(u32::MAX).max(CHECKS_PER_RETRY)
}

#[cfg(test)]
mod tests {
    use partyline_model::SocketId;

    use super::*;
    use crate::path::AllocationId;

    const KEEPALIVE: Duration = Duration::from_secs(15);
    const CONTROLLING: PairUse = PairUse::Selected { controlling: true };

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(span: u64) -> Duration {
        Duration::from_millis(span)
    }

    fn direct() -> CandidatePair {
        let path = Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], 1).into() };
        CandidatePair::new(path, CandidateKind::ServerReflexive, None, 1.0, Duration::from_secs(5))
    }

    fn id(counter: u64) -> TransactionId {
        TransactionId::new(counter, 0)
    }

    /// A pair that was validated by three checks of 20 ms, and when the last response arrived.
    fn valid() -> (CandidatePair, Instant) {
        let (mut pair, mut now) = (direct(), start());
        for counter in 0..u64::from(MIN_SAMPLES) {
            pair.on_check_sent(now, id(counter));
            now += ms(20);
            assert_eq!(pair.on_response(now, id(counter)), Some(ms(20)));
        }
        (pair, now)
    }

    #[test]
    fn a_first_series_of_six_checks_with_doubling_gaps_fails_within_five_seconds() {
        let (mut pair, begin) = (direct(), start());
        let mut sent = Vec::new();
        let mut now = begin;
        while !pair.is_failed() {
            let check = pair.next_check(now, PairUse::Required, KEEPALIVE);
            now = [check, pair.next_change(now)].into_iter().flatten().min().unwrap();
            pair.expire(now);
            if check.is_some_and(|at| at <= now) {
                sent.push((now - begin).as_millis());
                pair.on_check_sent(now, id(sent.len() as u64));
            }
        }
        assert_eq!(sent, [0, 100, 300, 700, 1500, 3100]);
        assert!(now - begin <= Duration::from_secs(5));
    }

    #[test]
    fn retries_pause_longer_each_time_and_never_long_while_the_peer_is_unreachable() {
        let (mut pair, now) = (direct(), start());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pair.state = PairState::InProgress(9);
            pair.fail(now);
            let at = |used_as| pair.next_check(now, used_as, KEEPALIVE).map(|at| (at - now).as_secs());
            pauses.push((at(PairUse::Wanted).unwrap(), at(PairUse::Required).unwrap()));
            assert_eq!(at(PairUse::Idle), None);
        }
        assert_eq!(pauses[..4], [(5, 5), (10, 10), (20, 10), (40, 10)]);
        assert_eq!(pauses[9], (600, 10));
    }

    #[test]
    fn a_valid_pair_is_suspect_after_500_ms_and_fails_after_3_s_without_responses() {
        let (mut pair, now) = valid();
        pair.on_sent(now);
        assert!(pair.is_sound(now + ms(499)) && pair.is_suspect(now + ms(500)));
        pair.expire(now + ms(2999));
        assert!(pair.is_valid());
        pair.expire(now + ms(3000));
        assert!(pair.is_failed());
        assert_eq!(pair.quality().samples(), 0);
    }

    #[test]
    fn a_slow_pair_has_four_round_trips_before_it_is_suspect() {
        let (mut pair, now) = (direct(), start());
        pair.on_check_sent(now, id(1));
        let now = now + ms(400);
        pair.on_response(now, id(1));
        pair.on_sent(now);
        assert!(!pair.is_suspect(now + ms(1599)) && pair.is_suspect(now + ms(1600)));
    }

    #[test]
    fn any_authenticated_packet_ends_suspicion() {
        let (mut pair, now) = valid();
        pair.on_sent(now);
        pair.expire(now + ms(600));
        assert!(pair.is_suspect(now + ms(600)));
        pair.on_received(now + ms(601));
        assert!(pair.is_sound(now + ms(601)));
    }

    #[test]
    fn a_check_of_the_peer_is_no_proof_that_ours_arrive() {
        let (mut pair, now) = valid();
        pair.on_sent(now);
        pair.on_request(now + ms(600));
        assert!(pair.is_suspect(now + ms(600)));
    }

    #[test]
    fn unanswered_packets_provoke_a_check_after_200_ms() {
        let (mut pair, now) = valid();
        let sent = now + Duration::from_secs(1);
        pair.on_sent(sent);
        assert_eq!(pair.next_check(sent, CONTROLLING, KEEPALIVE), Some(sent + ms(200)));
    }

    #[test]
    fn the_controlling_side_keeps_an_idle_path_alive_and_the_other_waits_a_third_longer() {
        let (pair, now) = valid();
        let last = pair.last_check.unwrap();
        assert_eq!(pair.next_check(now, CONTROLLING, KEEPALIVE), Some(last + KEEPALIVE));
        let controlled = PairUse::Selected { controlling: false };
        assert_eq!(pair.next_check(now, controlled, KEEPALIVE), Some(now + KEEPALIVE * 4 / 3));
        assert_eq!(pair.next_check(now, PairUse::Idle, KEEPALIVE), None);
    }

    #[test]
    fn measurements_on_request_are_at_least_a_second_apart() {
        let (mut pair, now) = valid();
        pair.request_measurement(now);
        assert!(pair.only_measures());
        let later = pair.last_check.unwrap() + MIN_REQUESTED_INTERVAL;
        pair.request_measurement(later);
        assert_eq!(pair.next_check(later, PairUse::Idle, KEEPALIVE), Some(later));
    }

    #[test]
    fn a_pair_through_an_allocation_is_frozen_until_its_channel_is_bound() {
        let path = Path { via: Via::Relay(AllocationId(1)), remote: ([198, 51, 100, 1], 1).into() };
        let udp = Some(RelayTransport::Udp);
        let mut pair = CandidatePair::new(path, CandidateKind::Relayed, udp, 1.0, Duration::from_secs(5));
        let now = start();
        pair.trigger_check("test");
        assert_eq!(
            (pair.state(), pair.next_check(now, PairUse::Required, KEEPALIVE)),
            (PairState::Frozen, None)
        );
        pair.on_channel_bound();
        assert_eq!(pair.next_check(now, PairUse::Required, KEEPALIVE), Some(now));
    }

    #[test]
    fn responses_to_other_checks_do_not_count() {
        let (mut pair, now) = (direct(), start());
        pair.on_check_sent(now, id(1));
        assert_eq!(pair.on_response(now, id(2)), None);
        assert!(!pair.is_valid());
    }

    #[test]
    fn only_checks_of_a_valid_pair_count_as_lost() {
        let (mut pair, now) = (direct(), start());
        pair.on_check_sent(now, id(1));
        assert_eq!(pair.expire(now + ms(2000)), [ExpiredCheck { id: id(1), lost: false }]);
        let (mut pair, now) = valid();
        pair.on_check_sent(now, id(9));
        assert_eq!(pair.expire(now + ms(2000)), [ExpiredCheck { id: id(9), lost: true }]);
    }

    #[test]
    fn after_a_change_of_network_a_valid_pair_is_suspect_and_checked_at_once() {
        let (mut pair, now) = valid();
        let now = now + KEEPALIVE;
        pair.require_liveness(now);
        assert!(pair.is_valid() && pair.is_suspect(now));
        assert_eq!(pair.next_check(now, PairUse::Idle, KEEPALIVE), Some(now));
    }

    #[test]
    fn tiers_rank_local_before_direct_before_members_before_relays() {
        let tier = |via, kind, transport| {
            let path = Path { via, remote: ([198, 51, 100, 1], 1).into() };
            CandidatePair::new(path, kind, transport, 1.0, Duration::from_secs(5)).tier()
        };
        let relay = Via::Relay(AllocationId(1));
        let member = Via::Member(crate::path::MemberRelay {
            through: crate::path::PeerId(1),
            to: crate::path::PeerId(2),
        });
        let socket = Via::Socket(SocketId::MAIN);
        let tiers = [
            tier(socket, CandidateKind::Lan, None),
            tier(socket, CandidateKind::ServerReflexive, None),
            tier(member, CandidateKind::Relayed, None),
            tier(relay, CandidateKind::Relayed, Some(RelayTransport::Udp)),
            tier(relay, CandidateKind::Relayed, Some(RelayTransport::Tls)),
        ];
        assert_eq!(tiers, [0, 1, 2, 3, 4]);
    }
}

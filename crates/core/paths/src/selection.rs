//! Which path carries a peer's packets.
//!
//! Paths compete by tier first (see [`CandidatePair::tier`]), and within a tier by what they cost a player: round trip,
//! jitter, loss. The selected path stays unless it fails, a path of a better tier becomes valid, or one of its own
//! tier is better by a clear margin and remains so for some samples; so paths do not flap. While there is traffic, the
//! two best alternatives are measured now and then. A path that loses or delays packets far more than one of a worse
//! tier yields to it for a while.
//!
//! The controlling side nominates (RFC 8445, section 8.1): it marks its checks on the path it uses with USE-CANDIDATE,
//! and the other side follows as soon as it finds that path valid itself. So both use the same path, and one of them
//! keeps it alive. While the selected path is suspect, each packet is also sent on the next best one; the tunnel
//! drops what arrives twice.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use partyline_model::PathKind;
use tracing::{debug, field::debug as debug_value, info, trace};

use crate::{
    api::Event,
    context::hop,
    pair::{CandidatePair, MIN_SAMPLES, PairState, PairUse},
    pairs::CandidatePairs,
    path::{Path, PeerId, Route},
    relays::RelayPool,
};

/// How much cheaper another path of the same tier must be, besides a tenth of the cost.
const MIN_GAIN: Duration = Duration::from_millis(5);
/// Alternatives that are measured while a path carries traffic.
const MAX_MONITORED: usize = 2;
/// Samples, of either path, through which a gain within a tier must hold.
const GAIN_HELD_SAMPLES: u32 = 3;
/// How long a path by which the peer's packets arrive is used while none is valid.
const RECEIVED_TIMEOUT: Duration = Duration::from_secs(5);
/// Earlier paths remembered.
const MAX_HISTORY: usize = 32;
/// Relayed paths that are validated although they would not be used: one in case a direct path fails, and one in case
/// that one's relay does.
const MIN_VALID_RELAYED: usize = 2;

/// How long nothing else works before the addresses of other VPNs are checked.
const LAST_RESORT_DELAY: Duration = Duration::from_secs(2);

/// The choice of one peer's path.
#[derive(Debug, Default)]
pub(crate) struct PathSelection {
    /// Since when no path is valid but perhaps those of other VPNs. `None` while there are no such pairs.
    without_path_since: Option<Instant>,
    /// Whether pairs of other VPNs are checked.
    last_resort_open: bool,
    selected: Option<Path>,
    /// Whether a check was answered on the selected path.
    validated: bool,
    /// The last known cost of the selected path; a failed pair has none any more.
    cost: Option<Duration>,
    /// The path the controlling side uses.
    nominated: Option<Path>,
    history: VecDeque<(Instant, Option<PathKind>)>,
    /// The path that is better than the selected one, and the number of samples when that began.
    challenger: Option<(Path, u32)>,
}

/// The peer that a path is selected for, and which side controls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selector {
    pub(crate) peer: PeerId,
    pub(crate) controlling: bool,
}

impl PathSelection {
    /// Returns the selected path.
    pub(crate) const fn path(&self) -> Option<Path> {
        self.selected
    }

    /// Returns the selected pair.
    pub(crate) fn pair<'a>(&self, pairs: &'a CandidatePairs) -> Option<&'a CandidatePair> {
        self.selected.and_then(|path| pairs.get(path))
    }

    /// Returns true if the selected path is direct and valid.
    pub(crate) fn is_direct(&self, pairs: &CandidatePairs) -> bool {
        self.pair(pairs).is_some_and(|pair| pair.is_direct() && pair.is_valid())
    }

    /// Returns how long the selected path has been in use.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.history.back().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since))
    }

    /// Returns when each path was selected and its kind, oldest first.
    pub(crate) fn history(&self) -> impl Iterator<Item = (Instant, Option<PathKind>)> {
        self.history.iter().copied()
    }

    /// Notes that the controlling side uses a path.
    pub(crate) fn nominate(&mut self, path: Path) {
        if self.nominated.replace(path) != Some(path) {
            debug!(%path, "path nominated");
        }
    }

    /// Repeats the selection, and reports a change of path, or that the selected path has now been validated.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        selector: Selector,
        pairs: &mut CandidatePairs,
        events: &mut VecDeque<Event>,
    ) {
        let old = self.selected;
        let old_cost = self.pair(pairs).and_then(|pair| pair.quality().cost()).or(self.cost);
        let old_kind = self.history.back().and_then(|(_, kind)| *kind);
        self.gate_overlays(now, pairs);
        pairs.iter_mut().for_each(|pair| pair.end_yield(now, old == Some(pair.path)));
        self.react_to_trouble(now, pairs);
        self.yield_if_far_worse(now, pairs);
        self.watch_challenger(now, pairs);
        let best = self.best(now, pairs, old.is_some());
        let reason = best.map_or("no path works", |(_, reason)| reason);
        let pair = best.map(|(pair, _)| pair);
        self.selected = pair.map(|pair| pair.path);
        let kind = pair.map(CandidatePair::path_kind);
        let validated = pair.is_some_and(CandidatePair::is_valid);
        let newly_validated = !std::mem::replace(&mut self.validated, validated) && validated;
        let changed = self.selected != old || kind != old_kind;
        let cost = pair.and_then(|pair| pair.quality().cost());
        self.cost = cost.or(old_cost.filter(|_| !changed));
        if changed {
            report_change((old, old_kind, old_cost), (self.selected, kind, cost), reason);
            self.remember(now, kind);
        }
        if !changed && !newly_validated {
            return;
        }
        events.push_back(Event::PathChanged { peer: selector.peer, kind, path: self.selected });
        if let (true, Some(path)) = (selector.controlling, self.selected)
            && let Some(pair) = pairs.get_mut(path)
        {
            debug!(%path, reason = "this side controls", "nominating path");
            pair.trigger_check("nomination");
        }
    }

    fn remember(&mut self, now: Instant, kind: Option<PathKind>) {
        self.history.push_back((now, kind));
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// Lets pairs of other VPNs be checked only while nothing else works.
    ///
    /// Such a VPN may ride on the party. As long as any other path to the peer is valid, its pairs stay frozen; while
    /// none is, what enters the party for the peer goes nowhere, so that a check through a VPN that rides on this very
    /// path is lost. Whatever carries a check at that moment stands without this path.
    fn gate_overlays(&mut self, now: Instant, pairs: &mut CandidatePairs) {
        let other_works = pairs.iter().any(|pair| !pair.is_overlay() && pair.is_valid());
        if other_works || !pairs.iter().any(CandidatePair::is_overlay) {
            self.without_path_since = None;
        } else {
            self.without_path_since.get_or_insert(now);
        }
        self.last_resort_open = self.without_path_since.is_some_and(|since| now >= since + LAST_RESORT_DELAY);
        let needed = self.last_resort_open;
        let overlays = pairs.iter_mut().filter(|pair| pair.is_overlay());
        overlays.for_each(|pair| pair.set_last_resort(needed));
    }

    /// Returns when pairs of other VPNs are to be checked, if that is still to come.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.without_path_since.filter(|_| !self.last_resort_open).map(|since| since + LAST_RESORT_DELAY)
    }

    /// Puts the path in use behind others if a sound one loses or delays far less, whatever its tier.
    fn yield_if_far_worse(&self, now: Instant, pairs: &mut CandidatePairs) {
        let Some(current) = self.pair(pairs).filter(|pair| pair.is_sound(now) && !pair.has_yielded()) else {
            return;
        };
        let better = |other: &&CandidatePair| {
            let rival = other.path != current.path && other.tier() > current.tier() && !other.has_yielded();
            rival && !other.is_overlay() && other.is_sound(now) && current.is_far_worse_than(other, now)
        };
        let (path, better) = (current.path, pairs.iter().filter(better).min_by_key(|pair| rank(pair)));
        if let Some(better) = better.map(|pair| pair.path)
            && let Some(pair) = pairs.get_mut(path)
        {
            pair.yield_to(better, now);
        }
    }

    /// Reacts to trouble on the selected path: checks whether the others still work while it is suspect, and checks
    /// all direct paths again once it has failed.
    fn react_to_trouble(&mut self, now: Instant, pairs: &mut CandidatePairs) {
        let Some(selected) = self.selected else { return };
        let (lost, silent_since) = match pairs.get(selected) {
            Some(pair) if !pair.is_failed() => {
                (false, pair.unanswered_since().filter(|_| pair.is_suspect(now)))
            }
            _ => (true, None),
        };
        for pair in pairs.iter_mut() {
            if lost && pair.is_direct() && pair.is_failed() {
                pair.restart("path in use failed");
            }
            let alternative = pair.path != selected && pair.is_valid();
            if alternative && silent_since.is_some_and(|since| pair.is_unchecked_since(since)) {
                pair.trigger_check("path in use suspect");
            }
        }
        if lost {
            self.selected = None;
        }
    }

    /// Returns the pair to use and why. `had_path` is true if one was selected before.
    fn best<'a>(
        &self,
        now: Instant,
        pairs: &'a CandidatePairs,
        had_path: bool,
    ) -> Option<(&'a CandidatePair, &'static str)> {
        let current = self.pair(pairs).filter(|pair| pair.is_valid());
        let nominated = self.nominated.and_then(|path| pairs.get(path)).filter(|pair| pair.is_sound(now));
        match (current, nominated, best_sound(pairs, now)) {
            (_, Some(nominated), _) => Some((nominated, "nominated by the controlling side")),
            (Some(current), None, Some(best)) if self.takes_over(best, current) => {
                let better_tier = best.standing() < current.standing();
                let reason = if better_tier { "better tier" } else { "lower cost" };
                Some((best, if current.has_yielded() { "path in use far worse" } else { reason }))
            }
            (Some(current), None, Some(best)) if current.outdated && current.is_suspect(now) => {
                Some((best, "peer has left the address in use"))
            }
            (Some(current), ..) => Some((current, "still valid")),
            (None, None, Some(best)) if had_path => Some((best, "path in use failed")),
            (None, None, Some(best)) => Some((best, "first valid path")),
            (None, None, None) => last_resort(now, pairs, None).map(|pair| (pair, "peer was received on it")),
        }
    }

    /// Notes which path has begun to be better than the selected one, and which no longer is.
    fn watch_challenger(&mut self, now: Instant, pairs: &CandidatePairs) {
        let ahead = self.pair(pairs).zip(best_sound(pairs, now));
        let ahead = ahead.filter(|(current, best)| is_better(best, current));
        let before = self.challenger.map(|(path, _)| path);
        self.challenger = ahead.map(|(current, best)| {
            let samples = current.quality().samples() + best.quality().samples();
            let since = self.challenger.filter(|(path, _)| *path == best.path);
            (best.path, since.map_or(samples, |(_, since)| since))
        });
        match (before, self.challenger) {
            (Some(before), None) => debug!(path = %before, "path no longer better than the one in use"),
            (before, Some((path, samples))) if before != Some(path) => {
                debug!(%path, samples, "path better than the one in use; watching whether that holds");
            }
            _ => {}
        }
    }

    /// Returns true if a path takes over: from a worse tier at once, within a tier when its gain has held.
    fn takes_over(&self, best: &CandidatePair, current: &CandidatePair) -> bool {
        let samples = current.quality().samples() + best.quality().samples();
        let held = self
            .challenger
            .is_some_and(|(path, since)| path == best.path && samples >= since + GAIN_HELD_SAMPLES);
        is_better(best, current) && (best.standing() < current.standing() || held)
    }

    /// Returns what a pair is used for.
    pub(crate) fn use_of(
        &self,
        pair: &CandidatePair,
        pairs: &CandidatePairs,
        controlling: bool,
        now: Instant,
    ) -> PairUse {
        let Some(selected) = self.pair(pairs) else { return PairUse::Required };
        let relayed = |other: &&CandidatePair| !other.is_direct() && !other.is_overlay();
        let valid_relayed = || pairs.iter().filter(relayed).filter(|other| other.is_valid()).count();
        let relay_needed = !pair.is_direct() && !pair.is_valid() && valid_relayed() < MIN_VALID_RELAYED;
        if selected.path == pair.path {
            PairUse::Selected { controlling }
        } else if pair.has_yielded() {
            if selected.has_traffic(now) { PairUse::Monitored } else { PairUse::Idle }
        } else if (pair.is_direct() && !selected.is_direct()) || relay_needed {
            PairUse::Wanted
        } else if selected.has_traffic(now) && is_monitored(pair, selected, pairs) {
            PairUse::Monitored
        } else if selected.has_traffic(now) && selected.is_poor() && is_rival(pair, selected, pairs) {
            PairUse::Compared
        } else {
            PairUse::Idle
        }
    }

    /// Returns where the next packets go, and notes that they are sent.
    pub(crate) fn route(
        &self,
        now: Instant,
        pairs: &mut CandidatePairs,
        relays: &RelayPool,
    ) -> Option<Route> {
        let path = self.selected?;
        let pair = pairs.get_mut(path)?;
        let silent_since = (!pair.is_sound(now)).then(|| pair.unanswered_since().unwrap_or(now));
        pair.on_sent(now);
        let primary = hop(relays, path)?;
        let other = silent_since.and_then(|since| next_best(now, pairs, path, since));
        if let Some(pair) = other.and_then(|path| pairs.get_mut(path)) {
            trace!(%path, secondary = %pair.path, reason = "path in use suspect", "packet sent twice");
            pair.on_sent(now);
        }
        Some(Route { primary, secondary: other.and_then(|path| hop(relays, path)) })
    }
}

/// A path with its kind and cost, as far as there are any.
type Rated = (Option<Path>, Option<PathKind>, Option<Duration>);

fn report_change(from: Rated, to: Rated, reason: &'static str) {
    let ms = |cost: Option<Duration>| cost.map(|cost| cost.as_secs_f64() * 1000.0);
    let (from_cost_ms, to_cost_ms) = (ms(from.2), ms(to.2));
    let kind = |kind: Option<PathKind>| kind.map(debug_value);
    info!(from = kind(from.1), to = kind(to.1), reason, from_cost_ms, to_cost_ms, "path changed");
    let text = |path: Option<Path>| path.map(|path| path.to_string());
    debug!(from_path = text(from.0), path = text(to.0), reason, "path selected");
}

/// Returns the best pair that is valid and not suspect.
fn best_sound(pairs: &CandidatePairs, now: Instant) -> Option<&CandidatePair> {
    pairs.iter().filter(|pair| pair.is_sound(now)).min_by_key(|pair| rank(pair))
}

/// Returns on which path to send as well while `except` has been silent since a moment. The peer is in the same
/// trouble, so the path by which it has been received since then is the one that works.
fn next_best(now: Instant, pairs: &CandidatePairs, except: Path, since: Instant) -> Option<Path> {
    // What rides on the party would multiply each packet.
    let others = pairs.iter().filter(|pair| pair.path != except && pair.is_sound(now) && !pair.is_overlay());
    let not_received = |pair: &CandidatePair| pair.last_received().is_none_or(|at| at < since);
    let best = others
        .min_by_key(|pair| (not_received(pair), rank(pair)))
        .or_else(|| last_resort(now, pairs, Some(except)));
    best.map(|pair| pair.path)
}

/// Returns a path by which the peer was received lately, or one that was valid before it became suspect.
fn last_resort(now: Instant, pairs: &CandidatePairs, except: Option<Path>) -> Option<&CandidatePair> {
    let received = |pair: &&CandidatePair| {
        pair.last_received().is_some_and(|at| now < at + RECEIVED_TIMEOUT)
            && pair.state() != PairState::Frozen
    };
    let others = || pairs.iter().filter(|pair| Some(pair.path) != except && !pair.is_overlay());
    let valid = others().filter(|pair| pair.is_valid());
    others().filter(received).min_by_key(|pair| rank(pair)).or_else(|| valid.min_by_key(|pair| rank(pair)))
}

/// Returns true if a pair is among the best valid alternatives of the selected pair's tier.
fn is_monitored(pair: &CandidatePair, selected: &CandidatePair, pairs: &CandidatePairs) -> bool {
    let alternative = |other: &&CandidatePair| {
        other.path != selected.path && other.tier() == selected.tier() && other.is_valid()
    };
    let better = |other: &&CandidatePair| rank(other) < rank(pair);
    alternative(&pair) && pairs.iter().filter(alternative).filter(better).count() < MAX_MONITORED
}

/// Returns true if a pair is the best valid one of the tiers worse than the selected pair's.
fn is_rival(pair: &CandidatePair, selected: &CandidatePair, pairs: &CandidatePairs) -> bool {
    let rival = |other: &&CandidatePair| {
        other.tier() > selected.tier() && other.is_valid() && !other.is_overlay() && !other.has_yielded()
    };
    pairs.iter().filter(rival).min_by_key(|other| rank(other)).is_some_and(|best| best.path == pair.path)
}

fn rank(pair: &CandidatePair) -> ((bool, u8), Duration, Path) {
    (pair.standing(), pair.quality().cost().unwrap_or(Duration::MAX), pair.path)
}

/// Returns true if `other` is of a better tier, or measured to be cheaper by a clear margin.
fn is_better(other: &CandidatePair, current: &CandidatePair) -> bool {
    if other.standing() != current.standing() {
        return other.standing() < current.standing();
    }
    let measured =
        |pair: &CandidatePair| pair.quality().cost().filter(|_| pair.quality().samples() >= MIN_SAMPLES);
    match (measured(other), measured(current)) {
        (Some(new), Some(old)) => new + MIN_GAIN <= old && new.mul_f64(1.0 / 0.9) <= old,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{CandidateKind, SocketId};
    use partyline_wire::probe::TransactionId;

    use super::*;
    use crate::{
        api::PeerParams,
        context::Shared,
        path::Via,
        remote::Remote,
        testing::{params, shared, start},
    };

    const CONTROLLED: Selector = Selector { peer: PeerId(1), controlling: false };

    fn path(port: u16) -> Path {
        Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], port).into() }
    }

    fn measure(pair: &mut CandidatePair, now: Instant, rtt_ms: u64, samples: u64) {
        for counter in 0..samples {
            let id = TransactionId::new(counter, 0);
            pair.on_check_sent(now, id);
            assert!(pair.on_response(now + Duration::from_millis(rtt_ms), id).is_some());
        }
    }

    fn measured(kind: CandidateKind, rtt_ms: u64, samples: u64) -> CandidatePair {
        let mut pair = CandidatePair::new(path(1), kind, None, 1.0, Duration::from_secs(5));
        measure(&mut pair, start(), rtt_ms, samples);
        pair
    }

    /// A peer's pairs and selection, driven by hand.
    struct Choice {
        pairs: CandidatePairs,
        selection: PathSelection,
        shared: Shared,
        now: Instant,
    }

    impl Choice {
        fn new(kinds: &[(u16, CandidateKind)]) -> Self {
            let params = PeerParams { controlling: false, ..params() };
            let (mut shared, now) = (shared(), start());
            let mut pairs = CandidatePairs::default();
            let wanted = kinds.iter().map(|(port, kind)| (path(*port), *kind)).collect();
            pairs.reconcile(&mut shared.context(now), &Remote::new(PeerId(1), params), wanted, None);
            Self { pairs, selection: PathSelection::default(), shared, now }
        }

        fn validate(&mut self, port: u16, rtt_ms: u64) {
            measure(self.pairs.get_mut(path(port)).unwrap(), self.now, rtt_ms, u64::from(MIN_SAMPLES));
        }

        fn select(&mut self) -> Option<u16> {
            self.selection.update(self.now, CONTROLLED, &mut self.pairs, &mut self.shared.events);
            self.selection.path().map(|path| path.remote.port())
        }

        /// Lets packets go unanswered on a path for a span.
        fn silence(&mut self, port: u16, span: Duration) {
            self.pairs.get_mut(path(port)).unwrap().on_sent(self.now);
            self.now += span;
            self.pairs.get_mut(path(port)).unwrap().expire(self.now);
        }
    }

    use CandidateKind::{Lan, Overlay, Relayed, ServerReflexive};

    impl Choice {
        fn state(&self, port: u16) -> PairState {
            self.pairs.get(path(port)).unwrap().state()
        }

        /// Measures a pair that loses some of its checks.
        fn lose(&mut self, port: u16, checks: u32) {
            for check in 0..checks {
                let pair = self.pairs.get_mut(path(port)).unwrap();
                pair.on_check_sent(self.now, TransactionId::new(u64::from(check), 7));
                self.now += Duration::from_millis(2100);
                pair.expire(self.now);
                pair.on_received(self.now);
            }
        }

        fn sample(&mut self, port: u16, rtt_ms: u64, samples: u64) {
            measure(self.pairs.get_mut(path(port)).unwrap(), self.now, rtt_ms, samples);
        }
    }

    #[test]
    fn other_vpns_are_checked_only_while_nothing_else_works() {
        let mut choice = Choice::new(&[(1, Relayed), (2, Overlay)]);
        choice.validate(1, 40);
        assert_eq!((choice.select(), choice.state(2)), (Some(1), PairState::Frozen));
        choice.silence(1, Duration::from_secs(4));
        assert_eq!((choice.select(), choice.state(2)), (None, PairState::Frozen), "not at once");
        assert_eq!(choice.selection.next_change(), Some(choice.now + LAST_RESORT_DELAY));
        choice.now += LAST_RESORT_DELAY;
        assert_eq!((choice.select(), choice.state(2)), (None, PairState::InProgress(0)));
        choice.validate(2, 10);
        assert_eq!(choice.select(), Some(2));
        choice.validate(1, 400);
        assert_eq!((choice.select(), choice.state(2)), (Some(1), PairState::Frozen));
        choice.silence(1, Duration::from_millis(2000));
        choice.select();
        let Choice { selection, pairs, shared, now } = &mut choice;
        assert_eq!(selection.route(*now, pairs, &shared.relays).unwrap().secondary, None);
    }

    #[test]
    fn a_response_that_comes_too_late_does_not_thaw_another_vpn() {
        let mut choice = Choice::new(&[(1, Relayed), (2, Overlay)]);
        choice.select();
        choice.now += LAST_RESORT_DELAY;
        choice.select();
        let id = TransactionId::new(1, 1);
        choice.pairs.get_mut(path(2)).unwrap().on_check_sent(choice.now, id);
        choice.validate(1, 40);
        assert_eq!(choice.select(), Some(1));
        assert_eq!(choice.pairs.get_mut(path(2)).unwrap().on_response(choice.now, id), None);
        assert_eq!((choice.select(), choice.state(2)), (Some(1), PairState::Frozen));
    }

    #[test]
    fn a_path_that_loses_far_more_yields_to_a_worse_tier_for_a_while() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, Relayed)]);
        choice.validate(1, 20);
        choice.validate(2, 40);
        assert_eq!(choice.select(), Some(1));
        choice.lose(1, 12);
        choice.sample(2, 40, 1);
        assert_eq!(choice.select(), Some(1), "an outage");
        choice.sample(1, 20, 1);
        choice.lose(1, 2);
        choice.sample(2, 40, 1);
        assert_eq!(choice.select(), Some(1), "22 per cent");
        choice.lose(1, 1);
        choice.sample(2, 40, 1);
        assert_eq!(choice.select(), Some(2), "26 per cent");
        choice.sample(1, 20, 40);
        assert_eq!(choice.select(), Some(2), "back only after a while");
        choice.now += crate::pair::FIRST_YIELD * 2;
        assert_eq!((choice.select(), choice.state(1)), (Some(2), PairState::InProgress(0)));
        choice.sample(1, 20, 1);
        assert_eq!(choice.select(), Some(1));
    }

    #[test]
    fn a_path_that_has_yielded_is_used_when_nothing_else_works() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, Relayed)]);
        choice.validate(1, 20);
        choice.validate(2, 40);
        choice.select();
        for _ in 0..3 {
            choice.lose(1, 3);
            choice.sample(1, 20, 1);
        }
        choice.sample(2, 40, 1);
        assert_eq!(choice.select(), Some(2));
        choice.silence(2, Duration::from_secs(4));
        assert_eq!(choice.select(), Some(1));
    }

    #[test]
    fn a_path_that_delays_far_more_yields_but_one_slow_packet_does_not_count() {
        let mut choice = Choice::new(&[(1, Lan), (2, Relayed)]);
        choice.validate(1, 20);
        choice.validate(2, 40);
        choice.sample(1, 4000, 1);
        assert_eq!(choice.select(), Some(1));
        choice.sample(1, 230, 3);
        assert_eq!(choice.select(), Some(1), "not 200 ms more");
        choice.sample(1, 400, 3);
        assert_eq!(choice.select(), Some(2));
    }

    #[test]
    fn only_a_clear_and_measured_gain_moves_within_a_tier() {
        let current = measured(ServerReflexive, 50, 3);
        let other = |rtt, samples| measured(ServerReflexive, rtt, samples);
        assert!(is_better(&other(44, 3), &current));
        assert!(!is_better(&other(44, 2), &current), "too few samples");
        assert!(!is_better(&other(46, 3), &current), "less than 5 ms");
        let far = measured(ServerReflexive, 200, 3);
        assert!(!is_better(&other(190, 3), &far), "less than a tenth");
        assert!(is_better(&other(180, 3), &far));
    }

    #[test]
    fn loss_counts_beside_the_round_trip() {
        let steady = measured(ServerReflexive, 50, 3);
        let mut lossy = measured(ServerReflexive, 40, 3);
        assert!(is_better(&lossy, &steady));
        let now = start();
        lossy.on_check_sent(now, TransactionId::new(9, 0));
        lossy.expire(now + Duration::from_secs(2));
        assert!(is_better(&steady, &lossy), "5 per cent of loss cost more than 10 ms");
    }

    #[test]
    fn a_better_tier_wins_whatever_its_speed() {
        let relayed = measured(Relayed, 10, 3);
        let direct = measured(ServerReflexive, 100, 1);
        let lan = measured(Lan, 150, 1);
        assert!(is_better(&direct, &relayed) && is_better(&lan, &direct));
        assert!(!is_better(&relayed, &direct) && !is_better(&direct, &lan));
    }

    #[test]
    fn relay_first_then_direct_and_every_change_is_reported() {
        let mut choice = Choice::new(&[(1, Relayed), (2, ServerReflexive)]);
        assert_eq!(choice.select(), None);
        choice.validate(1, 40);
        assert_eq!(choice.select(), Some(1));
        choice.validate(2, 90);
        assert_eq!(choice.select(), Some(2));
        let kinds: Vec<_> = choice.selection.history().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, [Some(PathKind::Relay), Some(PathKind::Direct)]);
        assert_eq!(choice.shared.events.len(), 2);
    }

    #[test]
    fn a_gain_within_a_tier_must_hold_for_three_samples() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, ServerReflexive)]);
        choice.validate(1, 80);
        assert_eq!(choice.select(), Some(1));
        choice.validate(2, 20);
        assert_eq!(choice.select(), Some(1));
        measure(choice.pairs.get_mut(path(2)).unwrap(), choice.now, 20, 2);
        assert_eq!(choice.select(), Some(1));
        measure(choice.pairs.get_mut(path(2)).unwrap(), choice.now, 20, 1);
        assert_eq!(choice.select(), Some(2));
    }

    #[test]
    fn the_nominated_path_is_used_once_it_is_valid_here() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, ServerReflexive)]);
        choice.validate(1, 20);
        choice.selection.nominate(path(2));
        assert_eq!(choice.select(), Some(1));
        choice.validate(2, 90);
        assert_eq!(choice.select(), Some(2));
    }

    #[test]
    fn packets_also_take_the_next_best_path_while_the_selected_one_is_suspect() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, Relayed)]);
        choice.validate(1, 20);
        choice.validate(2, 40);
        choice.select();
        let secondary = |choice: &mut Choice| {
            let Choice { selection, pairs, shared, now } = choice;
            let route = selection.route(*now, pairs, &shared.relays).unwrap();
            (route.primary.destination.port(), route.secondary.map(|hop| hop.destination.port()))
        };
        assert_eq!(secondary(&mut choice), (1, None));
        choice.silence(1, Duration::from_millis(600));
        assert_eq!(secondary(&mut choice), (1, Some(2)));
    }

    #[test]
    fn a_failed_path_is_left_and_direct_paths_are_checked_again() {
        let mut choice = Choice::new(&[(1, ServerReflexive), (2, Relayed)]);
        choice.validate(1, 20);
        choice.validate(2, 40);
        choice.select();
        choice.silence(1, Duration::from_secs(3));
        assert_eq!(choice.select(), Some(2));
        assert_eq!(choice.pairs.get(path(1)).unwrap().state(), PairState::InProgress(0));
    }

    #[test]
    fn a_path_by_which_the_peer_arrives_is_used_while_none_is_valid() {
        let mut choice = Choice::new(&[(1, ServerReflexive)]);
        choice.pairs.get_mut(path(1)).unwrap().on_request(choice.now);
        assert_eq!(choice.select(), Some(1));
        choice.now += RECEIVED_TIMEOUT;
        assert_eq!(choice.select(), None);
    }

    #[test]
    fn two_alternatives_of_a_tier_are_monitored_while_there_is_traffic() {
        let mut choice = Choice::new(&[1, 2, 3, 4].map(|port| (port, ServerReflexive)));
        (1..=4).for_each(|port| choice.validate(port, u64::from(port) * 20));
        assert_eq!(choice.select(), Some(1));
        let uses = |choice: &Choice| {
            let of = |pair| choice.selection.use_of(pair, &choice.pairs, false, choice.now);
            choice.pairs.iter().map(of).collect::<Vec<_>>()
        };
        let selected = PairUse::Selected { controlling: false };
        choice.pairs.get_mut(path(1)).unwrap().on_sent(choice.now);
        use PairUse::{Idle, Monitored};
        assert_eq!(uses(&choice), [selected, Monitored, Monitored, Idle]);
        choice.now += Duration::from_secs(2);
        assert_eq!(uses(&choice), [selected, Idle, Idle, Idle]);
    }
}

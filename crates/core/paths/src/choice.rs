//! Which path carries a peer's packets.
//!
//! Paths compete by tier first, and within a tier by what they cost a player: round trip, jitter, loss. The path in use
//! stays unless it fails, a better tier becomes valid, or one of its own tier is better by a clear margin and stays so
//! for some samples; so nothing flaps. While there is traffic, the two best others are measured now and then. One side leads:
//! it marks its checks on the path it uses, and the other follows as soon as it finds that path valid itself, so that
//! both use, and one keeps alive, the same one. While the path in use is suspect, packets go out on the next best one
//! as well; the tunnel drops what arrives twice.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use partyline_model::PathKind;

use crate::{
    api::{Event, Path, Route},
    pair::{Pair, SAMPLES, State},
    peer::{Peer, hop},
    relays::Relays,
};

/// How much faster another path of the same tier must be: this much, and a tenth.
const CLEAR_GAIN: Duration = Duration::from_millis(5);
/// Others that are measured while one carries traffic.
const WATCHED: usize = 2;
/// Samples, of either path, through which a gain within a tier must hold.
const HELD: u32 = 3;
/// How long a path that was only heard on counts, while no path is valid.
const HEARD: Duration = Duration::from_secs(5);
/// Earlier paths remembered.
const MAX_HISTORY: usize = 32;

impl Peer {
    /// Chooses anew, and says so if the choice is another one, or is known to lead to the peer where it was only heard on.
    pub(crate) fn choose(&mut self, now: Instant, events: &mut VecDeque<Event>) {
        let old = self.selected;
        self.react(now);
        self.watch_lead(now);
        self.selected = self.best(now);
        let pair = self.selected.and_then(|path| self.pair(path));
        let (kind, proven) = (pair.map(Pair::carries), pair.is_some_and(|pair| pair.state == State::Valid));
        let told = self.history.back().and_then(|(_, kind)| *kind);
        let newly_proven = !std::mem::replace(&mut self.proven, proven) && proven;
        if (self.selected, kind) == (old, told) && !newly_proven {
            return;
        }
        if self.selected != old || kind != told {
            self.note_choice(now, kind);
        }
        events.push_back(Event::PathChanged { peer: self.id, kind, path: self.selected });
        if let (true, Some(path)) = (self.controlling, self.selected)
            && let Some(pair) = self.pair_mut(path)
        {
            pair.trigger();
        }
    }

    fn note_choice(&mut self, now: Instant, kind: Option<PathKind>) {
        self.history.push_back((now, kind));
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// What must happen at once when the path in use is in trouble: look whether the others still work, and once it
    /// has failed, check all direct paths again.
    fn react(&mut self, now: Instant) {
        let Some(selected) = self.selected else { return };
        let (lost, doubt) = match self.pair(selected) {
            Some(pair) if pair.state == State::Failed => (true, None),
            Some(pair) => (false, pair.unanswered.filter(|_| pair.suspect(now))),
            None => (true, None),
        };
        for pair in &mut self.pairs {
            if lost && pair.is_direct() && pair.state == State::Failed {
                pair.restart();
            }
            let rival = pair.path != selected && pair.state == State::Valid;
            if rival && doubt.is_some_and(|since| pair.unchecked_since(since)) {
                pair.trigger();
            }
        }
        if lost {
            self.selected = None;
        }
    }

    fn best(&self, now: Instant) -> Option<Path> {
        let current =
            self.selected.and_then(|path| self.pair(path)).filter(|pair| pair.state == State::Valid);
        let nominated = self.nominated.and_then(|path| self.pair(path)).filter(|pair| pair.sound(now));
        let rival = self.pairs.iter().filter(|pair| pair.sound(now)).min_by_key(|pair| rank(pair));
        let chosen = match (current, nominated, rival) {
            (_, Some(nominated), _) => Some(nominated),
            (Some(current), None, Some(rival)) if self.leads(rival, current) || left(current, now) => {
                Some(rival)
            }
            (Some(current), ..) => Some(current),
            (None, None, Some(rival)) => Some(rival),
            (None, None, None) => self.last_resort(now, None),
        };
        chosen.map(|pair| pair.path)
    }

    /// Notes which path has begun to be better than the one in use, and which no longer is.
    fn watch_lead(&mut self, now: Instant) {
        let current = self.selected.and_then(|path| self.pair(path));
        let rival = self.pairs.iter().filter(|pair| pair.sound(now)).min_by_key(|pair| rank(pair));
        let ahead = current.zip(rival).filter(|(current, rival)| better(rival, current));
        self.lead = ahead.map(|(current, rival)| {
            let seen = current.estimate.samples() + rival.estimate.samples();
            let since = self.lead.filter(|(path, _)| *path == rival.path).map_or(seen, |(_, since)| since);
            (rival.path, since)
        });
    }

    /// Whether another path takes over: at once from a worse tier, within one when its gain has held.
    fn leads(&self, rival: &Pair, current: &Pair) -> bool {
        let seen = current.estimate.samples() + rival.estimate.samples();
        let held = self.lead.is_some_and(|(path, since)| path == rival.path && seen >= since + HELD);
        better(rival, current) && (rival.tier() < current.tier() || held)
    }

    /// Paths that are measured while another carries traffic: the best others of its own tier.
    pub(crate) fn is_watched(&self, pair: &Pair) -> bool {
        let Some(current) = self.selected.and_then(|path| self.pair(path)) else { return false };
        let rival = |other: &&Pair| {
            other.path != current.path && other.tier() == current.tier() && other.state == State::Valid
        };
        rival(&pair)
            && self.pairs.iter().filter(rival).filter(|other| rank(other) < rank(pair)).count() < WATCHED
    }

    /// Where packets go now.
    pub(crate) fn route(&mut self, now: Instant, relays: &Relays) -> Option<Route> {
        let path = self.selected?;
        self.traffic.sent(now);
        let pair = self.pair_mut(path)?;
        let doubt = (!pair.sound(now)).then(|| pair.unanswered.unwrap_or(now));
        pair.sent(now);
        let primary = hop(relays, path)?;
        let other = doubt.and_then(|since| self.next_best(now, path, since));
        if let Some(pair) = other.and_then(|path| self.pair_mut(path)) {
            pair.sent(now);
        }
        Some(Route { primary, secondary: other.and_then(|path| hop(relays, path)) })
    }

    /// What else to send on while a path has been in doubt: the peer is in the same trouble, so the path by which it is
    /// heard since then is the one that works.
    fn next_best(&self, now: Instant, except: Path, since: Instant) -> Option<Path> {
        let others = self.pairs.iter().filter(|pair| pair.path != except && pair.sound(now));
        let unheard = |pair: &Pair| pair.heard.is_none_or(|at| at < since);
        let best = others
            .min_by_key(|pair| (unheard(pair), rank(pair)))
            .or_else(|| self.last_resort(now, Some(except)));
        best.map(|pair| pair.path)
    }

    /// A path the peer was heard on lately, or one that was valid before it became suspect.
    fn last_resort(&self, now: Instant, except: Option<Path>) -> Option<&Pair> {
        let heard =
            |pair: &&Pair| pair.heard.is_some_and(|at| now < at + HEARD) && pair.state != State::Waiting;
        let others = || self.pairs.iter().filter(|pair| Some(pair.path) != except);
        let valid = others().filter(|pair| pair.state == State::Valid);
        others().filter(heard).min_by_key(|pair| rank(pair)).or_else(|| valid.min_by_key(|pair| rank(pair)))
    }
}

/// The peer has left for other addresses, and is not heard from at this one.
fn left(pair: &Pair, now: Instant) -> bool {
    pair.outdated && pair.suspect(now)
}

fn rank(pair: &Pair) -> (u8, Duration, Path) {
    (pair.tier(), pair.estimate.cost().unwrap_or(Duration::MAX), pair.path)
}

fn better(rival: &Pair, current: &Pair) -> bool {
    if rival.tier() != current.tier() {
        return rival.tier() < current.tier();
    }
    let measured = |pair: &Pair| pair.estimate.cost().filter(|_| pair.estimate.samples() >= SAMPLES);
    match (measured(rival), measured(current)) {
        (Some(new), Some(old)) => new + CLEAR_GAIN <= old && new.mul_f64(1.0 / 0.9) <= old,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::CandidateKind;
    use partyline_wire::probe::TransactionId;

    use super::*;
    use crate::api::{SocketId, Via};

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn measured(kind: CandidateKind, rtt_ms: u64, samples: u64) -> Pair {
        let path = Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], 1).into() };
        let mut pair = Pair::new(path, kind, None, 1.0, Duration::from_secs(5));
        let now = Instant::now();
        for counter in 0..samples {
            let id = TransactionId::new(counter, 0);
            pair.checked(now, id);
            assert!(pair.answered(now + Duration::from_millis(rtt_ms), id).is_some());
        }
        pair
    }

    #[test]
    fn only_a_clear_and_measured_gain_moves_within_a_tier() {
        let current = measured(CandidateKind::ServerReflexive, 50, 3);
        let rival = |rtt, samples| measured(CandidateKind::ServerReflexive, rtt, samples);
        assert!(better(&rival(44, 3), &current));
        assert!(!better(&rival(44, 2), &current), "too few samples");
        assert!(!better(&rival(46, 3), &current), "less than 5 ms");
        let far = measured(CandidateKind::ServerReflexive, 200, 3);
        assert!(!better(&rival(190, 3), &far), "less than a tenth");
        assert!(better(&rival(180, 3), &far));
    }

    #[test]
    fn jitter_and_loss_count_beside_the_round_trip() {
        let steady = measured(CandidateKind::ServerReflexive, 50, 3);
        let mut lossy = measured(CandidateKind::ServerReflexive, 40, 3);
        assert!(better(&lossy, &steady));
        lossy.estimate.lost();
        assert!(better(&steady, &lossy), "5 per cent of loss cost more than 10 ms");
    }

    #[test]
    fn a_better_tier_wins_whatever_its_speed() {
        let relayed = measured(CandidateKind::Relayed, 10, 3);
        let direct = measured(CandidateKind::ServerReflexive, 100, 1);
        let lan = measured(CandidateKind::Lan, 150, 1);
        assert!(better(&direct, &relayed) && better(&lan, &direct));
        assert!(!better(&relayed, &direct) && !better(&direct, &lan));
    }
}

//! What a path is used for, which decides how often it is checked.

use std::time::{Duration, Instant};

use crate::{
    pair::{BUSY, Pair, State},
    peer::Peer,
};

/// Relayed paths that are looked for although they would not be used: one for the case that a direct path dies, and one
/// for the case that its relay does.
const RELAYS: usize = 2;
/// Longest pause between rounds of checks.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Longest pause while the peer is not reached at all.
const ANXIOUS_PAUSE: Duration = Duration::from_secs(10);

/// What a pair is to its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Carries the packets; the leading side keeps it alive.
    InUse { leading: bool },
    /// Would be better than what carries the packets.
    Rival,
    /// Nothing carries packets.
    Needed,
    /// Might become better while there is traffic.
    Watched,
    /// Would be no better.
    Spare,
}

impl Role {
    /// The longest pause between rounds, if there are to be more rounds.
    pub(crate) fn retries(self) -> Option<Duration> {
        match self {
            Self::Needed => Some(ANXIOUS_PAUSE),
            Self::Rival | Self::InUse { .. } => Some(LONGEST_PAUSE),
            Self::Watched | Self::Spare => None,
        }
    }
}

impl Peer {
    /// What a pair is good for.
    pub(crate) fn role(&self, pair: &Pair, now: Instant) -> Role {
        let Some(selected) = self.selected.and_then(|path| self.pair(path)) else { return Role::Needed };
        let relays = || {
            let works = |other: &&Pair| !other.is_direct() && other.state == State::Valid;
            self.pairs.iter().filter(works).count()
        };
        let relay_wanted = !pair.is_direct() && pair.state != State::Valid && relays() < RELAYS;
        if selected.path == pair.path {
            Role::InUse { leading: self.controlling }
        } else if (pair.is_direct() && !selected.is_direct()) || relay_wanted {
            Role::Rival
        } else if self.is_watched(pair) && selected.last_out.is_some_and(|at| now < at + BUSY) {
            Role::Watched
        } else {
            Role::Spare
        }
    }

    /// Checks the path in use for whoever looks at it.
    pub(crate) fn measure(&mut self, now: Instant) {
        if let Some(pair) = self.selected.and_then(|path| self.pair_mut(path)) {
            pair.measure(now);
        }
    }
}

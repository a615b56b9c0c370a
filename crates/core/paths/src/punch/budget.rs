//! How many packets of sprays may leave this device, whoever they are for.
//!
//! A spray must not take a household's line or the router's attention from a running game. All sprays share one
//! bucket, and while a path that carries traffic shows loss or a longer round trip than before, it stays shut.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{api::PeerId, schedule::Pacer};

/// Packets a second.
const RATE: u32 = 200;
/// Packets that may leave in one burst of sockets being opened.
const BURST: u32 = 256;
/// The least time between two packets, so that no router's queue overflows.
const GAP: Duration = Duration::from_millis(1);
/// How long a strain holds that is not confirmed.
const STRAIN: Duration = Duration::from_secs(3);
/// How soon a spray that is held up looks again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Budget {
    bucket: Pacer,
    last: Option<Instant>,
    /// Peers whose traffic suffers, and until when that holds if nothing more is heard.
    strained: BTreeMap<PeerId, Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        let bucket = Pacer::new(Duration::from_secs(1) / RATE, BURST);
        Self { bucket, last: None, strained: BTreeMap::new() }
    }
}

impl Budget {
    /// Notes whether a peer's traffic suffers.
    pub(crate) fn note(&mut self, now: Instant, peer: PeerId, strained: bool) {
        if strained {
            self.strained.insert(peer, now + STRAIN);
        } else {
            self.strained.remove(&peer);
        }
    }

    /// Whether somebody's traffic suffers, so that nothing may leave.
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        self.strained.values().any(|until| now < *until)
    }

    /// Takes a packet's turn, or says when to ask again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if self.is_paused(now) {
            return Err(now + LOOK_AGAIN);
        }
        if let Some(next) = self.last.map(|last| last + GAP).filter(|next| *next > now) {
            return Err(next);
        }
        self.bucket.take(now)?;
        self.last = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn spend(budget: &mut Budget, from: Instant, span: Duration) -> u32 {
        let (mut now, mut sent) = (from, 0);
        while now < from + span {
            match budget.take(now) {
                Ok(()) => sent += 1,
                Err(later) => now = later,
            }
        }
        sent
    }

    #[test]
    fn a_burst_and_then_two_hundred_a_second() {
        let (mut budget, now) = (Budget::default(), start());
        let first = spend(&mut budget, now, Duration::from_secs(1));
        assert!((430..=470).contains(&first), "{first}");
        let later = spend(&mut budget, now + Duration::from_secs(1), Duration::from_secs(5));
        assert!((990..=1010).contains(&later), "{later}");
    }

    #[test]
    fn nothing_leaves_while_traffic_suffers() {
        let (mut budget, now) = (Budget::default(), start());
        budget.note(now, PeerId(1), true);
        assert_eq!(spend(&mut budget, now, Duration::from_secs(1)), 0);
        budget.note(now, PeerId(1), false);
        assert!(spend(&mut budget, now, Duration::from_secs(1)) > 100);
    }
}

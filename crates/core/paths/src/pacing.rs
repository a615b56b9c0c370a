//! How fast checks and sprays may leave.
//!
//! Connectivity checks are paced over all peers (RFC 8445, section 14). Checks that only measure a working path have
//! a pace of their own, so that where many peers come at once, those already found do not hold up the others. Sprays
//! send hundreds of packets and are bounded by [`SprayBudget`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use partyline_timing::{Rate, TokenBucket};
use tracing::{debug, trace};

use crate::{
    path::PeerId,
    router_table::{NoRoom, RouterTable},
};

/// Checks that may leave at once before the pace applies. RFC 8445's 50 ms between any two suit thousands of
/// streams rather than one party.
const CHECK_BURST: u64 = 16;
/// How many times slower than other checks those are that only measure.
const MEASUREMENT_FACTOR: u32 = 2;
/// Packets of sprays per second, over all peers.
pub(crate) const SPRAY_RATE: u32 = 1000;
/// Packets of sprays that may leave in one burst: as many as a timer that fires late has to make up for, and few enough
/// for every router's queue.
const SPRAY_BURST: u64 = 16;
/// How long a strain on a peer's traffic holds sprays back if it is not confirmed.
const STRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval at which a spray looks whether a check of another one was answered.
const CHECK_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Interval at which a spray that is held back asks again.
const HELD_SPRAY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Hands out turns: a burst at once, then one after each gap.
#[derive(Debug)]
pub(crate) struct Pacer {
    gap: Duration,
    bucket: TokenBucket,
    /// The last turn that was promised.
    promised: Option<Instant>,
}

impl Pacer {
    fn new(gap: Duration, burst: u64) -> Self {
        Self { gap, bucket: TokenBucket::new(Rate::every(gap, burst)), promised: None }
    }

    /// Takes a turn. If none is free, promises each caller a different moment, so that not all of many come back at
    /// once when only one can have the turn.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.bucket.take_or_wait(now, 1).map_err(|next| {
            let promised = self.promised.map_or(next, |last| next.max(last + self.gap));
            self.promised = Some(promised);
            trace!(after_ms = (promised - now).as_millis(), "check delayed by the pace");
            promised
        })
    }
}

/// Bounds the packets of all sprays of this computer.
///
/// A spray must not take a household's uplink, its router's attention or the places in its table from a running game.
/// All sprays share one token bucket and one [`RouterTable`], and none may send while a path that carries traffic shows
/// loss or a longer round trip than before.
#[derive(Debug)]
pub(crate) struct SprayBudget {
    bucket: TokenBucket,
    pub(crate) table: RouterTable,
    /// Peers whose traffic suffers, and until when that holds if it is not confirmed.
    strained: BTreeMap<PeerId, Instant>,
}

impl Default for SprayBudget {
    fn default() -> Self {
        let bucket = TokenBucket::new(Rate::per_second(SPRAY_RATE.into(), SPRAY_BURST));
        Self { bucket, table: RouterTable::default(), strained: BTreeMap::new() }
    }
}

impl SprayBudget {
    /// Notes whether a peer's traffic suffers.
    pub(crate) fn set_strained(&mut self, now: Instant, peer: PeerId, strained: bool) {
        let known = if strained {
            self.strained.insert(peer, now + STRAIN_TIMEOUT).is_some()
        } else {
            self.strained.remove(&peer).is_some()
        };
        if known != strained {
            debug!(strained, "traffic strain changed; sprays pause while there is any");
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.strained.values().any(|until| now < *until)
    }

    /// Takes a packet's turn, or returns when to ask again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if self.is_paused(now) {
            trace!(
                retry_ms = HELD_SPRAY_POLL_INTERVAL.as_millis(),
                reason = "traffic suffers",
                "spray held back"
            );
            return Err(now + HELD_SPRAY_POLL_INTERVAL);
        }
        self.bucket.take_or_wait(now, 1)
    }

    /// Takes the turn of a packet that creates a flow in the router.
    pub(crate) fn take_flow(&mut self, now: Instant) -> Result<(), Hold> {
        match self.table.has_room(now) {
            Err(NoRoom::Full) => return Err(Hold::Full),
            Err(NoRoom::Unchecked) => return Err(Hold::Unchecked(now + CHECK_POLL_INTERVAL)),
            Ok(()) => self.take(now).map_err(Hold::Until)?,
        }
        self.table.on_created(now);
        Ok(())
    }
}

/// Why a packet of a spray has no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Until then, because of the pace or because traffic suffers.
    Until(Instant),
    /// Until a check has shown that the router has room; to be asked again then.
    Unchecked(Instant),
    /// The router has no room.
    Full,
}

/// The pacers that all peers share.
#[derive(Debug)]
pub(crate) struct Pacing {
    /// For checks whose result decides something.
    pub(crate) checks: Pacer,
    /// For checks that only measure.
    pub(crate) measurements: Pacer,
    /// For sprays.
    pub(crate) sprays: SprayBudget,
}

impl Pacing {
    /// Creates pacers with the given gap between two checks.
    pub(crate) fn new(gap: Duration) -> Self {
        Self {
            checks: Pacer::new(gap, CHECK_BURST),
            measurements: Pacer::new(gap * MEASUREMENT_FACTOR, CHECK_BURST),
            sprays: SprayBudget::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn spend(budget: &mut SprayBudget, from: Instant, span: Duration) -> u32 {
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
    fn each_caller_is_promised_another_turn() {
        let (gap, now) = (Duration::from_millis(5), start());
        let mut pacer = Pacer::new(gap, 1);
        assert_eq!(pacer.take(now), Ok(()));
        let promised: Vec<Instant> = (0..3).map(|_| pacer.take(now).unwrap_err()).collect();
        assert_eq!(promised, [now + gap, now + gap * 2, now + gap * 3]);
        for at in promised {
            assert_eq!(pacer.take(at), Ok(()));
        }
        assert_eq!(pacer.take(now + gap * 3), Err(now + gap * 4));
    }

    #[test]
    fn measurements_do_not_use_up_the_turns_of_checks() {
        let (mut pacing, now) = (Pacing::new(Duration::from_millis(5)), start());
        while pacing.measurements.take(now).is_ok() {}
        assert_eq!((0..).take_while(|_| pacing.checks.take(now).is_ok()).count(), 16);
    }

    #[test]
    fn sprays_get_a_small_burst_and_then_a_thousand_packets_a_second() {
        let (mut budget, now) = (SprayBudget::default(), start());
        let first = spend(&mut budget, now, Duration::from_secs(1));
        assert!((1010..=1020).contains(&first), "{first}");
        let later = spend(&mut budget, now + Duration::from_secs(1), Duration::from_secs(5));
        assert!((4990..=5010).contains(&later), "{later}");
    }

    #[test]
    fn sprays_pause_while_traffic_suffers() {
        let (mut budget, now) = (SprayBudget::default(), start());
        budget.set_strained(now, PeerId(1), true);
        assert_eq!(spend(&mut budget, now, Duration::from_secs(1)), 0);
        budget.set_strained(now, PeerId(1), false);
        assert!(spend(&mut budget, now, Duration::from_secs(1)) > 100);
    }

    #[test]
    fn a_strain_that_is_not_confirmed_ends() {
        let (mut budget, now) = (SprayBudget::default(), start());
        budget.set_strained(now, PeerId(1), true);
        assert_eq!(budget.take(now + STRAIN_TIMEOUT), Ok(()));
    }
}

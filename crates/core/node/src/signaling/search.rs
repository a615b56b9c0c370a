//! When a party that has no server looks for its members at the addresses that are known of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_timing::{Backoff, Jitter};
use rand_core::RngCore;

/// Between searches: an attempt at an address takes 20 seconds.
const INTERVAL: Backoff =
    Backoff::new(Duration::from_secs(20), Duration::from_secs(300)).with_jitter(Jitter::TENTH);
/// How many addresses of a link are kept.
const MAX_KNOWN: usize = 16;

/// The next search of a party, and addresses that came with its invite.
#[derive(Debug)]
pub(super) struct Search {
    known: Vec<SocketAddr>,
    interval: Backoff,
    at: Option<Instant>,
}

impl Default for Search {
    fn default() -> Self {
        Self { known: Vec::new(), interval: INTERVAL, at: None }
    }
}

impl Search {
    /// Returns a search that knows some addresses.
    pub(super) fn with_known(mut known: Vec<SocketAddr>) -> Self {
        known.truncate(MAX_KNOWN);
        Self { known, ..Self::default() }
    }

    /// Returns the addresses that came with the invite.
    pub(super) fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// Searches at once, since the party was switched on, the network is another one, or a member was lost.
    pub(super) fn expedite(&mut self, now: Instant) {
        self.interval = INTERVAL;
        self.at = Some(now);
    }

    /// Returns true once when a search is due, and plans the next one.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut impl RngCore) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.at = Some(now + self.interval.next_delay(rng));
        }
        due
    }

    /// Returns the moment of the next search.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.at
    }
}

//! A token bucket in the form of the generic cell rate algorithm: one instant is all its state.

use std::time::{Duration, Instant};

/// Lets through `burst` at once and then one per `interval`.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    interval: Duration,
    tolerance: Duration,
    /// When the next one would be due if all came evenly.
    due: Instant,
}

impl Bucket {
    pub(crate) fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        Self { interval, tolerance: interval * (burst - 1), due: now }
    }

    /// Whether one more may pass now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let due = self.due.max(now);
        let pass = due - now <= self.tolerance;
        if pass {
            self.due = due + self.interval;
        }
        pass
    }
}

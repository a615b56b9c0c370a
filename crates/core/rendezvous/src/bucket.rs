//! A token bucket that fits in one instant: it remembers when it will be full again (the GCRA of ATM networks).

use std::time::Instant;

use crate::Rate;

/// How much of a [`Rate`] is used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(crate) const fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes `cost` units, or none if there are fewer.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate, cost: u32) -> bool {
        let full_at = self.full_at.max(now) + rate.interval() * cost;
        let fits = full_at.saturating_duration_since(now) <= rate.interval() * rate.burst;
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Bucket;
    use crate::{Rate, tests::start};

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    #[test]
    fn a_burst_passes_and_then_the_pace_holds() {
        let start = start().instant;
        let mut bucket = Bucket::full(start);
        assert!((0..3).all(|_| bucket.take(start, RATE, 1)));
        assert!(!bucket.take(start, RATE, 1));
        let later = start + Duration::from_millis(500);
        assert!(bucket.take(later, RATE, 1));
        assert!(!bucket.take(later, RATE, 1));
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let start = start().instant;
        let mut bucket = Bucket::full(start);
        assert!(!bucket.take(start, RATE, 4));
        assert!(bucket.is_full(start));
        assert!(bucket.take(start, RATE, 3));
        assert!(!bucket.is_full(start));
        assert!(bucket.is_full(start + Duration::from_millis(1500)));
    }
}

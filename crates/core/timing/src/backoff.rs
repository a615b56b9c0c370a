//! Exponential backoff with jitter.

use std::time::Duration;

use rand_core::RngCore;

/// The range of factors by which a span is multiplied, so that many clients of one lost server do not return in step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    low: f64,
    high: f64,
}

impl Jitter {
    /// No jitter.
    pub const NONE: Self = Self::between(1.0, 1.0);
    /// Between half and all of a span.
    pub const HALF: Self = Self::between(0.5, 1.0);
    /// Within a tenth of a span to either side.
    pub const TENTH: Self = Self::between(0.9, 1.1);

    /// Returns jitter by a factor between `low` and `high`. Negative bounds count as zero, and a `high` below `low` as
    /// `low`.
    #[must_use]
    pub const fn between(low: f64, high: f64) -> Self {
        let low = if low > 0.0 { low } else { 0.0 };
        Self { low, high: if high > low { high } else { low } }
    }

    /// Multiplies `span` by a random factor.
    pub fn apply(self, span: Duration, rng: &mut impl RngCore) -> Duration {
        self.apply_share(span, f64::from(rng.next_u32()) / f64::from(u32::MAX))
    }

    /// Multiplies `span` by the factor at `share` (0 to 1, clamped) of the range, for callers that draw the random
    /// number themselves.
    #[must_use]
    pub fn apply_share(self, span: Duration, share: f64) -> Duration {
        let share = if share > 0.0 { share.min(1.0) } else { 0.0 };
        let seconds = span.as_secs_f64() * (self.low + (self.high - self.low) * share);
        // Without jitter the span stays exact.
        if self == Self::NONE { span } else { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) }
    }
}

/// The delay before each further attempt: an initial delay that is multiplied by a factor after each failure, up to a
/// maximum, and then jittered. By default the factor is 2 and there is no jitter.
///
/// A value also serves as a constant policy: [`Self::delay_after`] computes the delay for a failure count kept
/// elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    factor: u32,
    steady: u32,
    jitter: Jitter,
    failures: u32,
}

impl Backoff {
    /// Returns a backoff that starts with `initial` and doubles up to `max`. Both bound the delay before jitter.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, factor: 2, steady: 0, jitter: Jitter::NONE, failures: 0 }
    }

    /// Multiplies by `factor` after each failure; 1 keeps the delay constant.
    #[must_use]
    pub const fn with_factor(self, factor: u32) -> Self {
        Self { factor, ..self }
    }

    /// Jitters each delay.
    #[must_use]
    pub const fn with_jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// Repeats the initial delay `times` more times before it grows.
    #[must_use]
    pub const fn with_steady(self, times: u32) -> Self {
        Self { steady: times, ..self }
    }

    /// Counts a failure and returns the jittered delay before the next attempt.
    pub fn next_delay(&mut self, rng: &mut impl RngCore) -> Duration {
        let delay = self.next_unjittered();
        self.jitter.apply(delay, rng)
    }

    /// Counts a failure and returns the delay before the next attempt, jittered by a random `share` from 0 to 1 that
    /// the caller has drawn.
    pub fn next_delay_at(&mut self, share: f64) -> Duration {
        let delay = self.next_unjittered();
        self.jitter.apply_share(delay, share)
    }

    /// Returns the delay that follows the given number of failures in a row (1 for the first), before jitter; zero if
    /// there was none.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Duration {
        let Some(after_first) = failures.checked_sub(1) else { return Duration::ZERO };
        let growth = self.factor.checked_pow(after_first.saturating_sub(self.steady));
        self.initial.saturating_mul(growth.unwrap_or(u32::MAX)).min(self.max)
    }

    /// Returns the failures counted since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the bound of the delay before jitter.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Changes the bound of the delay before jitter.
    pub const fn set_max(&mut self, max: Duration) {
        self.max = max;
    }

    /// Forgets all failures, since an attempt succeeded or the circumstances changed.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    fn next_unjittered(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.delay_after(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delays(mut backoff: Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.next_delay_at(1.0).as_millis() as u64).collect()
    }

    #[test]
    fn delay_doubles_up_to_the_maximum() {
        let backoff = Backoff::new(SECOND, SECOND * 60);
        assert_eq!(delays(backoff, 8), [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(backoff.delay_after(0), Duration::ZERO);
        assert_eq!(backoff.delay_after(u32::MAX), SECOND * 60);
    }

    #[test]
    fn steady_delays_come_before_growth() {
        let backoff = Backoff::new(SECOND, SECOND * 40).with_steady(2);
        assert_eq!(delays(backoff, 7), [1000, 1000, 1000, 2000, 4000, 8000, 16_000]);
    }

    #[test]
    fn factor_one_keeps_the_delay() {
        assert_eq!(delays(Backoff::new(SECOND, SECOND * 60).with_factor(1), 3), [1000, 1000, 1000]);
        assert_eq!(
            delays(Backoff::new(SECOND, SECOND * 60).with_factor(3), 5),
            [1000, 3000, 9000, 27_000, 60_000]
        );
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::new(SECOND, SECOND * 60);
        backoff.next_delay_at(1.0);
        backoff.next_delay_at(1.0);
        assert_eq!(backoff.failures(), 2);
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.next_delay_at(1.0)), (0, SECOND));
    }

    #[test]
    fn share_outside_its_range_is_clamped() {
        for (share, expected) in [(0.0, 500), (1.0, 1000), (-3.0, 500), (7.0, 1000), (f64::NAN, 500)] {
            assert_eq!(Jitter::HALF.apply_share(SECOND, share), Duration::from_millis(expected), "{share}");
        }
        assert_eq!(Jitter::between(2.0, 3.0).apply_share(Duration::MAX, 1.0), Duration::MAX);
    }

    proptest! {
        #[test]
        fn jittered_delay_stays_within_its_range(seed: u64, initial in 1u64..10_000, max in 1u64..100_000, count in 1usize..40) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(max));
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut backoff = Backoff::new(initial, max).with_jitter(Jitter::HALF);
            for failures in 1..=count {
                let full = backoff.delay_after(failures as u32);
                let delay = backoff.next_delay(&mut rng);
                prop_assert!(full <= max);
                prop_assert!((full.mul_f64(0.499)..=full).contains(&delay), "{delay:?} of {full:?}");
            }
        }
    }
}

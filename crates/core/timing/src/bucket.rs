//! Token buckets in the form of the generic cell rate algorithm (ITU-T I.371): instead of counting tokens, a bucket
//! remembers the moment at which it will be full again. That needs no refill step, no timer and one instant of state.

use std::time::{Duration, Instant};

/// Fractional bits of [`Rate::cost`], so that rates far above one unit per nanosecond stay exact to about 0.1 %.
const FRACTION_BITS: u32 = 20;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A sustained rate and the burst that may exceed it. Units are whatever the caller counts: packets, requests, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Nanoseconds that one token takes to refill, as a fixed-point number with [`FRACTION_BITS`] fractional bits.
    cost: u64,
    /// The time in which an empty bucket becomes full.
    fill_time: Duration,
}

impl Rate {
    /// Returns a rate of `per_second` tokens with a bucket of `burst` tokens. Zero counts as one for both.
    #[must_use]
    pub const fn per_second(per_second: u64, burst: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Self::from_cost((NANOS_PER_SECOND << FRACTION_BITS) / per_second as u128, burst)
    }

    /// Returns a rate of one token per `interval` with a bucket of `burst` tokens. Intervals are limited to about
    /// 4.8 hours; a zero interval never limits anything, and a zero burst counts as one.
    #[must_use]
    pub const fn every(interval: Duration, burst: u64) -> Self {
        Self::from_cost(interval.as_nanos() << FRACTION_BITS, burst)
    }

    const fn from_cost(cost: u128, burst: u64) -> Self {
        let cost = if cost > u64::MAX as u128 { u64::MAX } else { cost as u64 };
        let burst = if burst == 0 { 1 } else { burst };
        Self { cost, fill_time: duration_of(cost, burst) }
    }

    /// Returns the time in which `tokens` tokens refill, rounded down to a nanosecond.
    #[must_use]
    pub const fn time_for(&self, tokens: u64) -> Duration {
        duration_of(self.cost, tokens)
    }

    /// Returns the time in which an empty bucket becomes full.
    #[must_use]
    pub const fn fill_time(&self) -> Duration {
        self.fill_time
    }

    /// Returns the whole tokens that refill in `span`.
    fn tokens_in(&self, span: Duration) -> u64 {
        let tokens = (span.as_nanos() << FRACTION_BITS).checked_div(self.cost.into());
        tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(u64::MAX)
    }
}

const fn duration_of(cost: u64, tokens: u64) -> Duration {
    let nanos = (cost as u128 * tokens as u128) >> FRACTION_BITS;
    Duration::from_nanos(if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 })
}

/// The fill level of a bucket apart from its [`Rate`], for tables in which thousands of buckets share one rate. A new
/// level is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// When the bucket is full again; `None` until the first token is taken.
    full_at: Option<Instant>,
}

impl Level {
    /// Takes `tokens` tokens if the bucket holds that many, and returns whether it did. Takes nothing otherwise.
    pub fn take(&mut self, now: Instant, rate: &Rate, tokens: u64) -> bool {
        let full_at = self.full_after(now, rate, tokens);
        let granted = full_at.saturating_duration_since(now) <= rate.fill_time;
        if granted {
            self.full_at = Some(full_at);
        }
        granted
    }

    /// Returns the moment from which `tokens` tokens are available, `now` if they are already. A request for more than
    /// the burst is never granted, whatever this returns.
    #[must_use]
    pub fn next_free(&self, now: Instant, rate: &Rate, tokens: u64) -> Instant {
        let missing = self.full_after(now, rate, tokens).saturating_duration_since(now);
        now + missing.saturating_sub(rate.fill_time)
    }

    /// Returns the whole tokens available at `now`.
    #[must_use]
    pub fn available(&self, now: Instant, rate: &Rate) -> u64 {
        let until_full = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        rate.tokens_in(rate.fill_time.saturating_sub(until_full))
    }

    /// Returns true if no token is missing, so that a table may forget this bucket.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    fn full_after(&self, now: Instant, rate: &Rate, tokens: u64) -> Instant {
        let from = self.full_at.map_or(now, |at| at.max(now));
        // An unrepresentable sum is far in the future, where every request is refused.
        from.checked_add(rate.time_for(tokens)).unwrap_or(from + rate.fill_time * 2)
    }
}

/// A token bucket: lets a burst through at once and then tokens at a sustained rate. A new bucket is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    rate: Rate,
    level: Level,
}

impl TokenBucket {
    /// Returns a full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self { rate, level: Level { full_at: None } }
    }

    /// Returns the rate and burst.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Changes the rate and burst. Tokens that were taken stay taken.
    pub const fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Takes `tokens` tokens if there are that many, and returns whether it did. Takes nothing otherwise.
    pub fn take(&mut self, now: Instant, tokens: u64) -> bool {
        self.level.take(now, &self.rate, tokens)
    }

    /// Takes `tokens` tokens like [`Self::take`].
    ///
    /// # Errors
    /// The moment from which they are available if nobody else takes any; see [`Self::next_free`].
    pub fn take_or_wait(&mut self, now: Instant, tokens: u64) -> Result<(), Instant> {
        if self.take(now, tokens) { Ok(()) } else { Err(self.next_free(now, tokens)) }
    }

    /// Returns the moment from which `tokens` tokens are available, `now` if they are already. A request for more than
    /// the burst is never granted, whatever this returns.
    #[must_use]
    pub fn next_free(&self, now: Instant, tokens: u64) -> Instant {
        self.level.next_free(now, &self.rate, tokens)
    }

    /// Returns the whole tokens available at `now` without taking any.
    #[must_use]
    pub fn available(&self, now: Instant) -> u64 {
        self.level.available(now, &self.rate)
    }

    /// Returns true if no token is missing.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.level.is_full(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn burst_passes_at_once_and_then_the_rate_holds() {
        let (now, mut bucket) = (start(), TokenBucket::new(Rate::per_second(2, 3)));
        assert_eq!((0..10).filter(|_| bucket.take(now, 1)).count(), 3);
        assert_eq!(bucket.next_free(now, 1), now + ms(500));
        assert!(!bucket.take(now + ms(499), 1));
        assert!(bucket.take(now + ms(500), 1));
        assert!(!bucket.take(now + ms(500), 1));
    }

    #[test]
    fn refused_request_takes_nothing() {
        let (now, mut bucket) = (start(), TokenBucket::new(Rate::per_second(2, 3)));
        assert!(!bucket.take(now, 4));
        assert!(bucket.is_full(now));
        assert!(bucket.take(now, 3));
        assert!(!bucket.is_full(now) && !bucket.is_full(now + ms(1499)));
        assert!(bucket.is_full(now + ms(1500)));
    }

    #[test]
    fn take_or_wait_names_the_moment_at_which_it_succeeds() {
        let (mut now, mut bucket) = (start(), TokenBucket::new(Rate::every(ms(5), 16)));
        while bucket.take_or_wait(now, 1).is_ok() {}
        for _ in 0..10 {
            let next = bucket.take_or_wait(now, 1).unwrap_err();
            assert_eq!(next, now + ms(5));
            assert!(bucket.take_or_wait(next - Duration::from_nanos(1), 1).is_err());
            assert_eq!(bucket.take_or_wait(next, 1), Ok(()));
            now = next;
        }
    }

    #[test]
    fn whole_burst_is_granted_where_the_rate_does_not_divide_a_second() {
        for per_second in [3, 7, 11, 999_983] {
            let (now, mut bucket) = (start(), TokenBucket::new(Rate::per_second(per_second, 5)));
            assert_eq!((0..10).filter(|_| bucket.take(now, 1)).count(), 5, "{per_second} per second");
        }
    }

    #[test]
    fn available_counts_whole_tokens() {
        let (now, mut bucket) = (start(), TokenBucket::new(Rate::per_second(10, 4)));
        assert_eq!(bucket.available(now), 4);
        assert!(bucket.take(now, 4));
        assert_eq!(bucket.available(now), 0);
        assert_eq!(bucket.available(now + ms(250)), 2);
        assert_eq!(bucket.available(now + ms(900)), 4);
    }

    #[test]
    fn earlier_moment_grants_nothing_extra() {
        let (now, mut bucket) = (start() + ms(1000), TokenBucket::new(Rate::per_second(10, 1)));
        assert!(bucket.take(now, 1));
        assert!(!bucket.take(now - ms(500), 1));
        assert!(bucket.take(now + ms(100), 1));
    }

    #[test]
    fn extreme_rates_neither_panic_nor_overflow() {
        let now = start();
        assert!(TokenBucket::new(Rate::per_second(0, 0)).take(now, 1));
        assert!(!TokenBucket::new(Rate::per_second(1, 1)).take(now, u64::MAX));
        let mut unlimited = TokenBucket::new(Rate::every(Duration::ZERO, 1));
        assert!((0..100).all(|_| unlimited.take(now, u64::from(u32::MAX))));
        let mut slowest = TokenBucket::new(Rate::every(Duration::MAX, u64::MAX));
        assert!(slowest.take(now, 1));
        let _ = (slowest.next_free(now, u64::MAX), slowest.available(now));
    }

    proptest! {
        #[test]
        fn no_more_than_rate_and_burst_passes(
            per_second in 1u64..100_000_000,
            burst in 1u64..100_000,
            steps in prop::collection::vec((0u64..50_000_000, 1u64..2000), 1..300),
        ) {
            let start = start();
            let (mut bucket, mut elapsed, mut passed) = (TokenBucket::new(Rate::per_second(per_second, burst)), 0, 0);
            let count = steps.len() as u64;
            for (wait, tokens) in steps {
                elapsed += wait;
                let now = start + Duration::from_nanos(elapsed);
                let due = bucket.next_free(now, tokens) == now;
                let granted = bucket.take(now, tokens);
                prop_assert_eq!(granted, due && tokens <= burst);
                passed += if granted { tokens } else { 0 };
            }
            // Each grant is rounded down by less than a nanosecond, at most a tenth of a token at these rates.
            let most = u128::from(burst) + u128::from(per_second) * u128::from(elapsed) / NANOS_PER_SECOND + 1;
            prop_assert!(u128::from(passed) <= most + u128::from(count) / 10, "{passed} > {most}");
        }

        #[test]
        fn next_free_is_exact(rate in 1u64..1_000_000, taken in 1u64..50, wanted in 1u64..50, wait in 0u64..10_000_000) {
            let (start, mut bucket) = (start(), TokenBucket::new(Rate::per_second(rate, 50)));
            prop_assert!(bucket.take(start, taken));
            let now = start + Duration::from_nanos(wait);
            let free = bucket.next_free(now, wanted);
            let mut copy = bucket;
            prop_assert!(copy.take(free, wanted));
            if free > now {
                prop_assert!(!bucket.take(free - Duration::from_nanos(1), wanted));
            }
        }
    }
}

//! When to try again after a failure.

use std::time::Duration;

/// Failures after which a method counts as broken.
pub(crate) const PATIENCE: u32 = 3;
const FIRST: Duration = Duration::from_secs(1);
/// Without jitter, which adds up to a half: a minute at most.
const LONGEST: Duration = Duration::from_secs(40);

/// A circuit breaker. It counts failures in a row: the first three are followed by another try after a second, further ones after twice as
/// long each, up to a minute. Jitter makes each pause up to a half longer.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    pub(crate) failures: u32,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        // Multiplied, since xorshift stays near zero for long when started there; odd, since it never leaves zero.
        Self { failures: 0, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63 | 1 }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure; returns how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.saturating_sub(PATIENCE).min(6);
        let pause = (FIRST * 2u32.pow(doublings)).min(LONGEST);
        pause.mul_f64(1.0 + self.next_share() / 2.0)
    }

    /// Another port to ask for when the wanted one is taken.
    pub(crate) fn next_port(&mut self) -> u16 {
        10_000 + (self.next_share() * 50_000.0) as u16
    }

    /// Between 0 and 1 (xorshift; only meant to keep computers from acting in step).
    fn next_share(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from((self.random >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_second_to_a_minute_and_differ() {
        let mut backoff = Backoff::new(5);
        let pauses: Vec<_> = (0..20).map(|_| backoff.failed()).collect();
        assert!(pauses.iter().all(|pause| (FIRST..=Duration::from_secs(60)).contains(pause)), "{pauses:?}");
        assert!(pauses[..3].iter().all(|pause| *pause < FIRST * 2));
        assert!(pauses[12..].iter().all(|pause| *pause >= LONGEST));
        assert_ne!(Backoff::new(6).failed(), Backoff::new(99_991).failed());
        backoff.succeeded();
        assert!(backoff.failed() < FIRST * 2);
    }
}

//! The circuit breaker of one protocol.

use std::time::Duration;

use partyline_timing::{Backoff, Jitter};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

/// Failures in a row that open the circuit.
const OPEN_AFTER_FAILURES: u32 = 3;
/// Delay of the first retries. Jitter makes every delay up to a half longer.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Bound of the delay before jitter, so that retries are a minute apart at most.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(40);

/// Counts failures in a row. The first three are followed by a retry after a second; then the circuit is open, and each
/// further delay is twice as long, up to a minute.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    backoff: Backoff,
    rng: ChaCha8Rng,
}

impl CircuitBreaker {
    /// Returns a closed circuit breaker. The seed determines the jitter.
    pub(crate) fn new(seed: u64) -> Self {
        let backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
            .with_steady(OPEN_AFTER_FAILURES - 1)
            .with_jitter(Jitter::between(1.0, 1.5));
        Self { backoff, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Counts a failure and returns the delay before the next request.
    pub(crate) fn on_failure(&mut self) -> Duration {
        self.backoff.next_delay(&mut self.rng)
    }

    /// Closes the circuit.
    pub(crate) const fn on_success(&mut self) {
        self.backoff.reset();
    }

    /// Returns the failures in a row.
    pub(crate) const fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Returns true if so many requests failed in a row that the protocol is only tried now and then.
    pub(crate) const fn is_open(&self) -> bool {
        self.failures() >= OPEN_AFTER_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_from_a_second_to_a_minute_and_differ() {
        let mut breaker = CircuitBreaker::new(5);
        let delays: Vec<_> = (0..20).map(|_| breaker.on_failure()).collect();
        let bounds = MIN_RETRY_DELAY..=Duration::from_secs(60);
        assert!(delays.iter().all(|delay| bounds.contains(delay)), "{delays:?}");
        assert!(delays[..3].iter().all(|delay| *delay < MIN_RETRY_DELAY * 2));
        assert!(delays[12..].iter().all(|delay| *delay >= MAX_RETRY_DELAY));
        assert_ne!(delays[18], delays[19]);
    }

    #[test]
    fn circuit_opens_at_the_third_failure_in_a_row_and_closes_at_a_success() {
        let mut breaker = CircuitBreaker::new(0);
        let opened: Vec<_> = (0..3)
            .map(|_| {
                breaker.on_failure();
                breaker.is_open()
            })
            .collect();
        assert_eq!(opened, [false, false, true]);
        breaker.on_success();
        assert_eq!((breaker.is_open(), breaker.failures()), (false, 0));
        assert!(breaker.on_failure() < MIN_RETRY_DELAY * 2);
    }

    #[test]
    fn different_seeds_do_not_retry_in_step() {
        let (mut one, mut other) = (CircuitBreaker::new(1), CircuitBreaker::new(2));
        assert_ne!(one.on_failure(), other.on_failure());
    }
}

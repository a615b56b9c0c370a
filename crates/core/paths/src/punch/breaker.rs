//! How soon a punching method that fails is tried again.

use std::time::{Duration, Instant};

use partyline_model::Method;
use partyline_timing::{Backoff, Jitter};
use tracing::debug;

/// The pause after a first failure; each further one doubles.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Bounds the pauses until the method is suspended.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Failures in a row at which the breaker is open: the user is shown that the method keeps failing.
const OPENS_AT: u32 = 3;
/// Failures in a row after which the method is suspended for [`SUSPENSION`].
const SUSPENDS_AT: u32 = 8;
/// The pause of a suspended method, unless something changes about either network.
const SUSPENSION: Duration = Duration::from_secs(1800);

/// A circuit breaker for one method towards one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Breaker {
    method: Method,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Breaker {
    pub(crate) const fn new(method: Method) -> Self {
        let backoff = Backoff::new(FIRST_RETRY_PAUSE, MAX_RETRY_PAUSE).with_jitter(Jitter::HALF);
        Self { method, backoff, retry_at: None }
    }

    /// Notes a failure. `share`, from 0 to 1, keeps several peers from trying again in step.
    pub(crate) fn on_failure(&mut self, now: Instant, share: f64) {
        let mut pause = self.backoff.next_delay_at(share);
        if self.backoff.failures() >= SUSPENDS_AT {
            pause = Jitter::HALF.apply_share(SUSPENSION, share);
        }
        self.retry_at = Some(now + pause);
        let (method, retry_ms, open) =
            (self.method.name(), pause.as_millis(), self.failures_if_open().is_some());
        debug!(method, count = self.backoff.failures(), open, retry_ms, "punch method failed");
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self, reason: &'static str) {
        if self.backoff.failures() > 0 {
            debug!(method = self.method.name(), reason, "breaker closed");
        }
        *self = Self::new(self.method);
    }

    /// Returns when the method may be tried again, if not now.
    pub(crate) fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    /// Returns the number of failures in a row, if the breaker is open.
    pub(crate) fn failures_if_open(&self) -> Option<u32> {
        Some(self.backoff.failures()).filter(|failures| *failures >= OPENS_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(Method::Predict), Instant::now())
    }

    #[test]
    fn pauses_grow_to_a_minute_and_then_to_a_suspension() {
        let (mut breaker, now) = breaker();
        assert_eq!((breaker.retry_at(now), breaker.failures_if_open()), (None, None));
        let mut pause = || {
            breaker.on_failure(now, 1.0);
            (breaker.retry_at(now).unwrap() - now).as_millis()
        };
        assert_eq!([(); 8].map(|()| pause()), [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 1_800_000]);
        breaker.on_failure(now, 0.0);
        assert_eq!(breaker.retry_at(now), Some(now + SUSPENSION / 2));
    }

    #[test]
    fn the_breaker_opens_at_the_third_failure_and_closes_when_reset() {
        let (mut breaker, now) = breaker();
        (0..2).for_each(|_| breaker.on_failure(now, 1.0));
        assert_eq!(breaker.failures_if_open(), None);
        breaker.on_failure(now, 1.0);
        assert_eq!(breaker.failures_if_open(), Some(3));
        breaker.reset("test");
        assert_eq!((breaker.failures_if_open(), breaker.retry_at(now)), (None, None));
    }
}

//! How often a method that fails is tried again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Failures after which the method counts as broken, until something changes.
const OPENS_AT: u32 = 3;
/// Failures after which it rests.
const RESTS_AT: u32 = 8;
const REST: Duration = Duration::from_secs(1800);

/// One method towards one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaker {
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// Notes a failure. `spread`, from 0 to 1, keeps several from trying again in step.
    pub(crate) fn failed(&mut self, now: Instant, spread: f64) {
        let span = if self.failures + 1 >= RESTS_AT {
            REST
        } else {
            (FIRST * (1 << self.failures.min(8))).min(LONGEST)
        };
        self.failures += 1;
        self.until = Some(now + span.mul_f64(0.5 + spread / 2.0));
    }

    /// When it may be tried again, if not now.
    pub(crate) fn pause(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// How often it failed in a row, if that is often.
    pub(crate) fn open(&self) -> Option<u32> {
        (self.failures >= OPENS_AT).then_some(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn pauses_grow_to_a_minute_and_then_to_a_rest() {
        let (now, mut breaker) = (Instant::now(), Breaker::default());
        assert_eq!((breaker.pause(now), breaker.open()), (None, None));
        let pauses: Vec<Duration> = (0..8)
            .map(|_| {
                breaker.failed(now, 1.0);
                breaker.pause(now).unwrap() - now
            })
            .collect();
        assert_eq!(pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 1800]);
        assert_eq!(breaker.open(), Some(8));
        breaker.failed(now, 0.0);
        assert_eq!(breaker.pause(now), Some(now + REST / 2));
    }
}

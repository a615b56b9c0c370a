//! Requests to one address until it answers.

use std::time::{Duration, Instant};

use partyline_wire::direct::Nonce;

/// Between requests at first, so that two NATs open for each other within one of them.
const FAST_INTERVAL: Duration = Duration::from_millis(250);
/// How long requests are fast.
const FAST_TIME: Duration = Duration::from_secs(4);
/// Between requests afterwards.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How long an address is asked.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An address that is asked whether somebody on the topic is there.
#[derive(Debug)]
pub(super) struct Attempt {
    pub nonce: Nonce,
    started: Instant,
    next_at: Instant,
}

impl Attempt {
    /// Returns an attempt whose first request is due.
    pub(super) const fn start(now: Instant, nonce: Nonce) -> Self {
        Self { nonce, started: now, next_at: now }
    }

    /// Returns true once when a request is due.
    pub(super) fn poll_request(&mut self, now: Instant) -> bool {
        let due = self.next_at <= now && !self.is_over(now);
        if due {
            let fast = now.saturating_duration_since(self.started) < FAST_TIME;
            self.next_at = now + if fast { FAST_INTERVAL } else { SLOW_INTERVAL };
        }
        due
    }

    /// Returns true once it is no use to go on.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= TIMEOUT
    }

    /// Returns the moment of the next request, or of the end.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at.min(self.started + TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn requests_are_fast_at_first_and_end() {
        let start = Instant::now();
        let (mut attempt, mut sent, mut now) = (Attempt::start(start, Nonce([1; 8])), Vec::new(), start);
        while !attempt.is_over(now) {
            if attempt.poll_request(now) {
                sent.push(now.duration_since(start));
            }
            assert!(!attempt.poll_request(now), "one at a time");
            now = attempt.next_at();
        }
        let fast = sent.iter().filter(|at| **at < FAST_TIME).count();
        assert_eq!((sent.len(), fast), (32, 16));
        assert_eq!(now, start + TIMEOUT);
    }
}

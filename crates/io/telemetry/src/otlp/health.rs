//! Whether the collector answers, when to try again, and how often to say so.

use std::time::{Duration, Instant};

use partyline_timing::Backoff;

use super::client::ExportError;

/// Delays before further attempts: 1 s, doubling up to 60 s. There is one collector and few exporters, so without jitter.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Minimum time between two warnings; in between, failures are logged at debug.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// State of the connection to the collector.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    retry_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Health {
    /// Returns true unless an earlier failure requires to wait.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// Returns when to try again after a failure.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn on_success(&mut self, dropped_spans: u64) {
        if self.failures > 0 {
            tracing::info!(count = self.failures, dropped_spans, "OTLP collector answers again");
        }
        (self.failures, self.retry_at) = (0, None);
    }

    pub(super) fn on_failure(&mut self, now: Instant, error: &ExportError) {
        self.failures = self.failures.saturating_add(1);
        let delay = RETRY.delay_after(self.failures);
        self.retry_at = Some(now + delay);
        let retry_ms = delay.as_millis();
        if self.warned_at.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            self.warned_at = Some(now);
            tracing::warn!(reason = %error, retry_ms, "OTLP export failed; spans are dropped while the queue is full");
        } else {
            tracing::debug!(reason = %error, retry_ms, count = self.failures, "OTLP export failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_and_success_resets_them() {
        let (mut health, start) = (Health::default(), Instant::now());
        let error = ExportError::Timeout(Duration::from_secs(1));
        assert!(health.may_try(start));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            health.on_failure(start, &error);
            assert_eq!(health.retry_at(), Some(start + Duration::from_secs(seconds)));
            assert!(!health.may_try(start));
        }
        assert!(health.may_try(start + Duration::from_secs(60)));
        health.on_success(0);
        assert!(health.may_try(start));
        health.on_failure(start, &error);
        assert_eq!(health.retry_at(), Some(start + Duration::from_secs(1)));
    }
}

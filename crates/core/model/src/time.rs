//! Time as the core sees it: passed in by the caller, never read.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Wall-clock time in whole milliseconds since 1970-01-01 UTC. It may jump; use it for expiry dates and for people,
/// never for timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(transparent)]
pub struct Timestamp(#[cfg_attr(feature = "specta", specta(type = crate::Number))] pub u64);

impl Timestamp {
    /// Returns this time plus a span. Saturates at the end of the range.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns the span since an earlier time, or zero if that time lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the whole seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One reading of both clocks: the monotonic one for timers, the wall clock for expiry dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock. It must count time spent asleep where the platform can.
    pub instant: Instant,
    /// The wall clock.
    pub unix: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(u64::MAX).plus(Duration::from_secs(1)), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(5).plus(Duration::from_secs(2)).since(Timestamp(5)), Duration::from_secs(2));
        assert_eq!(Timestamp(1_999).seconds(), 1);
    }
}

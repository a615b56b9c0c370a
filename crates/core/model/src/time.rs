//! Time as the core sees it: always handed in, never read.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Wall-clock time in whole milliseconds since 1970-01-01 UTC. It may jump; use it for expiry dates and for people,
/// never for timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(transparent)]
pub struct Timestamp(#[cfg_attr(feature = "specta", specta(type = crate::Number))] pub u64);

impl Timestamp {
    /// This time plus a span; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span since an earlier time; zero if that lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One reading of both clocks: the monotonic one for timers, the wall clock for expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic; must count time asleep where the platform can.
    pub instant: Instant,
    /// Wall clock.
    pub unix: Timestamp,
}

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

    /// Returns the date and time in words that need no locale, such as "29 November 2026 at 22:42 UTC".
    #[must_use]
    pub fn utc(self) -> String {
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        let (days, minutes) = (self.seconds() / 86_400, self.seconds() / 60 % 1440);
        // Years are counted from March, so that the leap day is the last of its year; 1 March of year 0 is day 719,468
        // before 1970.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12;
        let year = era * 400 + year_of_era + u64::from(month < 2);
        let name = MONTHS[month as usize];
        format!("{day} {name} {year} at {:02}:{:02} UTC", minutes / 60, minutes % 60)
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

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "1 January 1970 at 00:00 UTC"),
            (951_782_400, "29 February 2000 at 00:00 UTC"),
            (951_868_800, "1 March 2000 at 00:00 UTC"),
            (1_800_000_000, "15 January 2027 at 08:00 UTC"),
            (4_107_542_399, "28 February 2100 at 23:59 UTC"),
            (4_107_542_400, "1 March 2100 at 00:00 UTC"),
        ] {
            assert_eq!(Timestamp(seconds * 1000).utc(), expected);
        }
    }
}

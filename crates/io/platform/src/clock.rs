//! A clock that continues while the computer sleeps.
//!
//! NAT mappings expire and keys age while a laptop is closed, so the core's timers have to count that time.
//! `std::time::Instant` does not on Linux (`CLOCK_MONOTONIC`) and macOS (`CLOCK_UPTIME_RAW`). So the boot clock is read
//! as well (`CLOCK_BOOTTIME`; on macOS `CLOCK_MONOTONIC`, which counts sleep there), and the current `Instant` is the one
//! at the start plus the boot time since. On Windows `Instant` counts sleep by itself.
//!
//! Such instants may be compared among themselves only. To wait for one, use [`Clock::until`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use partyline_model::{Now, Timestamp};

/// The least jump of the boot clock against the other that counts as sleep.
const MIN_SLEEP: Duration = Duration::from_secs(1);

/// Reads the monotonic clock, sleep included, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    boot_at_start: Option<Duration>,
}

impl Clock {
    /// Returns a new clock. One per process: instants of different clocks must not be mixed.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), boot_at_start: since_boot() }
    }

    /// Returns the current time of both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), unix: Timestamp(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// Returns the time until an instant of this clock; zero if it has passed.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.instant())
    }

    fn instant(&self) -> Instant {
        match (self.boot_at_start, since_boot()) {
            (Some(start), Some(now)) => self.start + now.saturating_sub(start),
            _ => Instant::now(),
        }
    }

    /// Returns the total time slept since the clock was made.
    fn slept(&self) -> Duration {
        self.instant().saturating_duration_since(Instant::now())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Detects that the computer has slept, by a jump of the boot clock against the monotonic clock.
#[derive(Debug)]
pub struct SleepDetector {
    clock: Clock,
    reported: Duration,
}

impl SleepDetector {
    /// Returns a detector of sleep from now on.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { reported: clock.slept(), clock }
    }

    /// Returns how long the computer slept since the last call, if it did (at least 1 s). Cheap enough to be called after
    /// every event. Returns `None` on Windows, where both clocks count sleep: the service gets power events there.
    pub fn take_slept(&mut self) -> Option<Duration> {
        let slept = self.clock.slept();
        let gone = slept.saturating_sub(self.reported);
        self.reported = slept;
        if gone < MIN_SLEEP {
            return None;
        }
        tracing::debug!(after_ms = gone.as_millis(), reason = "the boot clock jumped", "sleep detected");
        Some(gone)
    }
}

#[cfg(unix)]
fn since_boot() -> Option<Duration> {
    use nix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    const BOOT: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const BOOT: ClockId = ClockId::CLOCK_MONOTONIC;
    clock_gettime(BOOT).ok().map(Duration::from)
}

#[cfg(not(unix))]
const fn since_boot() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_backwards_and_passed_deadlines_are_zero() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.instant >= first.instant);
        assert!(first.unix.0 > 1_700_000_000_000);
        assert_eq!(clock.until(first.instant), Duration::ZERO);
        assert!(clock.until(second.instant + Duration::from_secs(60)) <= Duration::from_secs(60));
    }

    #[test]
    fn no_jump_of_the_clocks_is_no_sleep() {
        let mut watch = SleepDetector::new(Clock::new());
        assert_eq!(watch.take_slept(), None);
    }

    #[test]
    #[cfg(unix)]
    fn jump_of_the_boot_clock_is_sleep_and_returned_once() {
        let mut watch = SleepDetector::new(Clock::new());
        // As if the boot clock had shown an hour less at the start.
        let hour = Duration::from_secs(3600);
        watch.clock.boot_at_start = since_boot().and_then(|boot| boot.checked_sub(hour));
        if watch.clock.boot_at_start.is_some() {
            let slept = watch.take_slept();
            assert!(slept.is_some_and(|slept| slept.abs_diff(hour) < MIN_SLEEP), "{slept:?}");
            assert_eq!(watch.take_slept(), None);
        }
    }
}

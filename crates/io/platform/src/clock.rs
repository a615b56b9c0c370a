//! A clock that goes on while the computer sleeps.
//!
//! Timers of the core measure what happened in the world: NAT mappings lapse and keys age while a laptop is closed.
//! `std::time::Instant` stops then on Linux (`CLOCK_MONOTONIC`) and macOS (`CLOCK_UPTIME_RAW`). So the boot clock is
//! read beside it (`CLOCK_BOOTTIME`; on macOS `CLOCK_MONOTONIC`, which counts sleep there), and an `Instant` is made of
//! the one at start plus the boot time passed since. On Windows `Instant` counts sleep by itself.
//!
//! Such instants are compared among themselves only; to wait for one, ask [`Clock::until`] how long that is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use partyline_model::{Now, Timestamp};

/// How far the two clocks must be apart to call it sleep.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// Reads both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    boot_at_start: Option<Duration>,
}

impl Clock {
    /// A clock. One per process: instants of different clocks must not be mixed.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), boot_at_start: since_boot() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), unix: Timestamp(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// How long until an instant of this clock; zero if it has passed.
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

    /// Time slept since the clock was made.
    fn slept(&self) -> Duration {
        self.instant().saturating_duration_since(Instant::now())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Notices that the computer has slept, by the jump of the boot clock against the other.
#[derive(Debug)]
pub struct SleepDetector {
    clock: Clock,
    known: Duration,
}

impl SleepDetector {
    /// Watches from now on.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { known: clock.slept(), clock }
    }

    /// How long the computer slept since this was asked last, if it did. Cheap enough to be asked whenever anything
    /// happens. On Windows, where both clocks go on, it never did: the service is told of power events there.
    pub fn take_slept(&mut self) -> Option<Duration> {
        let slept = self.clock.slept();
        let gone = slept.saturating_sub(self.known);
        self.known = slept;
        (gone >= NOTICEABLE).then_some(gone)
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
    fn time_goes_forward_and_deadlines_are_spans() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.instant >= first.instant);
        assert!(first.unix.0 > 1_700_000_000_000);
        assert_eq!(clock.until(first.instant), Duration::ZERO);
        assert!(clock.until(second.instant + Duration::from_secs(60)) <= Duration::from_secs(60));
    }

    #[test]
    fn a_computer_that_did_not_sleep_did_not_sleep() {
        let mut watch = SleepDetector::new(Clock::new());
        assert_eq!(watch.take_slept(), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_jump_of_the_boot_clock_is_sleep_and_told_once() {
        let mut watch = SleepDetector::new(Clock::new());
        // As if the boot clock had stood an hour less when all began.
        let hour = Duration::from_secs(3600);
        watch.clock.boot_at_start = since_boot().and_then(|boot| boot.checked_sub(hour));
        if watch.clock.boot_at_start.is_some() {
            let slept = watch.take_slept();
            assert!(slept.is_some_and(|slept| slept.abs_diff(hour) < NOTICEABLE), "{slept:?}");
            assert_eq!(watch.take_slept(), None);
        }
    }
}

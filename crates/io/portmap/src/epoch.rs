//! Detects from the epoch in a router's responses that it has lost its state (RFC 6887 section 8.5, RFC 6886 section 3.6).
//!
//! The epoch counts seconds since the router last lost its mappings. If it went backwards, or advanced by clearly more or
//! less than this computer's clock, the mappings are gone.

use tokio::time::Instant;

/// The last epoch received from a router.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    last: Option<(u32, Instant)>,
}

impl Epoch {
    /// Takes an epoch received at `now`. Returns true if the router has lost its state since the last one.
    pub(crate) fn has_restarted(&mut self, epoch: u32, now: Instant) -> bool {
        let Some((before, then)) = self.last.replace((epoch, now)) else { return false };
        // One second back may be rounding.
        if epoch.saturating_add(1) < before {
            return true;
        }
        let (ours, theirs) = (now.duration_since(then).as_secs(), u64::from(epoch.saturating_sub(before)));
        ours + 2 < theirs - theirs / 16 || theirs + 2 < ours - ours / 16
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn epoch_that_does_not_advance_with_the_local_clock_is_a_restart() {
        for (seconds, reading, restarted) in [
            (60, 1060, false),
            (60, 1063, false),
            (60, 999, true),
            (0, 999, false),
            (60, 5, true),
            (60, 1001, true),
            (60, 9000, true),
            (600, 1570, false),
            (600, 1500, true),
        ] {
            let start = Instant::now();
            let mut epoch = Epoch::default();
            assert!(!epoch.has_restarted(1000, start));
            let seen = epoch.has_restarted(reading, start + Duration::from_secs(seconds));
            assert_eq!(seen, restarted, "{reading} after {seconds} s");
        }
    }
}

//! When a bandwidth limit was last reported to be used up.

use std::time::{Duration, Instant};

/// The shortest time between two reports, since a limit is used up again with every packet.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Decides which of the packets above a limit is worth a line in the log.
#[derive(Debug, Default)]
pub(crate) struct Saturation {
    reported_at: Option<Instant>,
}

impl Saturation {
    /// Notes a packet above the limit. Returns true if that is to be reported.
    pub(crate) fn report(&mut self, now: Instant) -> bool {
        let due = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        if due {
            self.reported_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_reported_at_once_and_then_every_ten_seconds() {
        #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let now = Instant::now();
        let mut saturation = Saturation::default();
        let reported = (0..25).filter(|second| saturation.report(now + Duration::from_secs(*second)));
        assert_eq!(reported.collect::<Vec<_>>(), [0, 10, 20]);
    }
}

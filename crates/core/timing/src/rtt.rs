//! Round-trip time estimates (RFC 6298).

use std::time::Duration;

/// Bounds of a retransmission timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtoBounds {
    /// The timeout before any sample (RFC 6298, section 2.1).
    pub initial: Duration,
    /// The shortest timeout (section 2.4).
    pub min: Duration,
    /// The longest timeout (section 2.5).
    pub max: Duration,
}

impl RtoBounds {
    fn clamp(&self, rto: Duration) -> Duration {
        rto.min(self.max).max(self.min)
    }
}

/// The smoothed round-trip time and its mean deviation, SRTT and RTTVAR of RFC 6298, section 2.
///
/// Take samples only of requests that were sent once (Karn's algorithm, section 3), since the answer to a repeated
/// request cannot be matched with one of its transmissions. Doubling the timeout after a loss (section 5.5) is the
/// caller's part; [`crate::Backoff`] does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RttEstimator {
    srtt: Option<Duration>,
    rttvar: Duration,
    /// True if the first sample counts as free of deviation.
    for_display: bool,
}

impl RttEstimator {
    /// Returns an estimator as RFC 6298 has it: RTTVAR starts with half of the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self { srtt: None, rttvar: Duration::ZERO, for_display: false }
    }

    /// Returns an estimator whose RTTVAR starts with zero. It suits jitter that is shown to people or compared between
    /// paths, where a single sample must not look like an unsteady path; it is too eager for a retransmission timeout.
    #[must_use]
    pub const fn for_display() -> Self {
        Self { srtt: None, rttvar: Duration::ZERO, for_display: true }
    }

    /// Takes a measured round trip.
    pub fn on_sample(&mut self, rtt: Duration) {
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = if self.for_display { Duration::ZERO } else { rtt / 2 };
            }
            Some(srtt) => {
                self.rttvar = weigh(self.rttvar, srtt.abs_diff(rtt), 4);
                self.srtt = Some(weigh(srtt, rtt, 8));
            }
        }
    }

    /// Returns the smoothed round-trip time, or `None` before the first sample.
    #[must_use]
    pub const fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// Returns the mean deviation of the round-trip time; zero before the first sample.
    #[must_use]
    pub const fn rttvar(&self) -> Duration {
        self.rttvar
    }

    /// Returns the retransmission timeout, SRTT + 4 RTTVAR within its bounds.
    #[must_use]
    pub fn rto(&self, bounds: &RtoBounds) -> Duration {
        let Some(srtt) = self.srtt else { return bounds.clamp(bounds.initial) };
        bounds.clamp(srtt.saturating_add(self.rttvar.saturating_mul(4)))
    }
}

/// Moves `old` towards `new` by one part in `parts`.
fn weigh(old: Duration, new: Duration, parts: u32) -> Duration {
    old.saturating_mul(parts - 1).saturating_add(new) / parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: RtoBounds = RtoBounds {
        initial: Duration::from_millis(250),
        min: Duration::from_millis(100),
        max: Duration::from_secs(1),
    };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn first_sample_sets_both_values() {
        let mut estimator = RttEstimator::new();
        assert_eq!((estimator.srtt(), estimator.rto(&BOUNDS)), (None, ms(250)));
        estimator.on_sample(ms(40));
        assert_eq!((estimator.srtt(), estimator.rttvar()), (Some(ms(40)), ms(20)));
        assert_eq!(estimator.rto(&BOUNDS), ms(120));
    }

    #[test]
    fn later_samples_are_weighed_by_an_eighth_and_a_quarter() {
        let mut estimator = RttEstimator::new();
        estimator.on_sample(ms(80));
        estimator.on_sample(ms(160));
        // RTTVAR first, from the old SRTT (RFC 6298, section 2.3): (3 * 40 + 80) / 4.
        assert_eq!((estimator.srtt(), estimator.rttvar()), (Some(ms(90)), ms(50)));
    }

    #[test]
    fn timeout_stays_within_its_bounds() {
        let mut estimator = RttEstimator::new();
        (0..30).for_each(|_| estimator.on_sample(ms(1)));
        assert_eq!(estimator.rto(&BOUNDS), BOUNDS.min);
        estimator.on_sample(Duration::MAX);
        assert_eq!(estimator.rto(&BOUNDS), BOUNDS.max);
    }

    #[test]
    fn estimate_for_display_starts_without_deviation() {
        let mut estimator = RttEstimator::for_display();
        estimator.on_sample(ms(40));
        assert_eq!((estimator.srtt(), estimator.rttvar()), (Some(ms(40)), Duration::ZERO));
        estimator.on_sample(ms(48));
        assert_eq!((estimator.srtt(), estimator.rttvar()), (Some(ms(41)), ms(2)));
    }

    proptest! {
        #[test]
        fn smoothed_time_lies_between_the_samples(samples in prop::collection::vec(0u64..10_000_000, 1..60)) {
            let mut estimator = RttEstimator::new();
            samples.iter().for_each(|us| estimator.on_sample(Duration::from_micros(*us)));
            let (least, most) = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
            let srtt = estimator.srtt().unwrap();
            // Each step rounds down by less than a nanosecond.
            let slack = Duration::from_nanos(samples.len() as u64 * 8);
            prop_assert!(srtt + slack >= Duration::from_micros(*least) && srtt <= Duration::from_micros(*most));
            prop_assert!(estimator.rttvar() <= Duration::from_micros(*most));
        }
    }
}

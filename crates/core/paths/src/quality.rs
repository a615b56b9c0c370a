//! How good a path is, as measured by its checks: smoothed round trip time, jitter, and the share of checks lost.

use std::time::Duration;

use partyline_model::Quality;
use partyline_timing::RttEstimator;

/// The weight of one more response or loss in the moving average of the loss ratio.
const LOSS_WEIGHT: f32 = 0.05;
/// Losses in a row that count as more than one outage would.
const MAX_RUN: u32 = 3;
/// How much jitter adds to the cost, in multiples of itself.
const JITTER_WEIGHT: u32 = 2;
/// The cost of a path that loses every packet; partial loss costs its share.
const TOTAL_LOSS_COST: Duration = Duration::from_millis(1_000);

/// Moving averages over the checks of one pair. All are unknown until the first response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathQuality {
    rtt: RttEstimator,
    loss: f32,
    samples: u32,
    /// The share of checks lost, of which an outage counts as no more than [`MAX_RUN`].
    spread_loss: f32,
    /// Checks lost one after the other.
    run: u32,
    /// The last three round trips.
    recent: [Option<Duration>; 3],
}

impl Default for PathQuality {
    fn default() -> Self {
        // A first sample is no sign of jitter: paths are compared, and shown, by what was measured.
        Self {
            rtt: RttEstimator::for_display(),
            loss: 0.0,
            samples: 0,
            spread_loss: 0.0,
            run: 0,
            recent: [None; 3],
        }
    }
}

impl PathQuality {
    /// Takes the round trip time of an answered check.
    pub(crate) fn on_response(&mut self, rtt: Duration) {
        self.rtt.on_sample(rtt);
        self.recent.rotate_right(1);
        self.recent[0] = Some(rtt);
        self.samples = self.samples.saturating_add(1);
        self.loss -= self.loss * LOSS_WEIGHT;
        self.spread_loss -= self.spread_loss * LOSS_WEIGHT;
        self.run = 0;
    }

    /// Notes that a check was lost.
    pub(crate) fn on_loss(&mut self) {
        self.loss += (1.0 - self.loss) * LOSS_WEIGHT;
        self.run += 1;
        if self.run <= MAX_RUN {
            self.spread_loss += (1.0 - self.spread_loss) * LOSS_WEIGHT;
        }
    }

    /// Returns the smoothed round trip time.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt.srtt()
    }

    /// Returns the share of checks lost again and again: a single outage hardly counts, since a path that has failed is
    /// left at once and may come back at once.
    pub(crate) const fn spread_loss(&self) -> f32 {
        self.spread_loss
    }

    /// Returns the shortest of the last three round trips, which one slow packet does not change.
    pub(crate) fn best_recent_rtt(&self) -> Option<Duration> {
        self.recent.iter().flatten().min().copied()
    }

    /// Returns the share of checks lost, from 0 to 1; `None` if none was answered yet.
    pub(crate) fn loss(&self) -> Option<f32> {
        self.rtt().map(|_| self.loss)
    }

    /// Returns what the path costs a player: the round trip time, plus what jitter and loss add to it as they are felt.
    pub(crate) fn cost(&self) -> Option<Duration> {
        let loss = TOTAL_LOSS_COST.mul_f32(self.loss);
        self.rtt().map(|rtt| rtt + self.rtt.rttvar() * JITTER_WEIGHT + loss)
    }

    /// Returns the number of answered checks.
    pub(crate) const fn samples(&self) -> u32 {
        self.samples
    }

    /// Returns the figures shown to the user.
    pub(crate) fn view(&self) -> Quality {
        let ms = |span: Duration| span.as_secs_f32() * 1000.0;
        Quality {
            rtt_ms: self.rtt().map(ms),
            jitter_ms: self.rtt().map(|_| ms(self.rtt.rttvar())),
            loss: self.loss(),
            ..Quality::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(samples: &[u64]) -> PathQuality {
        let mut quality = PathQuality::default();
        samples.iter().for_each(|rtt| quality.on_response(Duration::from_millis(*rtt)));
        quality
    }

    #[test]
    fn nothing_is_claimed_before_the_first_response() {
        let mut quality = PathQuality::default();
        quality.on_loss();
        assert_eq!((quality.rtt(), quality.loss(), quality.cost()), (None, None, None));
        assert_eq!(quality.view(), Quality::default());
    }

    #[test]
    fn a_single_sample_shows_no_jitter() {
        let view = measured(&[40]).view();
        assert_eq!((view.rtt_ms, view.jitter_ms, view.loss), (Some(40.0), Some(0.0), Some(0.0)));
    }

    #[test]
    fn jitter_and_loss_add_to_the_cost() {
        let steady = measured(&[40, 40, 40]);
        let unsteady = measured(&[40, 60, 40]);
        assert!(unsteady.cost() > steady.cost());
        let mut lossy = steady;
        lossy.on_loss();
        let added = lossy.cost().unwrap() - steady.cost().unwrap();
        assert_eq!(added.as_millis(), 50, "one loss counts as 5 %, each per cent as 10 ms");
    }

    #[test]
    fn responses_heal_the_loss_ratio() {
        let mut quality = measured(&[40]);
        quality.on_loss();
        let before = quality.loss().unwrap();
        (0..50).for_each(|_| quality.on_response(Duration::from_millis(40)));
        assert!(quality.loss().unwrap() < before / 10.0);
    }
}

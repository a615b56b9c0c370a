//! How good a path is, measured by its checks: smoothed round trip and mean deviation as in RFC 6298 (but that starts
//! from none, since people look at it), and the share
//! of checks without an answer.

use std::time::Duration;

use partyline_model::Quality;

/// The weight of one more answer or silence in the loss figure.
const LOSS_WEIGHT: f32 = 0.05;

/// How many times its worth of round trip jitter counts.
const JITTER_WEIGHT: u32 = 2;
/// The round trip that a path without any answers would be as bad as.
const LOST: Duration = Duration::from_millis(1_000);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Estimate {
    rtt: Option<Duration>,
    deviation: Duration,
    loss: f32,
    samples: u32,
}

impl Estimate {
    /// A check was answered after `rtt`.
    pub(crate) fn answered(&mut self, rtt: Duration) {
        match self.rtt {
            None => self.rtt = Some(rtt),
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.rtt = Some((smoothed * 7 + rtt) / 8);
            }
        }
        self.samples = self.samples.saturating_add(1);
        self.loss -= self.loss * LOSS_WEIGHT;
    }

    /// A check was not answered.
    pub(crate) fn lost(&mut self) {
        self.loss += (1.0 - self.loss) * LOSS_WEIGHT;
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What the path costs a player: the round trip, and what jitter and loss add to it as they are felt.
    pub(crate) fn cost(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt + self.deviation * JITTER_WEIGHT + LOST.mul_f32(self.loss))
    }

    pub(crate) fn samples(&self) -> u32 {
        self.samples
    }

    pub(crate) fn view(&self) -> Quality {
        let ms = |d: Duration| d.as_secs_f32() * 1000.0;
        Quality {
            rtt_ms: self.rtt.map(ms),
            jitter_ms: self.rtt.map(|_| ms(self.deviation)),
            loss: self.rtt.map(|_| self.loss),
            ..Quality::default()
        }
    }
}

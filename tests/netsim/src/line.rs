//! Lines between hosts and the middle of the Internet.

use std::time::{Duration, Instant};

use crate::dice::Dice;

/// The longest time that a packet waits for a line to become free; a packet that would wait longer is dropped.
const MAX_QUEUEING_DELAY: Duration = Duration::from_millis(300);

/// The properties of a line, which are the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// The shortest one-way delay.
    pub latency: Duration,
    /// The longest additional delay. A value above the distance of two packets reorders them.
    pub jitter: Duration,
    /// The fraction of packets that are lost, 0 to 1.
    pub loss: f64,
    /// The fraction of packets that arrive twice, 0 to 1.
    pub duplication: f64,
    /// The rate in bytes per second; `None` is unlimited.
    pub rate: Option<u64>,
}

impl Line {
    /// A line without delay, loss and limit.
    pub const IDEAL: Self =
        Self { latency: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, duplication: 0.0, rate: None };

    /// A line of ten milliseconds without loss.
    pub const GOOD: Self = Self { latency: Duration::from_millis(10), ..Self::IDEAL };

    /// Returns the delay of the next packet, or `None` if it is lost.
    pub fn carry(&self, dice: &mut Dice) -> Option<Duration> {
        if dice.happens(self.loss) {
            return None;
        }
        let late = if self.jitter.is_zero() { Duration::ZERO } else { self.jitter.mul_f64(dice.unit()) };
        Some(self.latency + late)
    }
}

/// One end of a line with a rate: packets leave one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transmitter {
    free_at: Option<Instant>,
}

impl Transmitter {
    /// Returns how long it takes until a packet of `len` bytes has left, or `None` if the queue before it is too long.
    pub fn transmit(&mut self, now: Instant, rate: Option<u64>, len: usize) -> Option<Duration> {
        let Some(rate) = rate else { return Some(Duration::ZERO) };
        let start = self.free_at.map_or(now, |at| at.max(now));
        if start - now > MAX_QUEUEING_DELAY {
            return None;
        }
        let end = start + Duration::from_secs_f64(len as f64 / rate as f64);
        self.free_at = Some(end);
        Some(end - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_lost_packets_is_the_loss_and_delays_stay_within_jitter() {
        let line = Line { loss: 0.2, jitter: Duration::from_millis(30), ..Line::GOOD };
        let mut dice = Dice::new(1);
        let delays: Vec<Duration> = (0..10_000).filter_map(|_| line.carry(&mut dice)).collect();
        assert!((7_800..8_200).contains(&delays.len()), "{} of 10000 arrived", delays.len());
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*least >= line.latency && *most <= line.latency + line.jitter, "{least:?} {most:?}");
        assert!(*most - *least > Duration::from_millis(28), "the jitter is used in full");
    }

    #[test]
    fn good_line_draws_no_random_number() {
        let (mut used, mut unused) = (Dice::new(2), Dice::new(2));
        assert_eq!(Line::GOOD.carry(&mut used), Some(Duration::from_millis(10)));
        assert_eq!(used.number(), unused.number());
    }

    #[test]
    fn packets_queue_at_the_rate_and_are_dropped_once_the_queue_is_long() {
        let now = Instant::now();
        let mut transmitter = Transmitter::default();
        let mut send = |now| transmitter.transmit(now, Some(100_000), 1_000);
        let delays: Vec<_> = (0..50).map_while(|_| send(now)).collect();
        assert_eq!(delays[..3], [10, 20, 30].map(Duration::from_millis));
        assert_eq!(delays.len(), 31, "the queue holds 300 ms");
        assert_eq!(send(now + Duration::from_secs(1)), Some(Duration::from_millis(10)), "it is empty again");
    }
}

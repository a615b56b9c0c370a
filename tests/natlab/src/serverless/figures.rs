//! Times of several meetings, and the bars that they have to meet.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::party::World;

/// The number of meetings from which on the 95th percentile is not that of the slowest, and the median is steady.
const MANY: usize = 20;

/// The times of all meetings of a scenario. A meeting that failed has none.
#[derive(Debug, Default)]
pub(super) struct Times {
    times: Vec<Duration>,
    failures: Vec<String>,
}

impl Times {
    /// Adds a meeting.
    pub fn add(&mut self, meeting: Result<Duration>) {
        match meeting {
            Ok(time) => {
                eprintln!("    {:.2} s", time.as_secs_f64());
                self.times.push(time);
                self.times.sort_unstable();
            }
            Err(error) => {
                eprintln!("    {error:#}");
                self.failures.push(format!("{error:#}"));
            }
        }
    }

    /// Records the figures for the report, and checks that all met and that percentiles are within their bars. Where there
    /// are only a few meetings, a busy machine gets twice the time.
    pub fn check(&self, world: &World, bars: &[(usize, Duration)]) -> Result<()> {
        world.note("met", self.times.len());
        world.note("meetings", self.times.len() + self.failures.len());
        for percent in [50, 95] {
            let time = self.percentile(percent).map(|time| (time.as_secs_f64() * 100.0).round() / 100.0);
            world.note(&format!("p{percent}_s"), time);
        }
        ensure!(self.failures.is_empty(), "{} did not meet: {}", self.failures.len(), self.failures[0]);
        for (percent, bar) in bars {
            let time = self.percentile(*percent).unwrap_or(Duration::MAX);
            let bar = if self.times.len() < MANY { *bar * 2 } else { *bar };
            ensure!(time <= bar, "p{percent} is {time:?}, which is more than {bar:?}");
        }
        Ok(())
    }

    /// Returns the time within which so many percent met (nearest rank).
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), None);
        (1..=20).rev().for_each(|second| times.add(Ok(Duration::from_secs(second))));
        assert_eq!(times.percentile(50), Some(Duration::from_secs(10)));
        assert_eq!(times.percentile(95), Some(Duration::from_secs(19)));
        let mut one = Times::default();
        one.add(Ok(Duration::from_secs(3)));
        assert_eq!(
            (one.percentile(50), one.percentile(95)),
            (one.percentile(95), Some(Duration::from_secs(3)))
        );
    }
}

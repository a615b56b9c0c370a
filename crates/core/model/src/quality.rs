//! The quality of a path as players feel it.

use serde::{Deserialize, Serialize};

use crate::PathKind;

/// Milliseconds of round-trip time that cost one point of a hundred.
const RTT_PER_POINT: f32 = 5.0;
/// Milliseconds of jitter that cost one point.
const JITTER_PER_POINT: f32 = 1.25;
/// Points that one per cent of loss costs.
const POINTS_PER_LOSS: f32 = 4.0;

/// The quality of a path.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Quality {
    /// The smoothed round-trip time in milliseconds.
    pub rtt_ms: Option<f32>,
    /// The mean deviation of the round-trip time in milliseconds.
    pub jitter_ms: Option<f32>,
    /// The share of unanswered checks, from 0 to 1.
    pub loss: Option<f32>,
    /// All three in one number from 0 to 100; see [`score`].
    pub score: Option<u8>,
    /// The grade that belongs to the score.
    pub grade: Option<Grade>,
    /// The trend of the last minute; `None` with fewer than 6 samples.
    pub trend: Option<Trend>,
    /// The median round-trip time of the last minute in milliseconds.
    pub p50_ms: Option<f32>,
    /// The 95th percentile of the last minute's round-trip times in milliseconds.
    pub p95_ms: Option<f32>,
    /// The longest round-trip time of the last minute in milliseconds.
    pub max_ms: Option<f32>,
    /// The newest sample.
    pub latest: Option<Sample>,
}

/// A score as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// 85 and more: no delay is felt.
    Excellent,
    /// 65 and more: good for everything but the fastest games.
    Good,
    /// 40 and more: delay is felt.
    Fair,
    /// Less: hard to play with.
    Poor,
}

impl Grade {
    /// Returns the grade of a score.
    #[must_use]
    pub const fn of(score: u8) -> Self {
        match score {
            85.. => Self::Excellent,
            65..=84 => Self::Good,
            40..=64 => Self::Fair,
            _ => Self::Poor,
        }
    }
}

/// How the quality of a path develops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// The newer half of the last minute scores at least 5 points more than the older.
    Better,
    /// Neither better nor worse.
    Steady,
    /// The newer half scores at least 5 points less.
    Worse,
}

/// The outcome of one check of a path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Sample {
    /// When the outcome was known, in milliseconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub at_ms: f64,
    /// The round-trip time in milliseconds; `None` if there was no answer.
    pub rtt_ms: Option<f32>,
    /// The path that carried the member's packets at that time.
    pub path: Option<PathKind>,
}

/// Returns round-trip time and jitter (both in milliseconds) and loss (0 to 1) as one number from 0 to 100. Each 5 ms
/// of round-trip time, 1.25 ms of jitter and 0.25 % of loss cost one point.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100")]
pub fn score(rtt_ms: f32, jitter_ms: f32, loss: f32) -> u8 {
    let cost = rtt_ms / RTT_PER_POINT + jitter_ms / JITTER_PER_POINT + loss * 100.0 * POINTS_PER_LOSS;
    (100.0 - cost).clamp(0.0, 100.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_falls_with_delay_jitter_and_loss() {
        assert_eq!((score(0.5, 0.1, 0.0), score(1e9, 0.0, 0.0), score(f32::NAN, 0.0, 0.0)), (100, 0, 0));
        let words = [(20.0, 1.0, 0.0), (90.0, 3.0, 0.0), (90.0, 10.0, 0.05), (250.0, 20.0, 0.1)];
        let grades = words.map(|(rtt, jitter, loss)| Grade::of(score(rtt, jitter, loss)));
        assert_eq!(grades, [Grade::Excellent, Grade::Good, Grade::Fair, Grade::Poor]);
    }
}

//! How good a path is, for people.

use serde::{Deserialize, Serialize};

use crate::PathKind;

/// Milliseconds of round trip that cost one point of a hundred.
const RTT_PER_POINT: f32 = 5.0;
/// Milliseconds of jitter that cost one point.
const JITTER_PER_POINT: f32 = 1.25;
/// Points that one per cent of loss costs.
const POINTS_PER_LOSS: f32 = 4.0;

/// How good a path is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Quality {
    /// Smoothed round trip in milliseconds.
    pub rtt_ms: Option<f32>,
    /// Mean deviation of the round trip in milliseconds.
    pub jitter_ms: Option<f32>,
    /// Share of checks unanswered, 0 to 1.
    pub loss: Option<f32>,
    /// All three in one number, 0 to 100; see [`score`].
    pub score: Option<u8>,
    /// The score in a word.
    pub grade: Option<Grade>,
    /// Where the last minute is going; `None` below 6 samples.
    pub trend: Option<Trend>,
    /// Median round trip of the last minute in milliseconds.
    pub p50_ms: Option<f32>,
    /// The 95th percentile of it.
    pub p95_ms: Option<f32>,
    /// The longest of it.
    pub max_ms: Option<f32>,
    /// The newest sample.
    pub latest: Option<Sample>,
}

/// A score in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// 85 and more: nothing is felt.
    Excellent,
    /// 65 and more: good for everything but the fastest games.
    Good,
    /// 40 and more: felt.
    Fair,
    /// Less: hard to play with.
    Poor,
}

impl Grade {
    /// The word for a score.
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

/// Where the quality of a path is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// The newer half of the last minute scores at least 5 points more than the older.
    Better,
    /// Neither.
    Steady,
    /// At least 5 points less.
    Worse,
}

/// One check of a path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Sample {
    /// When its outcome was known, in milliseconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = crate::Number))]
    pub at_ms: f64,
    /// The round trip in milliseconds; `None` if there was no answer.
    pub rtt_ms: Option<f32>,
    /// What carried the member's packets then.
    pub path: Option<PathKind>,
}

/// Round trip, jitter (both in milliseconds) and loss (0 to 1) in one number, 0 to 100: what a player feels. 5 ms of
/// round trip, 1.25 ms of jitter and a quarter of a per cent of loss each cost one point.
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
    fn scores_are_what_players_feel() {
        assert_eq!((score(0.5, 0.1, 0.0), score(1e9, 0.0, 0.0), score(f32::NAN, 0.0, 0.0)), (100, 0, 0));
        let words = [(20.0, 1.0, 0.0), (90.0, 3.0, 0.0), (90.0, 10.0, 0.05), (250.0, 20.0, 0.1)];
        let grades = words.map(|(rtt, jitter, loss)| Grade::of(score(rtt, jitter, loss)));
        assert_eq!(grades, [Grade::Excellent, Grade::Good, Grade::Fair, Grade::Poor]);
    }
}

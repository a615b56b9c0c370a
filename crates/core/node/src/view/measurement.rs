//! What was measured about each member: samples of an hour, statistics of the last minute, and byte rates.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Grade, Now, PartyId, PathKind, Quality, Sample, TrafficView, Trend, score};
use partyline_tunnel::SessionStats;

/// How many samples are kept of each member, and for how long.
const MAX_SAMPLES: usize = 3_600;
const SAMPLE_LIFETIME: Duration = Duration::from_secs(3_600);
/// The time that percentiles and trend describe.
const WINDOW: Duration = Duration::from_secs(60);
/// The fewest samples in the window that make a trend.
const MIN_TREND_SAMPLES: usize = 6;
/// Points of score between the two halves of the window that make a trend.
const TREND_POINTS: f32 = 5.0;
/// The time constant by which rates are smoothed, and the shortest time over which one is computed.
const RATE_TIME_CONSTANT: Duration = Duration::from_secs(2);
const MIN_RATE_SPAN: Duration = Duration::from_millis(90);

/// One member's measurements.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    samples: VecDeque<(Instant, Sample)>,
    receiving: Meter,
    sending: Meter,
}

impl Measurement {
    /// Adds the result of a check, and drops what is too old or too much.
    pub(crate) fn on_sample(&mut self, now: Now, rtt: Option<Duration>, path: PathKind) {
        let old = |(at, _): &(Instant, Sample)| now.instant.saturating_duration_since(*at) >= SAMPLE_LIFETIME;
        while self.samples.len() >= MAX_SAMPLES || self.samples.front().is_some_and(old) {
            self.samples.pop_front();
        }
        let rtt_ms = rtt.map(|rtt| rtt.as_secs_f32() * 1000.0);
        let sample = Sample { at_ms: milliseconds(now), rtt_ms, path: Some(path) };
        self.samples.push_back((now.instant, sample));
    }

    /// Returns every sample that is kept, oldest first.
    pub(crate) fn samples(&self, now: Instant) -> impl DoubleEndedIterator<Item = Sample> {
        let fresh = move |(at, _): &&(Instant, Sample)| now.saturating_duration_since(*at) < SAMPLE_LIFETIME;
        self.samples.iter().filter(fresh).map(|(_, sample)| *sample)
    }

    /// Completes what the path machine knows about the path in use with statistics of the samples.
    pub(crate) fn quality(&self, now: Instant, path: Quality) -> Quality {
        let recent = |(at, _): &&(Instant, Sample)| now.saturating_duration_since(*at) < WINDOW;
        let window: Vec<Sample> =
            self.samples.iter().rev().take_while(recent).map(|(_, sample)| *sample).collect();
        let mut trips: Vec<f32> = window.iter().filter_map(|sample| sample.rtt_ms).collect();
        trips.sort_by(f32::total_cmp);
        let score =
            path.rtt_ms.map(|rtt| score(rtt, path.jitter_ms.unwrap_or(0.0), path.loss.unwrap_or(0.0)));
        Quality {
            score,
            grade: score.map(Grade::of),
            trend: score.and_then(|_| trend(&window)),
            p50_ms: percentile(&trips, 50),
            p95_ms: percentile(&trips, 95),
            max_ms: trips.last().copied(),
            latest: self.samples(now).next_back(),
            ..path
        }
    }

    fn record_bytes(&mut self, now: Instant, session: &SessionStats) {
        self.receiving.record(now, session.received_bytes);
        self.sending.record(now, session.sent_bytes);
    }

    /// Returns the byte counts of a session with the rates.
    #[expect(clippy::cast_precision_loss, reason = "counts of bytes for people")]
    pub(crate) fn traffic(&self, session: &SessionStats) -> TrafficView {
        TrafficView {
            received_bytes: session.received_bytes as f64,
            sent_bytes: session.sent_bytes as f64,
            receiving: self.receiving.rate,
            sending: self.sending.rate,
            dropped: u32::try_from(session.drops.total()).unwrap_or(u32::MAX),
        }
    }
}

/// Computes bytes per second from a running count of bytes.
#[derive(Debug, Default)]
struct Meter {
    last: Option<(Instant, u64)>,
    rate: f32,
}

impl Meter {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn record(&mut self, now: Instant, total: u64) {
        let Some((at, before)) = self.last.filter(|(_, before)| *before <= total) else {
            // The first count, or that of another session, which starts at zero.
            (self.last, self.rate) = (Some((now, total)), 0.0);
            return;
        };
        let span = now.saturating_duration_since(at);
        if span >= MIN_RATE_SPAN {
            let rate = (total - before) as f32 / span.as_secs_f32();
            let weight = 1.0 - (-span.as_secs_f32() / RATE_TIME_CONSTANT.as_secs_f32()).exp();
            self.rate += (rate - self.rate) * weight;
            // What is left of a burst is no traffic.
            if self.rate < 1.0 {
                self.rate = 0.0;
            }
            self.last = Some((now, total));
        }
    }
}

/// All members' measurements.
#[derive(Debug, Default)]
pub(crate) struct Measurements(BTreeMap<(PartyId, DeviceId), Measurement>);

impl Measurements {
    /// Notes the result of a check of the path in use; `rtt` is `None` if it was not answered.
    pub(crate) fn on_sample(
        &mut self,
        now: Now,
        member: (PartyId, DeviceId),
        rtt: Option<Duration>,
        path: PathKind,
    ) {
        self.0.entry(member).or_default().on_sample(now, rtt, path);
    }

    /// Takes a member's byte counts, from which the rates come.
    pub(crate) fn record_bytes(&mut self, now: Instant, member: (PartyId, DeviceId), session: &SessionStats) {
        self.0.entry(member).or_default().record_bytes(now, session);
    }

    /// Returns a member's measurements.
    pub(crate) fn get(&self, member: (PartyId, DeviceId)) -> Option<&Measurement> {
        self.0.get(&member)
    }

    /// Forgets a member.
    pub(crate) fn remove(&mut self, member: (PartyId, DeviceId)) {
        self.0.remove(&member);
    }
}

#[expect(clippy::cast_precision_loss, reason = "dates in milliseconds are far below 2^53")]
fn milliseconds(now: Now) -> f64 {
    now.unix.0 as f64
}

/// Returns the nearest-rank percentile of sorted values.
fn percentile(sorted: &[f32], percent: usize) -> Option<f32> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Compares the newer half of the window with the older one. The window is newest first.
fn trend(window: &[Sample]) -> Option<Trend> {
    if window.len() < MIN_TREND_SAMPLES {
        return None;
    }
    let (newer, older) = window.split_at(window.len() / 2);
    let gain = mean_score(newer) - mean_score(older);
    Some(match gain {
        gain if gain >= TREND_POINTS => Trend::Better,
        gain if gain <= -TREND_POINTS => Trend::Worse,
        _ => Trend::Steady,
    })
}

/// Returns the mean score of single checks, where a lost one scores zero.
fn mean_score(samples: &[Sample]) -> f32 {
    let scores =
        samples.iter().map(|sample| sample.rtt_ms.map_or(0.0, |rtt| f32::from(score(rtt, 0.0, 0.0))));
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let count = samples.len().max(1) as f32;
    scores.sum::<f32>() / count
}

#[cfg(test)]
mod tests {
    use partyline_model::Timestamp;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Now {
        Now { instant: Instant::now(), unix: Timestamp(1_790_000_000_000) }
    }

    fn after(start: Now, seconds: u64) -> Now {
        let unix = Timestamp(start.unix.0 + seconds * 1000);
        Now { instant: start.instant + Duration::from_secs(seconds), unix }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn statistics_describe_the_last_minute() {
        let (start, mut kept) = (start(), Measurement::default());
        kept.on_sample(start, Some(900 * MS), PathKind::Relay);
        for second in 100..200 {
            let rtt = if second == 150 { 200 * MS } else { 20 * MS };
            kept.on_sample(after(start, second), Some(rtt), PathKind::Direct);
        }
        let now = after(start, 200);
        let path =
            Quality { rtt_ms: Some(20.0), jitter_ms: Some(0.0), loss: Some(0.0), ..Quality::default() };
        let quality = kept.quality(now.instant, path);
        assert_eq!((quality.p50_ms, quality.p95_ms, quality.max_ms), (Some(20.0), Some(20.0), Some(200.0)));
        assert_eq!((quality.score, quality.grade), (Some(96), Some(Grade::Excellent)));
        assert_eq!(quality.trend, Some(Trend::Steady));
        let at_ms = 1_790_000_199_000.0;
        assert_eq!(quality.latest, Some(Sample { at_ms, rtt_ms: Some(20.0), path: Some(PathKind::Direct) }));
        assert_eq!(kept.samples(now.instant).count(), 101);
        let idle = kept.quality(after(start, 300).instant, Quality::default());
        assert_eq!((idle.score, idle.trend, idle.p50_ms), (None, None, None));
    }

    #[test]
    fn samples_are_kept_for_an_hour_and_limited_in_number() {
        let (start, mut kept) = (start(), Measurement::default());
        for second in 0..10_000 {
            kept.on_sample(after(start, second / 2), None, PathKind::Relay);
        }
        assert_eq!(kept.samples(after(start, 5_000).instant).count(), MAX_SAMPLES);
        kept.on_sample(after(start, 8_000), None, PathKind::Relay);
        assert_eq!(kept.samples.len(), kept.samples(after(start, 8_000).instant).count());
        assert!(kept.samples.len() < 1_300, "{}", kept.samples.len());
    }

    #[test]
    fn loss_makes_the_trend_worse_and_recovery_better() {
        let (start, mut kept) = (start(), Measurement::default());
        for second in 0..20 {
            kept.on_sample(after(start, second), (second < 10).then_some(20 * MS), PathKind::Direct);
        }
        let path = Quality { rtt_ms: Some(20.0), ..Quality::default() };
        assert_eq!(kept.quality(after(start, 20).instant, path).trend, Some(Trend::Worse));
        for second in 20..40 {
            kept.on_sample(after(start, second), Some(20 * MS), PathKind::Direct);
        }
        assert_eq!(kept.quality(after(start, 70).instant, path).trend, Some(Trend::Better));
    }

    #[test]
    fn rates_converge_and_fall_to_zero() {
        let (start, mut meter) = (start().instant, Meter::default());
        for tick in 0..=100_u32 {
            meter.record(start + 100 * MS * tick, u64::from(tick) * 1_000);
        }
        assert!((9_000.0..=10_000.0).contains(&meter.rate), "{}", meter.rate);
        for tick in 100..400_u32 {
            meter.record(start + 100 * MS * tick, 100_000);
        }
        assert_eq!(meter.rate, 0.0);
        meter.record(start + 100 * MS * 400, 10);
        assert_eq!(meter.rate, 0.0, "a new session is no traffic");
    }
}

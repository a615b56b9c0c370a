//! Many random parties on all cores, and what they have in common.

use std::{
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use partyline_model::PathKind;

use crate::{
    judge::Route,
    outcome::{Outcome, Pair},
    scenario::Scenario,
    shrink::survive,
};

/// One party of the crowd.
pub struct Played {
    /// Its seed.
    pub seed: u64,
    /// Whether there was IPv6 and routers that open ports.
    pub helped: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// The scenario of a seed. Every second one has neither IPv6 nor routers that open ports.
#[must_use]
pub fn scenario(seed: u64, members: &RangeInclusive<usize>) -> Scenario {
    Scenario::random(seed, members, is_helped(seed))
}

const fn is_helped(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Plays the parties of so many seeds from the first on; the result is in their order.
#[must_use]
pub fn run(first: u64, parties: u64, members: &RangeInclusive<usize>) -> Vec<Played> {
    let (next, done) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + parties {
                        break;
                    }
                    let outcome = survive(&scenario(seed, members));
                    let played = Played { seed, helped: is_helped(seed), outcome };
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(played);
                }
            });
        }
    });
    let mut played = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    played.sort_by_key(|played| played.seed);
    played
}

/// The middle and the tail of some times or counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 95 % are at most this.
    pub p95: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of any numbers.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (numbers.len() as f64 * share).ceil() as usize;
            numbers.get(place.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { count: numbers.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }

    /// Of times, in milliseconds.
    #[must_use]
    pub fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(times.into_iter().map(|time| time.as_secs_f64() * 1000.0))
    }
}

/// Some parties in figures.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Figures {
    /// Parties.
    pub parties: usize,
    /// Pairs at the end.
    pub pairs: usize,
    /// Share of pairs with a direct path, 0 to 1.
    pub direct: f64,
    /// Share of pairs that the model allows a direct path.
    pub possible: f64,
    /// Of the pairs whose ports have to be foretold or tried, the share with a direct path; `None` without such.
    pub hard: Option<f64>,
    /// Until packets could flow, in milliseconds.
    pub first_packet_ms: Spread,
    /// Until they went directly.
    pub direct_ms: Spread,
    /// Until all was at rest after the last thing happened.
    pub rest_ms: Spread,
    /// Messages per pair, over the whole time.
    pub messages_per_pair: Spread,
}

impl Figures {
    /// Counts and sorts.
    #[must_use]
    pub fn of<'a>(played: impl IntoIterator<Item = &'a Played>) -> Self {
        let outcomes: Vec<&Outcome> = played.into_iter().map(|played| &played.outcome).collect();
        let pairs: Vec<&Pair> = outcomes.iter().flat_map(|outcome| &outcome.pairs).collect();
        let hard: Vec<&&Pair> = pairs.iter().filter(|pair| pair.route == Route::Hard).collect();
        let per_pair = |outcome: &&Outcome| {
            let pairs = outcome.members * (outcome.members - 1) / 2;
            (pairs > 0).then(|| outcome.messages as f64 / pairs as f64)
        };
        let whole = outcomes.iter().filter(|outcome| outcome.members > 1);
        Self {
            parties: outcomes.len(),
            pairs: pairs.len(),
            direct: share(&pairs, |pair| is_direct(pair)),
            possible: share(&pairs, |pair| pair.route != Route::Relay),
            hard: (!hard.is_empty()).then(|| share(&hard, |pair| is_direct(pair))),
            first_packet_ms: Spread::of_times(pairs.iter().filter_map(|pair| pair.times.first)),
            direct_ms: Spread::of_times(pairs.iter().filter_map(|pair| pair.times.direct)),
            rest_ms: Spread::of_times(outcomes.iter().map(|outcome| outcome.rest)),
            messages_per_pair: Spread::of(whole.filter_map(per_pair)),
        }
    }
}

fn is_direct(pair: &Pair) -> bool {
    pair.kind.is_some_and(|kind| !matches!(kind, PathKind::Relay | PathKind::MemberRelay))
}

fn share<T>(all: &[T], is: impl Fn(&T) -> bool) -> f64 {
    if all.is_empty() { 0.0 } else { all.iter().filter(|one| is(one)).count() as f64 / all.len() as f64 }
}

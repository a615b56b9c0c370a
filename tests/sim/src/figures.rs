//! Statistics over many parties.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    crowd::Played,
    judge::{Obstacle, Route},
    outcome::{Outcome, Pair},
    watch::{Outage, Trouble},
};

/// The distribution of times or counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Spread {
    /// The number of values.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

impl Spread {
    /// Returns the distribution of numbers.
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

    /// Returns the distribution of times in milliseconds.
    #[must_use]
    pub fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(times.into_iter().map(|time| time.as_secs_f64() * 1000.0))
    }
}

/// Pairs that must have a direct path, and how many of them have one.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Reached {
    /// The number of pairs.
    pub pairs: usize,
    /// The number of those with a direct path.
    pub direct: usize,
    /// The time until packets went directly, in milliseconds.
    pub direct_ms: Spread,
}

/// The statistics of some parties. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Figures {
    /// The number of parties.
    pub parties: usize,
    /// The number of pairs at the end.
    pub pairs: usize,
    /// The fraction of pairs with a direct path, 0 to 1.
    pub direct: f64,
    /// The fraction of pairs that can have a direct path.
    pub possible: f64,
    /// The number of the others by reason.
    pub impossible: BTreeMap<String, usize>,
    /// Pairs on one LAN.
    pub lan: Reached,
    /// Pairs that need only simultaneous checks.
    pub checked: Reached,
    /// Pairs whose ports have to be predicted or tried.
    pub hard: Reached,
    /// Pairs that another VPN connects as well, as far as they can have a direct path.
    pub beside_vpn: Reached,
    /// The time until packets could flow.
    pub first_packet_ms: Spread,
    /// The longest time without a packet after trouble.
    pub outage_ms: BTreeMap<&'static str, Spread>,
    /// The same where nothing else went wrong.
    pub outage_alone_ms: BTreeMap<&'static str, Spread>,
    /// The time from the start of a copied state until one of the two computers stood back.
    pub copies_ms: Spread,
    /// The time from the last event until the party had come to rest.
    pub rest_ms: Spread,
    /// Messages per pair over the whole run, including those to servers.
    pub messages_per_pair: Spread,
}

impl Figures {
    /// Returns the statistics of parties.
    #[must_use]
    pub fn of<'a>(played: impl IntoIterator<Item = &'a Played>) -> Self {
        let outcomes: Vec<&Outcome> = played.into_iter().map(|played| &played.outcome).collect();
        let pairs: Vec<&Pair> = outcomes.iter().flat_map(|outcome| &outcome.pairs).collect();
        let per_pair = |outcome: &&Outcome| {
            let pairs = outcome.members * (outcome.members - 1) / 2;
            (pairs > 0).then(|| outcome.messages as f64 / pairs as f64)
        };
        let whole = outcomes.iter().filter(|outcome| outcome.members > 1);
        Self {
            parties: outcomes.len(),
            pairs: pairs.len(),
            direct: share(&pairs, |pair| pair.is_direct()),
            possible: share(&pairs, |pair| obstacle(pair).is_none()),
            impossible: obstacles(&pairs),
            lan: Reached::of(&pairs, |pair| pair.route == Route::Lan),
            checked: Reached::of(&pairs, |pair| pair.route == Route::Direct),
            hard: Reached::of(&pairs, |pair| pair.route == Route::Hard),
            beside_vpn: Reached::of(&pairs, |pair| pair.has_vpn && obstacle(pair).is_none()),
            first_packet_ms: Spread::of_times(pairs.iter().filter_map(|pair| pair.times.first)),
            outage_ms: outages(&outcomes, false),
            outage_alone_ms: outages(&outcomes, true),
            copies_ms: Spread::of_times(outcomes.iter().flat_map(|outcome| outcome.copies.iter().copied())),
            rest_ms: Spread::of_times(outcomes.iter().map(|outcome| outcome.rest)),
            messages_per_pair: Spread::of(whole.filter_map(per_pair)),
        }
    }

    /// Returns the fraction of the pairs that can have a direct path which have one.
    #[must_use]
    pub fn direct_of_possible(&self) -> f64 {
        if self.possible > 0.0 { self.direct / self.possible } else { 0.0 }
    }
}

impl Reached {
    fn of(pairs: &[&Pair], counts: impl Fn(&Pair) -> bool) -> Self {
        let pairs: Vec<&&Pair> = pairs.iter().filter(|pair| counts(pair)).collect();
        Self {
            pairs: pairs.len(),
            direct: pairs.iter().filter(|pair| pair.is_direct()).count(),
            direct_ms: Spread::of_times(pairs.iter().filter_map(|pair| pair.times.direct)),
        }
    }
}

fn obstacle(pair: &Pair) -> Option<Obstacle> {
    if let Route::Relay(obstacle) = pair.route { Some(obstacle) } else { None }
}

fn obstacles(pairs: &[&Pair]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for obstacle in pairs.iter().filter_map(|pair| obstacle(pair)) {
        *counts.entry(obstacle.to_string()).or_default() += 1;
    }
    counts
}

fn outages(outcomes: &[&Outcome], alone: bool) -> BTreeMap<&'static str, Spread> {
    let of = |trouble: Trouble| {
        let all = outcomes.iter().flat_map(|outcome| &outcome.outages);
        let counts = |outage: &&Outage| outage.trouble == trouble && (outage.alone || !alone);
        Spread::of_times(all.filter(counts).map(|outage| outage.span))
    };
    let all = Trouble::ALL.into_iter().map(|trouble| (trouble.name(), of(trouble)));
    all.filter(|(_, spread)| spread.count > 0).collect()
}

fn share<T>(all: &[T], is: impl Fn(&T) -> bool) -> f64 {
    if all.is_empty() { 0.0 } else { all.iter().filter(|one| is(one)).count() as f64 / all.len() as f64 }
}

//! Many random parties on all cores.

use std::{
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{outcome::Outcome, scenario::Scenario, shrink::survive};

/// A party that was played.
pub struct Played {
    /// Its seed.
    pub seed: u64,
    /// True if there was IPv6 and routers that map ports.
    pub helped: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// Returns the scenario of a seed. Every second one has neither IPv6 nor routers that map ports.
#[must_use]
pub fn scenario(seed: u64, members: &RangeInclusive<usize>) -> Scenario {
    Scenario::random(seed, members, is_helped(seed))
}

const fn is_helped(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Plays the parties of `parties` seeds from `first` on. Returns them in the order of their seeds.
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

//! Rate limits by source address, in constant memory.

use std::{hash::BuildHasher, net::IpAddr, time::Instant};

use foldhash::quality::FixedState;
use partyline_model::host_network;
use partyline_timing::{Level, Rate};

/// Buckets of a [`SourceLimiter`].
const BUCKETS: usize = 1 << 14;
/// Seconds' worth of answers that a source may use up at once.
const BURST_S: u64 = 2;

/// One token bucket per source, in a table of fixed size. Sources whose hashes collide share a bucket; a client that does
/// not know the seed cannot choose with whom.
#[derive(Debug)]
pub(crate) struct SourceLimiter {
    levels: Box<[Level]>,
    hasher: FixedState,
    rate: Rate,
}

impl SourceLimiter {
    pub(crate) fn new(rate: Rate, seed: u64) -> Self {
        Self {
            levels: vec![Level::default(); BUCKETS].into_boxed_slice(),
            hasher: FixedState::with_seed(seed),
            rate,
        }
    }

    /// Returns a limiter of answers.
    pub(crate) fn of_answers(per_second: u32, seed: u64) -> Self {
        let per_second = u64::from(per_second);
        Self::new(Rate::per_second(per_second, per_second * BURST_S), seed)
    }

    /// Takes tokens from the source's bucket: one for an answer, one for each byte. Returns false, and takes none, if there
    /// are not that many.
    pub(crate) fn take(&mut self, now: Instant, source: IpAddr, tokens: u64) -> bool {
        let at = self.hasher.hash_one(host_network(source)) as usize % BUCKETS;
        self.levels[at].take(now, &self.rate, tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_source_does_not_use_up_the_limit_of_another() {
        #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let now = Instant::now();
        let mut limiter = SourceLimiter::of_answers(10, 1);
        let (loud, quiet) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!((0..100).filter(|_| limiter.take(now, loud, 1)).count(), 20);
        assert!(limiter.take(now, quiet, 1));
        assert!(limiter.take(now + Duration::from_secs(1), loud, 1));
    }
}

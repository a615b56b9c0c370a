//! One token bucket per source, for a bounded number of sources.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use partyline_timing::Level;

use crate::{limits::SOURCE_HANDSHAKE_RATE, source::SourceKey};

/// Sources with a bucket of their own at once. What all of them may do together bounds the work of a flood that comes
/// from many addresses.
const MAX_SOURCES: usize = 256;

/// How often a full table is searched for buckets that are full again, so that a flood from ever new sources does not pay
/// for one search each.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Token buckets by source. A source without one gets a full bucket if there is room.
#[derive(Debug, Default)]
pub(crate) struct SourceBuckets {
    levels: BTreeMap<SourceKey, Level>,
    next_sweep: Option<Instant>,
}

impl SourceBuckets {
    /// Takes a token of a source, and returns whether it had one. A source for which there is no room has none.
    pub(crate) fn take(&mut self, now: Instant, source: SourceKey) -> bool {
        if let Some(level) = self.levels.get_mut(&source) {
            return level.take(now, &SOURCE_HANDSHAKE_RATE, 1);
        }
        if self.levels.len() >= MAX_SOURCES {
            self.sweep(now);
        }
        if self.levels.len() >= MAX_SOURCES {
            return false;
        }
        self.levels.entry(source).or_default().take(now, &SOURCE_HANDSHAKE_RATE, 1)
    }

    /// Forgets buckets that are full, which a new source would get as well.
    fn sweep(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|at| at <= now) {
            self.next_sweep = Some(now + SWEEP_INTERVAL);
            self.levels.retain(|_, level| !level.is_full(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn source(number: u32) -> SourceKey {
        SourceKey::Host(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn sources_do_not_share_tokens() {
        let (now, mut buckets) = (start(), SourceBuckets::default());
        let passed = (0..1000).filter(|_| buckets.take(now, source(1))).count();
        assert_eq!(passed, 100);
        assert!(buckets.take(now, source(2)));
        assert!(buckets.take(now + Duration::from_millis(50), source(1)), "20 a second");
    }

    #[test]
    fn table_is_bounded_and_forgets_sources_that_are_quiet() {
        let (now, mut buckets) = (start(), SourceBuckets::default());
        let passed = (0..100_000).filter(|number| buckets.take(now, source(*number))).count();
        assert_eq!((passed, buckets.levels.len()), (MAX_SOURCES, MAX_SOURCES));
        assert!(buckets.take(now, source(1)), "known ones keep their bucket");
        assert!(!buckets.take(now + Duration::from_millis(49), source(100_000)));
        assert!(buckets.take(now + Duration::from_millis(100), source(100_000)));
        assert_eq!(buckets.levels.len(), 1);
    }
}

//! Rate limits by source address, in constant memory.

use std::{hash::BuildHasher, net::IpAddr, time::Instant};

use foldhash::quality::FixedState;
use partyline_timing::{Level, Rate};

/// Buckets of a [`SourceLimiter`].
const BUCKETS: usize = 1 << 14;
/// Seconds' worth of answers that a source may use up at once.
const BURST_S: u64 = 2;

/// Returns the address that stands for a source: itself for IPv4, its /64 for IPv6, all addresses of which one host can
/// have.
pub(crate) fn source_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// One token bucket per source, in a table of fixed size. Sources whose hashes collide share a bucket; a client that does
/// not know the seed cannot choose with whom.
#[derive(Debug)]
pub(crate) struct SourceLimiter {
    levels: Box<[Level]>,
    hasher: FixedState,
    rate: Rate,
}

impl SourceLimiter {
    pub(crate) fn new(per_second: u32, seed: u64) -> Self {
        let per_second = u64::from(per_second);
        Self {
            levels: vec![Level::default(); BUCKETS].into_boxed_slice(),
            hasher: FixedState::with_seed(seed),
            rate: Rate::per_second(per_second, per_second * BURST_S),
        }
    }

    /// Returns true if the source may have another answer now.
    pub(crate) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        let at = self.hasher.hash_one(source_network(source)) as usize % BUCKETS;
        self.levels[at].take(now, &self.rate, 1)
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
        let mut limiter = SourceLimiter::new(10, 1);
        let (loud, quiet) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!((0..100).filter(|_| limiter.take(now, loud)).count(), 20);
        assert!(limiter.take(now, quiet));
        assert!(limiter.take(now + Duration::from_secs(1), loud));
    }

    #[test]
    fn ipv6_source_is_its_64_bit_prefix() {
        let of = |text: &str| source_network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}

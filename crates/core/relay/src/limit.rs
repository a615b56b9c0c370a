//! Rates: how much may pass per second, in constant memory.

use std::net::IpAddr;

use foldhash::quality::FixedState;
use std::hash::BuildHasher;

/// A rate limit as one point in time: the moment at which everything let through so far would have been due.
/// What would push that moment further ahead of now than the burst is refused.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    due_ns: u64,
}

/// A rate and how far it may be run ahead of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Nanoseconds per unit, in 1/1024.
    cost: u64,
    burst_ns: u64,
}

impl Rate {
    /// So many units per second, with so many seconds' worth at once.
    pub(crate) fn new(per_second: u64, burst_s: u64) -> Self {
        Self { cost: (1_000_000_000 << 10) / per_second.max(1), burst_ns: burst_s * 1_000_000_000 }
    }
}

impl Bucket {
    /// Takes `units` if they may pass now.
    pub(crate) fn take(&mut self, now_ns: u64, units: u64, rate: Rate) -> bool {
        let due = self.due_ns.max(now_ns) + ((units * rate.cost) >> 10);
        let passes = due <= now_ns + rate.burst_ns;
        if passes {
            self.due_ns = due;
        }
        passes
    }
}

/// The network an address is counted with: itself, or its /64, of which one host has all addresses.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// One bucket per client address, in a table of fixed size: addresses that meet in one place share its limit, and who
/// cannot know the seed cannot choose whom to meet.
#[derive(Debug)]
pub(crate) struct SourceLimit {
    buckets: Box<[Bucket]>,
    hasher: FixedState,
    rate: Rate,
}

const SOURCES: usize = 1 << 14;

impl SourceLimit {
    pub(crate) fn new(per_second: u32, seed: u64) -> Self {
        Self {
            buckets: vec![Bucket::default(); SOURCES].into_boxed_slice(),
            hasher: FixedState::with_seed(seed),
            rate: Rate::new(per_second.into(), 2),
        }
    }

    pub(crate) fn take(&mut self, now_ns: u64, source: IpAddr) -> bool {
        let place = self.hasher.hash_one(neighbourhood(source)) as usize % SOURCES;
        self.buckets[place].take(now_ns, 1, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_than_rate_and_burst_passes(steps in prop::collection::vec((0u64..50_000_000, 1u64..2000), 1..400)) {
            let (rate, mut bucket, mut now, mut passed) = (Rate::new(10_000, 1), Bucket::default(), 0, 0);
            for (wait, units) in steps {
                now += wait;
                if bucket.take(now, units, rate) {
                    passed += units;
                }
            }
            prop_assert!(passed <= 10_000 + 10_000 * now / 1_000_000_000 + 1);
        }
    }

    #[test]
    fn one_source_does_not_use_up_anothers_limit() {
        let mut limit = SourceLimit::new(10, 1);
        let (loud, quiet) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!((0..100).filter(|_| limit.take(0, loud)).count(), 20);
        assert!(limit.take(0, quiet));
        assert!(limit.take(1_000_000_000, loud));
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}

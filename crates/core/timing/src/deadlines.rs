//! One timer per key.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// At most one deadline for each key, with cheap access to the earliest, so that keys whose time has not come cost
/// nothing. Deadlines at the same moment fire in the order of their keys.
#[derive(Debug, Clone)]
pub struct Deadlines<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// Returns an empty set of deadlines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the deadline of `key`; `None` removes it.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        if let Some(old) = self.at.remove(&key) {
            self.order.remove(&(old, key));
        }
        if let Some(at) = at {
            self.at.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// Makes the deadline of `key` no later than `at`. One look-up if it is earlier already, so that it may be called
    /// for every packet.
    pub fn bring_forward(&mut self, key: K, at: Instant) {
        if self.at.get(&key).is_none_or(|old| at < *old) {
            self.set(key, Some(at));
        }
    }

    /// Returns the deadline of `key`, if it has one.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.at.get(key).copied()
    }

    /// Returns the earliest deadline, if there is any.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes and returns the key with the earliest deadline if that is at or before `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.order.first()?;
        (at <= now).then(|| self.set(key, None)).map(|()| key)
    }

    /// Returns the number of deadlines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Returns true if there is no deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Removes all deadlines.
    pub fn clear(&mut self) {
        self.at.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_key_has_one_deadline() {
        let start = start();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        deadlines.set('a', Some(at(30)));
        deadlines.set('b', Some(at(20)));
        deadlines.bring_forward('a', at(40));
        assert_eq!((deadlines.next(), deadlines.get(&'a')), (Some(at(20)), Some(at(30))));
        deadlines.bring_forward('a', at(10));
        assert_eq!((deadlines.next(), deadlines.len()), (Some(at(10)), 2));
        assert_eq!(deadlines.pop_due(at(5)), None);
        assert_eq!(deadlines.pop_due(at(50)), Some('a'));
        deadlines.set('b', None);
        assert!(deadlines.pop_due(at(50)).is_none() && deadlines.next().is_none() && deadlines.is_empty());
    }

    proptest! {
        #[test]
        fn keys_fire_once_each_in_the_order_of_their_last_deadline(steps in prop::collection::vec((0u8..12, 0u64..50, any::<bool>()), 0..80)) {
            let start = start();
            let mut model: BTreeMap<u8, Instant> = BTreeMap::new();
            let mut deadlines = Deadlines::new();
            for (key, ms, forward) in steps {
                let at = start + Duration::from_millis(ms);
                if forward {
                    deadlines.bring_forward(key, at);
                    let slot = model.entry(key).or_insert(at);
                    *slot = at.min(*slot);
                } else {
                    deadlines.set(key, Some(at));
                    model.insert(key, at);
                }
            }
            let mut expected: Vec<(Instant, u8)> = model.into_iter().map(|(key, at)| (at, key)).collect();
            expected.sort_unstable();
            prop_assert_eq!(deadlines.len(), expected.len());
            let fired: Vec<u8> = std::iter::from_fn(|| deadlines.pop_due(start + Duration::from_secs(1))).collect();
            prop_assert_eq!(fired, expected.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
        }
    }
}

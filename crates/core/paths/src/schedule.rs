//! Who must be looked after when, and how fast checks may go out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One deadline for each key, earliest first, so that idle peers cost nothing.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        if let Some(old) = self.at.remove(&key) {
            self.order.remove(&(old, key));
        }
        if let Some(at) = at {
            self.at.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// Makes the deadline no later than this. Cheap when it already is earlier, which is what every packet asks.
    pub(crate) fn by(&mut self, key: K, at: Instant) {
        if self.at.get(&key).is_none_or(|old| at < *old) {
            self.set(key, Some(at));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out a key whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

/// Lets a burst out at once and further packets at a steady pace.
#[derive(Debug)]
pub(crate) struct Pacer {
    gap: Duration,
    burst: u32,
    /// When the burst will be whole again, if it has been touched.
    full_at: Option<Instant>,
    /// The last turn that was promised.
    promised: Option<Instant>,
}

impl Pacer {
    pub(crate) const fn new(gap: Duration, burst: u32) -> Self {
        Self { gap, burst, full_at: None, promised: None }
    }

    /// Takes a turn, or promises one: to each who asks another one, so that not all of many come back at one moment of
    /// which one can make use.
    pub(crate) fn queue(&mut self, now: Instant) -> Result<(), Instant> {
        self.take(now).map_err(|next| {
            let promised = self.promised.map_or(next, |last| next.max(last + self.gap));
            self.promised = Some(promised);
            promised
        })
    }

    /// Takes a turn, or says when there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.gap;
        let limit = now + self.gap * self.burst;
        if full_at > limit {
            return Err(now + (full_at - limit));
        }
        self.full_at = Some(full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_a_pace() {
        let gap = Duration::from_millis(5);
        let mut now = start();
        let mut pacer = Pacer::new(gap, 16);
        let burst = std::iter::from_fn(|| pacer.take(now).ok()).count();
        assert_eq!(burst, 16);
        for _ in 0..10 {
            let next = pacer.take(now).unwrap_err();
            assert_eq!(next, now + gap);
            now = next;
            assert_eq!(pacer.take(now), Ok(()));
        }
    }

    #[test]
    fn everybody_is_promised_another_turn() {
        let (gap, now) = (Duration::from_millis(5), start());
        let mut pacer = Pacer::new(gap, 1);
        assert_eq!(pacer.queue(now), Ok(()));
        let promised: Vec<Instant> = (0..3).map(|_| pacer.queue(now).unwrap_err()).collect();
        assert_eq!(promised, [now + gap, now + gap * 2, now + gap * 3]);
        for at in promised {
            assert_eq!(pacer.queue(at), Ok(()));
        }
        assert_eq!(pacer.queue(now + gap * 3), Err(now + gap * 4));
    }

    #[test]
    fn each_key_has_one_deadline() {
        let now = start();
        let at = |ms| now + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        deadlines.set('a', Some(at(30)));
        deadlines.set('b', Some(at(20)));
        deadlines.by('a', at(40));
        assert_eq!(deadlines.next(), Some(at(20)));
        deadlines.by('a', at(10));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(5)), None);
        assert_eq!(deadlines.pop_due(at(50)), Some('a'));
        deadlines.set('b', None);
        assert_eq!((deadlines.pop_due(at(50)), deadlines.next()), (None, None));
    }
}

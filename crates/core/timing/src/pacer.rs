//! Slots at a steady pace for many waiting callers.

use std::time::{Duration, Instant};

use crate::{Rate, TokenBucket};

/// A token bucket that promises each refused caller a slot of its own, so that not all of them come back at the one
/// moment of which only one can make use.
#[derive(Debug, Clone, Copy)]
pub struct Pacer {
    bucket: TokenBucket,
    interval: Duration,
    /// The last slot that was promised.
    promised: Option<Instant>,
}

impl Pacer {
    /// Returns a pacer that lets `burst` slots pass at once and then one per `interval`.
    #[must_use]
    pub const fn new(interval: Duration, burst: u64) -> Self {
        Self { bucket: TokenBucket::new(Rate::every(interval, burst)), interval, promised: None }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// The moment of the next slot, whether or not it was promised to another caller.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.bucket.take_or_wait(now, 1)
    }

    /// Takes a slot, or reserves a later one for this caller.
    ///
    /// # Errors
    /// The moment of a slot that no other caller of this method was promised. It holds as long as callers of
    /// [`Self::take`] leave it free.
    pub fn take_or_reserve(&mut self, now: Instant) -> Result<(), Instant> {
        self.take(now).map_err(|next| {
            let slot = self.promised.map_or(next, |last| next.max(last + self.interval));
            self.promised = Some(slot);
            slot
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_waiting_caller_is_promised_another_slot() {
        let (interval, now) = (Duration::from_millis(5), start());
        let mut pacer = Pacer::new(interval, 1);
        assert_eq!(pacer.take_or_reserve(now), Ok(()));
        let promised: Vec<Instant> = (0..3).map(|_| pacer.take_or_reserve(now).unwrap_err()).collect();
        assert_eq!(promised, [now + interval, now + interval * 2, now + interval * 3]);
        for at in promised {
            assert_eq!(pacer.take_or_reserve(at), Ok(()));
        }
        assert_eq!(pacer.take_or_reserve(now + interval * 3), Err(now + interval * 4));
    }

    #[test]
    fn take_reserves_nothing() {
        let (interval, now) = (Duration::from_millis(5), start());
        let mut pacer = Pacer::new(interval, 2);
        assert_eq!((pacer.take(now), pacer.take(now)), (Ok(()), Ok(())));
        assert_eq!((pacer.take(now), pacer.take(now)), (Err(now + interval), Err(now + interval)));
    }
}

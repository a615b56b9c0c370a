//! Packets that wait for a session.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Packets that may wait for one member.
const MAX_PENDING: usize = 32;
/// How long a packet may wait: longer than the fallback initiator takes to step in (2 s), shorter than a user waits.
const MAX_PENDING_AGE: Duration = Duration::from_secs(3);

/// A short queue that keeps the newest packets.
#[derive(Debug, Default)]
pub(crate) struct PendingQueue {
    packets: VecDeque<(Instant, Vec<u8>)>,
}

impl PendingQueue {
    /// Adds a packet. Returns true if the oldest one had to be dropped to make room.
    pub(crate) fn push(&mut self, now: Instant, packet: &[u8]) -> bool {
        let overflow = self.packets.len() == MAX_PENDING;
        if overflow {
            self.packets.pop_front();
        }
        self.packets.push_back((now, packet.to_vec()));
        overflow
    }

    /// Drops the packets that have waited too long and returns their number.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets.len();
        self.packets.retain(|(since, _)| now.saturating_duration_since(*since) <= MAX_PENDING_AGE);
        before - self.packets.len()
    }

    /// Removes and returns the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front().map(|(_, packet)| packet)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn newest_packets_survive_an_overflow() {
        let (now, mut queue) = (start(), PendingQueue::default());
        let overflows = (0..40u8).filter(|nth| queue.push(now, &[*nth])).count();
        assert_eq!(overflows, 40 - MAX_PENDING);
        let left: Vec<_> = std::iter::from_fn(|| queue.pop()).flatten().collect();
        assert_eq!(left, (8..40).collect::<Vec<u8>>());
    }

    #[test]
    fn packets_expire_after_their_maximum_age() {
        let (now, mut queue) = (start(), PendingQueue::default());
        queue.push(now, &[1]);
        queue.push(now + Duration::from_secs(1), &[2]);
        assert_eq!(queue.expire(now + MAX_PENDING_AGE), 0);
        assert_eq!(queue.expire(now + MAX_PENDING_AGE + Duration::from_millis(1)), 1);
        assert_eq!(queue.pop(), Some(vec![2]));
        assert!(queue.is_empty());
    }
}

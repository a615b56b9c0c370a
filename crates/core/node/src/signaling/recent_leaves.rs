//! Leave messages of other members, kept for those that come back.

use std::time::{Duration, Instant};

use partyline_model::{DeviceId, Topic};

/// For how long a leave is repeated to members that come back.
const REPEAT_FOR: Duration = Duration::from_secs(60);
/// The largest number of leaves that a party remembers.
const MAX_REMEMBERED: usize = 16;

/// Leave messages that arrived from others in one party, newest last.
#[derive(Debug, Default)]
pub(super) struct RecentLeaves(Vec<RecentLeave>);

#[derive(Debug)]
struct RecentLeave {
    at: Instant,
    from: DeviceId,
    topic: Topic,
    sealed: Vec<u8>,
}

impl RecentLeaves {
    /// Remembers a member's leave message as it was sealed.
    pub(super) fn remember(&mut self, now: Instant, from: DeviceId, topic: Topic, sealed: &[u8]) {
        self.0.retain(|leave| now < leave.at + REPEAT_FOR);
        if self.0.len() == MAX_REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(RecentLeave { at: now, from, topic, sealed: sealed.to_vec() });
    }

    /// Returns those that are still to be repeated to a member, which knows its own.
    pub(super) fn fresh(&self, now: Instant, to: DeviceId) -> impl Iterator<Item = (Topic, Vec<u8>)> {
        let fresh = self.0.iter().filter(move |leave| leave.from != to && now < leave.at + REPEAT_FOR);
        fresh.map(|leave| (leave.topic, leave.sealed.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn leaves_of_others_are_repeated_for_a_minute_and_only_so_many() {
        let (now, mut leaves) = (Instant::now(), RecentLeaves::default());
        let [leaver, other] = [1, 2].map(|id| DeviceId([id; 32]));
        (0..20).for_each(|number| leaves.remember(now, leaver, Topic([1; 32]), &[number]));
        let fresh: Vec<u8> = leaves.fresh(now, other).map(|(_, sealed)| sealed[0]).collect();
        assert_eq!(fresh, (4..20).collect::<Vec<u8>>());
        assert_eq!(leaves.fresh(now, leaver).count(), 0);
        assert_eq!(leaves.fresh(now + REPEAT_FOR, other).count(), 0);
    }
}

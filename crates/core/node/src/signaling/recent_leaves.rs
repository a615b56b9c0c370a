//! Leave messages of other members, kept for those that come back.

use std::time::{Duration, Instant};

use partyline_model::Topic;

/// For how long a leave is repeated to members that come back.
const REPEAT_FOR: Duration = Duration::from_secs(60);
/// The largest number of leaves that a party remembers.
const MAX_REMEMBERED: usize = 16;

/// Leave messages that arrived from others in one party, newest last.
#[derive(Debug, Default)]
pub(super) struct RecentLeaves(Vec<(Instant, Topic, Vec<u8>)>);

impl RecentLeaves {
    /// Remembers a leave message as it was sealed.
    pub(super) fn remember(&mut self, now: Instant, topic: Topic, sealed: &[u8]) {
        self.0.retain(|(at, ..)| now < *at + REPEAT_FOR);
        if self.0.len() == MAX_REMEMBERED {
            self.0.remove(0);
        }
        self.0.push((now, topic, sealed.to_vec()));
    }

    /// Returns those that are still to be repeated.
    pub(super) fn fresh(&self, now: Instant) -> impl Iterator<Item = (Topic, Vec<u8>)> {
        let fresh = self.0.iter().filter(move |(at, ..)| now < *at + REPEAT_FOR);
        fresh.map(|(_, topic, sealed)| (*topic, sealed.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn leaves_of_others_are_repeated_for_a_minute_and_only_so_many() {
        let (now, mut leaves) = (Instant::now(), RecentLeaves::default());
        (0..20).for_each(|number| leaves.remember(now, Topic([1; 32]), &[number]));
        let fresh: Vec<u8> = leaves.fresh(now).map(|(_, sealed)| sealed[0]).collect();
        assert_eq!(fresh, (4..20).collect::<Vec<u8>>());
        assert_eq!(leaves.fresh(now + REPEAT_FOR).count(), 0);
    }
}

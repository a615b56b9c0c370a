//! How many flows sprays may create in this network's router.
//!
//! A router keeps an entry for each flow, or for each mapping, and has room for thousands or for a few hundred. One that
//! is full refuses new flows, those of other programs included, until old ones have expired; it cannot be told to forget
//! any. Sprays therefore begin with few flows and create more only as checks show that new ones still work
//! ([`crate::punch`] sends them). The count is that of the whole device, whichever members are sprayed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tracing::debug;

/// New flows until a check has shown that there is room for more, and the least growth after each check.
const MIN_GROWTH: u32 = 64;
/// Bounds the flows that stand at a time in a network whose router was seen to be full.
pub(crate) const SMALL_TABLE_LIMIT: u32 = 128;
/// Fewer flows than this are not worth an attempt.
pub(crate) const MIN_SPRAY_FLOWS: u32 = 32;
/// How long a router is assumed to keep a flow that nothing is sent on (RFC 4787, REQ-5).
const FLOW_LIFETIME: Duration = Duration::from_secs(120);
/// How long the result of a check counts once sprays have paused.
const CHECK_MAX_AGE: Duration = Duration::from_secs(5);
/// How long a check may take before another attempt sends one.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1500);
/// Flows created within this time are counted together.
const GRAIN: Duration = Duration::from_millis(500);

/// Why a spray may not create a flow now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// A check has to show first that there is room.
    Unchecked,
    /// As many stand as the router can bear.
    Full,
}

/// The flows that sprays have created in the router, and how many more it can bear.
#[derive(Debug, Default)]
pub(crate) struct RouterTable {
    /// When flows were created and how many, oldest first.
    created: VecDeque<(Instant, u32)>,
    standing: u32,
    /// How many stood when a check last showed that there is room.
    verified: u32,
    verified_at: Option<Instant>,
    /// When the pending check counts as lost.
    check_until: Option<Instant>,
    /// How many may stand, once the router was seen to be full.
    limit: Option<u32>,
    /// Until when no flow is created, since the router is full.
    full_until: Option<Instant>,
    /// True until the caller has been told that the router was full.
    has_news: bool,
}

impl RouterTable {
    /// Takes what is known about the network: how many flows may stand, if its router was seen to be full. The flows
    /// counted so far still count, since it may be the same network with another address.
    pub(crate) fn on_network(&mut self, limit: Option<u32>) {
        self.limit = limit.map(|limit| limit.min(SMALL_TABLE_LIMIT));
        self.full_until = self.full_until.filter(|_| limit.is_some());
        (self.verified, self.verified_at) = (0, None);
    }

    /// Returns how many flows may stand, if the router was seen to be full.
    #[cfg(test)]
    pub(crate) const fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Returns the limit once, after a check has shown that the router is full.
    pub(crate) fn take_news(&mut self) -> Option<u32> {
        std::mem::take(&mut self.has_news).then_some(self.limit).flatten()
    }

    /// Returns true while the router is full.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_until.is_some_and(|until| now < until)
    }

    /// Returns how many flows a new attempt could create at most.
    pub(crate) fn room(&mut self, now: Instant) -> u32 {
        self.expire(now);
        match self.limit {
            _ if self.is_full(now) => 0,
            Some(limit) => limit.saturating_sub(self.standing),
            None => u32::MAX,
        }
    }

    /// Returns when there is room for another attempt, if not now.
    pub(crate) fn room_at(&mut self, now: Instant) -> Option<Instant> {
        if self.room(now) >= MIN_SPRAY_FLOWS {
            return None;
        }
        let expiry = self.created.front().map(|(at, _)| *at + FLOW_LIFETIME);
        self.full_until.filter(|until| now < *until).max(expiry)
    }

    /// Notes that an attempt begins. What was checked long ago does not count: other programs may have filled the
    /// router.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.expire(now);
        if self.verified_at.is_none_or(|at| now >= at + CHECK_MAX_AGE) {
            self.verified = self.standing;
        }
    }

    /// Returns whether a flow may be created.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn has_room(&mut self, now: Instant) -> Result<(), NoRoom> {
        if self.room(now) == 0 {
            Err(NoRoom::Full)
        } else if self.standing >= self.verified + growth(self.verified) {
            Err(NoRoom::Unchecked)
        } else {
            Ok(())
        }
    }

    /// Notes that a flow is created.
    pub(crate) fn on_created(&mut self, now: Instant) {
        self.standing += 1;
        match self.created.back_mut() {
            Some((at, count)) if now < *at + GRAIN => *count += 1,
            _ => self.created.push_back((now, 1)),
        }
    }

    /// Returns true if it is time for a check.
    pub(crate) fn needs_check(&mut self, now: Instant) -> bool {
        self.expire(now);
        let is_pending = self.check_until.is_some_and(|until| now < until);
        let left = (self.verified + growth(self.verified)).saturating_sub(self.standing);
        !is_pending && self.room(now) > 0 && left <= growth(self.verified) / 2
    }

    /// Notes that a check is sent, which creates a flow, too. Returns how many stand: that many there is room for if it
    /// is answered.
    pub(crate) fn on_check_sent(&mut self, now: Instant) -> u32 {
        self.check_until = Some(now + CHECK_TIMEOUT);
        self.on_created(now);
        self.standing
    }

    /// Notes that a check was answered which was sent when so many flows stood.
    pub(crate) fn on_room(&mut self, now: Instant, standing: u32) {
        (self.check_until, self.verified_at) = (None, Some(now));
        self.verified = self.verified.max(standing);
    }

    /// Notes that a new flow does not work although old ones do. From now on half of what stands must suffice here, so
    /// that as much is left to other programs.
    pub(crate) fn on_refused(&mut self, now: Instant) {
        self.expire(now);
        let limit = (self.standing / 2).clamp(MIN_SPRAY_FLOWS, SMALL_TABLE_LIMIT);
        let limit = self.limit.map_or(limit, |known| known.min(limit));
        debug!(standing = self.standing, limit, "router is full; sprays stop");
        self.limit = Some(limit);
        (self.check_until, self.full_until) = (None, Some(now + FLOW_LIFETIME));
        self.has_news = true;
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, count)) = self.created.front().copied()
            && now >= at + FLOW_LIFETIME
        {
            self.created.pop_front();
            self.standing -= count;
            self.verified = self.verified.saturating_sub(count);
        }
    }
}

/// Returns how many flows may be created beyond those that there was room for.
const fn growth(verified: u32) -> u32 {
    if verified / 2 > MIN_GROWTH { verified / 2 } else { MIN_GROWTH }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    /// Creates flows until there is no room, at most so many.
    fn create(table: &mut RouterTable, now: Instant, most: u32) -> (u32, Option<NoRoom>) {
        for count in 0..most {
            match table.has_room(now) {
                Ok(()) => table.on_created(now),
                Err(reason) => return (count, Some(reason)),
            }
        }
        (most, None)
    }

    #[test]
    fn flows_begin_with_64_and_grow_with_every_check_that_is_answered() {
        let (mut table, now) = (RouterTable::default(), start());
        table.begin(now);
        assert!(!table.needs_check(now));
        assert_eq!(create(&mut table, now, 1000), (64, Some(NoRoom::Unchecked)));
        assert!(table.needs_check(now));
        let standing = table.on_check_sent(now);
        assert!(!table.needs_check(now), "one is pending");
        assert_eq!(create(&mut table, now, 1000), (0, Some(NoRoom::Unchecked)));
        table.on_room(now, standing);
        assert_eq!(create(&mut table, now, 1000), (64, Some(NoRoom::Unchecked)));
    }

    #[test]
    fn a_router_that_refuses_stops_sprays_and_leaves_room_to_others_from_then_on() {
        let (mut table, now) = (RouterTable::default(), start());
        create(&mut table, now, 1000);
        let standing = table.on_check_sent(now);
        table.on_room(now, standing);
        create(&mut table, now, 35);
        table.on_check_sent(now);
        table.on_refused(now);
        assert_eq!(table.take_news(), Some(50));
        assert_eq!(table.take_news(), None);
        assert_eq!(table.has_room(now), Err(NoRoom::Full));
        let later = table.room_at(now).unwrap();
        assert_eq!(later, now + FLOW_LIFETIME);
        assert_eq!((table.room(later), table.room_at(later)), (50, None));
        table.begin(later);
        assert_eq!(create(&mut table, later, 1000), (50, Some(NoRoom::Full)));
    }

    #[test]
    fn a_small_router_is_remembered_and_another_networks_is_not_known() {
        let (mut table, now) = (RouterTable::default(), start());
        table.on_network(Some(5000));
        assert_eq!(table.room(now), SMALL_TABLE_LIMIT);
        table.on_network(None);
        assert_eq!(table.room(now), u32::MAX);
    }

    #[test]
    fn checks_of_long_ago_do_not_count() {
        let (mut table, now) = (RouterTable::default(), start());
        create(&mut table, now, 1000);
        let standing = table.on_check_sent(now);
        table.on_room(now, 1000);
        table.begin(now + CHECK_MAX_AGE / 2);
        assert_eq!(table.verified, 1000);
        table.begin(now + CHECK_MAX_AGE);
        assert_eq!(table.verified, standing);
    }

    #[test]
    fn a_lost_check_is_followed_by_another() {
        let (mut table, now) = (RouterTable::default(), start());
        create(&mut table, now, 1000);
        table.on_check_sent(now);
        assert!(!table.needs_check(now) && table.needs_check(now + CHECK_TIMEOUT));
    }
}

//! Filtering probes for other members: what a member does whose help another one needs to measure its NAT.
//!
//! A member that measures its network asks a few connected members, inside the tunnels, to send a packet to where one
//! of its probe sockets is seen; its own network check says what the arrival proves. The responder cannot be used as an
//! amplifier or aimed at third parties: it answers only members, only to an address that the requester has announced as
//! its own, with three small packets, and rarely.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use partyline_model::DeviceId;

/// Copies of each probe, against loss.
pub(super) const PROBE_COPIES: usize = 3;
/// The shortest time between two requests of one member, and how many members are answered within that time.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_REQUESTERS: usize = 16;

/// Counters of filtering probes sent on behalf of other members, by what became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeResponderCounters {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests refused because the user does not serve other members.
    pub not_willing: u64,
    /// Requests refused because the address is not one of the requester's.
    pub foreign_address: u64,
    /// Requests refused because the same member asked just before.
    pub too_often: u64,
    /// Requests refused because too many members asked just before.
    pub too_many: u64,
}

impl ProbeResponderCounters {
    /// Returns every counter with its label.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { answered, not_willing, foreign_address, too_often, too_many } = *self;
        [
            ("answered", answered),
            ("not_willing", not_willing),
            ("foreign_address", foreign_address),
            ("too_often", too_often),
            ("too_many", too_many),
        ]
        .into_iter()
    }

    /// Returns the number of requests that were refused.
    pub(crate) const fn refused(&self) -> u64 {
        self.not_willing + self.foreign_address + self.too_often + self.too_many
    }
}

/// Decides which requests are answered.
#[derive(Debug, Default)]
pub(super) struct ProbeResponder {
    last: BTreeMap<DeviceId, Instant>,
    counters: ProbeResponderCounters,
}

impl ProbeResponder {
    /// Returns `Ok` if a member's request may be answered now.
    ///
    /// # Errors
    /// The reason why it is refused, as the label of its counter.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        from: DeviceId,
        serves_members: bool,
        own_address: bool,
    ) -> Result<(), &'static str> {
        self.last.retain(|_, at| now.saturating_duration_since(*at) < MIN_INTERVAL);
        let counters = &mut self.counters;
        let (reason, counter) = if !serves_members {
            ("not_willing", &mut counters.not_willing)
        } else if !own_address {
            ("foreign_address", &mut counters.foreign_address)
        } else if self.last.contains_key(&from) {
            ("too_often", &mut counters.too_often)
        } else if self.last.len() >= MAX_REQUESTERS {
            ("too_many", &mut counters.too_many)
        } else {
            self.last.insert(from, now);
            counters.answered += 1;
            return Ok(());
        };
        *counter += 1;
        Err(reason)
    }

    /// Returns the counters.
    pub(super) const fn counters(&self) -> &ProbeResponderCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn each_member_is_answered_rarely_and_only_so_many_are() {
        let (now, mut responder) = (Instant::now(), ProbeResponder::default());
        let device = |number: u8| DeviceId([number; 32]);
        assert_eq!(responder.admit(now, device(0), true, true), Ok(()));
        assert_eq!(responder.admit(now, device(0), true, true), Err("too_often"));
        assert_eq!(responder.admit(now, device(1), true, false), Err("foreign_address"));
        assert_eq!(responder.admit(now, device(1), false, true), Err("not_willing"));
        (1..16).for_each(|number| assert_eq!(responder.admit(now, device(number), true, true), Ok(())));
        assert_eq!(responder.admit(now, device(16), true, true), Err("too_many"));
        assert_eq!(responder.admit(now + MIN_INTERVAL, device(16), true, true), Ok(()));
        assert_eq!(responder.admit(now + MIN_INTERVAL, device(0), true, true), Ok(()));
        assert_eq!((responder.counters().answered, responder.counters().refused()), (18, 4));
    }
}

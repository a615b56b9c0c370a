//! Tells a wrong clock apart from an ended invite.
//!
//! Every device judges expiry by its own clock. Time received from others is never used for that, since its sender could
//! stretch or cut a membership; it only serves to tell the user that a clock is wrong. A message may be stored for long,
//! so that an old `sent_at` means nothing, but one from the future does.

use std::time::Duration;

use partyline_model::{DeviceId, Timestamp};
use tracing::debug;

use crate::rules::CLOCK_TOLERANCE;

/// A clock that is off by more than [`CLOCK_TOLERANCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// Difference of the two clocks.
    pub by: Duration,
    /// True if this computer's clock is behind the other, false if it is ahead.
    pub behind: bool,
    /// The other clock.
    pub reference: ClockReference,
}

/// The clock that differs from this computer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockReference {
    /// A rendezvous server's. Most likely this computer's clock is wrong.
    Server,
    /// A member's. One of the two is wrong.
    Member(DeviceId),
}

/// The newest comparison with a server and with a member.
#[derive(Debug, Default)]
pub(crate) struct ClockMonitor {
    server: Option<ClockSkew>,
    member: Option<ClockSkew>,
}

impl ClockMonitor {
    /// Returns the skew, if any; a server is the better reference.
    pub(crate) fn skew(&self) -> Option<ClockSkew> {
        self.server.or(self.member)
    }

    pub(crate) fn on_server_time(&mut self, now: Timestamp, server: Timestamp) {
        let by = Duration::from_millis(now.0.abs_diff(server.0));
        let skew = (by > CLOCK_TOLERANCE).then_some(ClockSkew {
            by,
            behind: server > now,
            reference: ClockReference::Server,
        });
        if skew.is_some() != self.server.is_some() {
            debug!(
                skew_ms = by.as_millis(),
                behind = server > now,
                wrong = skew.is_some(),
                "clock compared with a server"
            );
        }
        self.server = skew;
    }

    pub(crate) fn on_message(&mut self, now: Timestamp, sender: DeviceId, sent_at: Timestamp) {
        let (by, reference) = (sent_at.since(now), ClockReference::Member(sender));
        if by > CLOCK_TOLERANCE {
            debug!(peer = %sender.short(), skew_ms = by.as_millis(), "message comes from the future");
            self.member = Some(ClockSkew { by, behind: true, reference });
        } else if self.member.is_some_and(|skew| skew.reference == reference) {
            debug!(peer = %sender.short(), "clocks agree again");
            self.member = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, id};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn skew_within_the_tolerance_is_none() {
        let mut clock = ClockMonitor::default();
        clock.on_server_time(NOW, NOW.plus(CLOCK_TOLERANCE));
        clock.on_message(NOW, id(1), NOW.plus(CLOCK_TOLERANCE));
        assert_eq!(clock.skew(), None);
    }

    #[test]
    fn old_message_says_nothing_of_the_clock() {
        let mut clock = ClockMonitor::default();
        clock.on_message(NOW.plus(HOUR), id(1), NOW);
        assert_eq!(clock.skew(), None);
    }

    #[test]
    fn server_is_preferred_to_a_member_and_each_corrects_itself_only() {
        let mut clock = ClockMonitor::default();
        clock.on_message(NOW, id(1), NOW.plus(HOUR));
        clock.on_server_time(NOW.plus(HOUR), NOW);
        let skew = clock.skew().unwrap();
        assert!(skew.reference == ClockReference::Server && !skew.behind && skew.by == HOUR);
        clock.on_server_time(NOW, NOW);
        assert_eq!(clock.skew().unwrap().reference, ClockReference::Member(id(1)));
        clock.on_message(NOW, id(2), NOW);
        assert!(clock.skew().is_some());
        clock.on_message(NOW, id(1), NOW);
        assert_eq!(clock.skew(), None);
    }
}

//! Tells a wrong clock apart from an ended invite, and whose clock it is.
//!
//! Every device judges expiry by its own clock. Time received from others is never used for that, since its sender could
//! stretch or cut a membership; it only serves to tell the user which clock is wrong: where two of three agree, the third.
//! A message may be stored for long, so that an old `sent_at` means nothing, but one from the future does, and one from
//! about now shows that the two clocks agree.

use std::time::Duration;

use partyline_model::{DeviceId, Timestamp};
use tracing::debug;

use crate::{error::JoinError, joining::MAX_LIFETIME, rules::CLOCK_TOLERANCE};

/// Clocks that differ by more than [`CLOCK_TOLERANCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// Difference of the two clocks.
    pub by: Duration,
    /// True if this computer's clock is behind the other, false if it is ahead.
    pub behind: bool,
    /// The clock that is wrong.
    pub wrong: WrongClock,
}

/// The clock that is wrong, as far as that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongClock {
    /// This computer's, since a server's differs and no member's is known to agree.
    Own,
    /// A rendezvous server's, since this computer and a member agree.
    Server,
    /// A member's, since this computer and a server agree.
    Member(DeviceId),
    /// This computer's or a member's.
    OwnOrMember(DeviceId),
}

/// What an invite that was refused because of its end, and a server's clock, show together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteVerdict {
    /// The invite has ended.
    Expired,
    /// This computer's clock is wrong: by the server's, the invite can be used.
    OwnClock {
        /// How far it is off.
        by: Duration,
        /// True if it is behind, false if it is ahead.
        behind: bool,
    },
    /// The clock of the computer that made the invite is ahead: this computer and the server agree.
    InviterClock {
        /// The least that it is ahead.
        by: Duration,
    },
    /// Server, inviter and this computer have three different times.
    NoTwoAgree,
    /// A clock is wrong, and no server could be asked whose.
    Unknown,
}

impl JoinError {
    /// Judges an invite that was refused because of its end, with the time of a server if one answered; `None` for
    /// refusals of other kinds.
    #[must_use]
    pub fn judge_clocks(&self, server: Option<Timestamp>) -> Option<InviteVerdict> {
        let (end, clock, expired) = match *self {
            Self::Expired { ended, clock } => (ended, clock, true),
            Self::EndsTooLate { ends, clock } => (ends, clock, false),
            Self::Forged | Self::Name(_) => return None,
        };
        let Some(server) = server else {
            return Some(if expired { InviteVerdict::Expired } else { InviteVerdict::Unknown });
        };
        let by = difference(clock, server);
        let usable =
            server <= end.plus(CLOCK_TOLERANCE) && end <= server.plus(MAX_LIFETIME + CLOCK_TOLERANCE);
        Some(match (by > CLOCK_TOLERANCE, expired) {
            (true, _) if usable => InviteVerdict::OwnClock { by, behind: server > clock },
            (_, true) => InviteVerdict::Expired,
            (false, false) => InviteVerdict::InviterClock { by: end.since(clock.plus(MAX_LIFETIME)) },
            (true, false) => InviteVerdict::NoTwoAgree,
        })
    }
}

/// The newest comparison with a server and with members.
#[derive(Debug, Default)]
pub(crate) struct ClockMonitor {
    /// The server's time minus ours, if it was compared: how far, and whether ours is behind.
    server: Option<(Duration, bool)>,
    /// A member whose message came from the future, and how far.
    ahead: Option<(DeviceId, Duration)>,
    /// A member whose clock agreed with ours when its message was sent.
    agreeing: Option<DeviceId>,
}

impl ClockMonitor {
    /// Returns the skew, if any; a server is the better reference.
    pub(crate) fn skew(&self) -> Option<ClockSkew> {
        match (self.server, self.ahead) {
            (Some((by, behind)), _) if by > CLOCK_TOLERANCE => {
                let wrong = if self.agreeing.is_some() { WrongClock::Server } else { WrongClock::Own };
                Some(ClockSkew { by, behind, wrong })
            }
            (Some(_), Some((member, by))) => {
                Some(ClockSkew { by, behind: true, wrong: WrongClock::Member(member) })
            }
            (None, Some((member, by))) => {
                Some(ClockSkew { by, behind: true, wrong: WrongClock::OwnOrMember(member) })
            }
            (_, None) => None,
        }
    }

    pub(crate) fn on_server_time(&mut self, now: Timestamp, server: Timestamp) {
        let (by, behind) = (difference(now, server), server > now);
        if by > CLOCK_TOLERANCE {
            debug!(skew_ms = by.as_millis(), behind, "the server's clock differs");
        }
        self.server = Some((by, behind));
    }

    pub(crate) fn on_message(&mut self, now: Timestamp, sender: DeviceId, sent_at: Timestamp) {
        let (by, known) = (sent_at.since(now), self.ahead.is_some_and(|(member, _)| member == sender));
        if by > CLOCK_TOLERANCE {
            debug!(peer = %sender.short(), skew_ms = by.as_millis(), "message comes from the future");
            self.ahead = Some((sender, by));
            self.agreeing = self.agreeing.filter(|member| *member != sender);
        } else if known {
            debug!(peer = %sender.short(), "clocks agree again");
            self.ahead = None;
        }
        if difference(now, sent_at) <= CLOCK_TOLERANCE {
            self.agreeing = Some(sender);
        }
    }
}

const fn difference(one: Timestamp, other: Timestamp) -> Duration {
    Duration::from_millis(one.0.abs_diff(other.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, id};

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn before(span: Duration) -> Timestamp {
        Timestamp(NOW.0 - span.as_millis() as u64)
    }

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
        clock.on_server_time(NOW.plus(HOUR), NOW);
        assert_eq!(clock.skew().unwrap().wrong, WrongClock::Own, "the old message shows no agreement");
    }

    #[test]
    fn clock_that_differs_from_two_others_is_the_wrong_one() {
        let mut clock = ClockMonitor::default();
        clock.on_message(NOW, id(1), NOW.plus(HOUR));
        assert_eq!(clock.skew().unwrap().wrong, WrongClock::OwnOrMember(id(1)));
        clock.on_server_time(NOW, NOW);
        assert_eq!(clock.skew().unwrap().wrong, WrongClock::Member(id(1)));
        clock.on_server_time(NOW, NOW.plus(HOUR));
        let skew = clock.skew().unwrap();
        assert!(skew.wrong == WrongClock::Own && skew.behind && skew.by == HOUR);
        clock.on_message(NOW, id(2), NOW);
        assert_eq!(clock.skew().unwrap().wrong, WrongClock::Server);
        clock.on_server_time(NOW, NOW);
        clock.on_message(NOW, id(1), NOW);
        assert_eq!(clock.skew(), None);
    }

    #[test]
    fn invite_that_ends_too_late_is_blamed_on_the_clock_that_differs_from_two() {
        let ends = NOW.plus(MAX_LIFETIME + DAY);
        let judge = |server| JoinError::EndsTooLate { ends, clock: NOW }.judge_clocks(server);
        assert_eq!(judge(None), Some(InviteVerdict::Unknown));
        assert_eq!(judge(Some(NOW.plus(CLOCK_TOLERANCE))), Some(InviteVerdict::InviterClock { by: DAY }));
        let own = InviteVerdict::OwnClock { by: 2 * DAY, behind: true };
        assert_eq!(judge(Some(NOW.plus(2 * DAY))), Some(own));
        assert_eq!(judge(Some(NOW.plus(30 * DAY))), Some(InviteVerdict::NoTwoAgree));
        assert_eq!(judge(Some(before(30 * DAY))), Some(InviteVerdict::NoTwoAgree));
    }

    #[test]
    fn ended_invite_is_blamed_on_this_clock_only_if_the_server_finds_it_usable() {
        let ended = before(HOUR);
        let judge = |server| JoinError::Expired { ended, clock: NOW }.judge_clocks(server);
        assert_eq!(judge(None), Some(InviteVerdict::Expired));
        assert_eq!(judge(Some(NOW)), Some(InviteVerdict::Expired));
        assert_eq!(judge(Some(NOW.plus(DAY))), Some(InviteVerdict::Expired));
        let own = InviteVerdict::OwnClock { by: DAY, behind: false };
        assert_eq!(judge(Some(before(DAY))), Some(own));
        assert_eq!(JoinError::Forged.judge_clocks(Some(NOW)), None);
    }
}

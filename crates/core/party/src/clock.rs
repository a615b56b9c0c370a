//! Tells a wrong clock apart from an ended invite.
//!
//! Expiry is judged by each device's own clock. Nobody else's time is ever used for judging, since whoever gives it
//! could stretch or cut a membership; it only serves to tell the user that a clock is wrong. Messages may be stored
//! for long, so that an old `sent_at` says nothing, but one from the future does.

use std::time::Duration;

use partyline_model::{DeviceId, Timestamp};

use crate::CLOCK_TOLERANCE;

/// A clock that is off by more than [`CLOCK_TOLERANCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// By how much.
    pub by: Duration,
    /// Whether this computer's clock is behind (else ahead).
    pub behind: bool,
    /// Compared with whose.
    pub witness: ClockReference,
}

/// Whose clock differs from this computer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockReference {
    /// A rendezvous server's: most likely this computer's clock is wrong.
    Server,
    /// A member's: one of the two is wrong.
    Member(DeviceId),
}

#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    server: Option<ClockSkew>,
    member: Option<ClockSkew>,
}

impl ClockWatch {
    pub(crate) fn skew(&self) -> Option<ClockSkew> {
        self.server.or(self.member)
    }

    pub(crate) fn note_server(&mut self, now: Timestamp, theirs: Timestamp) {
        let by = Duration::from_millis(now.0.abs_diff(theirs.0));
        self.server = (by > CLOCK_TOLERANCE).then_some(ClockSkew {
            by,
            behind: theirs > now,
            witness: ClockReference::Server,
        });
    }

    pub(crate) fn note_message(&mut self, now: Timestamp, sender: DeviceId, sent_at: Timestamp) {
        let (by, witness) = (sent_at.since(now), ClockReference::Member(sender));
        if by > CLOCK_TOLERANCE {
            self.member = Some(ClockSkew { by, behind: true, witness });
        } else if self.member.is_some_and(|skew| skew.witness == witness) {
            self.member = None;
        }
    }
}

//! Invites that were refused because of their end, until a server has said whose clock is wrong.

use std::collections::BTreeMap;

use partyline_model::{AppError, Timestamp};
use partyline_party::JoinError;
use partyline_wire::invite::Invite;

use crate::{
    io::RequestId,
    problem::{clock_error, join_error},
};

/// Why a party was not joined.
#[derive(Debug)]
pub(crate) enum JoinRefusal {
    /// The reason is known.
    Final(AppError),
    /// A clock is wrong, or the invite has ended; a server's time shows which.
    Clock(ClockQuestion),
}

/// An invite whose end does not fit this computer's clock.
#[derive(Debug)]
pub(crate) struct ClockQuestion {
    error: JoinError,
    inviter: String,
    /// The servers that can be asked.
    pub servers: Vec<String>,
}

impl From<AppError> for JoinRefusal {
    fn from(error: AppError) -> Self {
        Self::Final(error)
    }
}

impl JoinRefusal {
    /// Returns the refusal of an invite.
    pub(crate) fn new(error: JoinError, invite: Invite) -> Self {
        let Invite { inviter, servers, .. } = invite;
        if error.judge_clocks(None).is_none() || servers.is_empty() {
            return Self::Final(join_error(&error));
        }
        Self::Clock(ClockQuestion { error, inviter, servers })
    }
}

/// Callers that wait until a server has said what time it is.
#[derive(Debug, Default)]
pub(crate) struct ClockQuestions(BTreeMap<RequestId, ClockQuestion>);

impl ClockQuestions {
    /// Adds a caller.
    pub(crate) fn insert(&mut self, request: RequestId, question: ClockQuestion) {
        self.0.insert(request, question);
    }

    /// Takes a server's time, or that none answered; returns what the caller is told, if it still waits.
    pub(crate) fn on_server_time(&mut self, request: RequestId, time: Option<Timestamp>) -> Option<AppError> {
        let ClockQuestion { error, inviter, .. } = self.0.remove(&request)?;
        Some(clock_error(&error, &inviter, time))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partyline_model::ErrorCode;

    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn told(error: JoinError, server: Option<Timestamp>) -> AppError {
        let mut questions = ClockQuestions::default();
        let question =
            ClockQuestion { error, inviter: "Ana".into(), servers: vec!["wss://party.example".into()] };
        questions.insert(7, question);
        assert!(questions.on_server_time(8, server).is_none());
        questions.on_server_time(7, server).unwrap()
    }

    #[test]
    fn caller_is_told_whose_clock_is_wrong() {
        let late = || JoinError::EndsTooLate { ends: NOW.plus(9 * DAY), clock: NOW };
        let inviter = told(late(), Some(NOW));
        assert_eq!(inviter.code, ErrorCode::InviterClock);
        assert!(inviter.message.contains("2 days ahead") && inviter.hint.contains("Ana"), "{inviter:?}");
        let own = told(late(), Some(NOW.plus(3 * DAY)));
        assert_eq!(
            (own.code, own.message.as_str()),
            (ErrorCode::OwnClock, "This computer's clock is 3 days behind.")
        );
        assert_eq!(told(late(), Some(NOW.plus(99 * DAY))).code, ErrorCode::NoTwoClocksAgree);
        assert_eq!(told(late(), None).code, ErrorCode::UnknownClock);
        let ended = || JoinError::Expired { ended: NOW, clock: NOW.plus(DAY) };
        assert_eq!(told(ended(), Some(NOW.plus(DAY))).code, ErrorCode::InviteExpired);
        let own = told(ended(), Some(NOW));
        assert_eq!(
            (own.code, own.message.as_str()),
            (ErrorCode::OwnClock, "This computer's clock is 1 day ahead.")
        );
    }
}

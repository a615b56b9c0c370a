//! Invites that reach the app from outside.

use std::sync::{Mutex, PoisonError};

use partyline_engine::{Invite, InviteError};
use partyline_model::{ErrorCode, PartyView, Timestamp};

/// The longest text that is kept for the user interface, in bytes; what has no whole invite is shown with its error only.
const MAX_KEPT: usize = 4096;

/// Returns the link of the invite in a text if it is worth offering: still valid, and to a party that this computer is not
/// in, or was thrown out of.
pub fn offer(text: &str, parties: &[PartyView], now: Timestamp) -> Option<String> {
    let invite = Invite::find(text).ok()?;
    let joined = parties.iter().any(|party| party.id == invite.party && !is_over(party));
    (!joined && invite.ended(now).is_none()).then(|| invite.app_link())
}

fn is_over(party: &PartyView) -> bool {
    party.problem.as_ref().is_some_and(|problem| {
        matches!(problem.code, ErrorCode::Removed | ErrorCode::InviteRevoked | ErrorCode::InviteExpired)
    })
}

/// The invite that was opened last, until the user interface takes it. On a cold start the link arrives before the user
/// interface listens.
#[derive(Debug, Default)]
pub struct PendingLink(Mutex<Option<String>>);

impl PendingLink {
    /// Stores the first of the arguments that has an invite in it, or what is left of one, and returns it.
    pub fn keep<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let link = words.into_iter().find_map(|word| match Invite::find(word) {
            Ok(invite) => Some(invite.app_link()),
            // The user interface says what is wrong with it.
            Err(error) if InviteError::is_about_an_invite(&error) && word.len() <= MAX_KEPT => {
                Some(word.to_owned())
            }
            Err(_) => None,
        })?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
        Some(link)
    }

    /// Returns the link and forgets it.
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{AppError, PartyId, PartyPhase, Role};

    use super::*;

    /// An invite to party `0101…` until 15 January 2027.
    const CODE: &str = "PLY14Wu0El6XFXwsUFD8J2vGxsaboW7rZYnQRBP5d9erwRwd290TWD4V5tkyUQGc5qXvlBDd2Fj97aqsMoBGJJjsttG4I0iHJbkdqdSjdOv8lotdlpRYNaigOHJYDGtSybpLpt6R0x2Q90BnVwyqXEBh5rWMRG4VSIFBhkjcMWcdTlnmW8a0x2Q90BnVwyqXEBh5rWMRG4VSIFBhkjcMWcdTlnmW8aPRMdxPVIXeEV3ejUrYEDMZbK9d3V66D2JibE2sRTVw03Q8faQLepGnIKAC5OzNctb2pXvHP";
    const END: Timestamp = Timestamp(1_800_000_000_000);

    fn party(id: u8, problem: Option<ErrorCode>) -> PartyView {
        PartyView {
            id: PartyId([id; 32]),
            name: "Friday games".into(),
            phase: PartyPhase::Up,
            role: Role::Member,
            range: None,
            range_requested: false,
            incoming: partyline_model::IncomingPolicy::default(),
            interface: None,
            members: Vec::new(),
            invites: Vec::new(),
            approval: false,
            join_requests: Vec::new(),
            waits_for: None,
            servers: Vec::new(),
            discovery: None,
            problem: problem.map(|code| AppError::new(code, "", "")),
        }
    }

    #[test]
    fn valid_invite_to_another_party_is_offered() {
        let link = format!("partyline://join/{CODE}");
        let text = format!("Come and play: **https://play.example.org/join#{CODE}**!");
        assert_eq!(offer(&text, &[], END).as_ref(), Some(&link));
        assert_eq!(offer(&text, &[party(2, None)], END).as_ref(), Some(&link));
        assert_eq!(offer(&text, &[party(1, Some(ErrorCode::Removed))], END).as_ref(), Some(&link));
    }

    #[test]
    fn joined_expired_and_broken_invites_are_not_offered() {
        assert_eq!(offer(CODE, &[party(1, None)], END), None);
        assert_eq!(offer(CODE, &[], Timestamp(END.0 + 1)), None);
        for other in ["", "https://play.example/", "partyline://quit", &CODE[..200], &CODE[3..]] {
            assert_eq!(offer(other, &[], END), None, "{other}");
        }
    }

    #[test]
    fn pending_link_is_taken_once() {
        let arrived = PendingLink::default();
        assert_eq!(arrived.keep(["--minimised", "https://discord.gg/abc", "partyline://quit"]), None);
        let link = format!("partyline://join/{CODE}");
        assert_eq!(arrived.keep(["x", &format!(" {link}/ ")]).as_ref(), Some(&link));
        assert_eq!(arrived.take().as_ref(), Some(&link));
        assert_eq!(arrived.take(), None);
    }

    #[test]
    fn broken_link_is_kept_to_be_explained() {
        let arrived = PendingLink::default();
        assert_eq!(arrived.keep(["partyline://join/PLY1"]).as_deref(), Some("partyline://join/PLY1"));
    }
}

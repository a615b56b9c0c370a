//! Turns an invite into the right to join.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use partyline_model::{InviteId, Timestamp};
use partyline_wire::{invite::Invite, membership::Grant};
use tracing::debug;

use crate::{chain::is_grant_sound, error::JoinError, rules::CLOCK_TOLERANCE};

/// Longest lifetime of an invite that ends at all. One that ends later shows that a clock is wrong.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// Checks an invite and returns its grant and the key that signs the joiner's certificate. Whether the issuer is still a
/// co-owner and whether the invite was revoked is known only when the charter arrives.
///
/// # Errors
/// If the invite is forged, or has ended by this computer's clock.
pub(crate) fn accept_invite(now: Timestamp, invite: &Invite) -> Result<(Grant, SigningKey), JoinError> {
    let key = SigningKey::from_bytes(&invite.seed);
    let grant = Grant {
        issuer: invite.issuer,
        invite: InviteId(key.verifying_key().to_bytes()),
        not_after: invite.not_after,
        uses: invite.uses,
        role: invite.role,
        signature: invite.signature,
    };
    let checked = if is_grant_sound(&invite.party, &grant) {
        check_end(invite.not_after.time(), now)
    } else {
        Err(JoinError::Forged)
    };
    match &checked {
        Ok(()) => debug!(party = %invite.party.short(), invite = %grant.invite.short(), "invite accepted"),
        Err(error) => {
            debug!(party = %invite.party.short(), invite = %grant.invite.short(), reason = %error, "invite refused");
        }
    }
    checked.map(|()| (grant, key))
}

fn check_end(end: Option<Timestamp>, now: Timestamp) -> Result<(), JoinError> {
    match end {
        Some(end) if now > end.plus(CLOCK_TOLERANCE) => Err(JoinError::Expired { ended: end, clock: now }),
        Some(end) if end > now.plus(MAX_LIFETIME + CLOCK_TOLERANCE) => {
            Err(JoinError::EndsTooLate { ends: end, clock: now })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NOW;

    #[test]
    fn invite_counts_until_its_end_plus_the_tolerance() {
        let last = NOW.plus(CLOCK_TOLERANCE);
        assert_eq!(check_end(Some(NOW), last), Ok(()));
        let clock = Timestamp(last.0 + 1);
        assert_eq!(check_end(Some(NOW), clock), Err(JoinError::Expired { ended: NOW, clock }));
        assert_eq!(check_end(None, Timestamp(u64::MAX)), Ok(()));
    }

    #[test]
    fn end_beyond_any_lifetime_shows_a_wrong_clock() {
        let end = NOW.plus(MAX_LIFETIME + CLOCK_TOLERANCE);
        assert_eq!(check_end(Some(end), NOW), Ok(()));
        let clock = Timestamp(NOW.0 - 1);
        assert_eq!(check_end(Some(end), clock), Err(JoinError::EndsTooLate { ends: end, clock }));
    }
}

//! Invites made on this device.
//!
//! An invite's key is in its link alone. What is kept here tells the user which invites are open, and keeps the party
//! secret that a link contains (see [`PartySecrets`](crate::secrets::PartySecrets)) until the link is of no more use.

use std::num::NonZeroU8;

use partyline_model::{InviteId, Role, Timestamp};
use partyline_wire::membership::Expiry;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{error::PartyError, rules::CLOCK_TOLERANCE};

/// Number of open invites that one device may have made.
const MAX_OPEN: usize = 64;

/// An invite made on this device that can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenInvite {
    /// The invite.
    pub id: InviteId,
    /// Its end; `None` for never.
    pub ends: Option<Timestamp>,
    /// The number of devices that have joined by it, as far as this one knows.
    pub used: usize,
    /// The number of devices that may join by it; `None` for any number.
    pub uses: Option<NonZeroU8>,
    /// The role of the joiner.
    pub role: Role,
}

/// An invite made here.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct IssuedInvite {
    pub(crate) id: InviteId,
    pub(crate) not_after: Expiry,
    pub(crate) uses: Option<NonZeroU8>,
    pub(crate) role: Role,
    /// Commitment to the party secret in the link.
    pub(crate) commitment: [u8; 32],
}

impl IssuedInvite {
    /// Returns the end, tolerance included; the greatest timestamp for never.
    fn ends(&self) -> Timestamp {
        self.not_after.time().map_or(Timestamp(u64::MAX), |end| end.plus(CLOCK_TOLERANCE))
    }
}

/// At most [`MAX_OPEN`] invites, in the order they were made. Ended ones are dropped when they are next looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Invites(Vec<IssuedInvite>);

impl Invites {
    /// Drops ended invites and makes sure that one more may be made.
    ///
    /// # Errors
    /// [`PartyError::TooManyInvites`].
    pub(crate) fn ensure_room(&mut self, now: Timestamp) -> Result<(), PartyError> {
        self.expire(now);
        if self.0.len() < MAX_OPEN { Ok(()) } else { Err(PartyError::TooManyInvites) }
    }

    pub(crate) fn add(&mut self, invite: IssuedInvite) {
        debug!(invite = %invite.id.short(), role = ?invite.role, not_after = ?invite.not_after.time(), "invite created");
        self.0.push(invite);
    }

    pub(crate) fn revoke(&mut self, invites: &[InviteId]) {
        self.0.retain(|issued| {
            let revoked = invites.contains(&issued.id);
            if revoked {
                debug!(invite = %issued.id.short(), reason = "revoked", "invite closed");
            }
            !revoked
        });
    }

    /// Closes the invites whose links lead nowhere any more.
    pub(crate) fn close_unless(&mut self, is_lobby_open: impl Fn(&[u8; 32]) -> bool) {
        self.0.retain(|issued| {
            let open = is_lobby_open(&issued.commitment);
            if !open {
                debug!(invite = %issued.id.short(), reason = "the owner ended all links", "invite closed");
            }
            open
        });
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.0.retain(|issued| {
            let open = now <= issued.ends();
            if !open {
                debug!(invite = %issued.id.short(), reason = "ended", "invite closed");
            }
            open
        });
    }

    pub(crate) fn open(&self, now: Timestamp) -> impl Iterator<Item = &IssuedInvite> {
        self.0.iter().filter(move |issued| now <= issued.ends())
    }

    /// Returns the end of the last invite whose link contains the secret with this commitment.
    pub(crate) fn open_until(&self, commitment: &[u8; 32]) -> Option<Timestamp> {
        self.0.iter().filter(|issued| issued.commitment == *commitment).map(IssuedInvite::ends).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NOW;

    fn invite(n: u8, not_after: Expiry) -> IssuedInvite {
        IssuedInvite {
            id: InviteId([n; 32]),
            not_after,
            uses: None,
            role: Role::Member,
            commitment: [n % 2; 32],
        }
    }

    #[test]
    fn invites_close_when_revoked_or_ended() {
        let mut invites = Invites::default();
        invites.add(invite(1, Expiry::at(NOW)));
        invites.add(invite(2, Expiry::NEVER));
        invites.add(invite(3, Expiry::NEVER));
        let end = NOW.plus(CLOCK_TOLERANCE);
        assert_eq!(invites.open(end).count(), 3);
        assert_eq!(invites.open(Timestamp(end.0 + 1)).count(), 2);
        invites.revoke(&[InviteId([2; 32])]);
        assert_eq!(invites.open(end).map(|invite| invite.id.0[0]).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn ended_invites_make_room_for_new_ones() {
        let mut invites = Invites::default();
        (0..MAX_OPEN as u8).for_each(|n| invites.add(invite(n, Expiry::at(NOW))));
        assert_eq!(invites.ensure_room(NOW), Err(PartyError::TooManyInvites));
        assert_eq!(invites.ensure_room(NOW.plus(CLOCK_TOLERANCE * 2)), Ok(()));
        assert!(invites.0.is_empty());
    }

    #[test]
    fn secret_is_needed_until_the_last_invite_that_contains_it_ends() {
        let mut invites = Invites::default();
        assert_eq!(invites.open_until(&[1; 32]), None);
        invites.add(invite(1, Expiry::at(NOW)));
        invites.add(invite(3, Expiry::at(NOW.plus(CLOCK_TOLERANCE))));
        invites.add(invite(2, Expiry::NEVER));
        assert_eq!(invites.open_until(&[1; 32]), Some(NOW.plus(CLOCK_TOLERANCE * 2)));
        assert_eq!(invites.open_until(&[0; 32]), Some(Timestamp(u64::MAX)));
    }
}

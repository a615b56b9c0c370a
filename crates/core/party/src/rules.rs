//! What the charter says, as questions: who is removed, who may invite, which certificates count at a moment.

use std::time::Duration;

use partyline_model::{DeviceId, InviteId, Role, Timestamp};
use partyline_wire::membership::{Amendment, Certificate, Charter, Issuer, Terms};

use crate::error::JoinError;

/// How far a clock may be off before an invite's end is taken from it: an invite counts this much longer than it
/// says, on every device.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// Why a certificate, one's own or another's, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Dismissal {
    /// The charter removes the device.
    #[error("the owner removed this device from the party")]
    Removed,
    /// The charter revokes the invite, and the owner's device had not confirmed the membership.
    #[error("the invite was revoked before the owner's computer confirmed it")]
    InviteRevoked,
    /// The invite ended before the owner's device confirmed the membership.
    #[error("the invite ended before the owner's computer confirmed it")]
    InviteExpired,
    /// Whoever made the invite may not invite.
    #[error("whoever made the invite may not invite to this party")]
    NotACoOwner,
}

/// How one's own membership stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Confirmed by the owner's device, or the owner itself.
    Confirmed,
    /// Good until the invite ends; the owner's device has not been met yet.
    Unconfirmed {
        /// When the invite ends; `None` for never.
        until: Option<Timestamp>,
    },
    /// Not, or no longer. A lapsed invite is not final: a confirmation may still come.
    Dismissed(Dismissal),
}

/// The charter in force, if one is known yet.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a>(pub(crate) Option<&'a Charter>);

impl<'a> Rules<'a> {
    pub(crate) fn terms(self) -> Option<&'a Terms> {
        self.0.map(|charter| charter.terms.value())
    }

    fn amendment(self) -> Option<&'a Amendment> {
        self.0?.amendment.as_ref().map(|signed| signed.amendment.value())
    }

    pub(crate) fn commitment(self) -> Option<&'a [u8; 32]> {
        let amended = self.amendment().map(|amendment| &amendment.commitment);
        amended.or_else(|| self.terms().map(|terms| &terms.commitment))
    }

    pub(crate) fn revoked_devices(self) -> impl Iterator<Item = &'a DeviceId> {
        let added = self.amendment().into_iter().flat_map(|amendment| &amendment.revoked_devices);
        self.terms().into_iter().flat_map(|terms| &terms.revoked_devices).chain(added)
    }

    pub(crate) fn revoked_invites(self) -> impl Iterator<Item = &'a InviteId> {
        let added = self.amendment().into_iter().flat_map(|amendment| &amendment.revoked_invites);
        self.terms().into_iter().flat_map(|terms| &terms.revoked_invites).chain(added)
    }

    pub(crate) fn is_removed(self, device: &DeviceId) -> bool {
        self.revoked_devices().any(|removed| removed == device)
    }

    pub(crate) fn is_revoked(self, invite: &InviteId) -> bool {
        self.revoked_invites().any(|revoked| revoked == invite)
    }

    pub(crate) fn is_co_owner(self, device: &DeviceId) -> bool {
        self.terms().is_some_and(|terms| terms.co_owners.contains(device)) && !self.is_removed(device)
    }

    /// What a member may do. Before the charter is known, the grant says it.
    pub(crate) fn role_of(self, certificate: &Certificate) -> Role {
        let claims = certificate.claims();
        match self.terms() {
            Some(terms) if terms.owner == claims.device => Role::Owner,
            Some(_) if self.is_co_owner(&claims.device) => Role::CoOwner,
            Some(_) => Role::Member,
            None => claims.grant.role,
        }
    }

    /// Whether a sound certificate counts.
    pub(crate) fn judge(
        self,
        certificate: &Certificate,
        confirmed: bool,
        now: Timestamp,
    ) -> Result<(), Dismissal> {
        let claims = certificate.claims();
        if self.is_removed(&claims.device) {
            return Err(Dismissal::Removed);
        }
        if confirmed {
            return Ok(());
        }
        if self.is_revoked(&claims.grant.invite) {
            return Err(Dismissal::InviteRevoked);
        }
        let may_invite = match &claims.grant.issuer {
            Issuer::Authority => true,
            Issuer::CoOwner(device) => self.is_co_owner(device),
        };
        match lapses_at(certificate) {
            _ if !may_invite => Err(Dismissal::NotACoOwner),
            Some(end) if now > end => Err(Dismissal::InviteExpired),
            _ => Ok(()),
        }
    }
}

/// When an unconfirmed certificate stops counting, tolerance included; `None` for never.
pub(crate) fn lapses_at(certificate: &Certificate) -> Option<Timestamp> {
    certificate.claims().grant.not_after.time().map(|end| end.plus(CLOCK_TOLERANCE))
}

/// Refuses an invite that has ended. One that ends later than any invite can shows that this clock is behind.
pub(crate) fn check_end(end: Option<Timestamp>, now: Timestamp) -> Result<(), JoinError> {
    const LONGEST: Duration = Duration::from_secs(7 * 86_400);
    match end {
        Some(end) if now > end.plus(CLOCK_TOLERANCE) => Err(JoinError::Expired { ended: end, clock: now }),
        Some(end) if end > now.plus(LONGEST + CLOCK_TOLERANCE) => Err(JoinError::ClockBehind { clock: now }),
        _ => Ok(()),
    }
}

//! The charter as answers: who is removed, who may invite, which certificates count at a given moment.

use std::time::Duration;

use partyline_model::{DeviceId, InviteId, Role, Timestamp};
use partyline_wire::membership::{Amendment, Certificate, Charter, Issuer, Terms};

use crate::revocations::Revocations;

/// Error allowed for in clocks: on every device an invite counts this much longer than it says.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// Why a certificate, of this device or of another, does not count.
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
    /// The issuer of the invite is not, or no longer, a co-owner.
    #[error("the invite was made by someone who may not invite to this party")]
    NotACoOwner,
    /// As many other devices as the invite allows have joined by it.
    #[error("the invite was for a number of devices, and as many have joined by it")]
    UsedUp,
    /// The owner approves every joiner, and has not approved this device.
    #[error("the owner has not approved this device yet")]
    Unapproved,
}

impl Dismissal {
    /// Returns true if only another invite, or another charter, can bring the device back. The others may be revived by a
    /// confirmation.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::InviteExpired | Self::UsedUp | Self::Unapproved)
    }
}

/// What is known of a certificate besides its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The authority has confirmed it.
    Confirmed,
    /// The authority has not confirmed it yet.
    Unconfirmed {
        /// The number of other devices that have joined by its invite and come before it.
        before: usize,
    },
}

/// State of this device's own membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The owner's device confirmed it, or this is the owner's device.
    Confirmed,
    /// It counts until the invite ends, since the owner's device has not confirmed it yet.
    Unconfirmed {
        /// End of the invite; `None` for never.
        until: Option<Timestamp>,
    },
    /// It does not count. An expired invite is not final, since a confirmation may still arrive.
    Dismissed(Dismissal),
}

/// The charter in force, if one is known yet, and what other amendments of its terms revoke.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    charter: Option<&'a Charter>,
    outvoted: &'a Revocations,
}

impl<'a> Rules<'a> {
    /// Returns the rules of a charter alone.
    pub(crate) const fn of(charter: Option<&'a Charter>) -> Self {
        Self { charter, outvoted: const { &Revocations::NONE } }
    }

    /// Adds what amendments revoke that lost against the one in force.
    pub(crate) const fn with(self, outvoted: &'a Revocations) -> Self {
        Self { outvoted, ..self }
    }

    pub(crate) const fn charter(self) -> Option<&'a Charter> {
        self.charter
    }

    pub(crate) fn terms(self) -> Option<&'a Terms> {
        self.charter.map(|charter| charter.terms.value())
    }

    fn amendment(self) -> Option<&'a Amendment> {
        self.charter?.amendment.as_ref().map(|signed| signed.amendment.value())
    }

    /// Returns the commitment to the party secret in force.
    pub(crate) fn commitment(self) -> Option<&'a [u8; 32]> {
        let amended = self.amendment().map(|amendment| &amendment.commitment);
        amended.or_else(|| self.terms().map(|terms| &terms.commitment))
    }

    pub(crate) fn revoked_devices(self) -> impl Iterator<Item = &'a DeviceId> {
        let added = self.amendment().into_iter().flat_map(|amendment| &amendment.revoked_devices);
        let terms = self.terms().into_iter().flat_map(|terms| &terms.revoked_devices);
        terms.chain(added).chain(&self.outvoted.devices)
    }

    pub(crate) fn revoked_invites(self) -> impl Iterator<Item = &'a InviteId> {
        let added = self.amendment().into_iter().flat_map(|amendment| &amendment.revoked_invites);
        let terms = self.terms().into_iter().flat_map(|terms| &terms.revoked_invites);
        terms.chain(added).chain(&self.outvoted.invites)
    }

    pub(crate) fn is_removed(self, device: &DeviceId) -> bool {
        self.revoked_devices().any(|removed| removed == device)
    }

    pub(crate) fn is_revoked(self, invite: &InviteId) -> bool {
        self.revoked_invites().any(|revoked| revoked == invite)
    }

    /// Returns true if all of these have lost their rights already.
    pub(crate) fn revokes(self, all: &Revocations) -> bool {
        all.devices.iter().all(|device| self.is_removed(device))
            && all.invites.iter().all(|invite| self.is_revoked(invite))
    }

    pub(crate) fn is_co_owner(self, device: &DeviceId) -> bool {
        self.terms().is_some_and(|terms| terms.co_owners.contains(device)) && !self.is_removed(device)
    }

    /// Returns what a member may do. Before the charter is known, its grant decides.
    pub(crate) fn role_of(self, certificate: &Certificate) -> Role {
        let claims = certificate.claims();
        match self.terms() {
            Some(terms) if terms.owner == claims.device => Role::Owner,
            Some(_) if self.is_co_owner(&claims.device) => Role::CoOwner,
            Some(_) => Role::Member,
            None => claims.grant.role,
        }
    }

    /// Decides whether a sound certificate counts. [`Dismissal::Unapproved`] means that nothing else speaks against it.
    pub(crate) fn judge(
        self,
        certificate: &Certificate,
        admission: Admission,
        now: Timestamp,
    ) -> Result<(), Dismissal> {
        if self.is_removed(&certificate.claims().device) {
            return Err(Dismissal::Removed);
        }
        match admission {
            Admission::Confirmed => Ok(()),
            Admission::Unconfirmed { before } => self.judge_invite(certificate, before, now),
        }
    }

    /// Decides whether a certificate counts by the right of its invite alone.
    fn judge_invite(self, certificate: &Certificate, before: usize, now: Timestamp) -> Result<(), Dismissal> {
        let grant = &certificate.claims().grant;
        if self.is_revoked(&grant.invite) {
            return Err(Dismissal::InviteRevoked);
        }
        let may_invite = match &grant.issuer {
            Issuer::Authority => true,
            Issuer::CoOwner(device) => self.is_co_owner(device),
        };
        match lapses_at(certificate) {
            _ if !may_invite => Err(Dismissal::NotACoOwner),
            Some(end) if now > end => Err(Dismissal::InviteExpired),
            _ if grant.uses.is_some_and(|uses| before >= usize::from(uses.get())) => Err(Dismissal::UsedUp),
            _ if self.terms().is_some_and(|terms| terms.approval) => Err(Dismissal::Unapproved),
            _ => Ok(()),
        }
    }
}

/// Returns the moment after which an unconfirmed certificate no longer counts, tolerance included; `None` for never.
pub(crate) fn lapses_at(certificate: &Certificate) -> Option<Timestamp> {
    certificate.claims().grant.not_after.time().map(|end| end.plus(CLOCK_TOLERANCE))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use partyline_wire::membership::Expiry;

    use super::*;
    use crate::fixtures::{Fixture, NOW, device, id};

    const CONFIRMED: Admission = Admission::Confirmed;
    const UNCONFIRMED: Admission = Admission::Unconfirmed { before: 0 };

    #[test]
    fn removal_counts_against_confirmed_members_and_revocation_only_against_others() {
        let fixture = Fixture::default();
        let certificate = fixture.certificate(1);
        let removed = fixture.charter(2, |terms| terms.revoked_devices.push(id(1)));
        assert_eq!(Rules::of(Some(&removed)).judge(&certificate, CONFIRMED, NOW), Err(Dismissal::Removed));
        let revoked = fixture.charter(2, |terms| terms.revoked_invites.push(fixture.invite_id()));
        assert_eq!(Rules::of(Some(&revoked)).judge(&certificate, CONFIRMED, NOW), Ok(()));
        assert_eq!(
            Rules::of(Some(&revoked)).judge(&certificate, UNCONFIRMED, NOW),
            Err(Dismissal::InviteRevoked)
        );
    }

    #[test]
    fn unconfirmed_certificate_counts_until_its_invite_ends_plus_the_tolerance() {
        let fixture = Fixture { not_after: Expiry::at(NOW), ..Fixture::default() };
        let certificate = fixture.certificate(1);
        let end = lapses_at(&certificate).unwrap();
        assert_eq!(end, NOW.plus(CLOCK_TOLERANCE));
        assert_eq!(Rules::of(None).judge(&certificate, UNCONFIRMED, end), Ok(()));
        let late = Timestamp(end.0 + 1);
        assert_eq!(Rules::of(None).judge(&certificate, UNCONFIRMED, late), Err(Dismissal::InviteExpired));
        assert_eq!(Rules::of(None).judge(&certificate, CONFIRMED, late), Ok(()));
    }

    #[test]
    fn grants_of_a_co_owner_count_while_the_charter_names_it() {
        let fixture = Fixture::default();
        let certificate = fixture.certificate_by(1, 1, Issuer::CoOwner(id(3)), device(3).signing());
        let named = fixture.charter(1, |terms| terms.co_owners.push(id(3)));
        assert_eq!(Rules::of(Some(&named)).judge(&certificate, UNCONFIRMED, NOW), Ok(()));
        let plain = fixture.charter(1, |_| {});
        assert_eq!(
            Rules::of(Some(&plain)).judge(&certificate, UNCONFIRMED, NOW),
            Err(Dismissal::NotACoOwner)
        );
        let removed = fixture.charter(1, |terms| {
            terms.co_owners.push(id(3));
            terms.revoked_devices.push(id(3));
        });
        assert_eq!(
            Rules::of(Some(&removed)).judge(&certificate, UNCONFIRMED, NOW),
            Err(Dismissal::NotACoOwner)
        );
    }

    #[test]
    fn amendment_adds_removals_and_replaces_the_commitment() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| {
            terms.co_owners.push(id(3));
            terms.revoked_devices.push(id(4));
        });
        let amended = fixture.amended(&charter, 3, id(5));
        let rules = Rules::of(Some(&amended));
        assert!(rules.is_removed(&id(4)) && rules.is_removed(&id(5)) && !rules.is_removed(&id(1)));
        assert_eq!(rules.commitment(), Some(&[2; 32]));
    }

    #[test]
    fn unconfirmed_certificate_counts_while_the_invite_has_uses_left() {
        let fixture = Fixture { uses: NonZeroU8::new(2), ..Fixture::default() };
        let certificate = fixture.certificate(1);
        let judge = |before| Rules::of(None).judge(&certificate, Admission::Unconfirmed { before }, NOW);
        assert_eq!([judge(0), judge(1)], [Ok(()), Ok(())]);
        assert_eq!([judge(2), judge(9)], [Err(Dismissal::UsedUp), Err(Dismissal::UsedUp)]);
        assert_eq!(Rules::of(None).judge(&certificate, CONFIRMED, NOW), Ok(()));
    }

    #[test]
    fn approval_is_all_that_an_unapproved_certificate_lacks() {
        let fixture = Fixture { uses: NonZeroU8::new(1), ..Fixture::default() };
        let certificate = fixture.certificate(1);
        let charter = fixture.charter(1, |terms| terms.approval = true);
        let judge = |admission| Rules::of(Some(&charter)).judge(&certificate, admission, NOW);
        assert_eq!(judge(UNCONFIRMED), Err(Dismissal::Unapproved));
        assert_eq!(judge(Admission::Unconfirmed { before: 1 }), Err(Dismissal::UsedUp));
        assert_eq!(judge(CONFIRMED), Ok(()));
    }

    #[test]
    fn charter_overrides_the_role_of_the_grant() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| terms.co_owners.push(id(3)));
        let role = |rules: Rules<'_>, n| rules.role_of(&fixture.certificate(n));
        assert_eq!(role(Rules::of(None), 0), Role::Member);
        let rules = Rules::of(Some(&charter));
        assert_eq!(
            [role(rules, 0), role(rules, 3), role(rules, 1)],
            [Role::Owner, Role::CoOwner, Role::Member]
        );
    }
}

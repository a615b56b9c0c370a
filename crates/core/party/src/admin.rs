//! What the owner and co-owners may decide, drafted as the next charter.
//!
//! The owner's device writes the next version of the terms. A co-owner writes an amendment of the terms in force: all of
//! the amendment before it, and more. The owner's device takes an amendment over into its next version as soon as it
//! receives one. When two devices write at once, one of them loses by its stamp; a co-owner therefore remembers what it
//! revoked until the owner's terms contain it, and amends again when its amendment was lost.

use ed25519_dalek::SigningKey;
use partyline_model::{PartyId, Role};
use partyline_wire::{
    exact::{Document as _, Exact, Malformed},
    membership::{Amendment, Certificate, Charter, Confirmation, Issuer, SignedAmendment, Terms},
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{
    chain::{confirm, is_charter_sound, proclaim},
    error::PartyError,
    keys::{DeviceKey, Secret, sign},
    revocations::{Revocations, extend_unique},
    rules::Rules,
};

/// The authority key, on the owner's device, and what a co-owner's device revoked and the owner's terms do not contain
/// yet.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Admin {
    authority: Option<Secret>,
    pending: Revocations,
}

impl Admin {
    /// Makes this device the owner's.
    pub(crate) fn owner(authority: Secret) -> Self {
        Self { authority: Some(authority), pending: Revocations::default() }
    }

    pub(crate) const fn is_owner(&self) -> bool {
        self.authority.is_some()
    }

    pub(crate) fn authority(&self) -> Option<SigningKey> {
        self.authority.as_ref().map(|seed| SigningKey::from_bytes(seed.expose()))
    }

    /// Returns who issues an invite made on this device and the key that signs it.
    ///
    /// # Errors
    /// [`PartyError::NotCoOwner`] on a plain member's device, [`PartyError::NotOwner`] if the role is too high.
    pub(crate) fn issuer(
        &self,
        device: &DeviceKey,
        own_role: Role,
        granted: Role,
    ) -> Result<(Issuer, SigningKey), PartyError> {
        match self.authority() {
            Some(authority) if granted != Role::Owner => Ok((Issuer::Authority, authority)),
            None if granted == Role::Member && own_role == Role::CoOwner => {
                Ok((Issuer::CoOwner(device.id()), device.signing().clone()))
            }
            None if own_role == Role::Member => Err(PartyError::NotCoOwner),
            _ => Err(PartyError::NotOwner),
        }
    }

    /// Confirms a certificate, and fixes the member's host number, if this is the owner's device.
    pub(crate) fn confirm(&self, certificate: &Certificate, host: u16, version: u64) -> Option<Confirmation> {
        self.authority().map(|authority| confirm(&authority, certificate, host, version))
    }

    /// Drafts the next version of the terms, into which the amendment in force, if any, is taken over.
    ///
    /// # Errors
    /// [`PartyError::NotOwner`] on other devices, [`PartyError::Full`] and [`PartyError::Invalid`] if the terms would
    /// exceed a limit.
    pub(crate) fn next_charter(
        &self,
        rules: Rules<'_>,
        commitment: [u8; 32],
        change: impl FnOnce(&mut Terms),
    ) -> Result<Charter, PartyError> {
        let authority = self.authority().ok_or(PartyError::NotOwner)?;
        let mut terms = rules.terms().ok_or(PartyError::NotOwner)?.clone();
        terms.revoked_devices.clear();
        terms.revoked_invites.clear();
        extend_unique(&mut terms.revoked_devices, &rules.revoked_devices().copied().collect::<Vec<_>>());
        extend_unique(&mut terms.revoked_invites, &rules.revoked_invites().copied().collect::<Vec<_>>());
        change(&mut terms);
        terms.commitment = commitment;
        terms.version = terms.version.saturating_add(1);
        terms.check().map_err(limit_error)?;
        debug!(version = terms.version, co_owners = terms.co_owners.len(), "charter written");
        Ok(proclaim(&authority, terms))
    }

    /// Drafts an amendment of the terms in force, signed by a co-owner's device.
    ///
    /// # Errors
    /// [`PartyError::NotCoOwner`] on other devices, [`PartyError::Protected`] if it would remove the owner or a
    /// co-owner, [`PartyError::Full`] if it would exceed a limit.
    pub(crate) fn amended_charter(
        party: &PartyId,
        rules: Rules<'_>,
        device: &DeviceKey,
        revoked: &Revocations,
        commitment: [u8; 32],
    ) -> Result<Charter, PartyError> {
        let mut charter = rules.charter().ok_or(PartyError::NotCoOwner)?.clone();
        if !rules.is_co_owner(&device.id()) {
            return Err(PartyError::NotCoOwner);
        }
        let before = charter.amendment.as_ref().map(|signed| signed.amendment.value());
        let mut amendment = Amendment {
            terms: charter.terms_digest(),
            number: before.map_or(0, |before| before.number).saturating_add(1),
            author: device.id(),
            revoked_devices: before.map_or_else(Vec::new, |before| before.revoked_devices.clone()),
            revoked_invites: before.map_or_else(Vec::new, |before| before.revoked_invites.clone()),
            commitment,
        };
        extend_unique(&mut amendment.revoked_devices, &revoked.devices);
        extend_unique(&mut amendment.revoked_invites, &revoked.invites);
        amendment.check().map_err(limit_error)?;
        debug!(
            number = amendment.number,
            devices = revoked.devices.len(),
            invites = revoked.invites.len(),
            "amendment written"
        );
        let amendment = Exact::new(amendment);
        let signature = sign(device.signing(), &amendment.subject());
        charter.amendment = Some(SignedAmendment { amendment, signature });
        if is_charter_sound(party, &charter) { Ok(charter) } else { Err(PartyError::Protected) }
    }

    /// Remembers what a co-owner revoked until [`Self::forget_enacted`] finds it in the owner's terms.
    pub(crate) fn remember(&mut self, revoked: &Revocations) {
        self.pending.add(revoked);
        debug!(
            devices = self.pending.devices.len(),
            invites = self.pending.invites.len(),
            "revocations pending"
        );
    }

    pub(crate) fn forget_enacted(&mut self, terms: &Terms) {
        self.pending.devices.retain(|device| !terms.revoked_devices.contains(device));
        self.pending.invites.retain(|invite| !terms.revoked_invites.contains(invite));
    }

    /// Returns everything pending if the charter in force lacks any of it, since an amendment was lost then.
    pub(crate) fn lost(&self, rules: Rules<'_>) -> Option<Revocations> {
        // What lost against another amendment is removed here, but elsewhere perhaps not.
        let in_force = Rules::of(rules.charter());
        (!in_force.revokes(&self.pending)).then(|| self.pending.clone())
    }
}

fn limit_error(error: Malformed) -> PartyError {
    match error {
        Malformed::TooMany { .. } => PartyError::Full,
        other => PartyError::Invalid(other),
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::DeviceId;
    use partyline_wire::membership::{MAX_AMENDED, MAX_REVOKED};

    use super::*;
    use crate::fixtures::{Fixture, device, id};

    fn owner(fixture: &Fixture) -> Admin {
        Admin::owner(Secret::new(fixture.authority.to_bytes()))
    }

    fn removal(n: u8) -> Revocations {
        Revocations { devices: vec![id(n)], invites: Vec::new() }
    }

    #[test]
    fn role_of_an_invite_is_limited_by_the_role_of_its_maker() {
        let fixture = Fixture::default();
        let issuer =
            |admin: &Admin, own, granted| admin.issuer(&device(1), own, granted).map(|issuer| issuer.0);
        let (owner, other) = (owner(&fixture), Admin::default());
        assert_eq!(issuer(&owner, Role::Owner, Role::CoOwner), Ok(Issuer::Authority));
        assert_eq!(issuer(&owner, Role::Owner, Role::Owner), Err(PartyError::NotOwner));
        assert_eq!(issuer(&other, Role::CoOwner, Role::Member), Ok(Issuer::CoOwner(id(1))));
        assert_eq!(issuer(&other, Role::CoOwner, Role::CoOwner), Err(PartyError::NotOwner));
        assert_eq!(issuer(&other, Role::Member, Role::Member), Err(PartyError::NotCoOwner));
    }

    #[test]
    fn next_terms_take_the_amendment_over_and_win() {
        let fixture = Fixture::default();
        let charter = fixture.charter(4, |terms| terms.co_owners.push(id(3)));
        let amended = fixture.amended(&charter, 3, id(5));
        let next = owner(&fixture).next_charter(Rules::of(Some(&amended)), [3; 32], |_| {}).unwrap();
        assert!(next.stamp() > amended.stamp() && next.amendment.is_none());
        assert_eq!(next.terms.value().revoked_devices, [id(5)]);
        assert_eq!(next.terms.value().commitment, [3; 32]);
        let denied = Admin::default().next_charter(Rules::of(Some(&amended)), [3; 32], |_| {});
        assert_eq!(denied.unwrap_err(), PartyError::NotOwner);
    }

    #[test]
    fn removed_co_owner_is_no_co_owner_in_the_next_terms() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| terms.co_owners = vec![id(3), id(4)]);
        let next = owner(&fixture)
            .next_charter(Rules::of(Some(&charter)), [3; 32], |terms| removal(3).apply_to(terms))
            .unwrap();
        assert_eq!(next.terms.value().co_owners, [id(4)]);
        assert!(Rules::of(Some(&next)).is_removed(&id(3)));
    }

    #[test]
    fn amendments_accumulate_and_cannot_touch_owner_or_equals() {
        let fixture = Fixture::default();
        let charter = fixture.charter(1, |terms| terms.co_owners = vec![id(3), id(4)]);
        let amend = |charter: &Charter, by, removed| {
            let (party, rules) = (fixture.party(), Rules::of(Some(charter)));
            Admin::amended_charter(&party, rules, &device(by), &removal(removed), [3; 32])
        };
        let first = amend(&charter, 3, 5).unwrap();
        let second = amend(&first, 4, 6).unwrap();
        assert!(second.stamp() > first.stamp());
        let rules = Rules::of(Some(&second));
        assert!(rules.is_removed(&id(5)) && rules.is_removed(&id(6)));
        assert_eq!(amend(&charter, 3, 0), Err(PartyError::Protected));
        assert_eq!(amend(&charter, 3, 4), Err(PartyError::Protected));
        assert_eq!(amend(&charter, 5, 6), Err(PartyError::NotCoOwner));
    }

    #[test]
    fn lists_beyond_their_limits_are_refused() {
        let fixture = Fixture::default();
        let many = |count: usize| Revocations {
            devices: (0..count).map(|n| DeviceId([n as u8; 32])).collect(),
            invites: Vec::new(),
        };
        let charter = fixture.charter(1, |terms| terms.co_owners.push(id(3)));
        let rules = Rules::of(Some(&charter));
        let next = |count| owner(&fixture).next_charter(rules, [3; 32], |terms| many(count).apply_to(terms));
        assert!(next(MAX_REVOKED).is_ok());
        assert_eq!(next(MAX_REVOKED + 1), Err(PartyError::Full));
        let amend =
            |count| Admin::amended_charter(&fixture.party(), rules, &device(3), &many(count), [3; 32]);
        assert!(amend(MAX_AMENDED).is_ok());
        assert_eq!(amend(MAX_AMENDED + 1), Err(PartyError::Full));
    }

    #[test]
    fn lost_revocations_stay_pending_until_the_terms_contain_them() {
        let fixture = Fixture::default();
        let mut admin = Admin::default();
        admin.remember(&removal(5));
        admin.remember(&removal(5));
        let without = fixture.charter(2, |terms| terms.co_owners.push(id(3)));
        assert_eq!(admin.lost(Rules::of(Some(&without))), Some(removal(5)));
        let amended = fixture.amended(&without, 3, id(5));
        admin.forget_enacted(amended.terms.value());
        assert_eq!(
            admin.lost(Rules::of(Some(&amended))),
            None,
            "amended, but the owner has not taken it over"
        );
        let with = fixture.charter(3, |terms| terms.revoked_devices.push(id(5)));
        admin.forget_enacted(with.terms.value());
        assert_eq!(admin.lost(Rules::of(Some(&fixture.charter(4, |_| {})))), None, "enacted");
    }
}

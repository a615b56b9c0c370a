//! The chain of signatures from authority over invite to device, and the authority's other signatures.
//!
//! Nothing here looks at the charter or the clock; whether a sound certificate counts is decided in
//! [`rules`](crate::rules).

use std::num::NonZeroU8;

use ed25519_dalek::SigningKey;
use partyline_model::{InviteId, PartyId, Role};
use partyline_wire::{
    exact::{Exact, Signature},
    membership::{Certificate, Charter, Claims, Confirmation, Expiry, Grant, Issuer, Terms},
};

use crate::{
    keys::{DeviceKey, Secret, is_signed_by, sign},
    xeddsa::{is_signed_by_tunnel_key, sign_with_tunnel_key},
};

/// Makes a grant; `signer` is the issuer's key.
pub(crate) fn grant(
    signer: &SigningKey,
    party: &PartyId,
    issuer: Issuer,
    invite: InviteId,
    (not_after, uses): (Expiry, Option<NonZeroU8>),
    role: Role,
) -> Grant {
    let mut grant = Grant { issuer, invite, not_after, uses, role, signature: Signature([0; 64]) };
    grant.signature = sign(signer, &grant.subject(party));
    grant
}

/// Returns true if the issuer signed the grant and may give its role.
pub(crate) fn is_grant_sound(party: &PartyId, grant: &Grant) -> bool {
    let (key, may) = match &grant.issuer {
        Issuer::Authority => (&party.0, true),
        Issuer::CoOwner(device) => (&device.0, grant.role == Role::Member),
    };
    may && is_signed_by(key, &grant.subject(party), &grant.signature)
}

/// Makes a certificate for the claims, signed by the invite's key, the device's and the tunnel's.
pub(crate) fn certify(
    claims: Claims,
    invite: &SigningKey,
    device: &DeviceKey,
    tunnel: &Secret,
) -> Certificate {
    let claims = Exact::new(claims);
    let subject = claims.subject();
    Certificate {
        by_invite: sign(invite, &subject),
        by_device: sign(device.signing(), &subject),
        by_tunnel: sign_with_tunnel_key(tunnel, &subject),
        claims,
    }
}

/// Returns true if the certificate belongs to the party and every signature in it verifies.
pub(crate) fn is_certificate_sound(party: &PartyId, certificate: &Certificate) -> bool {
    let (claims, subject) = (certificate.claims(), certificate.claims.subject());
    claims.party == *party
        && is_grant_sound(party, &claims.grant)
        && is_signed_by(&claims.grant.invite.0, &subject, &certificate.by_invite)
        && is_signed_by(&claims.device.0, &subject, &certificate.by_device)
        && is_signed_by_tunnel_key(&claims.tunnel, &subject, &certificate.by_tunnel)
}

/// Makes the authority's confirmation of a certificate, under terms of this version, and fixes a host number for the
/// member.
pub(crate) fn confirm(
    authority: &SigningKey,
    certificate: &Certificate,
    host: u16,
    version: u64,
) -> Confirmation {
    let signature = sign(authority, &Confirmation::subject(certificate, host, version));
    Confirmation { host, version, signature }
}

/// Returns true if the authority confirmed the certificate.
pub(crate) fn is_confirmed(party: &PartyId, certificate: &Certificate, confirmation: &Confirmation) -> bool {
    let Confirmation { host, version, signature } = confirmation;
    is_signed_by(&party.0, &Confirmation::subject(certificate, *host, *version), signature)
}

/// Makes a charter of terms signed by the authority.
pub(crate) fn proclaim(authority: &SigningKey, terms: Terms) -> Charter {
    let terms = Exact::new(terms);
    Charter { signature: sign(authority, &terms.subject()), terms, amendment: None }
}

/// Returns true if the authority signed the terms and, where there is an amendment, a co-owner of those terms signed it
/// without removing the owner or another co-owner, and counted up by one: every amendment removes something more than the
/// one before it, so that no number is greater than that of what is removed.
pub(crate) fn is_charter_sound(party: &PartyId, charter: &Charter) -> bool {
    let terms = charter.terms.value();
    let by_authority =
        terms.party == *party && is_signed_by(&party.0, &charter.terms.subject(), &charter.signature);
    let Some(signed) = &charter.amendment else { return by_authority };
    let amendment = signed.amendment.value();
    by_authority
        && amendment.terms == charter.terms_digest()
        && amendment.number as usize <= amendment.revoked_devices.len() + amendment.revoked_invites.len()
        && terms.co_owners.contains(&amendment.author)
        && !terms.revoked_devices.contains(&amendment.author)
        && !amendment
            .revoked_devices
            .iter()
            .any(|device| *device == terms.owner || terms.co_owners.contains(device))
        && is_signed_by(&amendment.author.0, &signed.amendment.subject(), &signed.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, device};

    #[test]
    fn certificate_is_bound_to_party_invite_and_device() {
        let fixture = Fixture::default();
        let certificate = fixture.certificate(1);
        assert!(is_certificate_sound(&fixture.party(), &certificate));
        assert!(!is_certificate_sound(&PartyId([9; 32]), &certificate));
        let by_others = Certificate { by_device: certificate.by_invite, ..certificate.clone() };
        assert!(!is_certificate_sound(&fixture.party(), &by_others));
        let without_invite = Certificate { by_invite: certificate.by_device, ..certificate.clone() };
        assert!(!is_certificate_sound(&fixture.party(), &without_invite));
        let without_tunnel = Certificate { by_tunnel: certificate.by_device, ..certificate };
        assert!(!is_certificate_sound(&fixture.party(), &without_tunnel));
    }

    #[test]
    fn co_owner_grants_membership_and_no_higher_role() {
        let fixture = Fixture::default();
        let (party, key) = (fixture.party(), device(3));
        let issue = |role| {
            let issuer = Issuer::CoOwner(key.id());
            grant(key.signing(), &party, issuer, InviteId([1; 32]), (Expiry::NEVER, None), role)
        };
        assert!(is_grant_sound(&party, &issue(Role::Member)));
        assert!(!is_grant_sound(&party, &issue(Role::CoOwner)));
        assert!(!is_grant_sound(&party, &issue(Role::Owner)));
        let as_authority = Grant { issuer: Issuer::Authority, ..issue(Role::Member) };
        assert!(!is_grant_sound(&party, &as_authority));
    }

    #[test]
    fn only_the_authority_confirms() {
        let fixture = Fixture::default();
        let certificate = fixture.certificate(1);
        let sound = confirm(&fixture.authority, &certificate, 7, 1);
        let moved = Confirmation { host: 8, ..sound };
        assert!(!is_confirmed(&fixture.party(), &certificate, &moved));
        assert!(is_confirmed(&fixture.party(), &certificate, &sound));
        assert!(!is_confirmed(&fixture.party(), &fixture.certificate(2), &sound));
        let forged = confirm(device(1).signing(), &certificate, 7, 1);
        assert!(!is_confirmed(&fixture.party(), &certificate, &forged));
    }
}

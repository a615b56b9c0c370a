//! The chain authority → invite → device, and the authority's other signatures. Nothing here looks at the charter or
//! the clock; whether a sound certificate counts is for [`rules`](crate::rules).

use ed25519_dalek::SigningKey;
use partyline_model::{InviteId, PartyId, Role};
use partyline_wire::{
    exact::{Exact, Signature},
    membership::{Certificate, Charter, Claims, Confirmation, Expiry, Grant, Issuer, Terms},
};

use crate::keys::{DeviceKey, is_signed_by, sign};

/// A grant by `signer`, who is the issuer.
pub(crate) fn grant(
    signer: &SigningKey,
    party: &PartyId,
    issuer: Issuer,
    invite: InviteId,
    not_after: Expiry,
    role: Role,
) -> Grant {
    let mut grant = Grant { issuer, invite, not_after, role, signature: Signature([0; 64]) };
    grant.signature = sign(signer, &grant.subject(party));
    grant
}

/// Whether the issuer signed the grant and may give its role.
pub(crate) fn is_grant_sound(party: &PartyId, grant: &Grant) -> bool {
    let (key, may) = match &grant.issuer {
        Issuer::Authority => (&party.0, true),
        Issuer::CoOwner(device) => (&device.0, grant.role == Role::Member),
    };
    may && is_signed_by(key, &grant.subject(party), &grant.signature)
}

/// A certificate for the claims, signed by the invite's key and the device's.
pub(crate) fn certify(claims: Claims, invite: &SigningKey, device: &DeviceKey) -> Certificate {
    let claims = Exact::new(claims);
    let subject = claims.subject();
    Certificate { by_invite: sign(invite, &subject), by_device: sign(device.signing(), &subject), claims }
}

/// Whether every signature in the certificate is good.
pub(crate) fn is_certificate_sound(party: &PartyId, certificate: &Certificate) -> bool {
    let (claims, subject) = (certificate.claims(), certificate.claims.subject());
    claims.party == *party
        && is_grant_sound(party, &claims.grant)
        && is_signed_by(&claims.grant.invite.0, &subject, &certificate.by_invite)
        && is_signed_by(&claims.device.0, &subject, &certificate.by_device)
}

/// The authority's confirmation.
pub(crate) fn confirm(authority: &SigningKey, certificate: &Certificate) -> Confirmation {
    Confirmation(sign(authority, &Confirmation::subject(certificate)))
}

/// Whether the authority confirmed the certificate.
pub(crate) fn is_confirmed(party: &PartyId, certificate: &Certificate, confirmation: &Confirmation) -> bool {
    is_signed_by(&party.0, &Confirmation::subject(certificate), &confirmation.0)
}

/// Terms signed by the authority.
pub(crate) fn proclaim(authority: &SigningKey, terms: Terms) -> Charter {
    let terms = Exact::new(terms);
    Charter { signature: sign(authority, &terms.subject()), terms, amendment: None }
}

/// Whether the authority signed the terms, and a co-owner of those terms the amendment, which may not touch those
/// who are above it or its equals.
pub(crate) fn is_charter_sound(party: &PartyId, charter: &Charter) -> bool {
    let terms = charter.terms.value();
    let by_authority =
        terms.party == *party && is_signed_by(&party.0, &charter.terms.subject(), &charter.signature);
    let Some(signed) = &charter.amendment else { return by_authority };
    let amendment = signed.amendment.value();
    by_authority
        && amendment.terms == charter.terms_digest()
        && terms.co_owners.contains(&amendment.author)
        && !terms.revoked_devices.contains(&amendment.author)
        && !amendment
            .revoked_devices
            .iter()
            .any(|device| *device == terms.owner || terms.co_owners.contains(device))
        && is_signed_by(&amendment.author.0, &signed.amendment.subject(), &signed.signature)
}

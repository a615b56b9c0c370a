//! Who this device is in the party.

use ed25519_dalek::SigningKey;
use partyline_model::{DeviceId, PartyId, Timestamp, TunnelPublicKey};
use partyline_wire::{
    membership::{Certificate, Claims, Confirmation, Grant},
    name::{NameError, check_display_name},
};
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{
    chain::{certify, is_confirmed},
    claim::OwnClaim,
    error::Refusal,
    keys::{DeviceKey, PairSecret, Secret, tunnel_public},
    rules::{Admission, Dismissal, Rules, Standing, lapses_at},
};

/// This device's certificate, the tunnel key it names, and what was added to it since.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    tunnel: Secret,
    certificate: Certificate,
    /// The name of the user, if it is no longer the one in the certificate.
    display_name: Option<String>,
    confirmation: Option<Confirmation>,
}

impl Identity {
    /// Draws a tunnel key and makes a certificate by the right of an invite.
    pub(crate) fn new(
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
        party: PartyId,
        device: &DeviceKey,
        name: String,
        (grant, invite): (Grant, &SigningKey),
    ) -> Self {
        let tunnel = Secret::generate(rng);
        let claims = Claims {
            party,
            device: device.id(),
            tunnel: tunnel_public(&tunnel),
            name,
            joined_at: now,
            grant,
        };
        let certificate = certify(claims, invite, device, &tunnel);
        Self { tunnel, certificate, display_name: None, confirmation: None }
    }

    pub(crate) fn party(&self) -> &PartyId {
        &self.certificate.claims().party
    }

    pub(crate) fn device(&self) -> &DeviceId {
        &self.certificate.claims().device
    }

    pub(crate) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    pub(crate) const fn tunnel_secret(&self) -> &Secret {
        &self.tunnel
    }

    pub(crate) fn tunnel_public(&self) -> TunnelPublicKey {
        self.certificate.claims().tunnel
    }

    /// Returns this device's claim to a host number.
    pub(crate) fn claim(&self, host: Option<u16>) -> OwnClaim {
        OwnClaim { device: *self.device(), digest: self.certificate.digest(), confirmation: None, host }
    }

    pub(crate) fn display_name(&self) -> &str {
        self.display_name.as_ref().unwrap_or(&self.certificate.claims().name)
    }

    /// Returns the name to announce: only one that differs from the certificate's.
    pub(crate) const fn announced_name(&self) -> Option<&String> {
        self.display_name.as_ref()
    }

    /// Changes the display name and returns false if it is the same. The certificate keeps the name it was signed with,
    /// since another one would need the invite's key and a new confirmation.
    ///
    /// # Errors
    /// If the name breaks the rules for names.
    pub(crate) fn set_display_name(&mut self, name: &str) -> Result<bool, NameError> {
        check_display_name(name)?;
        if name == self.display_name() {
            return Ok(false);
        }
        let signed = self.certificate.claims().name == name;
        self.display_name = (!signed).then(|| name.to_owned());
        debug!(signed, "display name changed");
        Ok(true)
    }

    /// Checks a confirmation that was received for this device.
    ///
    /// # Errors
    /// [`Refusal::BadConfirmation`] if the authority did not sign it.
    pub(crate) fn check_confirmation(&self, confirmation: Option<&Confirmation>) -> Result<(), Refusal> {
        let sound = |confirmation| is_confirmed(self.party(), &self.certificate, confirmation);
        if confirmation.is_none_or(sound) { Ok(()) } else { Err(Refusal::BadConfirmation) }
    }

    /// Keeps a checked confirmation; returns false if it is not later than the one before.
    pub(crate) fn confirm(&mut self, confirmation: Confirmation) -> bool {
        let later = self.confirmation.is_none_or(|before| before.version < confirmation.version);
        if later {
            self.confirmation = Some(confirmation);
        }
        later
    }

    /// Judges this device's own membership by what [`Self::admission`] returned. While the party's co-owners are not known yet, none is doubted.
    pub(crate) fn standing(&self, rules: Rules<'_>, admission: Admission, now: Timestamp) -> Standing {
        let lapsed = lapses_at(&self.certificate).is_some_and(|end| now > end);
        let unconfirmed = Standing::Unconfirmed { until: self.certificate.claims().grant.not_after.time() };
        match rules.judge(&self.certificate, admission, now) {
            Err(Dismissal::NotACoOwner) if rules.terms().is_none() && lapsed => {
                Standing::Dismissed(Dismissal::InviteExpired)
            }
            Err(Dismissal::NotACoOwner) if rules.terms().is_none() => unconfirmed,
            Err(dismissal) => Standing::Dismissed(dismissal),
            Ok(()) if admission == Admission::Confirmed => Standing::Confirmed,
            Ok(()) => unconfirmed,
        }
    }

    /// Returns what is known of the own certificate, of whose invite others have used up this many uses.
    pub(crate) const fn admission(&self, before: usize) -> Admission {
        match self.confirmation {
            Some(_) => Admission::Confirmed,
            None => Admission::Unconfirmed { before },
        }
    }

    /// Returns what this device shares with another; `None` if the other's tunnel key is weak.
    pub(crate) fn pair_secret(&self, peer: &DeviceId, tunnel: &TunnelPublicKey) -> Option<PairSecret> {
        PairSecret::agree(self.party(), (self.device(), &self.tunnel), (peer, tunnel))
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{InviteId, Role};
    use partyline_wire::membership::{Expiry, Issuer};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::{
        chain::{grant, is_certificate_sound},
        fixtures::{Fixture, NOW, device, id},
    };

    fn identity(fixture: &Fixture, issuer: Issuer, signer: &SigningKey) -> Identity {
        identity_until(Expiry::NEVER, fixture, issuer, signer)
    }

    fn identity_until(end: Expiry, fixture: &Fixture, issuer: Issuer, signer: &SigningKey) -> Identity {
        let invite = SigningKey::from_bytes(&[9; 32]);
        let invite_id = InviteId(invite.verifying_key().to_bytes());
        let grant = grant(signer, &fixture.party(), issuer, invite_id, (end, None), Role::Member);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        Identity::new(NOW, &mut rng, fixture.party(), &device(1), "Ana".into(), (grant, &invite))
    }

    #[test]
    fn new_identity_has_a_sound_certificate_for_its_tunnel_key() {
        let fixture = Fixture::default();
        let identity = identity(&fixture, Issuer::Authority, &fixture.authority);
        assert!(is_certificate_sound(&fixture.party(), identity.certificate()));
        assert_eq!(identity.tunnel_public(), tunnel_public(identity.tunnel_secret()));
        assert_eq!((identity.device(), identity.display_name()), (&id(1), "Ana"));
    }

    #[test]
    fn only_a_name_that_differs_from_the_certificate_is_announced() {
        let fixture = Fixture::default();
        let mut identity = identity(&fixture, Issuer::Authority, &fixture.authority);
        assert_eq!(identity.set_display_name("Ana"), Ok(false));
        assert_eq!(identity.set_display_name("Anya"), Ok(true));
        assert_eq!((identity.display_name(), identity.announced_name()), ("Anya", Some(&"Anya".to_owned())));
        assert!(identity.set_display_name("a\nb").is_err());
        assert_eq!(identity.set_display_name("Ana"), Ok(true));
        assert_eq!(identity.announced_name(), None);
    }

    #[test]
    fn standing_waits_for_the_charter_before_a_co_owner_is_doubted() {
        let fixture = Fixture::default();
        let identity = identity(&fixture, Issuer::CoOwner(id(3)), device(3).signing());
        assert_eq!(
            identity.standing(Rules::of(None), identity.admission(0), NOW),
            Standing::Unconfirmed { until: None }
        );
        let charter = fixture.charter(1, |_| {});
        let dismissed = Standing::Dismissed(Dismissal::NotACoOwner);
        assert_eq!(identity.standing(Rules::of(Some(&charter)), identity.admission(0), NOW), dismissed);
    }

    #[test]
    fn invite_of_a_co_owner_ends_even_if_no_charter_arrives() {
        let fixture = Fixture::default();
        let issuer = Issuer::CoOwner(id(3));
        let identity = identity_until(Expiry::at(NOW), &fixture, issuer, device(3).signing());
        let end = lapses_at(identity.certificate()).unwrap();
        assert_eq!(
            identity.standing(Rules::of(None), identity.admission(0), end),
            Standing::Unconfirmed { until: Some(NOW) }
        );
        let expired = Standing::Dismissed(Dismissal::InviteExpired);
        assert_eq!(identity.standing(Rules::of(None), identity.admission(0), Timestamp(end.0 + 1)), expired);
    }

    #[test]
    fn confirmation_of_another_certificate_is_refused() {
        let fixture = Fixture::default();
        let mut identity = identity(&fixture, Issuer::Authority, &fixture.authority);
        let foreign = fixture.confirmation(&fixture.certificate(2));
        assert_eq!(identity.check_confirmation(Some(&foreign)), Err(Refusal::BadConfirmation));
        assert_eq!(identity.check_confirmation(None), Ok(()));
        let own = fixture.confirmation(identity.certificate());
        assert_eq!(identity.check_confirmation(Some(&own)), Ok(()));
        assert!(identity.confirm(own) && !identity.confirm(own));
        assert_eq!(identity.standing(Rules::of(None), identity.admission(0), NOW), Standing::Confirmed);
    }
}

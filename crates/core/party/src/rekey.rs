//! Carries a new party secret to one member.
//!
//! The secret is sealed under what the two members share, so that a removed member, which still knows the old topic,
//! cannot read it. It proves itself by the commitment in the charter that comes with it; the sender need not be trusted.

use partyline_model::{DeviceId, TunnelPublicKey};
use partyline_wire::sealed::{Body, CharterUpdate, Rekey, RekeyContent};
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    chain::is_certificate_sound,
    epoch::Epoch,
    error::Refusal,
    identity::Identity,
    keys::Secret,
    rules::Rules,
    seal::{open, seal},
};

/// Seals a party secret and the charter that commits to it for one member; `None` if the member's tunnel key is weak.
pub(crate) fn seal_rekey(
    identity: &Identity,
    rng: &mut (impl CryptoRng + RngCore),
    (recipient, tunnel): (&DeviceId, &TunnelPublicKey),
    secret: &Secret,
    update: CharterUpdate,
) -> Option<Body> {
    let key = identity.pair_secret(recipient, tunnel)?.rekey_key(identity.party());
    let mut content = RekeyContent { secret: *secret.expose(), update };
    let plaintext = Zeroizing::new(content.encode());
    content.secret.zeroize();
    let sealed = seal(&key, &context(identity.device(), recipient), &plaintext, rng);
    Some(Body::Rekey(Box::new(Rekey { certificate: identity.certificate().clone(), sealed })))
}

/// Opens a rekey and checks the secret against the charter it came with. The charter itself is not checked here.
///
/// # Errors
/// Returns why the rekey must be dropped.
pub(crate) fn open_rekey(
    identity: &Identity,
    sender: &DeviceId,
    rekey: &Rekey,
) -> Result<(Epoch, CharterUpdate), Refusal> {
    let (party, claims) = (identity.party(), rekey.certificate.claims());
    if claims.device != *sender || !is_certificate_sound(party, &rekey.certificate) {
        return Err(Refusal::BadCertificate);
    }
    let pair = identity.pair_secret(sender, &claims.tunnel).ok_or(Refusal::BadCertificate)?;
    let plaintext = open(&pair.rekey_key(party), &context(sender, identity.device()), &rekey.sealed);
    let plaintext = Zeroizing::new(plaintext.ok_or(Refusal::Unreadable)?);
    let mut content = RekeyContent::decode(&plaintext).map_err(|_| Refusal::Malformed)?;
    let epoch = Epoch::new(party, Secret::new(content.secret));
    content.secret.zeroize();
    if Rules(Some(&content.update.charter)).commitment() != Some(epoch.commitment()) {
        return Err(Refusal::WrongSecret);
    }
    Ok((epoch, content.update))
}

/// Binds a sealed secret to its sender and its recipient.
fn context(sender: &DeviceId, recipient: &DeviceId) -> Vec<u8> {
    [sender.0, recipient.0].concat()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use partyline_model::{InviteId, Role};
    use partyline_wire::membership::{Expiry, Issuer};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::{
        chain::grant,
        fixtures::{Fixture, NOW, device, id},
    };

    fn identity(n: u8) -> Identity {
        let (fixture, invite) = (Fixture::default(), SigningKey::from_bytes(&[9; 32]));
        let party = fixture.party();
        let invite_id = InviteId(invite.verifying_key().to_bytes());
        let issuer = Issuer::Authority;
        let grant = grant(&fixture.authority, &party, issuer, invite_id, Expiry::NEVER, Role::Member);
        let mut rng = ChaCha8Rng::seed_from_u64(n.into());
        Identity::new(NOW, &mut rng, party, &device(n), format!("Member {n}"), (grant, &invite))
    }

    /// A rekey from member 1 to member 2, under a charter that commits to `committed`.
    fn rekey(secret: &Secret, committed: &Secret) -> Rekey {
        let fixture = Fixture::default();
        let commitment = *Epoch::new(&fixture.party(), committed.clone()).commitment();
        let charter = fixture.charter(2, |terms| terms.commitment = commitment);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let (to, tunnel) = (id(2), identity(2).tunnel_public());
        let update = CharterUpdate { charter, confirmation: None };
        match seal_rekey(&identity(1), &mut rng, (&to, &tunnel), secret, update) {
            Some(Body::Rekey(rekey)) => *rekey,
            other => panic!("{other:?}"),
        }
    }

    fn open_as(n: u8, sender: u8, rekey: &Rekey) -> Result<Secret, Refusal> {
        open_rekey(&identity(n), &id(sender), rekey).map(|(epoch, _)| epoch.secret().clone())
    }

    #[test]
    fn rekey_opens_for_its_recipient_only() {
        let secret = Secret::new([7; 32]);
        let rekey = rekey(&secret, &secret);
        assert_eq!(open_as(2, 1, &rekey), Ok(secret));
        assert_eq!(open_as(3, 1, &rekey), Err(Refusal::Unreadable));
        assert_eq!(
            open_as(2, 3, &rekey),
            Err(Refusal::BadCertificate),
            "the certificate is another device's"
        );
    }

    #[test]
    fn secret_that_the_charter_does_not_commit_to_is_refused() {
        let rekey = rekey(&Secret::new([7; 32]), &Secret::new([8; 32]));
        assert_eq!(open_as(2, 1, &rekey), Err(Refusal::WrongSecret));
    }

    #[test]
    fn rekey_with_a_changed_byte_is_refused() {
        let secret = Secret::new([7; 32]);
        let mut rekey = rekey(&secret, &secret);
        rekey.sealed[30] ^= 1;
        assert_eq!(open_as(2, 1, &rekey), Err(Refusal::Unreadable));
    }
}

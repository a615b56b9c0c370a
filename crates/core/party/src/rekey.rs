//! Carries a new party secret to one member, or to a joiner that was let in.
//!
//! The secret is sealed for the tunnel key in the receiver's certificate, so that nobody else on the topic can read it, a
//! removed member included. It proves itself by the commitment in the charter that comes with it; the sender need not be
//! trusted.

use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use partyline_wire::sealed::{Body, CharterUpdate, JoinRejection, RekeyContent, SealedBox};
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    epoch::Epoch,
    error::Refusal,
    identity::Identity,
    keys::Secret,
    rules::Rules,
    sealed_box::{Purpose, open_box, seal_for},
};

/// Seals a party secret and the charter that commits to it for one device; `None` if the device's tunnel key is weak.
pub(crate) fn seal_rekey(
    (party, sender): (&PartyId, &DeviceId),
    rng: &mut (impl CryptoRng + RngCore),
    (receiver, tunnel): (&DeviceId, &TunnelPublicKey),
    secret: &Secret,
    update: CharterUpdate,
) -> Option<Body> {
    let mut content = RekeyContent { secret: *secret.expose(), update };
    let plaintext = Zeroizing::new(content.encode());
    content.secret.zeroize();
    let context = context(sender, receiver);
    seal_for((party, Purpose::Rekey), rng, &tunnel.0, &context, &plaintext).map(Body::Rekey)
}

/// Opens a rekey and checks the secret against the charter it came with. The charter itself is not checked here.
///
/// # Errors
/// Returns why the rekey must be dropped.
pub(crate) fn open_rekey(
    identity: &Identity,
    sender: &DeviceId,
    rekey: &SealedBox,
) -> Result<(Epoch, CharterUpdate), Refusal> {
    let (party, context) = (identity.party(), context(sender, identity.device()));
    let plaintext = open_box((party, Purpose::Rekey), identity.tunnel_secret(), &context, rekey);
    let mut content =
        RekeyContent::decode(&plaintext.ok_or(Refusal::Unreadable)?).map_err(|_| Refusal::Malformed)?;
    let epoch = Epoch::new(party, Secret::new(content.secret));
    content.secret.zeroize();
    if Rules::of(Some(&content.update.charter)).commitment() != Some(epoch.commitment()) {
        return Err(Refusal::WrongSecret);
    }
    Ok((epoch, content.update))
}

/// Seals the reason why a device is not let in, for that device; `None` if its tunnel key is weak.
pub(crate) fn seal_join_rejection(
    (party, sender): (&PartyId, &DeviceId),
    rng: &mut (impl CryptoRng + RngCore),
    (receiver, tunnel): (&DeviceId, &TunnelPublicKey),
    rejection: &JoinRejection,
) -> Option<Body> {
    let context = context(sender, receiver);
    seal_for((party, Purpose::JoinRejection), rng, &tunnel.0, &context, &rejection.encode())
        .map(Body::JoinRejection)
}

/// Opens the reason why this device is not let in. A charter is not checked here.
///
/// # Errors
/// Returns why it must be dropped.
pub(crate) fn open_join_rejection(
    identity: &Identity,
    sender: &DeviceId,
    rejection: &SealedBox,
) -> Result<JoinRejection, Refusal> {
    let (party, context) = (identity.party(), context(sender, identity.device()));
    let plaintext = open_box((party, Purpose::JoinRejection), identity.tunnel_secret(), &context, rejection);
    JoinRejection::decode(&plaintext.ok_or(Refusal::Unreadable)?).map_err(|_| Refusal::Malformed)
}

/// Binds a box to its sender and its receiver.
fn context(sender: &DeviceId, receiver: &DeviceId) -> Vec<u8> {
    [sender.0, receiver.0].concat()
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
        let grant = grant(&fixture.authority, &party, issuer, invite_id, (Expiry::NEVER, None), Role::Member);
        let mut rng = ChaCha8Rng::seed_from_u64(n.into());
        Identity::new(NOW, &mut rng, party, &device(n), format!("Member {n}"), (grant, &invite))
    }

    /// A rekey from member 1 to member 2, under a charter that commits to `committed`.
    fn rekey(secret: &Secret, committed: &Secret) -> SealedBox {
        let fixture = Fixture::default();
        let commitment = *Epoch::new(&fixture.party(), committed.clone()).commitment();
        let charter = fixture.charter(2, |terms| terms.commitment = commitment);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let (to, tunnel) = (id(2), identity(2).tunnel_public());
        let update = CharterUpdate { charter, confirmation: None };
        match seal_rekey((&fixture.party(), &id(1)), &mut rng, (&to, &tunnel), secret, update) {
            Some(Body::Rekey(rekey)) => rekey,
            other => panic!("{other:?}"),
        }
    }

    fn open_as(n: u8, sender: u8, rekey: &SealedBox) -> Result<Secret, Refusal> {
        open_rekey(&identity(n), &id(sender), rekey).map(|(epoch, _)| epoch.secret().clone())
    }

    #[test]
    fn rekey_opens_for_its_recipient_only() {
        let secret = Secret::new([7; 32]);
        let rekey = rekey(&secret, &secret);
        assert_eq!(open_as(2, 1, &rekey), Ok(secret));
        assert_eq!(open_as(3, 1, &rekey), Err(Refusal::Unreadable));
        assert_eq!(open_as(2, 3, &rekey), Err(Refusal::Unreadable), "it was not said by that device");
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

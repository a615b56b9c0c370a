//! Seals bytes for the holder of one X25519 key.
//!
//! The key is what a pair drawn for these bytes alone and the receiver's agree on (RFC 7748), so that neither the sender,
//! once it has forgotten that pair, nor anybody else but the receiver can read them.

use partyline_model::PartyId;
use partyline_wire::sealed::SealedBox;
use rand_core::{CryptoRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    keys::Secret,
    seal::{open, seal},
};

/// What a box is for: another key results for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    JoinRequest,
    Rekey,
    JoinRejection,
    Contact,
}

impl Purpose {
    const fn info(self) -> &'static [u8] {
        match self {
            Self::JoinRequest => b"partyline join request",
            Self::Rekey => b"partyline rekey",
            Self::JoinRejection => b"partyline join rejection",
            Self::Contact => b"partyline contact",
        }
    }
}

/// Seals `plaintext` for the holder of `receiver`; `None` if that is one of the few keys that make every agreement
/// predictable.
pub(crate) fn seal_for(
    (party, purpose): (&PartyId, Purpose),
    rng: &mut (impl CryptoRng + RngCore),
    receiver: &[u8; 32],
    context: &[u8],
    plaintext: &[u8],
) -> Option<SealedBox> {
    let own = StaticSecret::from(*Secret::generate(rng).expose());
    let ephemeral = PublicKey::from(&own).to_bytes();
    let key = agree((party, purpose), (&own, receiver), (&ephemeral, receiver))?;
    Some(SealedBox { ephemeral, sealed: seal(&key, context, plaintext, rng) })
}

/// Opens a box with the receiver's key; `None` if it was sealed for another one, for another purpose or context.
pub(crate) fn open_box(
    (party, purpose): (&PartyId, Purpose),
    receiver: &Secret,
    context: &[u8],
    sealed: &SealedBox,
) -> Option<Zeroizing<Vec<u8>>> {
    let own = StaticSecret::from(*receiver.expose());
    let public = PublicKey::from(&own).to_bytes();
    let key = agree((party, purpose), (&own, &sealed.ephemeral), (&sealed.ephemeral, &public))?;
    open(&key, context, &sealed.sealed).map(Zeroizing::new)
}

fn agree(
    (party, purpose): (&PartyId, Purpose),
    (own, theirs): (&StaticSecret, &[u8; 32]),
    (ephemeral, receiver): (&[u8; 32], &[u8; 32]),
) -> Option<Secret> {
    let shared = own.diffie_hellman(&PublicKey::from(*theirs));
    let derived = || Secret::derive(party, shared.as_bytes(), &[purpose.info(), ephemeral, receiver]);
    shared.was_contributory().then(derived)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::keys::tunnel_public;

    const PARTY: PartyId = PartyId([1; 32]);

    fn sealed(receiver: &Secret) -> SealedBox {
        let (mut rng, public) = (ChaCha8Rng::seed_from_u64(1), tunnel_public(receiver).0);
        seal_for((&PARTY, Purpose::Rekey), &mut rng, &public, b"context", b"plaintext").unwrap()
    }

    #[test]
    fn box_opens_for_its_receiver_purpose_and_context_only() {
        let receiver = Secret::new([5; 32]);
        let open = |purpose, key: &Secret, context: &[u8]| {
            open_box((&PARTY, purpose), key, context, &sealed(&receiver)).map(|bytes| bytes.to_vec())
        };
        assert_eq!(open(Purpose::Rekey, &receiver, b"context"), Some(b"plaintext".to_vec()));
        assert_eq!(open(Purpose::JoinRejection, &receiver, b"context"), None);
        assert_eq!(open(Purpose::Rekey, &receiver, b"other"), None);
        assert_eq!(open(Purpose::Rekey, &Secret::new([6; 32]), b"context"), None);
    }

    #[test]
    fn box_with_another_ephemeral_key_does_not_open() {
        let receiver = Secret::new([5; 32]);
        let moved = SealedBox { ephemeral: tunnel_public(&Secret::new([7; 32])).0, ..sealed(&receiver) };
        assert!(open_box((&PARTY, Purpose::Rekey), &receiver, b"context", &moved).is_none());
        let weak = SealedBox { ephemeral: [0; 32], ..moved };
        assert!(open_box((&PARTY, Purpose::Rekey), &receiver, b"context", &weak).is_none());
    }

    #[test]
    fn nothing_is_sealed_for_keys_of_low_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(seal_for((&PARTY, Purpose::JoinRequest), &mut rng, &[0; 32], b"", b"x"), None);
    }
}

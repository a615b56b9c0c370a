//! Signatures by a tunnel key, which prove that a device has it (XEdDSA, revision 1, with Curve25519).
//!
//! The X25519 key `k` is used as the Ed25519 key `±k`, with the sign that makes the public point's `x` even, so that the
//! public half follows from the X25519 one (RFC 7748, section 4.1). The signature is verified like any other of Ed25519.
//! Nonces come from the key and the message instead of the random bytes that XEdDSA adds to them, as in RFC 8032.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar, scalar::clamp_integer};
use ed25519_dalek::{
    VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use hmac::{Hmac, Mac as _};
use partyline_model::TunnelPublicKey;
use partyline_wire::exact::Signature;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use crate::keys::{Secret, is_signed_by};

/// Signs with a tunnel key.
pub(crate) fn sign_with_tunnel_key(secret: &Secret, subject: &[u8]) -> Signature {
    let clamped = Zeroizing::new(clamp_integer(*secret.expose()));
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order(*clamped));
    let point = EdwardsPoint::mul_base(&scalar);
    let is_odd = point.compress().as_bytes()[31] >> 7 == 1;
    let signer =
        ExpandedSecretKey { scalar: if is_odd { -*scalar } else { *scalar }, hash_prefix: nonce_key(secret) };
    let public = VerifyingKey::from(&signer);
    Signature(raw_sign::<Sha512>(&signer, subject, &public).to_bytes())
}

/// Returns true if the holder of a tunnel key made the signature. Keys that are on no curve point, or a weak one, make none.
pub(crate) fn is_signed_by_tunnel_key(key: &TunnelPublicKey, subject: &[u8], signature: &Signature) -> bool {
    let point = MontgomeryPoint(key.0).to_edwards(0);
    point.is_some_and(|point| is_signed_by(&point.compress().to_bytes(), subject, signature))
}

/// Returns the key of the nonces, which nothing else uses.
fn nonce_key(secret: &Secret) -> [u8; 32] {
    // HMAC accepts keys of every length.
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose());
    mac.map_or([0; 32], |mac| mac.chain_update(b"partyline tunnel key nonces").finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::keys::tunnel_public;

    proptest! {
        #[test]
        fn tunnel_key_signs_what_its_public_half_verifies(
            seed in any::<[u8; 32]>(),
            other in any::<[u8; 32]>(),
            message in vec(any::<u8>(), 0..200),
            flipped in any::<prop::sample::Index>(),
        ) {
            let (secret, other) = (Secret::new(seed), Secret::new(other));
            let mut signature = sign_with_tunnel_key(&secret, &message);
            prop_assert!(is_signed_by_tunnel_key(&tunnel_public(&secret), &message, &signature));
            prop_assert!(!is_signed_by_tunnel_key(&tunnel_public(&other), &message, &signature));
            signature.0[flipped.index(64)] ^= 1;
            prop_assert!(!is_signed_by_tunnel_key(&tunnel_public(&secret), &message, &signature));
        }
    }

    #[test]
    fn nobody_signs_for_weak_tunnel_keys_and_those_on_the_twist() {
        let signature = sign_with_tunnel_key(&Secret::new([1; 32]), b"subject");
        for key in [[0; 32], [1; 32], [2; 32], [255; 32]] {
            assert!(!is_signed_by_tunnel_key(&TunnelPublicKey(key), b"subject", &signature));
        }
        let identity = [[1; 1].as_slice(), &[0; 31], &[0; 32]].concat();
        let forged = Signature(identity.try_into().unwrap());
        assert!(!is_signed_by_tunnel_key(&TunnelPublicKey([0; 32]), b"subject", &forged));
    }

    #[test]
    fn nonces_differ_from_message_to_message_and_key_to_key() {
        let nonce =
            |key: u8, message: &[u8]| sign_with_tunnel_key(&Secret::new([key; 32]), message).0[..32].to_vec();
        assert_eq!(nonce(1, b"one"), nonce(1, b"one"));
        assert_ne!(nonce(1, b"one"), nonce(1, b"two"));
        assert_ne!(nonce(1, b"one"), nonce(2, b"one"));
    }
}

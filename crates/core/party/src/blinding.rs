//! Handle keys: Ed25519 keys of devices, blinded for one topic.
//!
//! Everybody who has a topic's keys can compute the handle key of a device from its public key, but only the device can
//! sign with it. To others it means nothing: they can neither find the device nor its handle keys on other topics by it.
//!
//! This is the key blinding of Tor's onion services (rend-spec-v3, appendix A.2; draft-irtf-cfrg-signature-key-blinding).
//! With `A = aB` the device's key, `h` a scalar that follows from the topic's blinding key and `A`, the handle key is
//! `8hA`, and its secret `8ha`. The cofactor 8 stands where Tor clamps `h`: it takes away what a device might have added to
//! `A` from the small subgroups, so that every handle key is of prime order. Unforgeability rests on two things that are
//! easily lost: `h` is a hash, so that nobody chooses how two handle keys are related, and every handle key draws its
//! nonces from a secret of its own. Two keys of known relation that shared one nonce would give `a` away.

use curve25519_dalek::Scalar;
use ed25519_dalek::{
    VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use hmac::{Hmac, Mac as _};
use partyline_model::{DeviceId, HandleKey};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::keys::{DeviceKey, Secret};

/// The order of the small subgroups of edwards25519 divides this.
const COFACTOR: u8 = 8;

/// What the keys of devices are blinded with on one topic.
#[derive(Clone)]
pub(crate) struct Blinding(Secret);

impl Blinding {
    /// Blinds with a key of the topic.
    pub(crate) const fn new(key: Secret) -> Self {
        Self(key)
    }

    /// Returns the handle key of a device; `None` if its id is no public key, or one that anybody can sign for.
    pub(crate) fn handle_key_of(&self, device: &DeviceId) -> Option<HandleKey> {
        let key = VerifyingKey::from_bytes(&device.0).ok().filter(|key| !key.is_weak())?;
        let blinded = (key.to_edwards() * *self.factor(device)).mul_by_cofactor();
        Some(HandleKey(blinded.compress().to_bytes()))
    }

    /// Returns the secret half of this device's handle key.
    pub(crate) fn signer(&self, device: &DeviceKey) -> HandleSigner {
        // RFC 8032, section 5.1.5: the scalar is clamped and then reduced, the other half is the nonces' secret.
        let own = ExpandedSecretKey::from(device.signing().as_bytes());
        let scalar = own.scalar * *self.factor(&device.id()) * Scalar::from(COFACTOR);
        let mut secret = ExpandedSecretKey { scalar, hash_prefix: [0; 32] };
        let public = VerifyingKey::from(&secret);
        let prefix = mac(&own.hash_prefix, &[b"partyline handle nonces", public.as_bytes()]);
        secret.hash_prefix.copy_from_slice(&prefix[..32]);
        HandleSigner { secret, public }
    }

    /// Returns the factor for a device. It is zero, which makes a handle key that servers refuse, with probability 2^-252.
    fn factor(&self, device: &DeviceId) -> Zeroizing<Scalar> {
        let wide = mac(self.0.expose(), &[&device.0]);
        Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
    }
}

/// Returns an HMAC-SHA512 over the parts.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    let mut out = Zeroizing::new([0; 64]);
    // HMAC accepts keys of every length.
    if let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(key) {
        parts.iter().for_each(|part| mac.update(part));
        out.copy_from_slice(&mac.finalize().into_bytes());
    }
    out
}

/// The secret half of a handle key, wiped when dropped.
pub(crate) struct HandleSigner {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
}

impl HandleSigner {
    /// Returns the public half.
    pub(crate) fn handle_key(&self) -> HandleKey {
        HandleKey(self.public.to_bytes())
    }

    /// Signs with Ed25519 (RFC 8032): everybody verifies it like any other signature.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.secret, message, &self.public).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use partyline_wire::exact::Signature;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        fixtures::{NOW, device, id},
        keys::is_signed_by,
    };

    fn blinding(n: u8) -> Blinding {
        Blinding::new(Secret::new([n; 32]))
    }

    fn is_signed(key: &HandleKey, message: &[u8], signature: [u8; 64]) -> bool {
        is_signed_by(&key.0, message, &Signature(signature))
    }

    proptest! {
        #[test]
        fn handle_key_that_others_compute_verifies_what_the_device_signs(
            seed in any::<[u8; 32]>(),
            key in any::<[u8; 32]>(),
            message in vec(any::<u8>(), 0..200),
            flipped in any::<prop::sample::Index>(),
        ) {
            let device = DeviceKey::restore(NOW, &Secret::new(seed), 0);
            let blinding = Blinding::new(Secret::new(key));
            let signer = blinding.signer(&device);
            let computed = blinding.handle_key_of(&device.id()).unwrap();
            prop_assert_eq!(computed, signer.handle_key());
            let mut signature = signer.sign(&message);
            prop_assert!(is_signed(&computed, &message, signature));
            signature[flipped.index(64)] ^= 1;
            prop_assert!(!is_signed(&computed, &message, signature));
        }
    }

    #[test]
    fn handle_keys_of_topics_and_devices_differ_and_sign_for_themselves_only() {
        let signature = blinding(1).signer(&device(1)).sign(b"subject");
        for (topic, device) in [(2, 1), (1, 2)] {
            let other = blinding(topic).handle_key_of(&id(device)).unwrap();
            assert!(!is_signed(&other, b"subject", signature));
        }
        let unblinded = device(1).signing().verifying_key().to_bytes();
        assert!(!is_signed(&HandleKey(unblinded), b"subject", signature));
    }

    /// The same message is signed with another nonce on each topic: from two signatures with the same, everybody who knows
    /// the factors could compute the device's secret.
    #[test]
    fn nonces_of_two_topics_differ() {
        let nonce = |topic: u8| blinding(topic).signer(&device(1)).sign(b"subject")[..32].to_vec();
        assert_eq!(nonce(1), nonce(1));
        assert_ne!(nonce(1), nonce(2));
        let unblinded = crate::keys::sign(device(1).signing(), b"subject").0;
        assert_ne!(nonce(1), unblinded[..32]);
    }

    #[test]
    fn handle_keys_are_of_prime_order_whatever_is_added_to_a_device_key() {
        let point = device(1).signing().verifying_key().to_edwards();
        for torsion in EIGHT_TORSION {
            let mixed = DeviceId((point + torsion).compress().to_bytes());
            let key = blinding(1).handle_key_of(&mixed).unwrap();
            let key = VerifyingKey::from_bytes(&key.0).unwrap();
            assert!(key.to_edwards().is_torsion_free() && !key.is_weak());
        }
    }

    #[test]
    fn ids_that_are_no_key_or_a_weak_one_have_no_handle_key() {
        for torsion in EIGHT_TORSION {
            let weak = DeviceId(torsion.compress().to_bytes());
            assert_eq!(blinding(1).handle_key_of(&weak), None);
        }
        let none = (0..=255).map(|n| [n; 32]).find(|bytes| VerifyingKey::from_bytes(bytes).is_err());
        assert_eq!(blinding(1).handle_key_of(&DeviceId(none.unwrap())), None);
    }
}

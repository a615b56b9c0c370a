//! Secrets, signatures, and the secret that two members share.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use partyline_model::{DeviceId, PartyId, SessionNonce, Timestamp, Topic, TunnelPublicKey};
use partyline_wire::exact::Signature;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::sequence::SequenceNumbers;

/// Thirty-two secret bytes: wiped when dropped, compared in constant time, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wraps bytes that are secret already.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a new secret.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut secret = Self([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// Returns the bytes, which the caller must protect from now on.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives another secret by HKDF-SHA256 (RFC 5869) with the party id as salt.
    pub(crate) fn derive(salt: &PartyId, input: &[u8; 32], info: &[&[u8]]) -> Self {
        let mut out = Self([0; 32]);
        // Fails only for outputs longer than 255 hashes.
        let _ = Hkdf::<Sha256>::new(Some(&salt.0), input).expand_multi_info(info, &mut out.0);
        out
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let text: Zeroizing<String> =
            Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect());
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // Every 32-byte id has the same 64 digits; a topic's parser serves for a secret.
        text.parse::<Topic>()
            .map(|id| Self(id.0))
            .map_err(|_| D::Error::custom("a secret has 64 hexadecimal digits"))
    }
}

/// The identity of this installation: an Ed25519 key, generated once and stored by the service, and the numbers of the
/// messages that it signs. Clones share the numbers.
#[derive(Clone)]
pub struct DeviceKey {
    signing: SigningKey,
    numbers: SequenceNumbers,
}

impl DeviceKey {
    /// Generates a new identity.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self::restore(Timestamp::default(), &Secret::generate(rng), 0)
    }

    /// Returns the identity that belongs to a stored seed. Messages are numbered from the stored
    /// [`reserve`](Self::reserve) or from the clock on, whichever is further.
    #[must_use]
    pub fn restore(now: Timestamp, seed: &Secret, reserved: u64) -> Self {
        let signing = SigningKey::from_bytes(seed.expose());
        Self { signing, numbers: SequenceNumbers::new(now, reserved) }
    }

    /// Returns the seed, to be stored.
    #[must_use]
    pub fn seed(&self) -> Secret {
        Secret(self.signing.to_bytes())
    }

    /// Reserves sequence numbers; returns the end of the block, to be stored before the next message is sent.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.numbers.reserve()
    }

    pub(crate) const fn numbers(&self) -> &SequenceNumbers {
        &self.numbers
    }

    /// Returns the public half, by which other members know this device.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.signing.verifying_key().to_bytes())
    }

    pub(crate) const fn signing(&self) -> &SigningKey {
        &self.signing
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.id()).finish()
    }
}

/// Signs with Ed25519 (RFC 8032).
pub(crate) fn sign(key: &SigningKey, subject: &[u8]) -> Signature {
    Signature(key.sign(subject).to_bytes())
}

/// Returns true if `key` made the signature. Weak keys and the malleable forms of RFC 8032 are refused.
pub(crate) fn is_signed_by(key: &[u8; 32], subject: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(subject, &signature).is_ok())
}

/// Returns the public half of a tunnel key.
pub(crate) fn tunnel_public(secret: &Secret) -> TunnelPublicKey {
    TunnelPublicKey(PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes())
}

/// What two members share and nobody else knows: the X25519 agreement (RFC 7748) of their tunnel keys, bound to the
/// party and to both devices, so that a member that shows another's tunnel key as its own shares nothing with anyone.
pub(crate) struct PairSecret(Secret);

impl PairSecret {
    /// Returns `None` if the other's key is one of the few that make every agreement predictable.
    pub(crate) fn agree(
        party: &PartyId,
        (me, mine): (&DeviceId, &Secret),
        (them, theirs): (&DeviceId, &TunnelPublicKey),
    ) -> Option<Self> {
        let shared = StaticSecret::from(*mine.expose()).diffie_hellman(&PublicKey::from(theirs.0));
        let (low, high) = (me.min(them), me.max(them));
        shared
            .was_contributory()
            .then(|| Self(Secret::derive(party, shared.as_bytes(), &[b"partyline pair", &low.0, &high.0])))
    }

    /// Returns the key of connectivity checks between two runs; `low` is the session of the device with the lower id.
    pub(crate) fn probe_key(&self, party: &PartyId, low: &SessionNonce, high: &SessionNonce) -> Secret {
        Secret::derive(party, &self.0.0, &[b"partyline probe", &low.0, &high.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);
    const DEVICES: [DeviceId; 3] = [DeviceId([2; 32]), DeviceId([3; 32]), DeviceId([4; 32])];

    fn pair(me: usize, them: usize, shown_key: usize) -> PairSecret {
        let secret = |n: usize| Secret::new([10 + n as u8; 32]);
        let public = tunnel_public(&secret(shown_key));
        PairSecret::agree(&PARTY, (&DEVICES[me], &secret(me)), (&DEVICES[them], &public)).unwrap()
    }

    #[test]
    fn both_sides_derive_the_same_pair_keys() {
        let (a, b) = (pair(0, 1, 1), pair(1, 0, 0));
        let (low, high) = (SessionNonce([1; 16]), SessionNonce([2; 16]));
        assert!(a.probe_key(&PARTY, &low, &high) == b.probe_key(&PARTY, &low, &high));
        assert!(a.probe_key(&PARTY, &low, &high) != a.probe_key(&PARTY, &high, &low));
        assert!(a.probe_key(&PARTY, &low, &high) != pair(0, 2, 2).probe_key(&PARTY, &low, &high));
    }

    #[test]
    fn device_that_shows_the_tunnel_key_of_another_shares_nothing() {
        // Device 2 claims device 1's tunnel key: device 0 then agrees on something neither of them can derive.
        let nonces = [SessionNonce([1; 16]), SessionNonce([2; 16])];
        let key = |pair: PairSecret| pair.probe_key(&PARTY, &nonces[0], &nonces[1]);
        let tricked = key(pair(0, 2, 1));
        assert!(tricked != key(pair(1, 0, 0)) && tricked != key(pair(2, 0, 0)));
    }

    #[test]
    fn tunnel_keys_of_low_order_are_refused() {
        let secret = Secret::new([5; 32]);
        let zero = TunnelPublicKey([0; 32]);
        assert!(PairSecret::agree(&PARTY, (&DEVICES[0], &secret), (&DEVICES[1], &zero)).is_none());
    }

    #[test]
    fn signatures_bind_key_and_subject() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let signature = sign(&key, b"subject");
        assert!(is_signed_by(&key.verifying_key().to_bytes(), b"subject", &signature));
        assert!(!is_signed_by(&key.verifying_key().to_bytes(), b"other", &signature));
        assert!(!is_signed_by(&other.verifying_key().to_bytes(), b"subject", &signature));
    }
}

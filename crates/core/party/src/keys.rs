//! Keys, and what is derived from them.
//!
//! HKDF-SHA256 (RFC 5869) with the PartyId as salt turns the party secret into everything that members share on one
//! topic, and the X25519 agreement (RFC 7748) of two tunnel keys into what those two share.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use partyline_model::{DeviceId, Handle, PartyId, SessionNonce, Topic, TunnelPublicKey};
use partyline_wire::exact::Signature;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Thirty-two secret bytes: wiped when dropped, compared in constant time, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret known from elsewhere.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh one.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut secret = Self([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// Its bytes, which are the caller's to protect.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(salt: &PartyId, input: &[u8; 32], info: &[&[u8]]) -> Self {
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
        // Every 32-byte id reads the same 64 digits; borrow one's reader.
        text.parse::<Topic>()
            .map(|id| Self(id.0))
            .map_err(|_| D::Error::custom("a secret has 64 hexadecimal digits"))
    }
}

/// The identity of this installation: an Ed25519 key, made once and kept by the service.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// A fresh identity.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self::from_seed(&Secret::generate(rng))
    }

    /// The identity that belongs to a stored seed.
    #[must_use]
    pub fn from_seed(seed: &Secret) -> Self {
        Self(SigningKey::from_bytes(seed.expose()))
    }

    /// The seed, for storing.
    #[must_use]
    pub fn seed(&self) -> Secret {
        Secret(self.0.to_bytes())
    }

    /// Its public half.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    pub(crate) const fn signing(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.id()).finish()
    }
}

/// A signature by `key`.
pub(crate) fn sign(key: &SigningKey, subject: &[u8]) -> Signature {
    Signature(key.sign(subject).to_bytes())
}

/// Whether `signature` is `key`'s; refuses weak keys and the malleable forms of RFC 8032.
pub(crate) fn is_signed_by(key: &[u8; 32], subject: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(subject, &signature).is_ok())
}

/// Everything derived from one party secret.
#[derive(Clone)]
pub(crate) struct Epoch {
    pub(crate) secret: Secret,
    pub(crate) topic: Topic,
    pub(crate) seal: Secret,
    pub(crate) commitment: [u8; 32],
    topic_key: SigningKey,
    handle: Secret,
}

impl Epoch {
    pub(crate) fn new(party: &PartyId, secret: Secret) -> Self {
        let derive = |info: &str| Secret::derive(party, &secret.0, &[info.as_bytes()]);
        let topic_key = SigningKey::from_bytes(derive("partyline topic").expose());
        Self {
            topic: Topic(topic_key.verifying_key().to_bytes()),
            seal: derive("partyline seal"),
            commitment: *derive("partyline commitment").expose(),
            handle: derive("partyline handle"),
            topic_key,
            secret,
        }
    }

    pub(crate) fn handle_of(&self, device: &DeviceId) -> Handle {
        let mut handle = [0; 16];
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.handle.expose()) {
            mac.update(&device.0);
            handle.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        Handle(handle)
    }

    pub(crate) fn prove(&self, message: &[u8]) -> Signature {
        sign(&self.topic_key, message)
    }

    /// What announcements show of the secret: enough to see whether two members hold the same.
    pub(crate) fn tag(&self) -> [u8; 8] {
        tag_of(&self.commitment)
    }
}

pub(crate) fn tag_of(commitment: &[u8; 32]) -> [u8; 8] {
    let mut tag = [0; 8];
    tag.copy_from_slice(&commitment[..8]);
    tag
}

/// The public half of a tunnel key.
pub(crate) fn tunnel_public(secret: &Secret) -> TunnelPublicKey {
    TunnelPublicKey(PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes())
}

/// What two members share, and nobody else: bound to the party and to both devices, so that a member that shows
/// another's tunnel key as its own shares nothing with anyone.
pub(crate) struct Pair(Secret);

impl Pair {
    /// `None` if the other's key is one of the few that make every agreement predictable.
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

    /// Seals the party secret on its way from one to the other.
    pub(crate) fn rekey_key(&self, party: &PartyId) -> Secret {
        Secret::derive(party, &self.0.0, &[b"partyline rekey"])
    }

    /// Authenticates connectivity checks between two runs.
    pub(crate) fn probe_key(&self, party: &PartyId, low: &SessionNonce, high: &SessionNonce) -> Secret {
        Secret::derive(party, &self.0.0, &[b"partyline probe", &low.0, &high.0])
    }
}

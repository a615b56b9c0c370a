//! The keys that one party secret stands for.
//!
//! HKDF-SHA256 (RFC 5869) with the party id as salt derives the topic key pair, the key that seals messages on that
//! topic, the key of the members' handles, and the commitment by which the charter names the secret without showing it.

use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac as _};
use partyline_model::{DeviceId, Handle, PartyId, Topic};
use partyline_wire::exact::Signature;
use sha2::Sha256;

use crate::keys::{Secret, sign};

/// A party secret and everything derived from it. It lasts until the next rekey.
#[derive(Clone)]
pub(crate) struct Epoch {
    secret: Secret,
    topic: Topic,
    seal_key: Secret,
    commitment: [u8; 32],
    topic_key: SigningKey,
    handle_key: Secret,
}

impl Epoch {
    pub(crate) fn new(party: &PartyId, secret: Secret) -> Self {
        let derive = |info: &str| Secret::derive(party, secret.expose(), &[info.as_bytes()]);
        let topic_key = SigningKey::from_bytes(derive("partyline topic").expose());
        Self {
            topic: Topic(topic_key.verifying_key().to_bytes()),
            seal_key: derive("partyline seal"),
            commitment: *derive("partyline commitment").expose(),
            handle_key: derive("partyline handle"),
            topic_key,
            secret,
        }
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(crate) const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns the key that seals messages on the topic.
    pub(crate) const fn seal_key(&self) -> &Secret {
        &self.seal_key
    }

    pub(crate) const fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Returns the first bytes of the commitment, by which announcements show which secret their sender holds.
    pub(crate) fn tag(&self) -> [u8; 8] {
        tag_of(&self.commitment)
    }

    /// Returns a device's handle on the topic: an HMAC, so that a server cannot link it to the device.
    pub(crate) fn handle_of(&self, device: &DeviceId) -> Handle {
        let mut handle = [0; 16];
        // HMAC accepts keys of every length.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.handle_key.expose()) {
            mac.update(&device.0);
            handle.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        Handle(handle)
    }

    /// Signs a message with the topic's key, which proves the right to enter the topic.
    pub(crate) fn prove(&self, message: &[u8]) -> Signature {
        sign(&self.topic_key, message)
    }
}

/// Returns the tag that belongs to a commitment.
pub(crate) fn tag_of(commitment: &[u8; 32]) -> [u8; 8] {
    let mut tag = [0; 8];
    tag.copy_from_slice(&commitment[..8]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_party_and_secret_has_its_own_topic_keys_and_handles() {
        let epoch = |party: u8, secret: u8| Epoch::new(&PartyId([party; 32]), Secret::new([secret; 32]));
        let (first, other_party, other_secret) = (epoch(1, 1), epoch(2, 1), epoch(1, 2));
        let device = DeviceId([9; 32]);
        for other in [other_party, other_secret] {
            assert_ne!(first.topic(), other.topic());
            assert!(first.seal_key() != other.seal_key());
            assert_ne!(first.commitment(), other.commitment());
            assert_ne!(first.handle_of(&device), other.handle_of(&device));
        }
        assert_eq!(first.topic(), epoch(1, 1).topic());
    }

    #[test]
    fn proof_verifies_under_the_topic_only() {
        let epoch = Epoch::new(&PartyId([1; 32]), Secret::new([1; 32]));
        let proof = epoch.prove(b"challenge");
        assert!(crate::keys::is_signed_by(&epoch.topic().0, b"challenge", &proof));
        assert!(!crate::keys::is_signed_by(&[7; 32], b"challenge", &proof));
    }
}

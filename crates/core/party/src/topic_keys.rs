//! A topic and what is needed to speak there.
//!
//! HKDF-SHA256 (RFC 5869) with the party id as salt derives all of it from one key, which everybody who may be there has:
//! the topic key pair, the key that seals messages on the topic, and the key of the handles.

use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac as _};
use partyline_model::{DeviceId, Handle, PartyId, Topic};
use partyline_wire::exact::Signature;
use sha2::Sha256;

use crate::keys::{Secret, sign};

/// A topic with its keys.
#[derive(Clone)]
pub(crate) struct TopicKeys {
    topic: Topic,
    seal_key: Secret,
    topic_key: SigningKey,
    handle_key: Secret,
}

impl TopicKeys {
    /// Derives a topic and its keys from what everybody who may be there has.
    pub(crate) fn new(party: &PartyId, key: &[u8; 32]) -> Self {
        let derive = |info: &str| Secret::derive(party, key, &[info.as_bytes()]);
        let topic_key = SigningKey::from_bytes(derive("partyline topic").expose());
        Self {
            topic: Topic(topic_key.verifying_key().to_bytes()),
            seal_key: derive("partyline seal"),
            handle_key: derive("partyline handle"),
            topic_key,
        }
    }

    pub(crate) const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns the key that seals messages on the topic.
    pub(crate) const fn seal_key(&self) -> &Secret {
        &self.seal_key
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_party_and_key_has_its_own_topic_and_handles() {
        let keys = |party: u8, key: u8| TopicKeys::new(&PartyId([party; 32]), &[key; 32]);
        let (first, device) = (keys(1, 1), DeviceId([9; 32]));
        for other in [keys(2, 1), keys(1, 2)] {
            assert_ne!(first.topic(), other.topic());
            assert!(first.seal_key() != other.seal_key());
            assert_ne!(first.handle_of(&device), other.handle_of(&device));
        }
        assert_eq!(first.topic(), keys(1, 1).topic());
    }

    #[test]
    fn proof_verifies_under_the_topic_only() {
        let keys = TopicKeys::new(&PartyId([1; 32]), &[1; 32]);
        let proof = keys.prove(b"challenge");
        assert!(crate::keys::is_signed_by(&keys.topic().0, b"challenge", &proof));
        assert!(!crate::keys::is_signed_by(&[7; 32], b"challenge", &proof));
    }
}

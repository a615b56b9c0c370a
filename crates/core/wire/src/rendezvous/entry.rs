//! What a member shows to enter a topic under a handle.

use partyline_model::{Handle, HandleKey, Topic};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bytes;

/// Two signatures over a connection's challenge: that of the topic's key is the right to enter the topic, that of the
/// handle key the right to the handle. Both cover the topic and the handle key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryProof {
    /// The key that the handle follows from.
    pub handle_key: HandleKey,
    /// The topic key's Ed25519 signature over [`EntryProof::topic_subject`].
    #[serde(with = "bytes::signature")]
    pub topic_signature: [u8; 64],
    /// The handle key's Ed25519 signature over [`EntryProof::handle_subject`].
    #[serde(with = "bytes::signature")]
    pub handle_signature: [u8; 64],
}

impl EntryProof {
    /// Makes a proof with functions that sign with the topic's key and with the handle key.
    pub fn sign(
        (challenge, topic, handle_key): (&[u8; 32], &Topic, HandleKey),
        sign_by_topic: impl FnOnce(&[u8]) -> [u8; 64],
        sign_by_handle: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Self {
        Self {
            handle_key,
            topic_signature: sign_by_topic(&Self::topic_subject(challenge, topic, &handle_key)),
            handle_signature: sign_by_handle(&Self::handle_subject(challenge, topic, &handle_key)),
        }
    }

    /// Returns the handle under which the member enters.
    #[must_use]
    pub fn handle(&self) -> Handle {
        handle_of(&self.handle_key)
    }

    /// Returns what the topic's key signs: a fixed prefix, the server's challenge, the topic and the handle key.
    #[must_use]
    pub fn topic_subject(challenge: &[u8; 32], topic: &Topic, handle_key: &HandleKey) -> Vec<u8> {
        [b"partyline enter v1".as_slice(), challenge, topic.as_bytes(), handle_key.as_bytes()].concat()
    }

    /// Returns what the handle key signs: the same behind another prefix.
    #[must_use]
    pub fn handle_subject(challenge: &[u8; 32], topic: &Topic, handle_key: &HandleKey) -> Vec<u8> {
        [b"partyline enter as v1".as_slice(), challenge, topic.as_bytes(), handle_key.as_bytes()].concat()
    }
}

/// Returns the handle that belongs to a handle key: the first 16 bytes of SHA-256 over a fixed prefix and the key.
///
/// A hash is half as long as the key, and a handle is in every message and roster. To find another key for a handle takes
/// 2^128 hashes.
#[must_use]
pub fn handle_of(key: &HandleKey) -> Handle {
    let hash = Sha256::new().chain_update(b"partyline handle v1").chain_update(key.0).finalize();
    Handle(std::array::from_fn(|index| hash[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_covers_challenge_topic_and_handle_key_once_for_each_key() {
        let signed = |challenge, topic, key| {
            let (topic, key) = (Topic([topic; 32]), HandleKey([key; 32]));
            [EntryProof::topic_subject, EntryProof::handle_subject]
                .map(|message| message(&[challenge; 32], &topic, &key))
        };
        let mut all: Vec<_> =
            [(1, 2, 3), (9, 2, 3), (1, 9, 3), (1, 2, 9)].map(|(c, t, k)| signed(c, t, k)).concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn each_handle_key_has_its_handle() {
        assert_eq!(handle_of(&HandleKey([1; 32])), handle_of(&HandleKey([1; 32])));
        assert_ne!(handle_of(&HandleKey([1; 32])), handle_of(&HandleKey([2; 32])));
        assert_ne!(handle_of(&HandleKey([1; 32])), Handle([1; 16]));
    }
}

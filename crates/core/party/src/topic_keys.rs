//! A topic and what is needed to speak there.
//!
//! HKDF-SHA256 (RFC 5869) with the party id as salt derives all of it from one key, which everybody who may be there has:
//! the topic key pair, the key that seals messages on the topic, the key that blinds those of devices, and what members
//! find each other by without a server: the key of [direct signaling](partyline_wire::direct), and those of the day's
//! contact list.

use ed25519_dalek::SigningKey;
use partyline_model::{DeviceId, Handle, PartyId, Topic};
use partyline_wire::rendezvous::{EntryProof, handle_of};

use crate::{
    blinding::Blinding,
    contact_list::{ContactListKeys, Day},
    keys::{DeviceKey, Secret, sign},
};

/// A topic with its keys.
#[derive(Clone)]
pub(crate) struct TopicKeys {
    topic: Topic,
    seal_key: Secret,
    topic_key: SigningKey,
    blinding: Blinding,
    direct_key: Secret,
    contact_lists: Secret,
}

impl TopicKeys {
    /// Derives a topic and its keys from what everybody who may be there has.
    pub(crate) fn new(party: &PartyId, key: &[u8; 32]) -> Self {
        let derive = |info: &str| Secret::derive(party, key, &[info.as_bytes()]);
        let topic_key = SigningKey::from_bytes(derive("partyline topic").expose());
        Self {
            topic: Topic(topic_key.verifying_key().to_bytes()),
            seal_key: derive("partyline seal"),
            blinding: Blinding::new(derive("partyline handle")),
            direct_key: derive("partyline direct"),
            contact_lists: derive("partyline contact lists"),
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

    /// Returns a device's handle on the topic; `None` if its id is no usable public key. A server cannot link it to the
    /// device.
    pub(crate) fn handle_of(&self, device: &DeviceId) -> Option<Handle> {
        self.blinding.handle_key_of(device).map(|key| handle_of(&key))
    }

    /// Returns the key under which requests of direct signaling are genuine.
    pub(crate) const fn direct_key(&self) -> &Secret {
        &self.direct_key
    }

    /// Returns the keys of a day's contact list. Nobody else can tell that two days' lists belong together.
    pub(crate) fn contact_list(&self, party: &PartyId, day: Day) -> ContactListKeys {
        ContactListKeys::derive(party, &self.contact_lists, day)
    }

    /// Proves to the server that sent a challenge that this device may enter the topic under its handle.
    pub(crate) fn prove_entry(&self, challenge: &[u8; 32], device: &DeviceKey) -> EntryProof {
        let signer = self.blinding.signer(device);
        EntryProof::sign(
            (challenge, &self.topic, signer.handle_key()),
            |message| sign(&self.topic_key, message).0,
            |message| signer.sign(message),
        )
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::HandleKey;
    use partyline_wire::exact::Signature;

    use super::*;
    use crate::{
        fixtures::{device, id},
        keys::is_signed_by,
        lobby::Lobby,
    };

    const CHALLENGE: [u8; 32] = [5; 32];

    fn keys(party: u8, key: u8) -> TopicKeys {
        TopicKeys::new(&PartyId([party; 32]), &[key; 32])
    }

    /// What a server checks before it lets somebody in.
    fn is_genuine(challenge: &[u8; 32], topic: &Topic, proof: &EntryProof) -> bool {
        let by_topic = EntryProof::topic_subject(challenge, topic, &proof.handle_key);
        let by_handle = EntryProof::handle_subject(challenge, topic, &proof.handle_key);
        is_signed_by(&topic.0, &by_topic, &Signature(proof.topic_signature))
            && is_signed_by(&proof.handle_key.0, &by_handle, &Signature(proof.handle_signature))
    }

    /// An entry under a handle key, by somebody who has the topic's keys and some key of its own.
    fn forged(keys: &TopicKeys, handle_key: HandleKey, by_handle: impl Fn(&[u8]) -> [u8; 64]) -> EntryProof {
        let by_topic = |message: &[u8]| sign(&keys.topic_key, message).0;
        EntryProof::sign((&CHALLENGE, &keys.topic, handle_key), by_topic, by_handle)
    }

    #[test]
    fn each_party_and_key_has_its_own_topic_and_handles() {
        let (first, device) = (keys(1, 1), id(9));
        for other in [keys(2, 1), keys(1, 2)] {
            assert_ne!(first.topic(), other.topic());
            assert!(first.seal_key() != other.seal_key());
            assert_ne!(first.handle_of(&device), other.handle_of(&device));
        }
        assert_eq!(first.topic(), keys(1, 1).topic());
    }

    #[test]
    fn proof_enters_under_the_handle_that_others_compute_and_on_its_topic_and_challenge_only() {
        let keys = keys(1, 1);
        let proof = keys.prove_entry(&CHALLENGE, &device(1));
        assert_eq!(Some(proof.handle()), keys.handle_of(&id(1)));
        assert!(is_genuine(&CHALLENGE, keys.topic(), &proof));
        assert!(!is_genuine(&[6; 32], keys.topic(), &proof));
        assert!(!is_genuine(&CHALLENGE, self::keys(1, 2).topic(), &proof));
    }

    /// Tries to enter under a device's handle with all of the topic's keys, and with what was seen of the device elsewhere.
    fn refuses_handles_of_others(keys: &TopicKeys) {
        let (mallory, other_topic) = (device(2), self::keys(1, 2));
        let ana = keys.blinding.handle_key_of(&id(1)).unwrap();
        let own = keys.blinding.signer(&mallory);
        let seen = [keys.prove_entry(&[6; 32], &device(1)), other_topic.prove_entry(&CHALLENGE, &device(1))];
        let replayed = |handle_key, seen: &EntryProof| forged(keys, handle_key, |_| seen.handle_signature);
        for proof in [
            forged(keys, ana, |message| own.sign(message)),
            forged(keys, ana, |message| sign(mallory.signing(), message).0),
            forged(keys, ana, |message| sign(&keys.topic_key, message).0),
            replayed(ana, &seen[0]),
            replayed(ana, &seen[1]),
        ] {
            assert_eq!(Some(proof.handle()), keys.handle_of(&id(1)));
            assert!(!is_genuine(&CHALLENGE, keys.topic(), &proof));
        }
        assert!(!is_genuine(&CHALLENGE, keys.topic(), &replayed(seen[1].handle_key, &seen[1])));
        let honest = forged(keys, own.handle_key(), |message| own.sign(message));
        assert!(is_genuine(&CHALLENGE, keys.topic(), &honest), "but for its own");
    }

    #[test]
    fn handle_of_another_cannot_be_signed_for() {
        refuses_handles_of_others(&keys(1, 1));
    }

    /// The holder of a link has the keys of the lobby's topic, and sees the DeviceIds of joiners there.
    #[test]
    fn link_holder_cannot_sign_for_handles_in_the_lobby() {
        refuses_handles_of_others(Lobby::new(&PartyId([1; 32]), [3; 32]).keys());
    }
}

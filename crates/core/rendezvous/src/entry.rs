//! Entering a topic in two steps: the proof is verified without the server, so that its owner can do it outside a lock that
//! all members share. Its two signature checks take longer than everything else that a frame costs.

use ed25519_dalek::{Signature, VerifyingKey};
use partyline_model::Topic;
use partyline_wire::rendezvous::EntryProof;

use crate::event::ConnectionId;

/// A request to enter a topic.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) topic: Topic,
    pub(crate) proof: EntryProof,
    pub(crate) record: Vec<u8>,
}

/// A request to enter a topic whose proof has not been verified yet. The server has taken it out of the client's limits,
/// and does nothing else for it before [`crate::Rendezvous::handle_entry`].
#[derive(Debug)]
#[must_use = "a client waits for its answer; verify it and hand it in with `handle_entry`"]
pub struct UnverifiedEntry {
    pub(crate) connection: ConnectionId,
    /// What the client had to sign, since it is new with every connection.
    pub(crate) challenge: [u8; 32],
    pub(crate) entry: Entry,
}

impl UnverifiedEntry {
    /// Verifies the proof.
    pub fn verify(self) -> VerifiedEntry {
        let Self { connection, challenge, entry } = self;
        let is_genuine = is_genuine(&challenge, &entry.topic, &entry.proof);
        VerifiedEntry { connection, entry, is_genuine }
    }
}

fn is_genuine(challenge: &[u8; 32], topic: &Topic, proof: &EntryProof) -> bool {
    let by_topic = EntryProof::topic_subject(challenge, topic, &proof.handle_key);
    let by_handle = EntryProof::handle_subject(challenge, topic, &proof.handle_key);
    is_signed_by(topic.as_bytes(), &by_topic, &proof.topic_signature)
        && is_signed_by(proof.handle_key.as_bytes(), &by_handle, &proof.handle_signature)
}

/// Returns true if `key` made the signature. Keys that anybody can sign for are refused.
fn is_signed_by(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// A request to enter a topic whose proof has been verified.
#[derive(Debug)]
#[must_use = "a client waits for its answer; hand it in with `handle_entry`"]
pub struct VerifiedEntry {
    pub(crate) connection: ConnectionId,
    pub(crate) entry: Entry,
    /// True if the client has the topic's key and that of the handle.
    pub(crate) is_genuine: bool,
}

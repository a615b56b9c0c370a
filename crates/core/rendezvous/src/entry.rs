//! Entering a topic in two steps: the proof is verified without the server, so that its owner can do it outside a lock that
//! all members share. A signature check takes longer than everything else that a frame costs.

use ed25519_dalek::{Signature, VerifyingKey};
use partyline_model::{Handle, Topic};
use partyline_wire::rendezvous::proof_message;

use crate::event::ConnectionId;

/// A request to enter a topic.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) topic: Topic,
    pub(crate) handle: Handle,
    pub(crate) proof: [u8; 64],
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
        let is_genuine = VerifyingKey::from_bytes(entry.topic.as_bytes()).is_ok_and(|key| {
            let message = proof_message(&challenge, &entry.topic, &entry.handle);
            key.verify_strict(&message, &Signature::from_bytes(&entry.proof)).is_ok()
        });
        VerifiedEntry { connection, entry, is_genuine }
    }
}

/// A request to enter a topic whose proof has been verified.
#[derive(Debug)]
#[must_use = "a client waits for its answer; hand it in with `handle_entry`"]
pub struct VerifiedEntry {
    pub(crate) connection: ConnectionId,
    pub(crate) entry: Entry,
    /// True if the client has the topic's key.
    pub(crate) is_genuine: bool,
}

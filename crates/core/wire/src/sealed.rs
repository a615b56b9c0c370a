//! The plaintext of sealed messages: `signature (64 bytes), message`.
//!
//! `partyline-party` seals messages (XChaCha20-Poly1305 under a key of the topic) and signs them. The signature
//! covers the topic too, so that a message cannot be moved to another one.

use partyline_model::{DeviceId, SessionNonce, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::{
    announcement::Announcement,
    exact::{Document, Exact, Malformed, Signature, decode, encode},
    membership::{Charter, Confirmation},
};

/// The maximum length of a sealed message in bytes.
pub const MAX_SEALED: usize = crate::rendezvous::MAX_MESSAGE;
/// Bytes that sealing adds: a nonce in front and a tag behind.
pub const SEAL_OVERHEAD: usize = 24 + 16;
/// The maximum length of a signal in bytes.
pub const MAX_SIGNAL: usize = 1024;

/// A message of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub sender: DeviceId,
    /// The recipient; `None` for all members.
    pub recipient: Option<DeviceId>,
    /// A number that grows from message to message of one sender, also across restarts.
    pub sequence: u64,
    /// The time of sending by the sender's clock.
    pub sent_at: Timestamp,
    /// The contents.
    pub body: Body,
}

/// The contents of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The sender's identity, and how it can be reached.
    Announce(Box<Announcement>),
    /// The charter, and the recipient's confirmation.
    Charter(Box<CharterUpdate>),
    /// The party secret for one member: an encoded [`RekeyContent`].
    Rekey(SealedBox),
    /// A signal between the path machines of two members, see [`crate::punch`].
    Signal(Vec<u8>),
    /// The sender leaves the party.
    Leave {
        /// The digest of the sender's certificate: a leave ends one membership, and none that follows it.
        certificate: [u8; 32],
    },
    /// For other runs with the same device key, of which there should be none.
    Run(RunMessage),
    /// A joiner's announcement in the lobby, for members alone: an encoded [`Announcement`].
    JoinRequest(SealedBox),
    /// The answer to a joiner that is not let in: an encoded [`JoinRejection`].
    JoinRejection(SealedBox),
}

/// Bytes sealed for the holder of one X25519 key. The sender needs no key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBox {
    /// The public half of a key that was drawn for these bytes alone.
    pub ephemeral: [u8; 32],
    /// The bytes, sealed under what that key and the receiver's agree on.
    pub sealed: Vec<u8>,
}

/// What one run of a device says to another run with the same key, be it a copy of the device or its earlier self.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMessage {
    /// The run that says it.
    pub claim: Claim,
    /// The run that is answered; `None` asks whether there is another one.
    pub answer_to: Option<SessionNonce>,
}

/// A run's claim to the device's place in the party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run.
    pub run: SessionNonce,
    /// When it was established in the party, by its own clock; `None` if it is not yet.
    pub established: Option<Timestamp>,
}

/// A charter, and the recipient's confirmation if the owner's device sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharterUpdate {
    /// The charter.
    pub charter: Charter,
    /// The confirmation of the recipient's certificate.
    pub confirmation: Option<Confirmation>,
}

/// Why a joiner is not let in. Only members can say it, since a join request is sealed for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRejection {
    /// The charter shows it, by the authority's signature.
    Charter(Box<CharterUpdate>),
    /// As many devices as the invite allows have joined by it.
    UsedUp,
    /// The owner has yet to approve it.
    AwaitsApproval,
    /// The owner has declined it.
    Declined,
}

/// The sealed contents of a rekey.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyContent {
    /// The current party secret. It comes first, so that its place in the encoding is known and it can be wiped.
    pub secret: [u8; 32],
    /// The charter that commits to the secret, and the recipient's confirmation.
    pub update: CharterUpdate,
}

impl RekeyContent {
    /// Encodes the contents. The bytes contain the secret and must be wiped after use.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes the contents.
    ///
    /// # Errors
    /// The bytes are not in the expected form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        decode(bytes, MAX_SEALED)
    }
}

impl JoinRejection {
    /// Encodes the reason.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes a reason.
    ///
    /// # Errors
    /// The bytes are not in the expected form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        decode(bytes, MAX_SEALED)
    }
}

impl Document for Message {
    const DOMAIN: &'static str = "partyline message";
    const LIMIT: usize = MAX_SEALED - SEAL_OVERHEAD - 64;

    fn check(&self) -> Result<(), Malformed> {
        match &self.body {
            Body::Announce(announcement) => announcement.check(),
            Body::Signal(bytes) if bytes.len() > MAX_SIGNAL => Err(Malformed::TooLong { limit: MAX_SIGNAL }),
            _ => Ok(()),
        }
    }
}

/// Returns what the sender signs: the topic, and the message's domain and bytes.
#[must_use]
pub fn subject(topic: &Topic, message: &Exact<Message>) -> Vec<u8> {
    [&topic.0[..], &message.subject()].concat()
}

/// Encodes a plaintext for sealing.
#[must_use]
pub fn encode_plaintext(message: &Exact<Message>, signature: &Signature) -> Vec<u8> {
    [&signature.0[..], message.bytes()].concat()
}

/// Decodes a plaintext into message and signature.
///
/// # Errors
/// The plaintext is too short or too long, not in the expected form, or exceeds a limit.
pub fn decode_plaintext(bytes: &[u8]) -> Result<(Exact<Message>, Signature), Malformed> {
    let (signature, message) = bytes.split_first_chunk::<64>().ok_or(Malformed::Encoding)?;
    if message.len() > Message::LIMIT {
        return Err(Malformed::TooLong { limit: Message::LIMIT });
    }
    Ok((Exact::decode(message.to_vec())?, Signature(*signature)))
}

#[cfg(test)]
mod tests;

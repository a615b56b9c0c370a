//! The plaintext of sealed messages: `signature (64 bytes), message`.
//!
//! The sealing itself (XChaCha20-Poly1305 under a key of the topic) and the signature are the work of
//! `partyline-party`. The signature covers the topic too, so that a message cannot be moved to another one.

use partyline_model::{DeviceId, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::{
    announcement::Announcement,
    exact::{Document, Exact, Malformed, Signature, decode, encode},
    membership::{Certificate, Charter, Confirmation},
};

/// Most bytes of a sealed message as it travels.
pub const MAX_SEALED: usize = crate::rendezvous::MAX_MESSAGE;
/// Bytes that sealing adds: the nonce in front and the tag behind.
pub const SEAL_OVERHEAD: usize = 24 + 16;
/// Most bytes of a signal.
pub const MAX_SIGNAL: usize = 1024;

/// One thing said by one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub sender: DeviceId,
    /// To whom; `None` for all.
    pub recipient: Option<DeviceId>,
    /// Grows from message to message of one sender, also across restarts.
    pub sequence: u64,
    /// When, by the sender's clock.
    pub sent_at: Timestamp,
    /// What.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Who the sender is and how it can be reached.
    Announce(Box<Announcement>),
    /// What the authority says.
    Charter(Box<CharterUpdate>),
    /// The party secret, for one member.
    Rekey(Box<Rekey>),
    /// For the path machine of one member.
    Signal(Vec<u8>),
    /// The sender is a member no longer.
    Leave,
}

/// A charter, and from the owner's device the receiver's confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharterUpdate {
    /// The charter.
    pub charter: Charter,
    /// The receiver's own confirmation.
    pub confirmation: Option<Confirmation>,
}

/// The party secret on its way to one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekey {
    /// The sender's certificate: the receiver may not have heard of it yet, and needs its tunnel key.
    pub certificate: Certificate,
    /// An encoded [`RekeyContent`] sealed under the pair secret.
    pub sealed: Vec<u8>,
}

/// What is sealed inside a rekey.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyContent {
    /// The party secret in force. First, so that its place in the encoding is known and it can be wiped.
    pub secret: [u8; 32],
    /// The charter that commits to it, and the receiver's confirmation.
    pub update: CharterUpdate,
}

impl RekeyContent {
    /// Its bytes. They hold the secret; wipe them after use.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes what a pair of members sealed.
    ///
    /// # Errors
    /// When the bytes are not in their form.
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

/// What the sender signs: the message's domain and bytes, and the topic it is meant for.
#[must_use]
pub fn subject(topic: &Topic, message: &Exact<Message>) -> Vec<u8> {
    [&topic.0[..], &message.subject()].concat()
}

/// A plaintext ready for sealing.
#[must_use]
pub fn encode_plaintext(message: &Exact<Message>, signature: &Signature) -> Vec<u8> {
    [&signature.0[..], message.bytes()].concat()
}

/// Takes a plaintext apart.
///
/// # Errors
/// When it is too short or long, not in its form, or breaks a limit.
pub fn decode_plaintext(bytes: &[u8]) -> Result<(Exact<Message>, Signature), Malformed> {
    let (signature, message) = bytes.split_first_chunk::<64>().ok_or(Malformed::Encoding)?;
    if message.len() > Message::LIMIT {
        return Err(Malformed::TooLong { limit: Message::LIMIT });
    }
    Ok((Exact::decode(message.to_vec())?, Signature(*signature)))
}

#[cfg(test)]
mod tests;

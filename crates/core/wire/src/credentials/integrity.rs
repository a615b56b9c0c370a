//! The two attributes that authenticate a STUN message.

use stun_rs::{
    HMACKey, StunMessage,
    attributes::stun::{MessageIntegrity, MessageIntegritySha256},
    get_input_text,
};

/// A message integrity attribute (RFC 8489, sections 14.5 and 14.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integrity {
    Sha1,
    Sha256,
}

impl Integrity {
    /// Returns true if the message carries this attribute, made with `key` over the bytes before it.
    ///
    /// What is compared is no secret of ours but the server's proof, once per transaction, and its id cannot be
    /// guessed. The comparison therefore need not take constant time.
    pub(super) fn verify(self, bytes: &[u8], message: &StunMessage, key: &HMACKey) -> bool {
        match self {
            Self::Sha256 => {
                let attribute = message.get::<MessageIntegritySha256>();
                let attribute = attribute.and_then(|a| a.as_message_integrity_sha256().ok());
                let covered = get_input_text::<MessageIntegritySha256>(bytes);
                attribute.zip(covered).is_some_and(|(a, covered)| a.validate(&covered, key))
            }
            Self::Sha1 => {
                let attribute = message.get::<MessageIntegrity>();
                let attribute = attribute.and_then(|a| a.as_message_integrity().ok());
                let covered = get_input_text::<MessageIntegrity>(bytes);
                attribute.zip(covered).is_some_and(|(a, covered)| a.validate(&covered, key))
            }
        }
    }
}

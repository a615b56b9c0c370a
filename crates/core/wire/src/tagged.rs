//! Sealed messages behind a tag: `tag (8 bytes), sealed message`.
//!
//! The tag tells members of the party which key to try. It is an HMAC under the topic over the random nonce in front of
//! the sealed message, and so another one for every message: only members and servers of the party, which know the topic,
//! can tell that two messages belong together, on one network or on two.

use hmac::{Hmac, Mac as _};
use partyline_model::Topic;
use sha2::Sha256;

/// Bytes of a tag.
pub const TAG_LEN: usize = 8;
/// Bytes of the nonce in front of a sealed message.
const NONCE_LEN: usize = 24;
/// Keeps the tags apart from everything else that is derived from a topic.
const CONTEXT: &[u8] = b"partyline beacon tag";

/// A sealed message that was received with its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tagged<'a> {
    tag: [u8; TAG_LEN],
    sealed: &'a [u8],
}

impl<'a> Tagged<'a> {
    /// Splits bytes into tag and sealed message; `None` if they are too short.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (tag, sealed) = bytes.split_first_chunk()?;
        (!sealed.is_empty()).then_some(Self { tag: *tag, sealed })
    }

    /// Returns true if the message belongs to a topic.
    #[must_use]
    pub fn is_on(&self, topic: &Topic) -> bool {
        self.tag == tag(topic, self.sealed)
    }

    /// Returns the sealed message.
    #[must_use]
    pub const fn sealed(&self) -> &'a [u8] {
        self.sealed
    }
}

/// Puts the tag in front of a sealed message.
#[must_use]
pub fn encode(topic: &Topic, sealed: &[u8]) -> Vec<u8> {
    [&tag(topic, sealed)[..], sealed].concat()
}

fn tag(topic: &Topic, sealed: &[u8]) -> [u8; TAG_LEN] {
    // HMAC takes keys of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(&topic.0) else { return [0; TAG_LEN] };
    let nonce = sealed.get(..NONCE_LEN).unwrap_or(sealed);
    let digest = mac.chain_update(CONTEXT).chain_update(nonce).finalize().into_bytes();
    std::array::from_fn(|index| digest[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_one_party_have_nothing_in_common() {
        let topic = Topic(std::array::from_fn(|i| i as u8 + 1));
        let tags: std::collections::BTreeSet<_> =
            (0..100_u8).map(|nonce| encode(&topic, &[nonce; 64])[..TAG_LEN].to_vec()).collect();
        assert_eq!(tags.len(), 100);
        assert!(tags.iter().all(|tag| !topic.0.windows(TAG_LEN).any(|bytes| bytes == tag)));
        let bytes = encode(&topic, &[1; 64]);
        let moved = [&bytes[..TAG_LEN], &[2; 64]].concat();
        assert!(!Tagged::decode(&moved).unwrap().is_on(&topic), "a tag fits its own message only");
    }
}

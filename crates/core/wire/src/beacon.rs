//! LAN beacon datagrams: `tag (8 bytes), sealed message`.
//!
//! The tag tells members of the party which key to try. It is an HMAC under the topic over the random nonce in front of
//! the sealed message, and so another one in every beacon: only members and servers of the party, which know the topic, can
//! tell that two beacons belong together, on one network or on two.

use hmac::{Hmac, Mac as _};
use partyline_model::Topic;
use sha2::Sha256;

/// The IPv4 multicast group of beacons.
pub const GROUP_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 80, 76);
/// The IPv6 multicast group of beacons, link-local.
pub const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x504c);
/// The UDP port of beacons.
pub const PORT: u16 = 20555;
/// The maximum length of a beacon in bytes, which no LAN fragments.
pub const MAX_BEACON: usize = 1400;

/// Bytes of a tag.
const TAG_LEN: usize = 8;
/// Bytes of the nonce in front of a sealed message.
const NONCE_LEN: usize = 24;
/// Keeps the tags apart from everything else that is derived from a topic.
const CONTEXT: &[u8] = b"partyline beacon tag";

/// A beacon that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon<'a> {
    tag: [u8; TAG_LEN],
    sealed: &'a [u8],
}

impl<'a> Beacon<'a> {
    /// Returns true if it belongs to a topic.
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

/// Returns a beacon, or `None` if the message is too long for one datagram.
#[must_use]
pub fn encode(topic: &Topic, sealed: &[u8]) -> Option<Vec<u8>> {
    let datagram = [&tag(topic, sealed)[..], sealed].concat();
    (datagram.len() <= MAX_BEACON).then_some(datagram)
}

/// Splits a beacon into tag and sealed message; `None` if it is too short or too long.
#[must_use]
pub fn decode(datagram: &[u8]) -> Option<Beacon<'_>> {
    let (tag, sealed) = datagram.split_first_chunk()?;
    (!sealed.is_empty() && datagram.len() <= MAX_BEACON).then_some(Beacon { tag: *tag, sealed })
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
    fn beacon_round_trips_within_its_limits() {
        let topic = Topic(std::array::from_fn(|i| i as u8));
        let datagram = encode(&topic, b"sealed").unwrap();
        let beacon = decode(&datagram).unwrap();
        assert_eq!(beacon.sealed(), b"sealed");
        assert!(beacon.is_on(&topic) && !beacon.is_on(&Topic([9; 32])));
        assert_eq!(encode(&topic, &[0; MAX_BEACON]), None);
        assert_eq!(decode(&[0; 8]), None);
        assert_eq!(decode(&[0; MAX_BEACON + 1]), None);
    }

    #[test]
    fn tags_of_one_party_have_nothing_in_common() {
        let topic = Topic(std::array::from_fn(|i| i as u8 + 1));
        let tags: std::collections::BTreeSet<_> =
            (0..100_u8).map(|nonce| encode(&topic, &[nonce; 64]).unwrap()[..TAG_LEN].to_vec()).collect();
        assert_eq!(tags.len(), 100);
        assert!(tags.iter().all(|tag| !topic.0.windows(TAG_LEN).any(|bytes| bytes == tag)));
        let datagram = encode(&topic, &[1; 64]).unwrap();
        let moved = [&datagram[..TAG_LEN], &[2; 64]].concat();
        assert!(!decode(&moved).unwrap().is_on(&topic), "a tag fits its own message only");
    }
}

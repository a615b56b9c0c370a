//! LAN beacon datagrams: `topic tag (8 bytes), sealed message`.
//!
//! The tag tells members of the party which key to try. To others it is a random number that changes with the party
//! secret.

use partyline_model::Topic;

/// The IPv4 multicast group of beacons.
pub const GROUP_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 80, 76);
/// The IPv6 multicast group of beacons, link-local.
pub const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x504c);
/// The UDP port of beacons.
pub const PORT: u16 = 20555;
/// The maximum length of a beacon in bytes, which no LAN fragments.
pub const MAX_BEACON: usize = 1400;

/// Bytes of a topic tag.
const TAG_LEN: usize = 8;

/// The first bytes of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicTag(pub [u8; TAG_LEN]);

impl From<&Topic> for TopicTag {
    fn from(topic: &Topic) -> Self {
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&topic.0[..TAG_LEN]);
        Self(tag)
    }
}

/// Returns a beacon, or `None` if the message is too long for one datagram.
#[must_use]
pub fn encode(topic: &Topic, sealed: &[u8]) -> Option<Vec<u8>> {
    let datagram = [&TopicTag::from(topic).0[..], sealed].concat();
    (datagram.len() <= MAX_BEACON).then_some(datagram)
}

/// Splits a beacon into tag and sealed message; `None` if it is too short or too long.
#[must_use]
pub fn decode(datagram: &[u8]) -> Option<(TopicTag, &[u8])> {
    let (tag, sealed) = datagram.split_first_chunk::<TAG_LEN>()?;
    (!sealed.is_empty() && datagram.len() <= MAX_BEACON).then_some((TopicTag(*tag), sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beacon_round_trips_within_its_limits() {
        let topic = Topic(std::array::from_fn(|i| i as u8));
        let datagram = encode(&topic, b"sealed").unwrap();
        assert_eq!(decode(&datagram), Some((TopicTag::from(&topic), &b"sealed"[..])));
        assert_eq!(encode(&topic, &[0; MAX_BEACON]), None);
        assert_eq!(decode(&[0; 8]), None);
        assert_eq!(decode(&[0; MAX_BEACON + 1]), None);
    }
}

//! LAN beacon datagrams: `topic tag (8 bytes), sealed message`.
//!
//! The tag tells members of the party which key to try; to anybody else it is a random number that changes with
//! the party secret.

use partyline_model::Topic;

/// IPv4 group of the beacon.
pub const GROUP_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 80, 76);
/// IPv6 group of the beacon.
pub const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x504c);
/// UDP port of the beacon.
pub const PORT: u16 = 20555;
/// Most bytes of a beacon: what passes every LAN in one piece.
pub const MAX_BEACON: usize = 1400;

const TAG: usize = 8;

/// The first bytes of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicTag(pub [u8; TAG]);

impl From<&Topic> for TopicTag {
    fn from(topic: &Topic) -> Self {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&topic.0[..TAG]);
        Self(tag)
    }
}

/// A beacon, or `None` if the message is too long for one datagram.
#[must_use]
pub fn encode(topic: &Topic, sealed: &[u8]) -> Option<Vec<u8>> {
    let datagram = [&TopicTag::from(topic).0[..], sealed].concat();
    (datagram.len() <= MAX_BEACON).then_some(datagram)
}

/// Takes a beacon apart; `None` if it is too short or too long.
#[must_use]
pub fn decode(datagram: &[u8]) -> Option<(TopicTag, &[u8])> {
    let (tag, sealed) = datagram.split_first_chunk::<TAG>()?;
    (!sealed.is_empty() && datagram.len() <= MAX_BEACON).then_some((TopicTag(*tag), sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_back_apart_what_was_put_together() {
        let topic = Topic(std::array::from_fn(|i| i as u8));
        let datagram = encode(&topic, b"sealed").unwrap();
        assert_eq!(decode(&datagram), Some((TopicTag::from(&topic), &b"sealed"[..])));
        assert_eq!(encode(&topic, &[0; MAX_BEACON]), None);
        assert_eq!(decode(&[0; 8]), None);
        assert_eq!(decode(&[0; MAX_BEACON + 1]), None);
    }
}

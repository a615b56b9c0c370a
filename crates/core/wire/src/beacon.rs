//! LAN beacon datagrams: a sealed message with its tag ([`crate::tagged`]).

use partyline_model::Topic;

use crate::tagged::{self, Tagged};

/// The IPv4 multicast group of beacons.
pub const GROUP_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 80, 76);
/// The IPv6 multicast group of beacons, link-local.
pub const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x504c);
/// The UDP port of beacons.
pub const PORT: u16 = 20555;
/// The maximum length of a beacon in bytes, which no LAN fragments.
pub const MAX_BEACON: usize = 1400;

/// Returns a beacon, or `None` if the message is too long for one datagram.
#[must_use]
pub fn encode(topic: &Topic, sealed: &[u8]) -> Option<Vec<u8>> {
    let datagram = tagged::encode(topic, sealed);
    (datagram.len() <= MAX_BEACON).then_some(datagram)
}

/// Splits a beacon into tag and sealed message; `None` if it is too short or too long.
#[must_use]
pub fn decode(datagram: &[u8]) -> Option<Tagged<'_>> {
    Tagged::decode(datagram).filter(|_| datagram.len() <= MAX_BEACON)
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
}

//! The parts of IP headers that routing between members needs (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an IPv4 header without options, in bytes.
pub(crate) const V4_HEADER_LEN: usize = 20;
/// Length of the fixed IPv6 header, in bytes.
pub(crate) const V6_HEADER_LEN: usize = 40;

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;

const FRAGMENT: u8 = 44;
/// Hop-by-Hop Options, Routing, Fragment, Destination Options. A host drops what is behind others that it does not know.
const EXTENSION_HEADERS: [u8; 4] = [0, 43, FRAGMENT, 60];

/// The first header of a packet, checked against the packet's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpHeader {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 protocol or IPv6 next header.
    pub protocol: u8,
    /// Offset of the payload.
    pub payload: usize,
    /// Length of the packet; bytes behind it are not part of it.
    pub len: usize,
    /// True for an IPv4 fragment that is not the first, whose payload has no transport header.
    pub later_fragment: bool,
}

/// What a packet has behind its IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport<'p> {
    /// Protocol and bytes of the transport header and what follows it, in a whole packet or a first fragment.
    Whole(u8, &'p [u8]),
    /// Part of a packet, `offset` units of 8 bytes from its start.
    LaterFragment { protocol: u8, offset: u16 },
    /// The chain of extension headers does not fit the packet.
    Incomplete,
}

impl IpHeader {
    /// Parses the header, or returns `None` if the packet is malformed.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<V4_HEADER_LEN>()?;
        let payload = usize::from(header[0] & 0xf) * 4;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        (payload >= V4_HEADER_LEN && payload <= len && len <= packet.len()).then(|| Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            protocol: header[9],
            payload,
            len,
            later_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<V6_HEADER_LEN>()?;
        let len = V6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        (len <= packet.len()).then(|| Self {
            source: address_v6(&header[8..24]),
            destination: address_v6(&header[24..40]),
            protocol: header[6],
            payload: V6_HEADER_LEN,
            len,
            later_fragment: false,
        })
    }

    /// Returns what follows the IP header and, in IPv6, its extension headers (RFC 8200, section 4).
    pub(crate) fn transport<'p>(&self, packet: &'p [u8]) -> Transport<'p> {
        if self.source.is_ipv4() {
            return self.transport_v4(packet);
        }
        let mut protocol = self.protocol;
        let Some(mut rest) = packet.get(self.payload..self.len) else { return Transport::Incomplete };
        while EXTENSION_HEADERS.contains(&protocol) {
            let [next, units, high, low, ..] = *rest else { return Transport::Incomplete };
            let is_fragment = protocol == FRAGMENT;
            let offset = u16::from_be_bytes([high, low]) >> 3;
            if is_fragment && offset != 0 {
                return Transport::LaterFragment { protocol: next, offset };
            }
            let len = if is_fragment { 8 } else { 8 * (usize::from(units) + 1) };
            let Some(behind) = rest.get(len..) else { return Transport::Incomplete };
            (protocol, rest) = (next, behind);
        }
        Transport::Whole(protocol, rest)
    }

    fn transport_v4<'p>(&self, packet: &'p [u8]) -> Transport<'p> {
        match (packet.get(6..8), packet.get(self.payload..self.len)) {
            (Some(&[high, low]), Some(_)) if self.later_fragment => {
                let offset = u16::from_be_bytes([high, low]) & 0x1fff;
                Transport::LaterFragment { protocol: self.protocol, offset }
            }
            (_, Some(payload)) => Transport::Whole(self.protocol, payload),
            _ => Transport::Incomplete,
        }
    }

    /// Returns protocol and bytes of what follows the IP header and the extension headers, unless that is not in this
    /// packet: it is a later fragment, or the chain of headers does not fit.
    pub(crate) fn upper_layer<'p>(&self, packet: &'p [u8]) -> Option<(u8, &'p [u8])> {
        match self.transport(packet) {
            Transport::Whole(protocol, payload) => Some((protocol, payload)),
            Transport::LaterFragment { .. } | Transport::Incomplete => None,
        }
    }

    /// Returns the destination port if the packet has a TCP or UDP header.
    pub(crate) fn destination_port(&self, packet: &[u8]) -> Option<u16> {
        let ports = packet.get(self.payload..self.len)?.first_chunk::<4>()?;
        let has_ports = matches!(self.protocol, TCP | UDP) && !self.later_fragment;
        has_ports.then(|| u16::from_be_bytes([ports[2], ports[3]]))
    }
}

fn address_v6(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    Ipv6Addr::from(octets).into()
}

/// Returns the link-local address with the same interface identifier, in fe80::/64.
pub(crate) fn link_local(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c, d] = address.segments();
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{udp, v4, v6};

    #[test]
    fn lengths_that_contradict_the_packet_are_refused() {
        for packet in [udp(v4(0), v4(1), 7, 10), udp(v6(0), v6(1), 7, 10)] {
            assert_eq!(IpHeader::parse(&packet).unwrap().len, packet.len());
            assert_eq!(IpHeader::parse(&packet[..packet.len() - 1]), None);
            let padded = [&packet[..], &[0; 6]].concat();
            assert_eq!(IpHeader::parse(&padded).unwrap().len, packet.len());
        }
        let mut short_header = udp(v4(0), v4(1), 7, 10);
        short_header[0] = 0x44;
        assert_eq!(IpHeader::parse(&short_header), None);
    }

    #[test]
    fn ports_are_read_from_the_first_fragment_only() {
        let mut packet = udp(v4(0), v4(1), 7, 10);
        assert_eq!(IpHeader::parse(&packet).unwrap().destination_port(&packet), Some(7));
        packet[7] = 1;
        assert_eq!(IpHeader::parse(&packet).unwrap().destination_port(&packet), None);
    }

    #[test]
    fn link_local_address_keeps_the_interface_identifier() {
        let address = "fd00:77::1:2:3:4".parse().unwrap();
        assert_eq!(link_local(address), "fe80::1:2:3:4".parse::<Ipv6Addr>().unwrap());
    }

    proptest! {
        #[test]
        fn parsed_offsets_lie_within_the_packet(packet in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(header) = IpHeader::parse(&packet) {
                prop_assert!(header.payload <= header.len && header.len <= packet.len());
                let _ = header.destination_port(&packet);
            }
        }
    }
}

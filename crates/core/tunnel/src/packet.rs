//! As much of IP as routing between members needs (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const V4_HEADER: usize = 20;
pub(crate) const V6_HEADER: usize = 40;

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;

/// What the first header of a packet says, checked against its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Protocol or next header.
    pub protocol: u8,
    /// Where the payload starts.
    pub payload: usize,
    /// Length of the packet, without what may trail it.
    pub len: usize,
    /// IPv4: not the first fragment, so the payload starts in the middle of something.
    pub later_fragment: bool,
}

impl Header {
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<V4_HEADER>()?;
        let payload = usize::from(header[0] & 0xf) * 4;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        (payload >= V4_HEADER && payload <= len && len <= packet.len()).then(|| Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            protocol: header[9],
            payload,
            len,
            later_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<V6_HEADER>()?;
        let len = V6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        (len <= packet.len()).then(|| Self {
            source: address_v6(&header[8..24]),
            destination: address_v6(&header[24..40]),
            protocol: header[6],
            payload: V6_HEADER,
            len,
            later_fragment: false,
        })
    }

    /// The destination port, if the payload starts with one.
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

/// The link-local address that goes with a virtual address: the same interface identifier under fe80::/64.
pub(crate) fn link_local(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c, d] = address.segments();
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d)
}

//! ICMP Packet Too Big: tells the local sender the path MTU (RFC 792 and RFC 1191 for IPv4; RFC 4443 and RFC 8201 for
//! IPv6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    checksum,
    ip::{ICMP, ICMP_V6, IpHeader, V4_HEADER_LEN, V6_HEADER_LEN},
};

const ICMP_HEADER_LEN: usize = 8;
/// Bytes of the original packet to include. RFC 1812 asks for as much as fits 576 bytes; IPv6 allows more, but needs no more.
const MAX_QUOTE_LEN: usize = 576 - V6_HEADER_LEN - ICMP_HEADER_LEN;
/// The minimum MTU of an IPv6 link (RFC 8200, section 5); senders ignore smaller values.
const MIN_V6_MTU: u32 = 1280;

/// Returns the message about `packet`, as if it came from the packet's destination. Returns `None` where an error must not
/// be sent (RFC 1122, section 3.2.2): about another error, or about a fragment that is not the first.
pub(crate) fn reply(packet: &[u8], header: &IpHeader, mtu: usize) -> Option<Vec<u8>> {
    if header.later_fragment || is_error(packet, header) {
        return None;
    }
    let quote = &packet[..header.len.min(MAX_QUOTE_LEN)];
    let mtu = u32::try_from(mtu).ok()?;
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(reply_v4(destination, source, quote, mtu)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(reply_v6(destination, source, quote, mtu)),
        _ => None,
    }
}

fn is_error(packet: &[u8], header: &IpHeader) -> bool {
    let kind = packet.get(header.payload).copied().unwrap_or_default();
    match header.protocol {
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        ICMP_V6 => kind < 128,
        _ => false,
    }
}

fn reply_v4(from: Ipv4Addr, to: Ipv4Addr, quote: &[u8], mtu: u32) -> Vec<u8> {
    let len = (V4_HEADER_LEN + ICMP_HEADER_LEN + quote.len()) as u16;
    let mut reply = vec![0x45, 0];
    reply.extend(len.to_be_bytes());
    reply.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    reply.extend(from.octets());
    reply.extend(to.octets());
    let header_sum = checksum::finish(checksum::sum(&reply));
    reply[10..12].copy_from_slice(&header_sum.to_be_bytes());
    // Type 3 (destination unreachable), code 4 (fragmentation needed); the low half of the second word is the MTU.
    reply.extend([3, 4, 0, 0]);
    reply.extend(mtu.to_be_bytes());
    reply.extend(quote);
    let icmp_sum = checksum::finish(checksum::sum(&reply[V4_HEADER_LEN..]));
    reply[V4_HEADER_LEN + 2..V4_HEADER_LEN + 4].copy_from_slice(&icmp_sum.to_be_bytes());
    reply
}

fn reply_v6(from: Ipv6Addr, to: Ipv6Addr, quote: &[u8], mtu: u32) -> Vec<u8> {
    let len = ICMP_HEADER_LEN + quote.len();
    let mut reply = vec![0x60, 0, 0, 0];
    reply.extend((len as u16).to_be_bytes());
    reply.extend([ICMP_V6, 64]);
    reply.extend(from.octets());
    reply.extend(to.octets());
    reply.extend([2, 0, 0, 0]);
    reply.extend(mtu.max(MIN_V6_MTU).to_be_bytes());
    reply.extend(quote);
    let sum = checksum::pseudo_header(from.into(), to.into(), ICMP_V6, len)
        + checksum::sum(&reply[V6_HEADER_LEN..]);
    reply[V6_HEADER_LEN + 2..V6_HEADER_LEN + 4].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{checksum_holds, u16_at, udp, v4, v6};

    fn reply_to(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        reply(packet, &IpHeader::parse(packet).unwrap(), mtu)
    }

    #[test]
    fn ipv4_sender_learns_the_mtu_from_the_destination() {
        let packet = udp(v4(0), v4(1), 7, 1300);
        let reply = reply_to(&packet, 1300).unwrap();
        let header = IpHeader::parse(&reply).unwrap();
        assert_eq!((header.source, header.destination), (v4(1).into(), v4(0).into()));
        assert_eq!((reply[20], reply[21], u16_at(&reply, 26)), (3, 4, 1300));
        assert_eq!(reply[28..56], packet[..28]);
        assert_eq!(checksum::finish(checksum::sum(&reply[..20])), 0);
        assert_eq!(checksum::finish(checksum::sum(&reply[20..])), 0);
    }

    #[test]
    fn ipv6_sender_never_learns_less_than_the_minimum_mtu() {
        let packet = udp(v6(0), v6(1), 7, 1400);
        for (mtu, announced) in [(1300, 1300), (600, 1280)] {
            let reply = reply_to(&packet, mtu).unwrap();
            assert_eq!((reply[40], reply[41], u16_at(&reply, 46)), (2, 0, announced));
            assert!(checksum_holds(&reply) && reply.len() <= 576);
        }
    }

    #[test]
    fn errors_and_later_fragments_cause_no_error() {
        let mut error = udp(v4(0), v4(1), 7, 1300);
        error[9] = ICMP;
        error[20] = 3;
        assert_eq!(reply_to(&error, 600), None);
        error[20] = 8;
        assert!(reply_to(&error, 600).is_some());
        let mut fragment = udp(v4(0), v4(1), 7, 1300);
        fragment[7] = 1;
        assert_eq!(reply_to(&fragment, 600), None);
    }
}

//! Packet Too Big: tells the local sender what fits (RFC 792 and RFC 1191; RFC 4443 and RFC 8201).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    checksum,
    packet::{Header, ICMP, ICMP_V6, V4_HEADER, V6_HEADER},
};

/// RFC 1812 asks for as much of the packet as fits 576 bytes; the same serves IPv6.
const QUOTE: usize = 576 - V6_HEADER - ICMP_HEADER;
const ICMP_HEADER: usize = 8;
/// No IPv6 link carries less (RFC 8200 section 5), and senders ignore smaller values.
const V6_MINIMUM: u32 = 1280;

/// The message about `packet`, as if it came from the packet's destination. `None` where an error may not be sent:
/// about an error, or about a later fragment.
pub(crate) fn reply(packet: &[u8], header: &Header, mtu: usize) -> Option<Vec<u8>> {
    if header.later_fragment || is_error(packet, header) {
        return None;
    }
    let quote = &packet[..header.len.min(QUOTE)];
    let mtu = u32::try_from(mtu).ok()?;
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(reply_v4(destination, source, quote, mtu)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(reply_v6(destination, source, quote, mtu)),
        _ => None,
    }
}

fn is_error(packet: &[u8], header: &Header) -> bool {
    let kind = packet.get(header.payload).copied().unwrap_or_default();
    match header.protocol {
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        ICMP_V6 => kind < 128,
        _ => false,
    }
}

fn reply_v4(from: Ipv4Addr, to: Ipv4Addr, quote: &[u8], mtu: u32) -> Vec<u8> {
    let len = (V4_HEADER + ICMP_HEADER + quote.len()) as u16;
    let mut reply = vec![0x45, 0];
    reply.extend(len.to_be_bytes());
    reply.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    reply.extend(from.octets());
    reply.extend(to.octets());
    let header = checksum::finish(checksum::sum(&reply));
    reply[10..12].copy_from_slice(&header.to_be_bytes());
    // Destination unreachable, fragmentation needed; the next hop's MTU is the low half of the unused word.
    reply.extend([3, 4, 0, 0]);
    reply.extend(mtu.to_be_bytes());
    reply.extend(quote);
    let whole = checksum::finish(checksum::sum(&reply[V4_HEADER..]));
    reply[V4_HEADER + 2..V4_HEADER + 4].copy_from_slice(&whole.to_be_bytes());
    reply
}

fn reply_v6(from: Ipv6Addr, to: Ipv6Addr, quote: &[u8], mtu: u32) -> Vec<u8> {
    let len = ICMP_HEADER + quote.len();
    let mut reply = vec![0x60, 0, 0, 0];
    reply.extend((len as u16).to_be_bytes());
    reply.extend([ICMP_V6, 64]);
    reply.extend(from.octets());
    reply.extend(to.octets());
    reply.extend([2, 0, 0, 0]);
    reply.extend(mtu.max(V6_MINIMUM).to_be_bytes());
    reply.extend(quote);
    let sum =
        checksum::pseudo_header(from.into(), to.into(), ICMP_V6, len) + checksum::sum(&reply[V6_HEADER..]);
    reply[V6_HEADER + 2..V6_HEADER + 4].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    reply
}

//! Rewrites addresses and ports in IPv4 packets and updates the checksums (RFC 1624).

use std::net::{Ipv4Addr, SocketAddrV4};

use partyline_nat::Protocol;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Selects the source or the destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// How a NAT treats a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A packet with ports (or an ICMP query identifier).
    Flow(Protocol),
    /// An ICMP error. The packet that it quotes starts at this offset.
    Error(usize),
}

/// The fields of a packet that a NAT looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Source address and port. For an ICMP query, the identifier takes the place of the port.
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

/// Reads the headers of a packet, which may be truncated, as the packets that ICMP errors quote are. Returns `None` if
/// no NAT translates such a packet.
pub fn read(packet: &[u8]) -> Option<Header> {
    let start = transport(packet)?;
    let (source, destination) = (address(packet, 12)?, address(packet, 16)?);
    let flow = |protocol, from, to| Header {
        kind: Kind::Flow(protocol),
        source: SocketAddrV4::new(source, from),
        destination: SocketAddrV4::new(destination, to),
    };
    match packet[9] {
        UDP => Some(flow(Protocol::Udp, word(packet, start)?, word(packet, start + 2)?)),
        TCP => Some(flow(Protocol::Tcp, word(packet, start)?, word(packet, start + 2)?)),
        ICMP => match packet.get(start)? {
            8 => Some(flow(Protocol::Icmp, word(packet, start + 4)?, 0)),
            0 => Some(flow(Protocol::Icmp, 0, word(packet, start + 4)?)),
            3 | 11 | 12 => Some(Header { kind: Kind::Error(start + 8), ..flow(Protocol::Icmp, 0, 0) }),
            _ => None,
        },
        _ => None,
    }
}

/// Replaces the source or destination address and port.
pub fn rewrite(packet: &mut [u8], side: Side, new: SocketAddrV4) -> Option<()> {
    let header = read(packet)?;
    let start = transport(packet)?;
    let (at, port) = match side {
        Side::Source => (12, start),
        Side::Destination => (16, start + 2),
    };
    // The IP checksum covers the addresses. Those of UDP and TCP cover addresses and ports, unless the packet is cut
    // off before them.
    let (sum, port, pseudo) = match header.kind {
        Kind::Flow(Protocol::Udp) => (start + 6, port, true),
        Kind::Flow(Protocol::Tcp) => (start + 16, port, true),
        Kind::Flow(Protocol::Icmp) => (start + 2, start + 4, false),
        Kind::Error(_) => return put_address(packet, at, *new.ip()),
    };
    let unsummed = header.kind == Kind::Flow(Protocol::Udp) && word(packet, sum) == Some(0);
    let mut changes = vec![(word(packet, port)?, new.port())];
    if pseudo {
        let old = [word(packet, at)?, word(packet, at + 2)?];
        changes.extend(old.into_iter().zip(words(*new.ip())));
    }
    put_address(packet, at, *new.ip())?;
    put(packet, port, new.port())?;
    let Some(old) = word(packet, sum).filter(|_| !unsummed) else { return Some(()) };
    let adjusted = changes.into_iter().fold(old, |sum, (old, new)| adjust(sum, old, new));
    let zero_means_none = header.kind == Kind::Flow(Protocol::Udp) && adjusted == 0;
    put(packet, sum, if zero_means_none { u16::MAX } else { adjusted })
}

/// Recomputes the checksum of an ICMP message after the packet that it quotes was rewritten.
pub fn seal_icmp(packet: &mut [u8]) -> Option<()> {
    let start = transport(packet)?;
    put(packet, start + 2, 0)?;
    let sum = packet[start..].chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    put(packet, start + 2, !fold(sum))
}

/// Returns the offset of the transport header, which only a whole packet or a first fragment has.
fn transport(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let later_fragment = word(packet, 6)? & 0x1fff != 0;
    let start = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && start >= 20 && !later_fragment && packet.len() >= start).then_some(start)
}

fn put_address(packet: &mut [u8], at: usize, new: Ipv4Addr) -> Option<()> {
    for (offset, new) in [at, at + 2].into_iter().zip(words(new)) {
        let sum = adjust(word(packet, 10)?, word(packet, offset)?, new);
        put(packet, offset, new)?;
        put(packet, 10, sum)?;
    }
    Some(())
}

fn adjust(sum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!sum) + u32::from(!old) + u32::from(new))
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

fn words(ip: Ipv4Addr) -> [u16; 2] {
    let [a, b, c, d] = ip.octets();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = packet.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

fn put(packet: &mut [u8], at: usize, value: u16) -> Option<()> {
    packet.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

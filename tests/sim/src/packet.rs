//! IPv4 packets as games send them.

use std::net::Ipv4Addr;

const HEADERS: usize = 28;

/// Returns a UDP packet between two addresses.
#[must_use]
pub fn udp(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(HEADERS + payload.len()).expect("a packet that fits");
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([27015_u16.to_be_bytes(), 27015_u16.to_be_bytes()].concat());
    packet.extend((total - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Returns the source and the payload of a UDP packet.
#[must_use]
pub fn open(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    (packet[0] == 0x45 && packet[9] == 17).then(|| (Ipv4Addr::from(from), &packet[HEADERS..]))
}

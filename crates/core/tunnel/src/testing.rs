//! Packets, keys and addresses for tests.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    checksum,
    config::{PartyConfig, PeerConfig},
    ip::IpHeader,
};

pub(crate) const PARTY: PartyId = PartyId([1; 32]);

/// The origin of virtual time. The tunnel only ever compares instants.
#[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn v4(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, member as u8 + 1)
}

pub(crate) fn v6(member: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, member as u16 + 1)
}

pub(crate) fn device_id(member: usize) -> DeviceId {
    DeviceId([member as u8 + 100; 32])
}

pub(crate) fn party_config(member: usize) -> PartyConfig {
    let v4 = ipnet::Ipv4Net::new(v4(member), 24).unwrap();
    PartyConfig { v4, v6: ipnet::Ipv6Net::new(v6(member), 64).unwrap(), mtu: 1400 }
}

/// Secret keys in the order of their public keys, so that the earlier member is the preferred initiator.
pub(crate) fn secrets(count: usize) -> Vec<StaticSecret> {
    let mut secrets: Vec<_> = (0..count).map(|i| StaticSecret::from([i as u8 + 10; 32])).collect();
    secrets.sort_by_key(|secret| PublicKey::from(secret).to_bytes());
    secrets
}

pub(crate) fn peer_config(member: usize, secret: &StaticSecret) -> PeerConfig {
    PeerConfig {
        key: TunnelPublicKey(PublicKey::from(secret).to_bytes()),
        v4: Some(v4(member)),
        v6: v6(member),
    }
}

/// A UDP packet with a payload of `len` bytes.
pub(crate) fn udp(from: impl Into<IpAddr>, to: impl Into<IpAddr>, port: u16, len: usize) -> Vec<u8> {
    udp_ports(from, to, [0x3039, port], len)
}

/// A UDP packet between two ports, with a payload of `len` bytes.
pub(crate) fn udp_ports(
    from: impl Into<IpAddr>,
    to: impl Into<IpAddr>,
    ports: [u16; 2],
    len: usize,
) -> Vec<u8> {
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend((8 + len as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend((0..len).map(|i| i as u8));
    ip(from.into(), to.into(), 17, &segment)
}

/// A TCP SYN with a maximum segment size, behind `padding` no-operation options.
pub(crate) fn syn(from: impl Into<IpAddr>, to: impl Into<IpAddr>, mss: u16, padding: usize) -> Vec<u8> {
    let (from, to) = (from.into(), to.into());
    let mut options = vec![1; padding];
    options.extend([2, 4]);
    options.extend(mss.to_be_bytes());
    options.resize(options.len().next_multiple_of(4), 0);
    let mut segment = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    segment[12] = ((20 + options.len()) as u8 / 4) << 4;
    segment.extend(options);
    let sum = checksum::finish(checksum::pseudo_header(from, to, 6, segment.len()) + checksum::sum(&segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 6, &segment)
}

/// A TCP segment without options and payload.
pub(crate) fn tcp(from: IpAddr, to: IpAddr, ports: [u16; 2], flags: u8) -> Vec<u8> {
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ip(from, to, 6, &segment)
}

/// An IP packet.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum::finish(checksum::sum(&packet));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("both addresses are of one family"),
    }
    packet.extend(payload);
    packet
}

/// Returns true if the checksum of a TCP or ICMPv6 packet is correct.
pub(crate) fn checksum_holds(packet: &[u8]) -> bool {
    let header = IpHeader::parse(packet).unwrap();
    let payload = &packet[header.payload..header.len];
    let pseudo = checksum::pseudo_header(header.source, header.destination, header.protocol, payload.len());
    checksum::finish(pseudo + checksum::sum(payload)) == 0
}

/// The 16-bit word at an offset.
pub(crate) fn u16_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

//! Members, addresses and a place where everything leaves, for tests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use ipnet::{Ipv4Net, Ipv6Net};
use partyline_model::{
    Candidate, CandidateKind, DeviceId, NatProfile, Now, PartyId, SocketId, Timestamp, TunnelPublicKey,
};
use partyline_paths::PeerParams;
use partyline_tunnel::PeerConfig;
use partyline_wire::probe::Tag;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    egress::{Deliver, Egress, Local, Transmit},
    io::DeviceConfig,
    signaling::PeerInfo,
};

pub(crate) const PARTY: PartyId = PartyId([1; 32]);
pub(crate) const UNIX: Timestamp = Timestamp(1_790_000_000_000);

/// The origin of virtual time.
#[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
pub(crate) fn start() -> Now {
    Now { instant: Instant::now(), unix: UNIX }
}

/// Returns the moment so much later.
pub(crate) fn after(now: Now, span: std::time::Duration) -> Now {
    Now { instant: now.instant + span, unix: Timestamp(now.unix.0 + span.as_millis() as u64) }
}

pub(crate) fn device(member: u8) -> DeviceId {
    DeviceId([member; 32])
}

pub(crate) fn secret(member: u8) -> StaticSecret {
    StaticSecret::from([member; 32])
}

/// The address of a member's main socket.
pub(crate) fn address(member: u8) -> SocketAddr {
    ([192, 0, 2, member], 41_641).into()
}

pub(crate) fn host_candidate(member: u8) -> Candidate {
    Candidate { kind: CandidateKind::Host, address: address(member) }
}

/// A member's address in the party.
pub(crate) fn virtual_v4(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, member)
}

pub(crate) fn device_config(member: u8) -> DeviceConfig {
    let v6 = [0xfd00, 0x77, 0, 0, 0, 0, 0, member.into()];
    DeviceConfig {
        v4: Ipv4Net::new(virtual_v4(member), 24).unwrap(),
        v6: Ipv6Net::new(v6.into(), 64).unwrap(),
        mtu: 1400,
    }
}

/// What member `me` knows of member `peer`.
pub(crate) fn peer_info(me: u8, peer: u8) -> PeerInfo {
    let DeviceConfig { v4, v6, .. } = device_config(peer);
    PeerInfo {
        party: PARTY,
        device: device(peer),
        tunnel: PeerConfig {
            key: TunnelPublicKey(PublicKey::from(&secret(peer)).to_bytes()),
            v4: Some(v4.addr()),
            v6: v6.addr(),
        },
        paths: Some(PeerParams {
            probe_key: [16 * me.min(peer) + me.max(peer); 32],
            local_tag: Tag([me; 8]),
            remote_tag: Tag([peer; 8]),
            controlling: me < peer,
            nat: NatProfile::default(),
            candidates: vec![host_candidate(peer)],
        }),
        restarted: false,
        trace_id: [0; 16],
    }
}

/// A UDP packet from one member's virtual address to another's.
pub(crate) fn packet(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(virtual_v4(from).octets());
    packet.extend(virtual_v4(to).octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x30, 0x39, 0x30, 0x39]);
    packet.extend((len - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// A Binding success response (RFC 8489) to a request, which says that its source is seen at `mapped`.
pub(crate) fn binding_response(request: &[u8], mapped: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(mapped) = mapped else { panic!("IPv4 is enough here") };
    let cookie = [0x21, 0x12, 0xa4, 0x42];
    let mut response = vec![0x01, 0x01, 0, 12];
    response.extend(&request[4..20]);
    response.extend([0, 0x20, 0, 8, 0, 1]);
    response.extend((mapped.port() ^ 0x2112).to_be_bytes());
    response.extend(mapped.ip().octets().iter().zip(cookie).map(|(byte, key)| byte ^ key));
    response
}

/// Keeps everything that leaves.
#[derive(Debug, Default)]
pub(crate) struct Exit {
    /// Datagrams and stream messages, one by one.
    pub sent: Vec<(Local, SocketAddr, Vec<u8>)>,
    pub delivered: Vec<(PartyId, Vec<u8>)>,
}

impl Exit {
    /// Returns what left from one of the UDP sockets since the last call, and forgets the rest.
    pub(crate) fn take_from(&mut self, socket: SocketId) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent = std::mem::take(&mut self.sent).into_iter();
        sent.filter(|(local, ..)| *local == Local::Socket(socket)).map(|(_, to, bytes)| (to, bytes)).collect()
    }
}

impl Egress for Exit {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        let each = bytes.chunks(segment).map(|bytes| (local, destination, bytes.to_vec()));
        self.sent.extend(each);
    }

    fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
        self.delivered.push((party, packet.to_vec()));
    }
}

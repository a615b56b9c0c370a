//! Tunnels in one thread, joined by hand, in time moved by hand.

mod hostile;
mod packets;
mod sessions;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    Outbox, PartyConfig, PathConfig, PeerConfig, Received, SessionStats, Tunnel, checksum, packet::Header,
};

pub(super) const PARTY: PartyId = PartyId([1; 32]);
pub(super) const OTHER_PARTY: PartyId = PartyId([2; 32]);
pub(super) const DIRECT: PathConfig = PathConfig { headroom: 0, mtu: None };
pub(super) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(super) struct Device {
    pub tunnel: Tunnel,
    pub out: Outbox,
    pub id: DeviceId,
    pub received: Vec<(DeviceId, Vec<u8>)>,
    pub control: Vec<(DeviceId, Vec<u8>)>,
    pub returned: Vec<Vec<u8>>,
}

/// Members of one party, in the order of their tunnel keys: the earlier one leads.
pub(super) struct Lan {
    pub now: Instant,
    pub devices: Vec<Device>,
    /// Every datagram that was carried: from, to, bytes.
    pub wire: Vec<(usize, usize, Vec<u8>)>,
    /// Whether datagrams arrive.
    pub up: bool,
}

pub(super) fn v4(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, member as u8 + 1)
}

pub(super) fn v6(member: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, member as u16 + 1)
}

pub(super) fn net(member: usize) -> PartyConfig {
    let v4 = ipnet::Ipv4Net::new(v4(member), 24).unwrap();
    PartyConfig { v4, v6: ipnet::Ipv6Net::new(v6(member), 64).unwrap(), mtu: 1400 }
}

pub(super) fn secrets(count: usize) -> Vec<StaticSecret> {
    let mut secrets: Vec<_> = (0..count).map(|i| StaticSecret::from([i as u8 + 10; 32])).collect();
    secrets.sort_by_key(|secret| PublicKey::from(secret).to_bytes());
    secrets
}

pub(super) fn peer_config(member: usize, secret: &StaticSecret) -> PeerConfig {
    PeerConfig {
        key: TunnelPublicKey(PublicKey::from(secret).to_bytes()),
        v4: Some(v4(member)),
        v6: v6(member),
    }
}

impl Lan {
    /// Members that know each other, without paths yet.
    pub(super) fn strangers(count: usize) -> Self {
        let now = Instant::now_for_tests();
        let secrets = secrets(count);
        let devices = (0..count).map(|i| Device::new(now, i, &secrets)).collect();
        Self { now, devices, wire: Vec::new(), up: true }
    }

    /// Members with paths and sessions between them all.
    pub(super) fn connected(count: usize) -> Self {
        let mut lan = Self::strangers(count);
        lan.set_paths(Some(DIRECT));
        lan.run();
        lan.wire.clear();
        lan
    }

    pub(super) fn set_paths(&mut self, path: Option<PathConfig>) {
        let ids: Vec<_> = self.devices.iter().map(|device| device.id).collect();
        for device in &mut self.devices {
            for id in ids.iter().filter(|id| **id != device.id) {
                device.tunnel.set_path(self.now, PARTY, *id, path);
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, packet: &[u8]) {
        let device = &mut self.devices[from];
        device.tunnel.handle_packet(self.now, PARTY, &mut packet.to_vec(), &mut device.out);
    }

    /// Serves timers that are due and carries datagrams until nothing moves.
    pub(super) fn run(&mut self) {
        loop {
            for device in &mut self.devices {
                device.tunnel.handle_timeout(self.now, &mut device.out);
            }
            if !(0..self.devices.len()).any(|from| self.carry(from)) {
                return;
            }
        }
    }

    /// Lets time pass in steps as small as the tunnels ask for.
    pub(super) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wake = self.devices.iter().filter_map(|device| device.tunnel.poll_timeout()).min();
            self.now = wake.map_or(end, |wake| wake.max(self.now)).min(end);
            self.run();
            if self.now == end {
                return;
            }
            self.now += Duration::from_millis(1);
        }
    }

    /// Takes what `from` has to send to where it belongs.
    fn carry(&mut self, from: usize) -> bool {
        let sent = self.devices[from].take();
        let moved = !sent.is_empty();
        for (to, datagram) in sent {
            let to = self.devices.iter().position(|device| device.id == to).unwrap();
            self.deliver(from, to, &datagram);
        }
        moved
    }

    /// Gives a datagram to a member, and its direct answer back.
    pub(super) fn deliver(&mut self, from: usize, to: usize, datagram: &[u8]) {
        self.wire.push((from, to, datagram.to_vec()));
        if !self.up {
            return;
        }
        if let Some(reply) = self.devices[to].take_in(self.now, datagram) {
            self.deliver(to, from, &reply);
        }
    }

    pub(super) fn session(&self, of: usize, with: usize) -> SessionStats {
        self.devices[of].tunnel.session(PARTY, self.devices[with].id).unwrap()
    }

    /// Datagrams of a WireGuard message type that were carried.
    pub(super) fn count(&self, kind: u8) -> usize {
        self.wire.iter().filter(|(_, _, datagram)| datagram[0] == kind).count()
    }
}

impl Device {
    fn new(now: Instant, member: usize, secrets: &[StaticSecret]) -> Self {
        let mut tunnel = Tunnel::new(now, [member as u8; 32]);
        tunnel.set_party(now, PARTY, secrets[member].clone(), net(member));
        for (other, secret) in secrets.iter().enumerate().filter(|(other, _)| *other != member) {
            tunnel.set_peer(now, PARTY, device_id(other), peer_config(other, secret));
        }
        Self {
            tunnel,
            out: Outbox::new(),
            id: device_id(member),
            received: vec![],
            control: vec![],
            returned: vec![],
        }
    }

    /// Empties the outbox.
    pub(super) fn take(&mut self) -> Vec<(DeviceId, Vec<u8>)> {
        let mut sent = Vec::new();
        for mut burst in self.out.bursts() {
            let (peer, headroom) = (burst.peer, burst.headroom);
            sent.extend(burst.segments().map(|datagram| (peer, datagram[headroom..].to_vec())));
        }
        self.returned.extend(self.out.deliveries().map(|(_, packet)| packet.to_vec()));
        self.out.clear();
        sent
    }

    fn take_in(&mut self, now: Instant, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut packet = vec![0; datagram.len().max(crate::MIN_SCRATCH_LEN)];
        match self.tunnel.handle_datagram(now, OUTSIDE, datagram, &mut packet, &mut self.out) {
            Received::Packet { peer, packet, .. } => self.received.push((peer, packet.to_vec())),
            Received::Control { peer, message, .. } => self.control.push((peer, message)),
            Received::HandshakeReply { datagram, .. } => return Some(datagram.to_vec()),
            Received::Authenticated { .. } | Received::Dropped(_) => {}
        }
        None
    }
}

pub(super) fn device_id(member: usize) -> DeviceId {
    DeviceId([member as u8 + 100; 32])
}

trait ForTests {
    fn now_for_tests() -> Self;
}

impl ForTests for Instant {
    /// The machine only ever compares instants; the first one is as good as any.
    #[allow(clippy::disallowed_methods)]
    fn now_for_tests() -> Self {
        Self::now()
    }
}

/// A UDP packet with a payload of `len` bytes.
pub(super) fn udp(from: impl Into<IpAddr>, to: impl Into<IpAddr>, port: u16, len: usize) -> Vec<u8> {
    let mut segment = vec![0x30, 0x39];
    segment.extend(port.to_be_bytes());
    segment.extend((8 + len as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend((0..len).map(|i| i as u8));
    ip(from.into(), to.into(), 17, &segment)
}

/// A TCP SYN with a maximum segment size, behind `padding` no-operation options.
pub(super) fn syn(from: impl Into<IpAddr>, to: impl Into<IpAddr>, mss: u16, padding: usize) -> Vec<u8> {
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

fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
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

/// Whether the checksum of a TCP or ICMPv6 packet is right.
pub(super) fn checksum_holds(packet: &[u8]) -> bool {
    let header = Header::parse(packet).unwrap();
    let payload = &packet[header.payload..header.len];
    let pseudo = checksum::pseudo_header(header.source, header.destination, header.protocol, payload.len());
    checksum::finish(pseudo + checksum::sum(payload)) == 0
}

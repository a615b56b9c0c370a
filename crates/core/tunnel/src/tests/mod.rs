//! Tunnels joined in one thread, in time moved by hand.

mod hostile;
mod packets;
mod sessions;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, IncomingLevel, IncomingPolicy, PartyId};
use x25519_dalek::StaticSecret;

use crate::{
    MIN_SCRATCH_LEN, Outbox, PathConfig, Received, SessionStats, Tunnel,
    testing::{PARTY, device_id, party_config, peer_config, secrets, start},
};

pub(super) const OTHER_PARTY: PartyId = PartyId([2; 32]);
pub(super) const DIRECT: PathConfig = PathConfig { headroom: 0, mtu: None };
/// The address that datagrams seem to come from, unless a test changes [`Lan::source`].
pub(super) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(super) struct Device {
    pub tunnel: Tunnel,
    pub outbox: Outbox,
    pub id: DeviceId,
    pub received: Vec<(DeviceId, Vec<u8>)>,
    pub control: Vec<(DeviceId, Vec<u8>)>,
    pub deliveries: Vec<Vec<u8>>,
}

/// Members of one party in the order of their public keys, so that the earlier one is the preferred initiator.
pub(super) struct Lan {
    pub now: Instant,
    pub devices: Vec<Device>,
    /// Every datagram that was carried: sender, recipient, bytes.
    pub wire: Vec<(usize, usize, Vec<u8>)>,
    /// False while datagrams are lost.
    pub up: bool,
    /// The address that datagrams seem to come from.
    pub source: IpAddr,
}

impl Lan {
    /// Members that know each other, without paths yet.
    pub(super) fn without_paths(count: usize) -> Self {
        let secrets = secrets(count);
        let now = start();
        let devices = (0..count).map(|i| Device::new(now, i, &secrets)).collect();
        Self { now, devices, wire: Vec::new(), up: true, source: SOURCE }
    }

    /// Members with paths and sessions between them all.
    pub(super) fn connected(count: usize) -> Self {
        let mut lan = Self::without_paths(count);
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
        device.tunnel.handle_packet(self.now, PARTY, &mut packet.to_vec(), &mut device.outbox);
    }

    /// Handles timers that are due and carries datagrams until nothing moves.
    pub(super) fn run(&mut self) {
        loop {
            for device in &mut self.devices {
                device.tunnel.handle_timeout(self.now, &mut device.outbox);
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

    /// Carries what `from` has to send. Returns false if that was nothing.
    fn carry(&mut self, from: usize) -> bool {
        let sent = self.devices[from].take_sent();
        let moved = !sent.is_empty();
        for (to, datagram) in sent {
            let to = self.devices.iter().position(|device| device.id == to).unwrap();
            self.deliver(from, to, &datagram);
        }
        moved
    }

    /// Gives a datagram to a member, and its direct answer back.
    fn deliver(&mut self, from: usize, to: usize, datagram: &[u8]) {
        self.wire.push((from, to, datagram.to_vec()));
        if !self.up {
            return;
        }
        if let Some(reply) = self.devices[to].handle_datagram(self.now, self.source, datagram) {
            self.deliver(to, from, &reply);
        }
    }

    pub(super) fn session(&self, of: usize, peer: usize) -> SessionStats {
        self.devices[of].tunnel.session(PARTY, self.devices[peer].id).unwrap()
    }

    /// The number of datagrams of a WireGuard message type that were carried.
    pub(super) fn count(&self, kind: u8) -> usize {
        self.wire.iter().filter(|(_, _, datagram)| datagram[0] == kind).count()
    }
}

impl Device {
    pub(super) fn new(now: Instant, member: usize, secrets: &[StaticSecret]) -> Self {
        let mut tunnel = Tunnel::new(now, [member as u8; 32]);
        tunnel.set_party(PARTY, secrets[member].clone(), party_config(member));
        tunnel.set_incoming_policy(PARTY, &IncomingPolicy::of(IncomingLevel::Everything));
        for (other, secret) in secrets.iter().enumerate().filter(|(other, _)| *other != member) {
            tunnel.set_peer(now, PARTY, device_id(other), peer_config(other, secret));
        }
        Self {
            tunnel,
            outbox: Outbox::new(),
            id: device_id(member),
            received: vec![],
            control: vec![],
            deliveries: vec![],
        }
    }

    /// Empties the outbox and returns its datagrams.
    pub(super) fn take_sent(&mut self) -> Vec<(DeviceId, Vec<u8>)> {
        let mut sent = Vec::new();
        for mut burst in self.outbox.bursts() {
            let (peer, headroom) = (burst.peer, burst.headroom);
            sent.extend(burst.segments().map(|datagram| (peer, datagram[headroom..].to_vec())));
        }
        self.deliveries.extend(self.outbox.deliveries().map(|(_, packet)| packet.to_vec()));
        self.outbox.clear();
        sent
    }

    /// Handles a datagram and returns the handshake message to answer with, if any.
    fn handle_datagram(&mut self, now: Instant, source: IpAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut scratch = vec![0; datagram.len().max(MIN_SCRATCH_LEN)];
        match self.tunnel.handle_datagram(now, source, datagram, &mut scratch, &mut self.outbox) {
            Received::Packet { peer, packet, .. } => self.received.push((peer, packet.to_vec())),
            Received::Control { peer, message, .. } => self.control.push((peer, message)),
            Received::HandshakeReply { datagram, .. } => return Some(datagram.to_vec()),
            Received::Authenticated { .. } | Received::Dropped(_) => {}
        }
        None
    }
}

//! The tunnel with hostile packets from its network device, hostile datagrams from the network, and hostile packets of an
//! authenticated member. The first byte of each piece selects one of the three.
#![no_main]

use std::{cell::RefCell, net::IpAddr, time::Instant};

use boringtun::noise::{Tunn, TunnResult};
use ipnet::{Ipv4Net, Ipv6Net};
use libfuzzer_sys::fuzz_target;
use partyline_fuzz::pieces;
use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use partyline_tunnel::{
    MAX_DATAGRAM_LEN, MIN_SCRATCH_LEN, Outbox, PartyConfig, PathConfig, PeerConfig, Received, Tunnel,
};
use x25519_dalek::{PublicKey, StaticSecret};

const PARTY: PartyId = PartyId([1; 32]);
const MEMBER: DeviceId = DeviceId([2; 32]);
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(11, 0, 0, 1));

/// The number of inputs per session: a handshake costs a thousand times as much as a packet.
const INPUTS: u32 = 1000;

thread_local! {
    static SESSION: RefCell<(u32, Fixture)> = RefCell::new((0, Fixture::new()));
}

fuzz_target!(|bytes: &[u8]| {
    SESSION.with_borrow_mut(|(inputs, fixture)| {
        *inputs += 1;
        if inputs.is_multiple_of(INPUTS) {
            *fixture = Fixture::new();
        }
        for (kind, message) in pieces(bytes) {
            fixture.handle(kind, message);
        }
    });
});

/// The tunnel, and an authenticated member that sends arbitrary packets.
struct Fixture {
    now: Instant,
    tunnel: Tunnel,
    out: Outbox,
    member: Tunn,
}

impl Fixture {
    fn new() -> Self {
        let now = Instant::now();
        let (ours, theirs) = (StaticSecret::from([3; 32]), StaticSecret::from([4; 32]));
        let our_key = PublicKey::from(&ours);
        let mut tunnel = Tunnel::new(now, [5; 32]);
        tunnel.set_party(PARTY, ours, net());
        tunnel.set_peer(now, PARTY, MEMBER, peer(&theirs));
        tunnel.set_path(now, PARTY, MEMBER, Some(PathConfig { headroom: 0, mtu: None }));
        let member = Tunn::new(theirs, our_key, None, None, 1, None);
        let mut fixture = Self { now, tunnel, out: Outbox::new(), member };
        fixture.complete_handshake();
        fixture
    }

    fn handle(&mut self, kind: u8, message: &[u8]) {
        match kind % 3 {
            0 => drop(self.receive(message)),
            1 => self.tunnel.handle_packet(self.now, PARTY, &mut message.to_vec(), &mut self.out),
            _ => self.member_sends(message),
        }
        self.out.clear();
    }

    fn complete_handshake(&mut self) {
        let mut buffer = [0; 512];
        let TunnResult::WriteToNetwork(hello) = self.member.format_handshake_initiation(&mut buffer, true)
        else {
            panic!("no initiation");
        };
        let hello = hello.to_vec();
        let Some(answer) = self.receive(&hello) else { panic!("no answer") };
        if let TunnResult::WriteToNetwork(keepalive) = self.member.decapsulate(None, &answer, &mut buffer) {
            let keepalive = keepalive.to_vec();
            self.receive(&keepalive);
        }
        self.out.clear();
    }

    /// Hands a datagram to the tunnel. Returns its reply to the handshake, if any.
    fn receive(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut packet = vec![0; datagram.len().max(MIN_SCRATCH_LEN)];
        match self.tunnel.handle_datagram(self.now, OUTSIDE, datagram, &mut packet, &mut self.out) {
            Received::HandshakeReply { datagram: reply, .. } => Some(reply.to_vec()),
            Received::Packet { packet, .. } => {
                assert!(packet.len() <= datagram.len(), "a packet longer than its datagram");
                None
            }
            _ => None,
        }
    }

    fn member_sends(&mut self, packet: &[u8]) {
        let mut buffer = vec![0; MAX_DATAGRAM_LEN + 64];
        if let TunnResult::WriteToNetwork(datagram) = self.member.encapsulate(packet, &mut buffer) {
            let datagram = datagram.to_vec();
            self.receive(&datagram);
        }
    }
}

fn net() -> PartyConfig {
    let v4 = Ipv4Net::new([10, 77, 0, 1].into(), 24).expect("a prefix");
    let v6 = Ipv6Net::new("fd00:77::1".parse().expect("an address"), 64).expect("a prefix");
    PartyConfig { v4, v6, mtu: 1400 }
}

fn peer(secret: &StaticSecret) -> PeerConfig {
    let key = TunnelPublicKey(PublicKey::from(secret).to_bytes());
    PeerConfig { key, v4: Some([10, 77, 0, 2].into()), v6: "fd00:77::2".parse().expect("an address") }
}

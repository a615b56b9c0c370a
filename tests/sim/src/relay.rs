//! The relay, with its sockets.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use partyline_model::Now;
use partyline_relay::{
    Client, Event, Forward, HEADROOM, Link, Listener, Packet, PeerPolicy, Relay, RelayAddress, RelaySocket,
    Secret, Settings, TAILROOM,
};
use partyline_rendezvous::RelayOffer;
use partyline_wire::rendezvous::RelayServer;

pub(crate) const HOST: &str = "relay.test";
const SECRET: &str = "shared by server and relay";
const REALM: &str = "partyline";

/// The relay, while it runs.
pub(crate) struct RelayHost {
    pub core: Relay,
    address: SocketAddr,
    sockets: BTreeMap<SocketAddr, RelaySocket>,
}

/// A datagram that the relay sends: from, to, bytes.
pub(crate) type Sent = (SocketAddr, SocketAddr, Vec<u8>);

pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([11, 0, 255, 1], 3478))
}

pub(crate) fn offer() -> RelayOffer {
    RelayOffer {
        servers: vec![RelayServer { url: format!("turn:{HOST}:3478?transport=udp"), region: "test".into() }],
        secret: SECRET.into(),
        realm: REALM.into(),
        lifetime: Duration::from_secs(86_400),
    }
}

impl RelayHost {
    pub fn new(now: Now, seed: [u8; 32]) -> Self {
        let settings = Settings {
            realm: REALM.into(),
            shared_secret: Some(Secret::new(SECRET)),
            peers: PeerPolicy { allow_private: true, denied: Vec::new() },
            ..Settings::default()
        };
        let (address, ip) = (address(), address().ip());
        let listeners = vec![Listener { local: address, public: address }];
        let core = Relay::new(now, settings, listeners, &[RelayAddress { local: ip, public: ip }], seed);
        Self { core, address, sockets: BTreeMap::new() }
    }

    /// Takes a datagram for any of the relay's addresses; returns what goes out because of it.
    pub fn receive(&mut self, now: Now, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let mut buffer = [&[0; HEADROOM][..], bytes, &[0; TAILROOM]].concat();
        let range = HEADROOM..HEADROOM + bytes.len();
        let mut packet = Packet::new(&mut buffer, range).expect("room around the packet");
        let forward = if to == self.address {
            self.core.handle_client(now, Client { link: Link::Udp(0), address: from }, &mut packet)
        } else if let Some(socket) = self.sockets.get(&to) {
            self.core.handle_peer(now, *socket, from, &mut packet)
        } else {
            Forward::Nowhere
        };
        let mut sent = Vec::new();
        match forward {
            Forward::Nowhere => {}
            Forward::ToClient { client, range } => {
                sent.push((self.address, client.address, buffer[range].to_vec()));
            }
            Forward::ToPeer { socket, peer, range } => {
                let from =
                    self.sockets.iter().find(|(_, open)| **open == socket).map(|(address, _)| *address);
                sent.push((from.expect("an open socket"), peer, buffer[range].to_vec()));
            }
        }
        self.obey(now);
        while let Some(transmit) = self.core.poll_transmit() {
            sent.push((self.address, transmit.to, transmit.payload));
        }
        sent
    }

    pub fn obey(&mut self, now: Now) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Open { socket, address } => {
                    self.sockets.insert(address, socket);
                    self.core.handle_opened(now, socket, true);
                }
                Event::Close { socket } => self.sockets.retain(|_, open| *open != socket),
            }
        }
    }
}

//! The relay, with its sockets and streams.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use partyline_model::Now;
use partyline_relay::{
    Client, ClientTransport, Event, Forward, Frame, HEADROOM, Listener, Packet, PeerPolicy, Quotas, Relay,
    RelayAddress, RelaySocket, Secret, Settings, TAILROOM, next_frame,
};
use partyline_rendezvous::RelayOffer;
use partyline_wire::rendezvous::RelayServer;

pub(crate) const HOST: &str = "relay.test";
const SECRET: &str = "shared by server and relay";
const REALM: &str = "partyline";
const PORTS: [u16; 2] = [3478, 3479];
/// The relay's first IPv6 address; the second follows it.
const FIRST_V6: u128 = 0x2001_0db8_ffff_0000_0000_0000_0000_0001;

/// The relay, while it runs.
pub(crate) struct RelayHost {
    pub core: Relay,
    listeners: Vec<SocketAddr>,
    sockets: BTreeMap<SocketAddr, RelaySocket>,
    open: BTreeMap<RelaySocket, SocketAddr>,
    /// Streams by number: the client's address, and what came of its next frame.
    streams: BTreeMap<u32, (SocketAddr, Vec<u8>)>,
}

/// What the relay sends.
pub(crate) enum Sent {
    /// A datagram: from, to, bytes.
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    /// Bytes on a stream.
    Stream(u32, Vec<u8>),
}

/// Its main address.
pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([11, 0, 255, 1], PORTS[0]))
}

/// Its addresses, two of each family (RFC 5780); clients are told the first of each.
pub(crate) fn addresses(v6: bool) -> [IpAddr; 2] {
    let second = |first: u128| Ipv6Addr::from_bits(first).into();
    if v6 {
        [second(FIRST_V6), second(FIRST_V6 + 1)]
    } else {
        [address().ip(), IpAddr::from([11, 0, 255, 2])]
    }
}

pub(crate) fn owns(ip: IpAddr) -> bool {
    addresses(ip.is_ipv6()).contains(&ip)
}

pub(crate) fn offer() -> RelayOffer {
    let ways = ["turn:relay.test:3478?transport=udp", "turns:relay.test:443?transport=tcp"];
    RelayOffer {
        servers: ways.map(|url| RelayServer { url: url.into(), region: "test".into() }).into(),
        secret: SECRET.into(),
        realm: REALM.into(),
        lifetime: Duration::from_secs(86_400),
    }
}

impl RelayHost {
    pub fn new(seed: [u8; 32]) -> Self {
        let settings = Settings {
            realm: REALM.into(),
            shared_secret: Some(Secret::new(SECRET)),
            peers: PeerPolicy { allow_private: true, denied: Vec::new() },
            quotas: Quotas { peers_per_allocation: 512, ..Quotas::default() },
            ..Settings::default()
        };
        let hosts = [false, true].into_iter().flat_map(addresses);
        let listeners: Vec<SocketAddr> =
            hosts.flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip, port))).collect();
        let same = |address: &SocketAddr| Listener { local: *address, public: *address };
        let relayed = [false, true].map(|v6| addresses(v6)[0]);
        let relayed = relayed.map(|ip| RelayAddress { local: ip, public: ip });
        let core = Relay::new(settings, listeners.iter().map(same).collect(), &relayed, seed);
        Self { core, listeners, sockets: BTreeMap::new(), open: BTreeMap::new(), streams: BTreeMap::new() }
    }

    /// Takes a datagram for any of the relay's addresses; returns what goes out because of it.
    pub fn receive(&mut self, now: Now, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let listener = self.listeners.iter().position(|listener| *listener == to);
        let sent = with_room(bytes, |packet| {
            if let Some(index) = listener {
                let client = Client { transport: ClientTransport::Udp(index as u8), address: from };
                self.core.handle_client(now, client, packet)
            } else if let Some(socket) = self.sockets.get(&to) {
                self.core.handle_peer(now, *socket, from, packet)
            } else {
                Forward::Consumed
            }
        });
        self.drain(now, sent)
    }

    /// A stream has been opened.
    pub fn connect(&mut self, number: u32, from: SocketAddr) {
        self.streams.insert(number, (from, Vec::new()));
    }

    /// A stream is gone.
    pub fn disconnect(&mut self, number: u32) {
        if let Some((address, _)) = self.streams.remove(&number) {
            self.core.handle_disconnect(Client { transport: ClientTransport::Stream(number), address });
        }
    }

    /// Takes bytes of a stream.
    pub fn read(&mut self, now: Now, number: u32, bytes: &[u8]) -> Vec<Sent> {
        let Some((address, buffer)) = self.streams.get_mut(&number) else { return Vec::new() };
        buffer.extend_from_slice(bytes);
        let (address, mut frames) = (*address, Vec::new());
        while let Frame::Complete { length, advance } = next_frame(buffer) {
            frames.push(buffer[..length].to_vec());
            buffer.drain(..advance);
        }
        let mut sent = Vec::new();
        for frame in frames {
            let client = Client { transport: ClientTransport::Stream(number), address };
            let made = with_room(&frame, |packet| self.core.handle_client(now, client, packet));
            sent.extend(self.drain(now, made));
        }
        sent
    }

    fn drain(&mut self, now: Now, (forward, buffer): (Forward, Vec<u8>)) -> Vec<Sent> {
        let mut sent = Vec::new();
        match forward {
            Forward::Consumed => {}
            Forward::ToClient { client, range } => {
                sent.extend(self.client_gets(client.transport, client.address, buffer[range].to_vec()));
            }
            Forward::ToPeer { socket, peer, range } => {
                let from = self.open.get(&socket).expect("an open socket");
                sent.push(Sent::Datagram(*from, peer, buffer[range].to_vec()));
            }
        }
        self.apply_events(now);
        while let Some(transmit) = self.core.poll_transmit() {
            sent.extend(self.client_gets(transmit.transport, transmit.destination, transmit.payload));
        }
        sent
    }

    fn client_gets(&self, transport: ClientTransport, to: SocketAddr, bytes: Vec<u8>) -> Option<Sent> {
        Some(match transport {
            ClientTransport::Udp(index) => {
                Sent::Datagram(*self.listeners.get(usize::from(index))?, to, bytes)
            }
            ClientTransport::Stream(number) => Sent::Stream(number, bytes),
        })
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.core.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.core.handle_timeout(now);
            self.apply_events(now);
        }
    }

    fn apply_events(&mut self, now: Now) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::OpenSocket { socket, address } => {
                    self.sockets.insert(address, socket);
                    self.open.insert(socket, address);
                    self.core.handle_socket_opened(now, socket, true);
                }
                Event::CloseSocket { socket } => {
                    if let Some(address) = self.open.remove(&socket) {
                        self.sockets.remove(&address);
                    }
                }
            }
        }
    }
}

/// Does something with a packet in a buffer that has room around it, and gives the buffer.
fn with_room(bytes: &[u8], what: impl FnOnce(&mut Packet<'_>) -> Forward) -> (Forward, Vec<u8>) {
    let mut buffer = [&[0; HEADROOM][..], bytes, &[0; TAILROOM]].concat();
    let range = HEADROOM..HEADROOM + bytes.len();
    let mut packet = Packet::new(&mut buffer, range).expect("room around the packet");
    let forward = what(&mut packet);
    (forward, buffer)
}

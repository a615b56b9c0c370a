//! A TURN server: the state machine of the real relay with sockets and streams in memory.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use partyline_model::Now;
use partyline_relay::{
    Client, ClientTransport, Event, Forward, Frame, HEADROOM, Listener, Packet, Relay, RelayAddress,
    RelaySocket, Settings, TAILROOM, Transmit, next_frame,
};

use crate::network::Delivery;

/// The relay's sockets: those it listens on for clients, and those of its allocations.
#[derive(Debug)]
pub struct TurnServer {
    /// The state machine.
    pub core: Relay,
    /// How many of the next sockets cannot be opened.
    pub failing_sockets: usize,
    listeners: Vec<SocketAddr>,
    relayed: BTreeMap<SocketAddr, RelaySocket>,
    addresses: BTreeMap<RelaySocket, SocketAddr>,
    /// Streams by number: the client's address, and the part of its next frame that has arrived.
    streams: BTreeMap<u32, (SocketAddr, Vec<u8>)>,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A datagram.
    Datagram {
        /// The server's address that it leaves from.
        source: SocketAddr,
        /// The destination.
        destination: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Data on a stream.
    Stream {
        /// The stream's number.
        stream: u32,
        /// The data.
        bytes: Vec<u8>,
    },
}

impl TurnServer {
    /// Returns a server that listens on `listeners` and opens relayed addresses on `relayed`.
    #[must_use]
    pub fn new(settings: Settings, listeners: Vec<SocketAddr>, relayed: &[IpAddr], seed: [u8; 32]) -> Self {
        let listener = |address: &SocketAddr| Listener { local: *address, public: *address };
        let relay_address = |ip: &IpAddr| RelayAddress { local: *ip, public: *ip };
        let relayed: Vec<_> = relayed.iter().map(relay_address).collect();
        Self {
            core: Relay::new(settings, listeners.iter().map(listener).collect(), &relayed, seed),
            failing_sockets: 0,
            listeners,
            relayed: BTreeMap::new(),
            addresses: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Returns the number of allocations.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.core.counters().allocations_active
    }

    /// Returns the number of open sockets of allocations.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.relayed.len()
    }

    /// Returns the relayed addresses of its allocations.
    pub fn relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.relayed.keys().copied()
    }

    /// Takes a datagram for any of its addresses. Returns what it sends because of it.
    pub fn receive(&mut self, now: Now, datagram: &Delivery) -> Vec<Output> {
        let Delivery { source, destination, bytes, .. } = datagram;
        let handled = match self.listeners.iter().position(|listener| listener == destination) {
            Some(index) => {
                let client = Client { transport: ClientTransport::Udp(index as u8), address: *source };
                self.handle_client(now, client, bytes)
            }
            None => self.handle_peer(now, *destination, *source, bytes),
        };
        self.outputs(now, handled)
    }

    /// Takes note of a new stream from a client at `address`.
    pub fn connect(&mut self, stream: u32, address: SocketAddr) {
        self.streams.insert(stream, (address, Vec::new()));
    }

    /// Takes note of the end of a stream.
    pub fn disconnect(&mut self, stream: u32) {
        if let Some((address, _)) = self.streams.remove(&stream) {
            self.core.handle_disconnect(Client { transport: ClientTransport::Stream(stream), address });
        }
    }

    /// Takes data from a stream. Returns what the server sends because of it.
    pub fn read(&mut self, now: Now, stream: u32, bytes: &[u8]) -> Vec<Output> {
        let Some((address, buffer)) = self.streams.get_mut(&stream) else { return Vec::new() };
        buffer.extend_from_slice(bytes);
        let (address, mut frames) = (*address, Vec::new());
        while let Frame::Complete { length, advance } = next_frame(buffer) {
            frames.push(buffer[..length].to_vec());
            buffer.drain(..advance);
        }
        let client = Client { transport: ClientTransport::Stream(stream), address };
        let mut outputs = Vec::new();
        for frame in frames {
            let handled = self.handle_client(now, client, &frame);
            outputs.extend(self.outputs(now, handled));
        }
        outputs
    }

    /// Lets the machine expire what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.core.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.core.handle_timeout(now);
        }
        self.apply_events(now);
    }

    /// Hands a client's packet to the machine. Returns where it is forwarded to, and the forwarded bytes.
    pub fn handle_client(&mut self, now: Now, client: Client, bytes: &[u8]) -> (Forward, Vec<u8>) {
        with_room(bytes, |packet| self.core.handle_client(now, client, packet))
    }

    /// Hands a datagram for a relayed address to the machine. Returns where it is forwarded to, and the forwarded bytes.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relayed: SocketAddr,
        peer: SocketAddr,
        bytes: &[u8],
    ) -> (Forward, Vec<u8>) {
        let Some(socket) = self.relayed.get(&relayed) else { return (Forward::Consumed, Vec::new()) };
        with_room(bytes, |packet| self.core.handle_peer(now, *socket, peer, packet))
    }

    /// Opens and closes sockets, and returns the responses that the machine has ready.
    pub fn responses(&mut self, now: Now) -> Vec<Transmit> {
        self.apply_events(now);
        std::iter::from_fn(|| self.core.poll_transmit()).collect()
    }

    fn outputs(&mut self, now: Now, (forward, bytes): (Forward, Vec<u8>)) -> Vec<Output> {
        let forwarded = match forward {
            Forward::Consumed => None,
            Forward::ToClient { client, .. } => self.to_client(client.transport, client.address, bytes),
            Forward::ToPeer { socket, peer, .. } => {
                let source = *self.addresses.get(&socket).expect("an open socket");
                Some(Output::Datagram { source, destination: peer, bytes })
            }
        };
        let mut outputs = Vec::from_iter(forwarded);
        for Transmit { transport, destination, payload } in self.responses(now) {
            outputs.extend(self.to_client(transport, destination, payload));
        }
        outputs
    }

    fn to_client(&self, transport: ClientTransport, to: SocketAddr, bytes: Vec<u8>) -> Option<Output> {
        Some(match transport {
            ClientTransport::Udp(index) => {
                let source = *self.listeners.get(usize::from(index))?;
                Output::Datagram { source, destination: to, bytes }
            }
            ClientTransport::Stream(stream) => Output::Stream { stream, bytes },
        })
    }

    fn apply_events(&mut self, now: Now) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::OpenSocket { socket, .. } if self.failing_sockets > 0 => {
                    self.failing_sockets -= 1;
                    self.core.handle_socket_opened(now, socket, false);
                }
                Event::OpenSocket { socket, address } => {
                    self.relayed.insert(address, socket);
                    self.addresses.insert(socket, address);
                    self.core.handle_socket_opened(now, socket, true);
                }
                Event::CloseSocket { socket } => {
                    if let Some(address) = self.addresses.remove(&socket) {
                        self.relayed.remove(&address);
                    }
                }
            }
        }
    }
}

/// Hands over a packet in a buffer with room around it. Returns the verdict and the bytes to be forwarded.
fn with_room(bytes: &[u8], handle: impl FnOnce(&mut Packet<'_>) -> Forward) -> (Forward, Vec<u8>) {
    let mut buffer = [&[0; HEADROOM][..], bytes, &[0; TAILROOM]].concat();
    let range = HEADROOM..HEADROOM + bytes.len();
    let forward = handle(&mut Packet::new(&mut buffer, range).expect("room around the packet"));
    let forwarded = match &forward {
        Forward::Consumed => Vec::new(),
        Forward::ToPeer { range, .. } | Forward::ToClient { range, .. } => buffer[range.clone()].to_vec(),
    };
    (forward, forwarded)
}

//! The load: many clients with one packet in flight each, peers that echo every packet, and a window of packets in
//! flight.

use std::{
    collections::VecDeque,
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg},
};

use super::client::Client;

const PEERS: usize = 8;
const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// Channels to the peer that echoes, and to the other client.
const TO_PEER: u16 = 0x4000;
const TO_MEMBER: u16 = 0x4001;
/// Number of packets in flight.
const WINDOW: usize = 256;
/// Number of packets that a peer reads at once.
const BATCH: usize = 64;
/// Time after which a packet in flight counts as lost.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A path through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To a peer and back.
    Peer,
    /// From one client to another by their relayed addresses.
    Member,
}

impl Way {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Member => "member",
        }
    }
}

/// The counts of a measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) relayed: u64,
    pub(super) seconds: f64,
}

/// The clients of one server, and their peers.
pub(super) struct Load {
    server: SocketAddr,
    clients: Vec<Client>,
    peers: Vec<Peer>,
    payload: usize,
    /// Number of clients when memory was first measured.
    pub(super) base: usize,
}

impl Load {
    pub(super) fn new(server: SocketAddr, payload: usize) -> Result<Self> {
        let peers = (0..PEERS).map(|_| Peer::new()).collect::<Result<_>>()?;
        Ok(Self { server, clients: Vec::new(), peers, payload, base: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Adds clients up to the given even number, each with a channel to a peer and one to its neighbor.
    pub(super) fn grow(&mut self, count: usize) -> Result<()> {
        while self.clients.len() < count.next_multiple_of(2) {
            let pair = [Client::new(self.server)?, Client::new(self.server)?];
            for (client, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                client.bind(TO_PEER, self.peers[self.clients.len() % PEERS].address)?;
                client.bind(TO_MEMBER, other.relayed)?;
                client.socket.set_nonblocking(true)?;
            }
            self.clients.extend(pair);
        }
        if self.base == 0 {
            self.base = self.clients.len();
        }
        Ok(())
    }

    /// Keeps a window of packets in flight for `duration`, then waits for the last ones.
    pub(super) fn run(&mut self, way: Way, duration: Duration) -> Result<Outcome> {
        let packet = self.packet(way);
        let (mut outcome, mut under_way, mut next) = (Outcome::default(), VecDeque::new(), 0);
        let start = Instant::now();
        let mut progress = start;
        while start.elapsed() < duration || !under_way.is_empty() {
            while under_way.len() < WINDOW && start.elapsed() < duration {
                // If the socket's buffer is full, the packet counts as lost.
                let _ = self.clients[next].socket.send(&packet);
                under_way.push_back(if way == Way::Peer { next } else { next ^ 1 });
                outcome.sent += 1;
                next = (next + 1) % self.clients.len();
            }
            if way == Way::Peer {
                self.peers.iter_mut().for_each(Peer::send_back);
            }
            if self.take_arrived(&mut under_way)? {
                progress = Instant::now();
            } else if progress.elapsed() > RESPONSE_TIMEOUT {
                under_way.pop_front();
                outcome.lost += 1;
            }
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        outcome.relayed = (outcome.sent - outcome.lost) * if way == Way::Peer { 2 } else { 1 };
        Ok(outcome)
    }

    fn packet(&self, way: Way) -> Vec<u8> {
        let channel = if way == Way::Peer { TO_PEER } else { TO_MEMBER };
        let mut packet = channel.to_be_bytes().to_vec();
        packet.extend_from_slice(&(self.payload as u16).to_be_bytes());
        packet.resize(4 + self.payload, 0x5A);
        packet
    }

    fn take_arrived(&self, under_way: &mut VecDeque<usize>) -> Result<bool> {
        let mut any = false;
        while let Some(&at) = under_way.front() {
            match self.clients[at].socket.recv(&mut [0; 2048]) {
                Ok(_) => any = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            under_way.pop_front();
        }
        Ok(any)
    }
}

/// A peer that echoes every packet to its sender.
struct Peer {
    socket: UdpSocket,
    address: SocketAddr,
    buffers: Vec<[u8; 2048]>,
    receive: MultiHeaders<SockaddrIn>,
    send: MultiHeaders<SockaddrIn>,
}

impl Peer {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind((PEER_ADDRESS, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            buffers: vec![[0; 2048]; BATCH],
            receive: MultiHeaders::preallocate(BATCH, None),
            send: MultiHeaders::preallocate(BATCH, None),
        })
    }

    fn send_back(&mut self) {
        let arrived = self.receive();
        let slices: Vec<_> = self
            .buffers
            .iter()
            .zip(&arrived)
            .map(|(buffer, (_, length))| [IoSlice::new(&buffer[..*length])])
            .collect();
        let addresses: Vec<_> = arrived.iter().map(|(from, _)| *from).collect();
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.send,
            &slices,
            &addresses,
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        // The client counts a packet that could not be sent as lost.
        let _: Result<usize, Errno> = sent.map(Iterator::count);
    }

    fn receive(&mut self) -> Vec<(Option<SockaddrIn>, usize)> {
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let received =
            recvmmsg(self.socket.as_raw_fd(), &mut self.receive, &mut slices, MsgFlags::MSG_DONTWAIT, None);
        received.map_or_else(
            |_| Vec::new(),
            |messages| messages.map(|message| (message.address, message.bytes)).collect(),
        )
    }
}

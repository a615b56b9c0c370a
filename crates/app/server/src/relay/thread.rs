//! The relay's thread: waits for any socket, receives packets in batches, lets the state machine decide, and sends in
//! batches.
//!
//! The sockets report once when they become readable, so each is read until it is empty, but never for more than a few
//! batches in a row: what is left waits in `unfinished` while the others have their turn.
//!
//! Nothing is logged per packet here; `partyline_relay` does that at the trace level, and drops are counted.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use partyline_model::Now;
use partyline_relay::{Client, ClientTransport, Counters, Event, Forward, Relay, RelaySocket, Transmit};
use tokio::sync::{mpsc, oneshot};

use super::{
    arena::{Arena, BATCH, Received},
    frame_queue::FrameQueue,
    inbox::{Inbound, Wakeup},
    sockets,
};
use crate::clock::now;

/// Maximum number of batches received from one socket before the others have their turn.
const BATCHES_PER_TURN: usize = 4;
/// Maximum number of packets received from a relayed address at once; it has one client's peers, a listener has all
/// clients.
const RELAYED_BATCH: usize = 16;
/// Maximum number of messages taken from the inbox before the sockets have their turn.
const MESSAGES_PER_TURN: usize = 512;
/// The token of the wake-up; those of listeners and relayed addresses follow.
pub const WAKEUP: Token = Token(0);

/// Everything the thread owns.
pub struct RelayThread {
    relay: Relay,
    poll: Poll,
    listeners: Vec<UdpSocket>,
    relayed: Vec<Option<UdpSocket>>,
    streams: HashMap<u32, Arc<FrameQueue>>,
    inbox: mpsc::Receiver<Inbound>,
    wakeup: Arc<Wakeup>,
    published: Arc<Mutex<Counters>>,
    arena: Arena,
    received: Vec<Received>,
    /// Packets to send, by listener.
    to_clients: Vec<Vec<(SocketAddr, Range<usize>)>>,
    to_peers: Vec<(RelaySocket, SocketAddr, Range<usize>)>,
    unfinished: Vec<Token>,
    /// Packets that a socket or a queue did not accept.
    dropped: u64,
    /// Packets longer than [`super::arena::MAX_DATAGRAM`].
    oversized: u64,
}

impl RelayThread {
    /// Takes over the listeners, which are registered with `poll` under the tokens from 1.
    pub fn new(
        relay: Relay,
        poll: Poll,
        listeners: Vec<UdpSocket>,
        inbox: mpsc::Receiver<Inbound>,
        wakeup: Arc<Wakeup>,
        published: Arc<Mutex<Counters>>,
    ) -> Self {
        Self {
            relay,
            poll,
            to_clients: vec![Vec::new(); listeners.len()],
            listeners,
            relayed: Vec::new(),
            streams: HashMap::new(),
            inbox,
            wakeup,
            published,
            arena: Arena::new(),
            received: Vec::new(),
            to_peers: Vec::new(),
            unfinished: Vec::new(),
            dropped: 0,
            oversized: 0,
        }
    }

    /// Runs until [`Inbound::Stop`] arrives.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.poll_timeout())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(reason = %error, "the relay cannot wait for its sockets and shuts down");
                return self.shut_down(None);
            }
            let now = now();
            self.relay.handle_timeout(now);
            let mut ready = std::mem::take(&mut self.unfinished);
            ready.extend(events.iter().map(|event| event.token()));
            // An unfinished socket may have become readable again; listed twice it would stay listed twice.
            ready.sort_unstable();
            ready.dedup();
            for token in ready {
                if token == WAKEUP {
                    if let Some(stopped) = self.read_inbox(now) {
                        return self.shut_down(Some(stopped));
                    }
                } else {
                    self.read_socket(now, token);
                }
            }
            self.apply_events(now);
            self.flush();
            self.publish_counters();
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        self.relay.poll_timeout().map(|end| end.saturating_duration_since(Instant::now()))
    }

    fn read_inbox(&mut self, now: Now) -> Option<oneshot::Sender<()>> {
        self.wakeup.acknowledge();
        for _ in 0..MESSAGES_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Inbound::Connected { stream, queue }) => {
                    self.streams.insert(stream, queue);
                }
                Ok(Inbound::Frame { stream, peer, bytes }) => self.handle_frame(now, stream, peer, &bytes),
                Ok(Inbound::Disconnected { stream, peer }) => {
                    let transport = ClientTransport::Stream(stream);
                    self.relay.handle_disconnect(Client { transport, address: peer });
                    self.streams.remove(&stream);
                }
                Ok(Inbound::InterfaceAddresses(addresses)) => self.relay.set_interface_addresses(addresses),
                Ok(Inbound::Stop(stopped)) => return Some(stopped),
                Err(_) => return None,
            }
        }
        self.unfinished.push(WAKEUP);
        None
    }

    fn handle_frame(&mut self, now: Now, stream: u32, peer: SocketAddr, bytes: &[u8]) {
        self.make_room();
        let Some(received) = self.arena.place(bytes, peer) else { return self.oversized += 1 };
        self.handle_client_packet(now, ClientTransport::Stream(stream), &received);
    }

    fn read_socket(&mut self, now: Now, token: Token) {
        let index = token.0 - 1;
        let relayed = index.checked_sub(self.listeners.len());
        let v6 = relayed.map_or_else(|| is_v6(&self.listeners[index]), |index| index % 2 == 1);
        let max = if relayed.is_some() { RELAYED_BATCH } else { BATCH };
        for _ in 0..BATCHES_PER_TURN {
            if self.read_batch(now, index, v6, max) < max {
                return;
            }
        }
        self.unfinished.push(token);
    }

    fn read_batch(&mut self, now: Now, index: usize, v6: bool, max: usize) -> usize {
        self.make_room();
        let relayed = index.checked_sub(self.listeners.len());
        let socket = match relayed {
            None => &self.listeners[index],
            Some(index) => match self.relayed.get(index) {
                Some(Some(socket)) => socket,
                // Closed since it became readable.
                _ => return 0,
            },
        };
        let mut received = std::mem::take(&mut self.received);
        let count = self.arena.receive(socket, v6, max, &mut received, &mut self.oversized);
        for packet in received.drain(..) {
            match relayed {
                None => self.handle_client_packet(now, ClientTransport::Udp(index as u8), &packet),
                Some(index) => self.handle_peer_packet(now, RelaySocket::from_index(index), &packet),
            }
        }
        self.received = received;
        count
    }

    fn handle_client_packet(&mut self, now: Now, transport: ClientTransport, received: &Received) {
        let Some(mut packet) = self.arena.packet(received) else { return };
        let client = Client { transport, address: received.from };
        let forward = self.relay.handle_client(now, client, &mut packet);
        if forward == Forward::Consumed { self.apply_events(now) } else { self.forward(received, forward) }
    }

    fn handle_peer_packet(&mut self, now: Now, socket: RelaySocket, received: &Received) {
        let Some(mut packet) = self.arena.packet(received) else { return };
        let forward = self.relay.handle_peer(now, socket, received.from, &mut packet);
        self.forward(received, forward);
    }

    fn forward(&mut self, received: &Received, forward: Forward) {
        match forward {
            Forward::Consumed => {}
            Forward::ToPeer { socket, peer, range } => {
                self.to_peers.push((socket, peer, self.arena.part(received, range)));
            }
            Forward::ToClient { client, range } => {
                let range = self.arena.part(received, range);
                match client.transport {
                    ClientTransport::Udp(listener) => {
                        self.to_clients[usize::from(listener)].push((client.address, range));
                    }
                    ClientTransport::Stream(stream) => {
                        let frame = Bytes::copy_from_slice(self.arena.bytes(range));
                        self.push_to_stream(stream, frame);
                    }
                }
            }
        }
    }

    fn push_to_stream(&mut self, stream: u32, frame: Bytes) {
        let accepted = self.streams.get(&stream).is_some_and(|queue| queue.push(frame));
        self.dropped += u64::from(!accepted);
    }

    /// Drains the state machine's outputs: opens and closes sockets, and sends control messages.
    fn apply_events(&mut self, now: Now) {
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::OpenSocket { socket, address } => {
                    let opened = self.open(socket, address);
                    match &opened {
                        Ok(()) => tracing::debug!(%address, "relayed address bound"),
                        Err(error) => {
                            tracing::debug!(%address, reason = %error, "cannot bind relayed address")
                        }
                    }
                    self.relay.handle_socket_opened(now, socket, opened.is_ok());
                }
                Event::CloseSocket { socket } => self.close(socket),
            }
        }
        while let Some(transmit) = self.relay.poll_transmit() {
            self.transmit(transmit);
        }
    }

    fn open(&mut self, socket: RelaySocket, address: SocketAddr) -> io::Result<()> {
        let mut bound = sockets::bind_relayed(address)?;
        let token = Token(1 + self.listeners.len() + socket.index());
        self.poll.registry().register(&mut bound, token, Interest::READABLE)?;
        if self.relayed.len() <= socket.index() {
            self.relayed.resize_with(socket.index() + 1, || None);
        }
        self.relayed[socket.index()] = Some(bound);
        Ok(())
    }

    /// Sends what is still to leave by a socket, then closes it. The arena is not cleared: packets of the current batch are
    /// still to be read from it, and must not be overwritten.
    fn close(&mut self, socket: RelaySocket) {
        self.send_pending();
        if let Some(slot) = self.relayed.get_mut(socket.index()) {
            *slot = None;
        }
        tracing::debug!(socket = socket.index(), "relayed address closed");
    }

    fn transmit(&mut self, transmit: Transmit) {
        match transmit.transport {
            ClientTransport::Stream(stream) => self.push_to_stream(stream, transmit.payload.into()),
            ClientTransport::Udp(listener) => {
                let listener = &self.listeners[usize::from(listener)];
                let sent = listener.send_to(&transmit.payload, transmit.destination);
                self.dropped += u64::from(sent.is_err());
            }
        }
    }

    fn make_room(&mut self) {
        if !self.arena.has_room() {
            self.flush();
        }
    }

    /// Sends everything that is pending and clears the arena. Only between batches.
    fn flush(&mut self) {
        self.send_pending();
        self.arena.clear();
    }

    /// Sends everything that is pending, with one call per socket.
    fn send_pending(&mut self) {
        for (listener, packets) in self.listeners.iter().zip(&mut self.to_clients) {
            if !packets.is_empty() {
                self.dropped += self.arena.send(listener, packets);
                packets.clear();
            }
        }
        // Stable, so that the packets of one socket keep their order.
        self.to_peers.sort_by_key(|(socket, ..)| *socket);
        let mut batch = Vec::new();
        for packets in self.to_peers.chunk_by(|a, b| a.0 == b.0) {
            let Some(Some(socket)) =
                packets.first().and_then(|(socket, ..)| self.relayed.get(socket.index()))
            else {
                continue;
            };
            batch.clear();
            batch.extend(packets.iter().map(|(_, peer, range)| (*peer, range.clone())));
            self.dropped += self.arena.send(socket, &batch);
        }
        self.to_peers.clear();
    }

    fn publish_counters(&self) {
        let mut counters = self.relay.counters();
        counters.dropped.queue_full += self.dropped;
        counters.dropped.oversized += self.oversized;
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    fn shut_down(mut self, stopped: Option<oneshot::Sender<()>>) {
        self.flush();
        for queue in self.streams.values() {
            queue.close();
        }
        tracing::debug!(streams = self.streams.len(), "relay shut down");
        self.relayed.clear();
        self.listeners.clear();
        // The receiver may not have waited.
        let _ = stopped.map(|stopped| stopped.send(()));
    }
}

fn is_v6(socket: &UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|address| matches!(address.ip(), IpAddr::V6(_)))
}

//! The relay's thread: waits for any socket, takes batches in, lets the machine decide, sends batches out.
//!
//! The sockets report once when they become readable, so each is read until it is empty, but never for more than a few
//! batches in a row: what is left waits in `unfinished` while the others have their turn.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hashbrown::HashMap;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use partyline_model::{Now, Timestamp};
use partyline_relay::{Client, ClientTransport, Counters, Event, Forward, Relay, RelaySocket, Transmit};
use tokio::sync::{mpsc, oneshot};

use super::{
    arena::{Arena, BATCH, Received},
    sockets,
    stream::{Bell, Inbound, Outbox},
};

/// Batches taken from one socket before the others have their turn.
const TURNS: usize = 4;
/// Packets taken from a relayed address at once: a peer's, where a listener has everyone's.
const PEER_BATCH: usize = 16;
/// Messages taken from the inbox before the sockets have their turn.
const INBOX_TURN: usize = 512;
/// The token of the bell; listeners and relayed addresses follow.
pub const BELL: Token = Token(0);

/// Everything the thread owns.
pub struct Plane {
    relay: Relay,
    poll: Poll,
    listeners: Vec<UdpSocket>,
    sockets: Vec<Option<UdpSocket>>,
    streams: HashMap<u32, Arc<Outbox>>,
    inbox: mpsc::Receiver<Inbound>,
    bell: Arc<Bell>,
    published: Arc<Mutex<Counters>>,
    arena: Arena,
    received: Vec<Received>,
    to_clients: Vec<Vec<(SocketAddr, Range<usize>)>>,
    to_peers: Vec<(RelaySocket, SocketAddr, Range<usize>)>,
    unfinished: Vec<Token>,
    dropped: u64,
    truncated: u64,
}

impl Plane {
    /// Listeners are registered with `poll` under the tokens from 1.
    pub fn new(
        relay: Relay,
        poll: Poll,
        listeners: Vec<UdpSocket>,
        inbox: mpsc::Receiver<Inbound>,
        bell: Arc<Bell>,
        published: Arc<Mutex<Counters>>,
    ) -> Self {
        Self {
            relay,
            poll,
            to_clients: vec![Vec::new(); listeners.len()],
            listeners,
            sockets: Vec::new(),
            streams: HashMap::new(),
            inbox,
            bell,
            published,
            arena: Arena::new(),
            received: Vec::new(),
            to_peers: Vec::new(),
            unfinished: Vec::new(),
            dropped: 0,
            truncated: 0,
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the relay cannot wait for its sockets and ends");
                return self.end(None);
            }
            let now = now();
            self.relay.handle_timeout(now);
            let mut ready = std::mem::take(&mut self.unfinished);
            ready.extend(events.iter().map(|event| event.token()));
            // What is unfinished may have become readable again; twice in the list it would stay there twice.
            ready.sort_unstable();
            ready.dedup();
            for token in ready {
                if token == BELL {
                    if let Some(stopped) = self.read_inbox(now) {
                        return self.end(Some(stopped));
                    }
                } else {
                    self.read_socket(now, token);
                }
            }
            self.obey(now);
            self.flush();
            self.publish();
        }
    }

    fn patience(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        self.relay.poll_timeout().map(|end| end.saturating_duration_since(Instant::now()))
    }

    fn read_inbox(&mut self, now: Now) -> Option<oneshot::Sender<()>> {
        self.bell.heard();
        for _ in 0..INBOX_TURN {
            match self.inbox.try_recv() {
                Ok(Inbound::Connected { stream, outbox }) => {
                    self.streams.insert(stream, outbox);
                }
                Ok(Inbound::Frame { stream, peer, bytes }) => self.read_frame(now, stream, peer, &bytes),
                Ok(Inbound::Disconnected { stream, peer }) => {
                    self.relay.handle_disconnect(Client {
                        transport: ClientTransport::Stream(stream),
                        address: peer,
                    });
                    self.streams.remove(&stream);
                }
                Ok(Inbound::Stop(stopped)) => return Some(stopped),
                Err(_) => return None,
            }
        }
        self.unfinished.push(BELL);
        None
    }

    fn read_frame(&mut self, now: Now, stream: u32, peer: SocketAddr, bytes: &[u8]) {
        self.make_room();
        let Some(received) = self.arena.place(bytes, peer) else { return self.truncated += 1 };
        self.take_from_client(now, ClientTransport::Stream(stream), &received);
    }

    fn read_socket(&mut self, now: Now, token: Token) {
        let index = token.0 - 1;
        let relayed = index.checked_sub(self.listeners.len());
        let v6 = relayed.map_or_else(|| is_v6(&self.listeners[index]), |index| index % 2 == 1);
        let most = if relayed.is_some() { PEER_BATCH } else { BATCH };
        for _ in 0..TURNS {
            if self.read_batch(now, index, v6, most) < most {
                return;
            }
        }
        self.unfinished.push(token);
    }

    fn read_batch(&mut self, now: Now, index: usize, v6: bool, most: usize) -> usize {
        self.make_room();
        let relayed = index.checked_sub(self.listeners.len());
        let socket = match relayed {
            None => &self.listeners[index],
            Some(index) => match self.sockets.get(index) {
                Some(Some(socket)) => socket,
                // Closed since it became readable.
                _ => return 0,
            },
        };
        let mut received = std::mem::take(&mut self.received);
        let count = self.arena.receive(socket, v6, most, &mut received, &mut self.truncated);
        for packet in received.drain(..) {
            match relayed {
                None => self.take_from_client(now, ClientTransport::Udp(index as u8), &packet),
                Some(index) => self.take_from_peer(now, RelaySocket::from_index(index), &packet),
            }
        }
        self.received = received;
        count
    }

    fn take_from_client(&mut self, now: Now, transport: ClientTransport, received: &Received) {
        let Some(mut packet) = self.arena.packet(received) else { return };
        let client = Client { transport, address: received.from };
        let forward = self.relay.handle_client(now, client, &mut packet);
        if forward == Forward::Consumed { self.obey(now) } else { self.forward(received, forward) }
    }

    fn take_from_peer(&mut self, now: Now, socket: RelaySocket, received: &Received) {
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
                        self.to_clients[usize::from(listener)].push((client.address, range))
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
        let taken = self.streams.get(&stream).is_some_and(|outbox| outbox.push(frame));
        self.dropped += u64::from(!taken);
    }

    /// Does what the machine wants: opens and closes sockets, sends control messages.
    fn obey(&mut self, now: Now) {
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::OpenSocket { socket, address } => {
                    let bound = self.open(socket, address);
                    if let Err(error) = &bound {
                        tracing::debug!(%address, %error, "relayed address could not be bound");
                    }
                    self.relay.handle_socket_opened(now, socket, bound.is_ok());
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
        if self.sockets.len() <= socket.index() {
            self.sockets.resize_with(socket.index() + 1, || None);
        }
        self.sockets[socket.index()] = Some(bound);
        Ok(())
    }

    /// Sends what is still to leave by a socket before closing it. The arena stays as it is: packets of the batch at hand are
    /// still to be read from it, and nothing may be received over them.
    fn close(&mut self, socket: RelaySocket) {
        self.send_waiting();
        if let Some(slot) = self.sockets.get_mut(socket.index()) {
            *slot = None;
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        match transmit.transport {
            ClientTransport::Stream(stream) => self.push_to_stream(stream, transmit.payload.into()),
            ClientTransport::Udp(listener) => {
                let sent =
                    self.listeners[usize::from(listener)].send_to(&transmit.payload, transmit.destination);
                self.dropped += u64::from(sent.is_err());
            }
        }
    }

    fn make_room(&mut self) {
        if !self.arena.has_room() {
            self.flush();
        }
    }

    /// Sends everything that waits and frees the arena. Only between batches.
    fn flush(&mut self) {
        self.send_waiting();
        self.arena.clear();
    }

    /// Sends everything that waits, one call per socket.
    fn send_waiting(&mut self) {
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
                packets.first().and_then(|(socket, ..)| self.sockets.get(socket.index()))
            else {
                continue;
            };
            batch.clear();
            batch.extend(packets.iter().map(|(_, peer, range)| (*peer, range.clone())));
            self.dropped += self.arena.send(socket, &batch);
        }
        self.to_peers.clear();
    }

    fn publish(&self) {
        let mut counters = self.relay.counters();
        counters.dropped.queue_full += self.dropped;
        counters.dropped.oversized += self.truncated;
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    fn end(mut self, stopped: Option<oneshot::Sender<()>>) {
        self.flush();
        for outbox in self.streams.values() {
            outbox.close();
        }
        self.sockets.clear();
        self.listeners.clear();
        // Whoever waited may have gone.
        let _ = stopped.map(|stopped| stopped.send(()));
    }
}

fn is_v6(socket: &UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|address| matches!(address.ip(), IpAddr::V6(_)))
}

/// Both clocks.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix: Timestamp(unix.as_millis() as u64) }
}

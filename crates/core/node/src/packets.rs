//! The packet path: IP packets from the devices become datagrams, datagrams become IP packets.
//!
//! Nothing is queued or copied here. The tunnel encrypts into its outbox, with room in front of every datagram that
//! goes through a relay, and the route asked from the path machine says what to put there and where it goes.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{DeviceId, PartyId};
use partyline_paths::{Handled, Hop, Local, Path, SocketId, StreamId, Transmit, Via};
use partyline_tunnel::{Burst, Received};
use partyline_wire::datagram::CHANNEL_HEADER;

use crate::{Node, control::ControlMessage, io::Output};

/// The least room [`Node::handle_datagram`] needs for what it writes.
pub const PACKET_ROOM: usize = 2_048;

/// Where the node's packets leave.
pub trait Egress {
    /// Datagrams to one destination, back to back in `bytes`: each `segment` long, the last perhaps shorter.
    fn datagrams(&mut self, destination: SocketAddr, segment: usize, bytes: &[u8]);
    /// The same from a socket that [`Output::SocketsOpen`] asked for.
    fn datagrams_from(&mut self, socket: SocketId, destination: SocketAddr, segment: usize, bytes: &[u8]);
    /// A message on a stream to a relay, complete with its framing.
    fn stream(&mut self, stream: StreamId, bytes: &[u8]);
    /// An IP packet for a party's own device.
    fn packet(&mut self, party: PartyId, packet: &[u8]);
}

/// Datagrams as outputs.
struct Queue(Vec<Output>);

impl Egress for Queue {
    fn datagrams(&mut self, destination: SocketAddr, segment: usize, bytes: &[u8]) {
        let each = bytes.chunks(segment.max(1)).map(<[u8]>::to_vec);
        self.0.extend(each.map(|bytes| Output::Datagram { destination, bytes }));
    }

    fn datagrams_from(&mut self, id: SocketId, destination: SocketAddr, segment: usize, bytes: &[u8]) {
        let each = bytes.chunks(segment.max(1)).map(<[u8]>::to_vec);
        self.0.extend(each.map(|bytes| Output::SocketSend { id, destination, bytes }));
    }

    fn stream(&mut self, id: StreamId, bytes: &[u8]) {
        self.0.push(Output::StreamSend { id, bytes: bytes.to_vec() });
    }

    /// None: what comes back for a device is an answer to its packets.
    fn packet(&mut self, _: PartyId, _: &[u8]) {}
}

impl Node {
    /// Takes an IP packet from a party's device; what it becomes leaves with [`Self::flush`].
    pub fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8]) {
        self.tunnel.handle_packet(now, party, packet, &mut self.outbox);
    }

    /// Takes a datagram from the tunnel's socket. If it carried an IP packet, that is written to `packet`, and its party
    /// and length are returned. `packet` must be as long as the datagram and [`PACKET_ROOM`]: the last part of a message
    /// that another member passes on completes a longer one.
    pub fn handle_datagram(
        &mut self,
        now: partyline_model::Now,
        source: SocketAddr,
        datagram: &[u8],
        packet: &mut [u8],
    ) -> Option<(PartyId, usize)> {
        self.receive(now, Local::Socket(SocketId::MAIN), source, datagram, packet)
    }

    /// Takes a datagram from a socket that [`Output::SocketsOpen`] asked for; otherwise like [`Self::handle_datagram`].
    pub fn handle_socket_datagram(
        &mut self,
        now: partyline_model::Now,
        socket: SocketId,
        source: SocketAddr,
        datagram: &[u8],
        packet: &mut [u8],
    ) -> Option<(PartyId, usize)> {
        if self.heard_by_lent_socket(now, socket, source, datagram) {
            return None;
        }
        self.receive(now, Local::Socket(socket), source, datagram, packet)
    }

    /// Takes the ports of sockets that [`Output::SocketsOpen`] asked for; `None` for one that could not be opened.
    pub fn handle_sockets(&mut self, now: partyline_model::Now, opened: &[(SocketId, Option<u16>)]) {
        if !self.lent_socket_opened(opened) {
            self.paths.sockets_opened(now.instant, opened);
        }
    }

    /// Sends everything that waits, after letting the machines settle.
    pub fn flush(&mut self, now: partyline_model::Now, egress: &mut impl Egress) {
        self.settle(now);
        self.send_outbox(now, egress);
        for Transmit { local, destination: dst, bytes } in std::iter::from_fn(|| self.paths.poll_transmit()) {
            match local {
                Local::Member(passage) => self.passages.push(passage, bytes),
                _ => send_message(local, dst, &bytes, egress),
            }
        }
        if !self.passages.is_empty() {
            self.send_passed(now, egress);
        }
    }

    /// Sends what waits before the way to whom it is for is forgotten.
    pub(crate) fn flush_to_outputs(&mut self, now: partyline_model::Now) {
        let mut queue = Queue(Vec::new());
        self.send_outbox(now, &mut queue);
        self.outputs.extend(queue.0);
    }

    pub(crate) fn send_outbox(&mut self, now: partyline_model::Now, egress: &mut impl Egress) {
        let mut outbox = std::mem::take(&mut self.outbox);
        for burst in outbox.bursts() {
            self.send_burst(now.instant, burst, egress);
        }
        for (party, packet) in outbox.deliveries() {
            egress.packet(party, packet);
        }
        outbox.clear();
        self.outbox = outbox;
    }

    pub(crate) fn receive(
        &mut self,
        now: partyline_model::Now,
        local: Local,
        source: SocketAddr,
        datagram: &[u8],
        packet: &mut [u8],
    ) -> Option<(PartyId, usize)> {
        match self.paths.handle_datagram(now.instant, local, source, datagram) {
            Handled::Consumed => None,
            Handled::Foreign if local != Local::Socket(SocketId::MAIN) => None,
            Handled::Foreign => {
                self.netcheck.handle_datagram(now.instant, partyline_model::SocketId::MAIN, source, datagram);
                None
            }
            Handled::Tunnel { payload, path } => {
                let inner = datagram.get(payload)?;
                self.open(now, source, path, inner, packet)
            }
        }
    }

    fn open(
        &mut self,
        now: partyline_model::Now,
        source: SocketAddr,
        path: Path,
        datagram: &[u8],
        packet: &mut [u8],
    ) -> Option<(PartyId, usize)> {
        match self.tunnel.handle_datagram(now.instant, source.ip(), datagram, packet, &mut self.outbox) {
            Received::Packet { party, peer, packet } => {
                self.authenticated(now.instant, party, peer, path);
                Some((party, packet.len()))
            }
            Received::Control { party, peer, message: bytes } => {
                self.authenticated(now.instant, party, peer, path);
                // What was passed on does not hold what was passed on.
                if matches!(path.via, Via::Socket(_))
                    && let Some((local, message)) = self.unwrap_passed(party, peer, &bytes)
                {
                    return self.receive(now, local, source, &message, packet);
                }
                self.handle_control(now, party, peer, &bytes);
                None
            }
            Received::HandshakeReply { peer, datagram } => {
                if let Some((party, peer)) = peer {
                    self.authenticated(now.instant, party, peer, path);
                }
                self.answer(path, datagram);
                None
            }
            Received::Authenticated { party, peer } => {
                self.authenticated(now.instant, party, peer, path);
                None
            }
            Received::Dropped(_) => None,
        }
    }

    /// Handshake answers go back the way the question came, before any route is chosen.
    fn answer(&mut self, path: Path, datagram: &[u8]) {
        let Some(hop) = self.paths.hop(path) else { return };
        let mut bytes = hop.header(datagram.len()).map_or_else(Vec::new, Vec::from);
        bytes.extend_from_slice(datagram);
        bytes.resize(bytes.len() + hop.padding(datagram.len()), 0);
        self.outputs.push_back(match hop.local {
            Local::Member(passage) => return self.passages.push(passage, bytes),
            Local::Socket(SocketId::MAIN) => Output::Datagram { destination: hop.destination, bytes },
            Local::Socket(id) => Output::SocketSend { id, destination: hop.destination, bytes },
            Local::Stream(id) => Output::StreamSend { id, bytes },
        });
    }

    fn authenticated(&mut self, now: Instant, party: PartyId, peer: DeviceId, path: Path) {
        if let Some(peer) = self.peers.id(party, peer) {
            self.paths.on_authenticated(now, peer, path);
        }
    }

    fn send_burst(&mut self, now: Instant, mut burst: Burst<'_>, egress: &mut impl Egress) {
        let Some(peer) = self.peers.id(burst.party, burst.peer) else { return };
        let Some(route) = self.paths.route(now, peer) else { return };
        if let Some(second) = route.secondary {
            self.send_hop(second, &mut burst, egress);
        }
        self.send_hop(route.primary, &mut burst, egress);
    }

    fn send_hop(&mut self, hop: Hop, burst: &mut Burst<'_>, egress: &mut impl Egress) {
        let Local::Member(passage) = hop.local else { return send_along(hop, burst, egress) };
        let skip = burst.headroom;
        for segment in burst.segments() {
            self.passages.push(passage, segment[skip.min(segment.len())..].to_vec());
        }
    }

    /// What a member passed on, and by what it came so.
    fn unwrap_passed(&self, party: PartyId, through: DeviceId, bytes: &[u8]) -> Option<(Local, Vec<u8>)> {
        match ControlMessage::decode(bytes)? {
            ControlMessage::Passed { from, message } => {
                Some((self.passed_by(party, through, from)?, message))
            }
            _ => None,
        }
    }
}

fn send_along(hop: Hop, burst: &mut Burst<'_>, egress: &mut impl Egress) {
    let headroom = if hop.channel.is_some() { CHANNEL_HEADER } else { 0 };
    let whole = headroom == burst.headroom && matches!(hop.local, Local::Socket(_));
    if whole {
        for segment in burst.segments().filter(|_| headroom > 0) {
            let (header, datagram) = segment.split_at_mut(headroom);
            header.copy_from_slice(&hop.header(datagram.len()).unwrap_or_default());
        }
        return send_datagrams(hop.local, hop.destination, burst.segment, burst.bytes, egress);
    }
    // The route changed since the datagrams were written, or a stream frames each of them: one copy.
    let skip = burst.headroom;
    for segment in burst.segments() {
        let datagram = &segment[skip.min(segment.len())..];
        let mut bytes = hop.header(datagram.len()).map_or_else(Vec::new, Vec::from);
        bytes.extend_from_slice(datagram);
        bytes.resize(bytes.len() + hop.padding(datagram.len()), 0);
        send_message(hop.local, hop.destination, &bytes, egress);
    }
}

fn send_message(local: Local, destination: SocketAddr, bytes: &[u8], egress: &mut impl Egress) {
    match local {
        Local::Socket(_) => send_datagrams(local, destination, bytes.len(), bytes, egress),
        Local::Stream(stream) => egress.stream(stream, bytes),
        // Wrapped before it gets here.
        Local::Member(_) => {}
    }
}

fn send_datagrams(
    local: Local,
    destination: SocketAddr,
    segment: usize,
    bytes: &[u8],
    egress: &mut impl Egress,
) {
    match local {
        Local::Socket(SocketId::MAIN) => egress.datagrams(destination, segment, bytes),
        Local::Socket(socket) => egress.datagrams_from(socket, destination, segment, bytes),
        Local::Stream(_) | Local::Member(_) => {}
    }
}

//! The packet path: IP packets from the devices become datagrams, datagrams become IP packets.
//!
//! Nothing is queued or copied here. The tunnel encrypts into its outbox, with room in front of every datagram that
//! goes through a relay, and the route asked from the path machine says what to put there and where it goes.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{DeviceId, Now, PartyId};
use partyline_paths::{Handled, Hop, Local as PathLocal, Path, SocketId, Transmit, Via};
use partyline_tunnel::{Burst, Received};
use partyline_wire::datagram::CHANNEL_HEADER;

use crate::{
    Node,
    control::ControlMessage,
    egress::{self, Deliver, Egress, Local},
};

/// The least room [`Node::handle_datagram`] needs for what it writes.
pub const PACKET_ROOM: usize = 2_048;

impl Node {
    /// Takes an IP packet from a party's device; what it becomes leaves with [`Self::flush`].
    pub fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8]) {
        self.tunnel.handle_packet(now, party, packet, &mut self.outbox);
    }

    /// Takes a datagram that arrived on one of the computer's UDP sockets. An IP packet in it is written to `scratch` and
    /// leaves by [`Egress::deliver`]; answers leave with the next [`Self::flush`]. `scratch` must be as long as the
    /// datagram and [`PACKET_ROOM`]: the last fragment of a message that another member relays completes a longer one.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        socket: SocketId,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match owner(socket) {
            Owner::Netcheck => {
                self.netcheck.handle_datagram(now.instant, socket, source, datagram);
            }
            Owner::SecondPort => self.on_second_port_datagram(now, source, datagram),
            Owner::Paths => self.receive(now, PathLocal::Socket(socket), source, datagram, scratch, egress),
        }
    }

    /// Takes the local ports of sockets that [`crate::Output::OpenSockets`] asked for; `None` for one that could not be
    /// opened.
    pub fn handle_sockets_opened(&mut self, now: Now, opened: &[(SocketId, Option<u16>)]) {
        let of = |wanted: Owner| -> Vec<_> {
            opened.iter().copied().filter(|(id, _)| owner(*id) == wanted).collect()
        };
        let (probes, second_ports, punch) = (of(Owner::Netcheck), of(Owner::SecondPort), of(Owner::Paths));
        if !probes.is_empty() {
            self.netcheck.probe_sockets_opened(now.instant, &probes);
        }
        if !second_ports.is_empty() {
            self.second_port_opened();
        }
        if !punch.is_empty() {
            self.paths.sockets_opened(now.instant, &punch);
        }
    }

    /// Lets the machines settle and sends everything that waits. To be called before outputs are polled, and again as
    /// long as there were any.
    pub fn flush(&mut self, now: Now, egress: &mut impl Egress) {
        self.settle(now);
        self.transmits.flush(egress);
        self.send_outbox(now, egress);
        for Transmit { local, destination, bytes } in std::iter::from_fn(|| self.paths.poll_transmit()) {
            match local {
                PathLocal::Member(passage) => self.passages.push(passage, bytes),
                _ => send_message(local, destination, &bytes, egress),
            }
        }
        if !self.passages.is_empty() {
            self.send_passed(now, egress);
        }
    }

    /// Queues what waits for a member before the path to it is forgotten.
    pub(crate) fn queue_outbox(&mut self, now: Now) {
        let mut queue = std::mem::take(&mut self.transmits);
        self.send_outbox(now, &mut queue);
        self.transmits = queue;
    }

    pub(crate) fn send_outbox(&mut self, now: Now, egress: &mut impl Egress) {
        let mut outbox = std::mem::take(&mut self.outbox);
        for burst in outbox.bursts() {
            self.send_burst(now.instant, burst, egress);
        }
        for (party, packet) in outbox.deliveries() {
            egress.deliver(Deliver { party, packet });
        }
        outbox.clear();
        self.outbox = outbox;
    }

    pub(crate) fn receive(
        &mut self,
        now: Now,
        local: PathLocal,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match self.paths.handle_datagram(now.instant, local, source, datagram) {
            Handled::Foreign if local == PathLocal::Socket(SocketId::MAIN) => {
                self.netcheck.handle_datagram(now.instant, SocketId::MAIN, source, datagram);
            }
            Handled::Foreign | Handled::Consumed => {}
            Handled::Tunnel { payload, path } => {
                if let Some(inner) = datagram.get(payload) {
                    self.open(now, source, path, inner, scratch, egress);
                }
            }
        }
    }

    fn open(
        &mut self,
        now: Now,
        source: SocketAddr,
        path: Path,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match self.tunnel.handle_datagram(now.instant, source.ip(), datagram, scratch, &mut self.outbox) {
            Received::Packet { party, peer, packet } => {
                self.authenticated(now.instant, party, peer, path);
                egress.deliver(Deliver { party, packet });
            }
            Received::Control { party, peer, message: bytes } => {
                self.authenticated(now.instant, party, peer, path);
                // What was passed on does not hold what was passed on.
                if matches!(path.via, Via::Socket(_))
                    && let Some((local, message)) = self.unwrap_passed(party, peer, &bytes)
                {
                    return self.receive(now, local, source, &message, scratch, egress);
                }
                self.handle_control(now, party, peer, &bytes);
            }
            Received::HandshakeReply { peer, datagram } => {
                if let Some((party, peer)) = peer {
                    self.authenticated(now.instant, party, peer, path);
                }
                self.answer(path, datagram);
            }
            Received::Authenticated { party, peer } => self.authenticated(now.instant, party, peer, path),
            Received::Dropped(_) => {}
        }
    }

    /// Sends the answer to a handshake back along the path it came by, before any route is chosen.
    fn answer(&mut self, path: Path, datagram: &[u8]) {
        let Some(hop) = self.paths.hop(path) else { return };
        let mut bytes = hop.header(datagram.len()).map_or_else(Vec::new, Vec::from);
        bytes.extend_from_slice(datagram);
        bytes.resize(bytes.len() + hop.padding(datagram.len()), 0);
        match hop.local {
            PathLocal::Member(passage) => self.passages.push(passage, bytes),
            _ => send_message(hop.local, hop.destination, &bytes, &mut self.transmits),
        }
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
        let PathLocal::Member(passage) = hop.local else { return send_along(hop, burst, egress) };
        let skip = burst.headroom;
        for segment in burst.segments() {
            self.passages.push(passage, segment[skip.min(segment.len())..].to_vec());
        }
    }

    /// What a member passed on, and by what it came so.
    fn unwrap_passed(&self, party: PartyId, through: DeviceId, bytes: &[u8]) -> Option<(PathLocal, Vec<u8>)> {
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
    let whole = headroom == burst.headroom && matches!(hop.local, PathLocal::Socket(_));
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

fn send_message(local: PathLocal, destination: SocketAddr, bytes: &[u8], egress: &mut impl Egress) {
    send_datagrams(local, destination, bytes.len().max(1), bytes, egress);
}

fn send_datagrams(
    local: PathLocal,
    destination: SocketAddr,
    segment: usize,
    bytes: &[u8],
    egress: &mut impl Egress,
) {
    let local = match local {
        PathLocal::Socket(socket) => Local::Socket(socket),
        PathLocal::Stream(stream) => Local::Stream(stream),
        // Wrapped before it gets here.
        PathLocal::Member(_) => return,
    };
    egress.transmit(egress::Transmit { local, destination, segment, bytes });
}

/// The machine that asked for a socket and takes what arrives on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Paths,
    Netcheck,
    SecondPort,
}

fn owner(socket: SocketId) -> Owner {
    if socket.is_probe() {
        Owner::Netcheck
    } else if socket > SocketId::LAST_PUNCH {
        Owner::SecondPort
    } else {
        Owner::Paths
    }
}

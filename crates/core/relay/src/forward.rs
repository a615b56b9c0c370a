//! The packet path: a few table look-ups, a header written in place, no memory allocated.
//!
//! A peer that is itself a relayed address of this server is served without its socket: the packet goes straight to the
//! other allocation's client, provided that it has a permission for the sender, as if it had come over the network. That
//! is how members of a party meet who both need a relay.

use std::{net::SocketAddr, ops::Range};

use partyline_model::Now;

use crate::{
    ClientTransport, Forward, Relay,
    allocation::{Client, RelaySocket},
    frame::{self, Packet},
};

impl Relay {
    /// ChannelData from a client (RFC 8656, section 12.6): without a binding it is discarded.
    pub(crate) fn forward_channel(&mut self, now: Now, client: Client, packet: &mut Packet<'_>) -> Forward {
        let Some((channel, payload)) = frame::read_channel(packet.bytes()) else { return self.malformed() };
        let now_ns = self.ns(now);
        let found = self.clients.get(&client).copied();
        let peer = found.and_then(|at| Some((at, self.allocations.get(at)?.peer_of(channel, now_ns)?)));
        match peer {
            Some((at, peer)) => self.leave(now_ns, at, peer, packet, payload),
            None => self.denied(),
        }
    }

    /// A Send indication (RFC 8656, section 11.2): without a permission it is discarded.
    pub(crate) fn forward_send(&mut self, now: Now, client: Client, packet: &mut Packet<'_>) -> Forward {
        let Some((peer, payload)) = frame::read_send(packet.bytes()) else { return self.malformed() };
        let now_ns = self.ns(now);
        let found = self.clients.get(&client).copied();
        match found.filter(|at| {
            self.allocations.get(*at).is_some_and(|allocation| allocation.permits(peer.ip(), now_ns))
        }) {
            Some(at) => self.leave(now_ns, at, peer, packet, payload),
            None => self.denied(),
        }
    }

    /// A datagram that a peer sent to a relayed address (RFC 8656, section 11.3): without a permission it is discarded.
    pub fn handle_peer(
        &mut self,
        now: Now,
        socket: RelaySocket,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let (now_ns, payload) = (self.ns(now), packet.range());
        let length = (payload.end - payload.start) as u64;
        if !self.lets_in(now_ns, socket.allocation(), peer) {
            return self.denied();
        }
        if !self.affords(now_ns, socket.allocation(), length) {
            return Forward::Consumed;
        }
        self.deliver(now_ns, socket.allocation(), peer, packet, payload)
    }

    fn leave(
        &mut self,
        now_ns: u64,
        at: usize,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
        payload: Range<usize>,
    ) -> Forward {
        let Some(relayed) = self.allocations[at].relayed_for(peer.ip()) else { return self.denied() };
        let before = packet.range().start;
        let payload = before + payload.start..before + payload.end;
        let length = (payload.end - payload.start) as u64;
        let forward = if let Some(neighbour) = self.neighbour(peer) {
            if !self.lets_in(now_ns, neighbour, relayed) {
                return self.denied();
            }
            if !self.affords(now_ns, at, length) {
                return Forward::Consumed;
            }
            self.deliver(now_ns, neighbour, relayed, packet, payload)
        } else {
            if !self.may_leave(peer) {
                return self.denied();
            }
            if !self.affords(now_ns, at, length) {
                return Forward::Consumed;
            }
            Forward::ToPeer { socket: RelaySocket::new(at, peer.is_ipv6()), peer, range: payload }
        };
        self.counters.packets.from_clients += 1;
        self.counters.bytes.from_clients += length;
        forward
    }

    /// The allocation whose relayed address a peer is.
    fn neighbour(&self, peer: SocketAddr) -> Option<usize> {
        if !self.is_relay_address(peer.ip()) {
            return None;
        }
        self.relayed.get(&peer).map(|socket| socket.allocation())
    }

    /// Whether packets may leave the server for a peer: not for its own listeners, where a relay could be made to talk to
    /// itself, nor for other programs on its address unless private peers are allowed.
    fn may_leave(&self, peer: SocketAddr) -> bool {
        let listening = |listener: &crate::Listener| listener.local == peer || listener.public == peer;
        let own = self.is_relay_address(peer.ip()) && !self.settings.peers.allow_private;
        peer.port() != 0 && !own && !self.listeners.iter().any(listening)
    }

    fn lets_in(&self, now_ns: u64, at: usize, peer: SocketAddr) -> bool {
        self.allocations.get(at).is_some_and(|allocation| allocation.permits(peer.ip(), now_ns))
    }

    /// Takes a packet out of the bandwidth of the allocation and of the server.
    fn affords(&mut self, now_ns: u64, at: usize, length: u64) -> bool {
        let own =
            self.allocation_rate.is_none_or(|rate| self.allocations[at].bucket.take(now_ns, length, rate));
        let affords = own && self.bandwidth_rate.is_none_or(|rate| self.bandwidth.take(now_ns, length, rate));
        if !affords {
            self.counters.dropped.allocation_bandwidth += 1;
        }
        affords
    }

    /// Frames a payload for a client: ChannelData if a channel is bound to the peer, else a Data indication.
    fn deliver(
        &mut self,
        now_ns: u64,
        at: usize,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
        payload: Range<usize>,
    ) -> Forward {
        let allocation = &self.allocations[at];
        let (client, channel) = (allocation.client, allocation.channel_to(peer, now_ns));
        self.counters.packets.to_clients += 1;
        self.counters.bytes.to_clients += (payload.end - payload.start) as u64;
        let range = match channel {
            Some(channel) => {
                packet.frame_channel(payload, channel, matches!(client.transport, ClientTransport::Stream(_)))
            }
            None => {
                let id = self.transaction();
                packet.frame_data(payload, peer, id)
            }
        };
        Forward::ToClient { client, range }
    }

    fn denied(&mut self) -> Forward {
        self.counters.dropped.no_permission += 1;
        Forward::Consumed
    }
}

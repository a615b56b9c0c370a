//! The packet path: a few table look-ups, a header written in place, no memory allocated.
//!
//! A peer that is itself a relayed address of this server is served without its socket: the packet goes straight to the
//! other allocation's client, provided that it has a permission for the sender, as if it had come over the network. That
//! is how two members of a party meet that both need a relay.

use std::{net::SocketAddr, ops::Range, time::Instant};

use partyline_timing::{Rate, TokenBucket};
use rand_chacha::{ChaCha8Rng, rand_core::RngCore};
use tracing::{debug, trace};

use crate::{
    allocation::Allocation,
    allocations::Allocations,
    client::{Client, ClientTransport, RelaySocket},
    counters::{DirectionCounters, DropReason},
    event::Forward,
    frame::{self, Packet},
    listeners::Listeners,
    saturation::Saturation,
    settings::Quotas,
};

/// Relays packets within the bandwidth limits.
#[derive(Debug)]
pub(crate) struct Forwarder {
    /// Limits the whole server, in bytes of payload.
    bandwidth: Option<TokenBucket>,
    saturation: Saturation,
    /// Limits each allocation, in bytes of payload.
    allocation_rate: Option<Rate>,
    /// True if peers on the server's own address may be other programs.
    allow_own_address: bool,
    rng: ChaCha8Rng,
    packets: DirectionCounters,
    bytes: DirectionCounters,
}

impl Forwarder {
    pub(crate) fn new(quotas: &Quotas, allow_own_address: bool, rng: ChaCha8Rng) -> Self {
        // One second's worth may pass at once.
        let rate = |bytes_per_second: u64| Rate::per_second(bytes_per_second, bytes_per_second);
        Self {
            bandwidth: quotas.bandwidth.map(rate).map(TokenBucket::new),
            saturation: Saturation::default(),
            allocation_rate: quotas.bandwidth_per_allocation.map(rate),
            allow_own_address,
            rng,
            packets: DirectionCounters::default(),
            bytes: DirectionCounters::default(),
        }
    }

    /// Returns the packets and the payload bytes relayed.
    pub(crate) const fn relayed(&self) -> (DirectionCounters, DirectionCounters) {
        (self.packets, self.bytes)
    }

    /// Relays ChannelData from a client (RFC 8656, section 12.6).
    pub(crate) fn forward_channel_data(
        &mut self,
        now: Instant,
        (allocations, listeners): (&mut Allocations, &Listeners),
        client: Client,
        packet: &mut Packet<'_>,
    ) -> Result<Forward, DropReason> {
        let (channel, payload) = frame::read_channel(packet.bytes()).ok_or(DropReason::Malformed)?;
        let at = allocations.find(client).ok_or(DropReason::NoAllocation)?;
        let allocation = allocations.get(at).ok_or(DropReason::NoAllocation)?;
        let peer = allocation.peer_of(channel, now).ok_or(DropReason::NoChannel)?;
        self.forward_to_peer(now, (allocations, listeners), at, peer, packet, payload)
    }

    /// Relays a Send indication from a client (RFC 8656, section 11.2).
    pub(crate) fn forward_send_indication(
        &mut self,
        now: Instant,
        (allocations, listeners): (&mut Allocations, &Listeners),
        client: Client,
        packet: &mut Packet<'_>,
    ) -> Result<Forward, DropReason> {
        let (peer, payload) = frame::read_send(packet.bytes()).ok_or(DropReason::Malformed)?;
        let at = allocations.find(client).ok_or(DropReason::NoAllocation)?;
        check_permission(allocations.get(at), peer, now)?;
        self.forward_to_peer(now, (allocations, listeners), at, peer, packet, payload)
    }

    /// Relays a datagram that a peer sent to a relayed address (RFC 8656, section 11.3).
    pub(crate) fn forward_from_peer(
        &mut self,
        now: Instant,
        allocations: &mut Allocations,
        socket: RelaySocket,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
    ) -> Result<Forward, DropReason> {
        let (at, payload) = (socket.allocation(), packet.range());
        check_permission(allocations.get(at), peer, now)?;
        self.take_bandwidth(now, allocations, at, payload.len() as u64)?;
        self.forward_to_client(now, allocations, at, peer, packet, payload)
    }

    fn forward_to_peer(
        &mut self,
        now: Instant,
        (allocations, listeners): (&mut Allocations, &Listeners),
        at: usize,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
        payload: Range<usize>,
    ) -> Result<Forward, DropReason> {
        let relayed = allocations.get(at).and_then(|allocation| allocation.relayed_for(peer.ip()));
        let relayed = relayed.ok_or(DropReason::AddressFamilyMismatch)?;
        let before = packet.range().start;
        let payload = before + payload.start..before + payload.end;
        let length = payload.len() as u64;
        let forward = if let Some(neighbor) = allocations.relayed.socket_at(peer) {
            let neighbor = neighbor.allocation();
            check_permission(allocations.get(neighbor), relayed, now)?;
            self.take_bandwidth(now, allocations, at, length)?;
            self.forward_to_client(now, allocations, neighbor, relayed, packet, payload)?
        } else {
            self.check_destination(allocations, listeners, peer)?;
            self.take_bandwidth(now, allocations, at, length)?;
            Forward::ToPeer { socket: RelaySocket::new(at, peer.is_ipv6()), peer, range: payload }
        };
        self.packets.from_clients += 1;
        self.bytes.from_clients += length;
        trace!(%peer, bytes = length, "packet relayed from client");
        Ok(forward)
    }

    /// Packets must not leave for the server's own listeners, where a relay could be made to talk to itself, nor for other
    /// programs on its address unless private peers are allowed.
    fn check_destination(
        &self,
        allocations: &Allocations,
        listeners: &Listeners,
        peer: SocketAddr,
    ) -> Result<(), DropReason> {
        let own = allocations.relayed.is_relay_ip(peer.ip()) && !self.allow_own_address;
        if peer.port() == 0 || own || listeners.contains(peer) {
            trace!(%peer, own, reason = "an address of this server", "destination refused");
            return Err(DropReason::ForbiddenPeer);
        }
        Ok(())
    }

    /// Takes a packet out of the bandwidth of the allocation and of the server.
    fn take_bandwidth(
        &mut self,
        now: Instant,
        allocations: &mut Allocations,
        at: usize,
        length: u64,
    ) -> Result<(), DropReason> {
        if let Some(rate) = &self.allocation_rate {
            let allocation = allocations.get_mut(at).ok_or(DropReason::NoAllocation)?;
            if !allocation.take_bandwidth(now, rate, length) {
                return Err(DropReason::AllocationBandwidth);
            }
        }
        if self.bandwidth.as_mut().is_none_or(|bandwidth| bandwidth.take(now, length)) {
            return Ok(());
        }
        if self.saturation.report(now) {
            debug!(reason = DropReason::ServerBandwidth.label(), "dropping packets of all clients");
        }
        Err(DropReason::ServerBandwidth)
    }

    /// Frames a payload for a client: as ChannelData if a channel is bound to the peer, else as a Data indication.
    fn forward_to_client(
        &mut self,
        now: Instant,
        allocations: &Allocations,
        at: usize,
        peer: SocketAddr,
        packet: &mut Packet<'_>,
        payload: Range<usize>,
    ) -> Result<Forward, DropReason> {
        let allocation = allocations.get(at).ok_or(DropReason::NoAllocation)?;
        let (client, length) = (allocation.client, payload.len() as u64);
        self.packets.to_clients += 1;
        self.bytes.to_clients += length;
        let range = match allocation.channel_to(peer, now) {
            Some(channel) => {
                let is_stream = matches!(client.transport, ClientTransport::Stream(_));
                packet.frame_channel(payload, channel, is_stream)
            }
            None => {
                let mut transaction = [0; 12];
                self.rng.fill_bytes(&mut transaction);
                packet.frame_data(payload, peer, transaction)
            }
        };
        trace!(client = %client.address, %peer, bytes = length, "packet relayed to client");
        Ok(Forward::ToClient { client, range })
    }
}

fn check_permission(
    allocation: Option<&Allocation>,
    peer: SocketAddr,
    now: Instant,
) -> Result<(), DropReason> {
    match allocation {
        Some(allocation) if allocation.permits(peer.ip(), now) => Ok(()),
        Some(_) => Err(DropReason::NoPermission),
        None => Err(DropReason::NoAllocation),
    }
}

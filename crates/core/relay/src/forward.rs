//! The packet path: a few table look-ups, a header written in place, no memory allocated.
//!
//! A peer that is itself a relayed address of this server is served without its socket: the packet goes straight to the
//! other allocation's client, provided that it has a permission for the sender, as if it had come over the network. That
//! is how two members of a party meet that both need a relay.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Instant,
};

use partyline_model::host_network;
use partyline_timing::{Rate, TokenBucket};
use partyline_wire::datagram;
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
    own_addresses::OwnAddresses,
    saturation::Saturation,
    settings::Settings,
    source::SourceLimiter,
};

/// Relays packets of members within the bandwidth limits.
#[derive(Debug)]
pub(crate) struct Forwarder {
    /// Limits the whole server, in bytes of payload.
    bandwidth: Option<TokenBucket>,
    saturation: Saturation,
    /// Limits each allocation, in bytes of payload.
    allocation_rate: Option<Rate>,
    /// Limits the clients of each network together, in bytes of payload.
    networks: Option<SourceLimiter>,
    /// True if payloads need not have the form of what members send.
    foreign_payloads: bool,
    own: OwnAddresses,
    /// True if peers on the server's own addresses may be other programs.
    allow_own_address: bool,
    rng: ChaCha8Rng,
    packets: DirectionCounters,
    bytes: DirectionCounters,
}

impl Forwarder {
    pub(crate) fn new(settings: &Settings, own: OwnAddresses, mut rng: ChaCha8Rng) -> Self {
        // One second's worth may pass at once.
        let rate = |bytes_per_second: u64| Rate::per_second(bytes_per_second, bytes_per_second);
        let quotas = &settings.quotas;
        let networks = quotas.bandwidth_per_network.map(rate);
        Self {
            bandwidth: quotas.bandwidth.map(rate).map(TokenBucket::new),
            saturation: Saturation::default(),
            allocation_rate: quotas.bandwidth_per_allocation.map(rate),
            networks: networks.map(|rate| SourceLimiter::new(rate, rng.next_u64())),
            foreign_payloads: settings.foreign_payloads,
            own,
            allow_own_address: settings.peers.allow_private,
            rng,
            packets: DirectionCounters::default(),
            bytes: DirectionCounters::default(),
        }
    }

    /// Returns the packets and the payload bytes relayed.
    pub(crate) const fn relayed(&self) -> (DirectionCounters, DirectionCounters) {
        (self.packets, self.bytes)
    }

    /// Takes the addresses of the computer's network interfaces in place of those before.
    pub(crate) fn set_interface_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let count = self.own.set_interfaces(addresses);
        debug!(count, "addresses of the server's own interfaces set");
    }

    /// Returns true if an address leads to the server's own computer, and programs there may not be peers.
    pub(crate) fn refuses_own(&self, address: IpAddr) -> bool {
        !self.allow_own_address && self.own.contains(address)
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
        self.check_payload(packet, &payload)?;
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
        self.check_payload(packet, &payload)?;
        let length = payload.len() as u64;
        let forward = if let Some(neighbor) = allocations.relayed.socket_at(peer) {
            let neighbor = neighbor.allocation();
            check_permission(allocations.get(neighbor), relayed, now)?;
            self.take_bandwidth(now, allocations, at, length)?;
            self.forward_to_client(now, allocations, neighbor, relayed, packet, payload)?
        } else {
            self.check_destination(listeners, peer)?;
            self.take_bandwidth(now, allocations, at, length)?;
            Forward::ToPeer { socket: RelaySocket::new(at, peer.is_ipv6()), peer, range: payload }
        };
        self.packets.from_clients += 1;
        self.bytes.from_clients += length;
        trace!(%peer, bytes = length, "packet relayed from client");
        Ok(forward)
    }

    /// Credentials are granted to the members of any party, and anybody can make one. Relaying only what members send each other keeps
    /// the server from being a proxy to the rest of the Internet.
    fn check_payload(&self, packet: &Packet<'_>, payload: &Range<usize>) -> Result<(), DropReason> {
        if self.foreign_payloads || datagram::is_between_members(packet.payload(payload)) {
            return Ok(());
        }
        Err(DropReason::ForeignPayload)
    }

    /// Packets must not leave for the server's own listeners, where a relay could be made to talk to itself, nor for other
    /// programs on its computer unless private peers are allowed. The addresses are compared with each packet, since an
    /// interface may have got one after the permission was installed.
    fn check_destination(&self, listeners: &Listeners, peer: SocketAddr) -> Result<(), DropReason> {
        let own = self.refuses_own(peer.ip());
        if peer.port() == 0 || own || listeners.contains(peer) {
            trace!(%peer, own, reason = "an address of this server", "destination refused");
            return Err(DropReason::ForbiddenPeer);
        }
        Ok(())
    }

    /// Takes a packet out of the bandwidth of the allocation, of its client's network and of the server.
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
        if let Some(networks) = &mut self.networks {
            let client = allocations.get(at).ok_or(DropReason::NoAllocation)?.client.address.ip();
            if !networks.take(now, client, length) {
                trace!(network = %host_network(client), reason = "bandwidth of its network", "packet not relayed");
                return Err(DropReason::NetworkBandwidth);
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

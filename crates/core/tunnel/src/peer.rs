//! One member of one party: its session, the path to it, and everything that limits what it sends and receives.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use partyline_model::{DeviceId, PartyId};
use partyline_timing::TokenBucket;
use rand_core::RngCore;
use tracing::{debug, debug_span, span::EnteredSpan, trace};

use crate::{
    config::{PathConfig, PeerConfig},
    control::{self, ControlTooLong, Reassembly},
    drops::{DropCounters, DropReason},
    event::{Event, Received},
    fragment,
    handshakes::HandshakeCounters,
    ip::IpHeader,
    limits::{BROADCAST_RATE, MIN_SCRATCH_LEN, WIREGUARD_OVERHEAD},
    mss,
    network_configuration::configures_network,
    outbox::{Outbox, Recipient},
    packet_too_big,
    party::Party,
    pending::PendingQueue,
    routing::Scope,
    session::{Decapsulated, Session},
    storm::Storm,
};

/// The smallest path MTU that is believed: every IPv4 host accepts packets of 576 bytes (RFC 791).
const MIN_MTU: u16 = 576;

/// The state of a session and what went through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// True while keys are agreed on, so that packets can be sent and received.
    pub ready: bool,
    /// When the last handshake was completed.
    pub last_handshake: Option<Instant>,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes received, without WireGuard's.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes sent, without WireGuard's.
    pub sent_bytes: u64,
    /// Packets from and to this member that were dropped.
    pub drops: DropCounters,
    /// The member's broadcasts above the limit.
    pub storm: Storm,
}

pub(crate) struct Peer {
    party: PartyId,
    id: DeviceId,
    config: PeerConfig,
    /// Receiver index of 24 bits: 8 random ones, then the slot.
    index: u32,
    session: Session,
    /// True if the last event reported the session as ready.
    reported_ready: bool,
    pending: PendingQueue,
    /// Limits the member's broadcasts.
    broadcasts: TokenBucket,
    reassembly: Reassembly,
    control_number: u32,
    /// The sources of the last handshake message over IPv4 and the last one over IPv6.
    handshake_sources: [Option<IpAddr>; 2],
    roamed: u64,
    mtu: usize,
    headroom: usize,
    stats: SessionStats,
}

impl Peer {
    pub(crate) fn new(
        (party, id): (PartyId, DeviceId),
        config: PeerConfig,
        index: u32,
        session: Session,
        mtu: u16,
    ) -> Self {
        Self {
            party,
            id,
            config,
            index,
            session,
            reported_ready: false,
            pending: PendingQueue::default(),
            broadcasts: TokenBucket::new(BROADCAST_RATE),
            reassembly: Reassembly::default(),
            control_number: 0,
            handshake_sources: [None; 2],
            roamed: 0,
            mtu: mtu.into(),
            headroom: 0,
            stats: SessionStats::default(),
        }
    }

    pub(crate) const fn party(&self) -> PartyId {
        self.party
    }

    pub(crate) const fn id(&self) -> DeviceId {
        self.id
    }

    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    pub(crate) const fn config(&self) -> &PeerConfig {
        &self.config
    }

    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) const fn drops(&self) -> &DropCounters {
        &self.stats.drops
    }

    pub(crate) fn handshakes(&self) -> HandshakeCounters {
        HandshakeCounters { roamed: self.roamed, ..*self.session.counters() }
    }

    pub(crate) fn stats(&self) -> SessionStats {
        SessionStats {
            ready: self.session.is_ready(),
            last_handshake: self.session.last_handshake(),
            ..self.stats
        }
    }

    /// Enters a span with the member's ids. Costs nothing while spans of this level are disabled.
    pub(crate) fn enter_span(&self) -> EnteredSpan {
        debug_span!("peer", party = %self.party.short(), peer = %self.id.short()).entered()
    }

    /// Replaces the addresses and returns the former configuration.
    pub(crate) fn replace_config(&mut self, config: PeerConfig) -> PeerConfig {
        std::mem::replace(&mut self.config, config)
    }

    /// Sets what the path to the member carries, or that there is none.
    pub(crate) fn set_path(&mut self, now: Instant, path: Option<PathConfig>, device_mtu: u16) {
        let _span = self.enter_span();
        let before = (self.session.has_path(), self.headroom, self.mtu);
        if let Some(path) = path {
            self.headroom = path.headroom;
            self.mtu = path.mtu.map_or(device_mtu, |mtu| mtu.clamp(MIN_MTU, device_mtu)).into();
        }
        self.session.set_path(now, path.is_some());
        if before != (path.is_some(), self.headroom, self.mtu) {
            debug!(
                up = path.is_some(),
                mtu = self.mtu,
                headroom = self.headroom,
                "path of the session changed"
            );
        }
    }

    /// Initiates a handshake at the next timeout, because the member has lost its keys.
    pub(crate) fn rekey(&mut self, now: Instant) {
        debug!(party = %self.party.short(), peer = %self.id.short(), reason = "peer lost its keys", "handshake requested");
        self.session.rekey(now);
    }

    /// Returns the moment to call [`Self::handle_timeout`], if any.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout(!self.pending.is_empty())
    }

    /// Handles timers that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut impl RngCore, outbox: &mut Outbox) {
        let _span = self.enter_span();
        for _ in 0..self.pending.expire(now) {
            self.drop_packet(DropReason::PendingExpired);
        }
        let (recipient, session) = (self.recipient(), &mut self.session);
        let has_room = outbox.write(recipient, MIN_SCRATCH_LEN, |dst| session.handle_timeout(now, rng, dst));
        if !has_room {
            trace!(reason = DropReason::OutboxFull.label(), "timers wait for the outbox");
        }
        self.send_pending(outbox);
    }

    /// Returns the change of the session's state since the last call, if any.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let ready = self.session.is_ready();
        if ready == self.reported_ready {
            return None;
        }
        trace!(party = %self.party.short(), peer = %self.id.short(), ready, "session change reported");
        self.reported_ready = ready;
        let (party, peer) = (self.party, self.id);
        Some(if ready { Event::SessionReady { party, peer } } else { Event::SessionLost { party, peer } })
    }

    /// Sends an IP packet: clamps its MSS, fragments it or notifies its sender if it exceeds the path MTU.
    pub(crate) fn send_packet(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &IpHeader,
        outbox: &mut Outbox,
    ) {
        mss::clamp(packet, header, self.mtu);
        if packet.len() <= self.mtu {
            return self.send_fitting(now, packet, outbox);
        }
        if fragment::allowed(packet, header) {
            trace!(party = %self.party.short(), peer = %self.id.short(), bytes = packet.len(), mtu = self.mtu, "packet fragmented");
            return fragment::split(packet, header, self.mtu)
                .for_each(|part| self.send_fitting(now, &part, outbox));
        }
        if let Some(reply) = packet_too_big::reply(packet, header, self.mtu) {
            let pushed = outbox.push_delivery(self.party, &reply);
            trace!(party = %self.party.short(), peer = %self.id.short(), bytes = packet.len(), mtu = self.mtu, pushed, "packet too big");
        }
        self.drop_packet(DropReason::ExceedsMtu);
    }

    /// Sends one copy of a broadcast. A member without a path is not waited for: discovery repeats its broadcasts.
    pub(crate) fn send_broadcast(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &IpHeader,
        outbox: &mut Outbox,
    ) {
        if self.session.has_path() {
            self.send_packet(now, packet, header, outbox);
        } else {
            self.drop_packet(DropReason::NoPath);
        }
    }

    /// Sends a message of the control channel from our address `from`.
    pub(crate) fn send_control(
        &mut self,
        now: Instant,
        from: Ipv6Addr,
        message: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), ControlTooLong> {
        self.control_number = self.control_number.wrapping_add(1);
        for packet in control::packets(from, self.config.v6, self.control_number, message)? {
            self.send_fitting(now, &packet, outbox);
        }
        trace!(party = %self.party.short(), peer = %self.id.short(), bytes = message.len(), "control message sent");
        Ok(())
    }

    /// Encrypts a packet that fits the path MTU, or lets it wait for the session.
    fn send_fitting(&mut self, now: Instant, packet: &[u8], outbox: &mut Outbox) {
        if self.session.can_send() {
            return self.encapsulate(packet, outbox);
        }
        for _ in 0..self.pending.expire(now) {
            self.drop_packet(DropReason::PendingExpired);
        }
        if self.pending.push(now, packet) {
            self.drop_packet(DropReason::PendingOverflow);
        }
        trace!(party = %self.party.short(), peer = %self.id.short(), bytes = packet.len(), "packet waits for the session");
    }

    fn encapsulate(&mut self, packet: &[u8], outbox: &mut Outbox) {
        let (recipient, session) = (self.recipient(), &mut self.session);
        let capacity = (packet.len() + WIREGUARD_OVERHEAD).max(MIN_SCRATCH_LEN);
        if !outbox.write(recipient, capacity, |dst| session.encapsulate(packet, dst)) {
            return self.drop_packet(DropReason::OutboxFull);
        }
        self.stats.sent_packets += 1;
        self.stats.sent_bytes += packet.len() as u64;
        trace!(party = %self.party.short(), peer = %self.id.short(), bytes = packet.len(), "packet sent");
    }

    fn send_pending(&mut self, outbox: &mut Outbox) {
        while self.session.can_send()
            && let Some(packet) = self.pending.pop()
        {
            trace!(party = %self.party.short(), peer = %self.id.short(), "waiting packet sent");
            self.encapsulate(&packet, outbox);
        }
    }

    /// Handles a handshake message or a cookie reply; the answer is written to `scratch`.
    pub(crate) fn handle_handshake<'a>(
        &mut self,
        now: Instant,
        source: IpAddr,
        datagram: &[u8],
        scratch: &'a mut [u8],
        outbox: &mut Outbox,
    ) -> Received<'a> {
        let _span = self.enter_span();
        match self.session.handle_handshake(now, datagram, scratch) {
            Ok(opened) => {
                self.note_source(source);
                self.send_pending(outbox);
                self.without_packet(opened, scratch)
            }
            Err(reason) => self.drop_datagram(reason),
        }
    }

    /// Counts a source that replaces another one of its address family. A peer with paths over both families has not
    /// moved when its handshakes change from one to the other.
    fn note_source(&mut self, source: IpAddr) {
        let known = &mut self.handshake_sources[usize::from(source.is_ipv6())];
        if let Some(before) = known.replace(source).filter(|before| *before != source) {
            self.roamed += 1;
            debug!(%before, %source, "peer roamed");
        }
    }

    /// Handles a data message; its packet is written to `scratch`.
    pub(crate) fn handle_data<'a>(
        &mut self,
        now: Instant,
        ours: &Party,
        datagram: &[u8],
        scratch: &'a mut [u8],
        outbox: &mut Outbox,
    ) -> Received<'a> {
        let unconfirmed = self.session.is_unconfirmed();
        let _span = unconfirmed.then(|| self.enter_span());
        let opened = match self.session.decapsulate(now, datagram, scratch) {
            Ok(opened) => opened,
            Err(reason) => return self.drop_datagram(reason),
        };
        if unconfirmed {
            self.send_pending(outbox);
        }
        match opened {
            Decapsulated::Packet(len) => self.handle_packet(now, ours, &mut scratch[..len]),
            _ => self.without_packet(opened, scratch),
        }
    }

    fn without_packet<'a>(&self, opened: Decapsulated, scratch: &'a mut [u8]) -> Received<'a> {
        let (party, peer) = (self.party, self.id);
        match opened {
            Decapsulated::Reply(len) => {
                Received::HandshakeReply { peer: Some((party, peer)), datagram: &mut scratch[..len] }
            }
            _ => Received::Authenticated { party, peer },
        }
    }

    fn handle_packet<'a>(&mut self, now: Instant, ours: &Party, packet: &'a mut [u8]) -> Received<'a> {
        let header = match self.check_incoming(now, ours, packet) {
            Ok(header) => header,
            Err(reason) => return self.drop_datagram(reason),
        };
        let packet = &mut packet[..header.len];
        // Connections that this packet opens have to fit the path in the other direction too.
        mss::clamp(packet, &header, self.mtu);
        self.stats.received_packets += 1;
        self.stats.received_bytes += packet.len() as u64;
        trace!(party = %self.party.short(), peer = %self.id.short(), bytes = packet.len(), "packet received");
        if control::is_control(packet, &header) {
            return self.handle_control(now, &packet[header.payload..]);
        }
        Received::Packet { party: self.party, peer: self.id, packet }
    }

    /// Checks an authentic packet: its source must be the member's, its destination ours or a broadcast address.
    fn check_incoming(&mut self, now: Instant, ours: &Party, packet: &[u8]) -> Result<IpHeader, DropReason> {
        let header = IpHeader::parse(packet).ok_or(DropReason::Malformed)?;
        if !self.config.owns(header.source) {
            trace!(party = %self.party.short(), peer = %self.id.short(), source = %header.source, "peer sent from a foreign address");
            return Err(DropReason::SpoofedSource);
        }
        if configures_network(packet, &header) {
            debug!(party = %self.party.short(), peer = %self.id.short(), protocol = header.protocol, "peer sent what would configure this computer's network");
            return Err(DropReason::NetworkConfiguration);
        }
        self.check_destination(now, ours, &header)?;
        // The control channel is the engine's own, and no port of this computer.
        if control::is_control(packet, &header) || ours.incoming.admits(now, packet, &header) {
            return Ok(header);
        }
        Err(DropReason::IncomingBlocked)
    }

    fn check_destination(&mut self, now: Instant, ours: &Party, header: &IpHeader) -> Result<(), DropReason> {
        if ours.config.owns(header.destination) {
            return Ok(());
        }
        match Scope::of(header.destination, &ours.config) {
            Scope::Unicast => Err(DropReason::ForeignDestination),
            Scope::Routers => Err(DropReason::RouterMulticast),
            Scope::Broadcast if !self.broadcasts.take(now, 1) => {
                self.stats.storm.on_drop(now);
                Err(DropReason::BroadcastRateLimited)
            }
            Scope::Broadcast => Ok(()),
        }
    }

    fn handle_control(&mut self, now: Instant, udp: &[u8]) -> Received<'static> {
        let (party, peer) = (self.party, self.id);
        let result = self.reassembly.handle_chunk(now, udp);
        for _ in 0..self.reassembly.take_discarded() {
            debug!(party = %party.short(), peer = %peer.short(), reason = "chunks are missing", "control message discarded");
            self.drop_packet(DropReason::IncompleteControl);
        }
        match result {
            Ok(Some(message)) => {
                trace!(party = %party.short(), peer = %peer.short(), bytes = message.len(), "control message received");
                Received::Control { party, peer, message }
            }
            Ok(None) => Received::Authenticated { party, peer },
            Err(reason) => self.drop_datagram(reason),
        }
    }

    fn drop_datagram(&mut self, reason: DropReason) -> Received<'static> {
        self.drop_packet(reason);
        Received::Dropped(reason)
    }

    fn drop_packet(&mut self, reason: DropReason) {
        self.stats.drops.count(reason);
        trace!(party = %self.party.short(), peer = %self.id.short(), reason = reason.label(), "packet dropped");
    }

    const fn recipient(&self) -> Recipient {
        Recipient { party: self.party, peer: self.id, headroom: self.headroom }
    }
}

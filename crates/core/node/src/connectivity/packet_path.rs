//! The packet path: IP packets from the network devices become datagrams, and datagrams become IP packets.
//!
//! [`PacketPath`] couples the path machine and the tunnel. Nothing is queued or copied on the usual way: the tunnel
//! encrypts into its outbox, with room in front of every datagram that goes through a relay server, and the route of
//! the path machine says what to put there and where it goes. What another member relays travels as a control message
//! inside the two tunnels to that member, and is unwrapped here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use partyline_model::{DeviceId, IncomingPolicy, Now, PartyId, SocketId, StreamId};
use partyline_paths::{
    Event as PathEvent, Handled, Hop, Local as PathLocal, MemberRelay, Path, Paths, PeerId, PeerView,
    RelayTransport, Transmit as PathTransmit, Via,
};
use partyline_tunnel::{
    Burst, Event as TunnelEvent, Outbox, PartyConfig, PathConfig, RELAY_HEADROOM, Received, SessionStats,
    Source, Tunnel,
};
use partyline_wire::datagram::{CHANNEL_HEADER, FramingError};
use tracing::{debug, trace};
use x25519_dalek::StaticSecret;

use super::{
    attempts::ConnectionAttempts,
    event::Event,
    member_relays::{MAX_ASKED, MemberRelays},
    peers::Peers,
    streams::Streams,
};
use crate::{
    control::{ControlMessage, MemberTag},
    egress::{Deliver, Egress, EgressQueue, Local, Transmit},
    io::{DeviceConfig, Output, StreamInput},
    signaling::PeerInfo,
    spans::peer_span,
};

/// The path machine and the tunnel, and what couples them.
pub(super) struct PacketPath {
    paths: Paths,
    tunnel: Tunnel,
    peers: Peers,
    attempts: ConnectionAttempts,
    member_relays: MemberRelays,
    streams: Streams,
    /// The networks of the parties, into which no path may lead.
    networks: BTreeMap<PartyId, [IpNet; 2]>,
    /// Members with whom a session is up.
    connected: BTreeSet<(PartyId, DeviceId)>,
    outbox: Outbox,
    queue: EgressQueue,
    /// Control messages that could not be read.
    malformed: u64,
    events: VecDeque<Event>,
}

impl PacketPath {
    pub(super) fn new(now: Instant, paths: Paths, tunnel: Tunnel, serves_members: bool) -> Self {
        Self {
            paths,
            tunnel,
            peers: Peers::default(),
            attempts: ConnectionAttempts::default(),
            member_relays: MemberRelays::new(now, serves_members),
            streams: Streams::default(),
            networks: BTreeMap::new(),
            connected: BTreeSet::new(),
            outbox: Outbox::new(),
            queue: EgressQueue::default(),
            malformed: 0,
            events: VecDeque::new(),
        }
    }

    /// Returns the path machine.
    pub(super) const fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Returns the path machine, to tell it about the network.
    pub(super) const fn paths_mut(&mut self) -> &mut Paths {
        &mut self.paths
    }

    /// Returns the tunnel.
    pub(super) const fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Returns the members that the path machine knows.
    pub(super) const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Returns relaying between members.
    pub(super) const fn member_relays(&self) -> &MemberRelays {
        &self.member_relays
    }

    /// Returns relaying between members, to tell it about the network and the settings.
    pub(super) const fn member_relays_mut(&mut self) -> &mut MemberRelays {
        &mut self.member_relays
    }

    /// Returns what is known about the paths to a member.
    pub(super) fn path(&self, now: Instant, party: PartyId, device: DeviceId) -> Option<PeerView> {
        self.paths.view(now, self.peers.id(party, device)?)
    }

    /// Returns the session with a member.
    pub(super) fn session(&self, party: PartyId, device: DeviceId) -> Option<SessionStats> {
        self.tunnel.session(party, device)
    }

    /// Returns the devices with which a session is up, each once.
    pub(super) fn connected_devices(&self) -> BTreeMap<DeviceId, PartyId> {
        self.connected.iter().map(|(party, device)| (*device, *party)).collect()
    }

    // Parties and members.

    /// Adds a party's network, or changes its addresses.
    pub(super) fn set_party(
        &mut self,
        now: Instant,
        party: PartyId,
        secret: StaticSecret,
        device: &DeviceConfig,
    ) {
        let DeviceConfig { v4, v6, mtu } = *device;
        debug!(party = %party.short(), %v4, %v6, mtu, "network of the party configured");
        self.tunnel.set_party(party, secret, PartyConfig { v4, v6, mtu });
        self.networks.insert(party, [v4.trunc().into(), v6.trunc().into()]);
        self.exclude_parties(now);
        self.drop_dead_sessions(party);
    }

    /// Sets what the members of a party may reach on this computer.
    pub(super) fn set_incoming_policy(&mut self, party: PartyId, policy: &IncomingPolicy) {
        self.tunnel.set_incoming_policy(party, policy);
    }

    /// Forgets a party with all its sessions.
    pub(super) fn remove_party(&mut self, now: Instant, party: PartyId) {
        debug!(party = %party.short(), "network of the party removed");
        self.tunnel.remove_party(party);
        self.networks.remove(&party);
        self.exclude_parties(now);
        self.drop_dead_sessions(party);
    }

    fn exclude_parties(&mut self, now: Instant) {
        let networks = self.networks.values().flatten().copied().collect();
        self.paths.set_excluded(now, networks);
    }

    /// Adds a member, or takes what changed about it.
    pub(super) fn set_peer(&mut self, now: Instant, info: PeerInfo) {
        let PeerInfo { party, device, tunnel, paths, restarted, trace_id } = info;
        let _span = peer_span(party, device).entered();
        self.tunnel.set_peer(now, party, device, tunnel);
        if let Some(params) = paths {
            let (candidates, nat) = (params.candidates.clone(), params.nat.clone());
            let (id, new) = self.peers.insert(party, device, candidates, nat);
            if new {
                debug!(id = id.0, "peer added");
                self.paths.name_peer(id, party, device);
                self.attempts.start(now, id, (party, device), trace_id);
            }
            let Self { attempts, paths, .. } = self;
            attempts.in_scope(id, || paths.set_peer(now, id, params));
        }
        if restarted {
            debug!(peer = %device.short(), reason = "its engine was restarted", "new handshake wanted");
            self.tunnel.rekey(now, party, device);
        }
        self.drop_dead_sessions(party);
    }

    /// Forgets a member with its paths and its session. What waits for it is sent first.
    pub(super) fn remove_peer(&mut self, now: Now, party: PartyId, device: DeviceId) {
        let _span = peer_span(party, device).entered();
        if !self.outbox.is_empty() {
            let mut queue = std::mem::take(&mut self.queue);
            self.send_outbox(now.instant, &mut queue);
            self.queue = queue;
        }
        if let Some(id) = self.peers.remove(party, device) {
            debug!(id = id.0, "peer removed");
            self.paths.remove_peer(now.instant, id);
            self.attempts.remove(id);
        }
        self.tunnel.remove_peer(party, device);
        self.drop_dead_sessions(party);
    }

    /// Reports sessions that are gone without the tunnel having said so: their member or party was removed, or has
    /// another key.
    fn drop_dead_sessions(&mut self, party: PartyId) {
        let members = (party, DeviceId([0; 32]))..=(party, DeviceId([0xff; 32]));
        let is_dead = |(party, member): &&(PartyId, DeviceId)| {
            !self.tunnel.session(*party, *member).is_some_and(|session| session.ready)
        };
        let dead: Vec<_> = self.connected.range(members).filter(is_dead).copied().collect();
        dead.into_iter().for_each(|(party, member)| self.on_session_lost(party, member));
    }

    fn on_session_lost(&mut self, party: PartyId, member: DeviceId) {
        if self.connected.remove(&(party, member)) {
            debug!(party = %party.short(), peer = %member.short(), "session gone");
            self.events.push_back(Event::SessionDown { party, member });
        }
    }

    // Time and events.

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let search = (self.peers.len() > 1).then(|| self.member_relays.poll_timeout());
        let parts =
            [self.paths.poll_timeout(), self.tunnel.poll_timeout(), self.attempts.poll_timeout(), search];
        parts.into_iter().flatten().min()
    }

    /// Lets time pass. `is_online` says of a member whether it is worth a search for a relaying member.
    pub(super) fn handle_timeout(&mut self, now: Now, is_online: &dyn Fn(PartyId, &DeviceId) -> bool) {
        self.paths.handle_timeout(now.instant);
        self.attempts.handle_timeout(now.instant);
        if self.member_relays.poll_search(now.instant) {
            self.find_member_relays(now.instant, is_online);
        }
    }

    /// Lets the path machine and the tunnel act on each other. The tunnel's timeouts are handled here and not in
    /// [`Self::handle_timeout`], since another path or another key makes a handshake due at once.
    pub(super) fn drive(&mut self, now: Now) {
        while let Some(event) = self.paths.poll_event() {
            self.on_path_event(now.instant, event);
        }
        self.tunnel.handle_timeout(now.instant, &mut self.outbox);
        while let Some(event) = self.tunnel.poll_event() {
            self.on_tunnel_event(event);
        }
    }

    /// Returns the next thing for another part of the node.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn output(&mut self, output: Output) {
        self.events.push_back(Event::Output(output));
    }

    fn on_path_event(&mut self, now: Instant, event: PathEvent) {
        match event {
            PathEvent::LocalCandidates(candidates) => self.events.push_back(Event::Candidates(candidates)),
            PathEvent::PublicAddressChanged => self.events.push_back(Event::PublicAddressChanged),
            PathEvent::RouterFull { spray_limit } => self.events.push_back(Event::RouterFull { spray_limit }),
            PathEvent::PathChanged { peer, path, kind } => {
                let Some((party, device)) = self.peers.member(peer) else { return };
                self.attempts.in_scope(peer, || debug!(?kind, ?path, "tunnel uses another path"));
                self.attempts.on_path(now, peer, kind);
                let headroom =
                    |path: Path| if matches!(path.via, Via::Relay(_)) { RELAY_HEADROOM } else { 0 };
                let config = path.map(|path| PathConfig { headroom: headroom(path), mtu: None });
                self.tunnel.set_path(now, party, device, config);
                self.events.push_back(Event::Changed);
            }
            PathEvent::Sampled { peer, rtt, kind } => {
                if let Some(member) = self.peers.member(peer) {
                    self.events.push_back(Event::Sampled { member, rtt, kind });
                }
            }
            PathEvent::Attempted { method, succeeded, took } => {
                self.events.push_back(Event::Attempted { method, succeeded, took });
            }
            PathEvent::OpenStream { stream, transport, address, host } => {
                debug!(stream = stream.0, ?transport, %address, "opening stream to relay");
                self.streams.insert(stream, address);
                let tls = transport == RelayTransport::Tls;
                self.output(Output::StreamOpen { id: stream, tls, address, host });
            }
            PathEvent::CloseStream(id) => {
                debug!(stream = id.0, reason = "not needed any more", "closing stream to relay");
                self.streams.remove(id);
                self.output(Output::StreamClose { id });
            }
            PathEvent::OpenSockets(ids) => self.output(Output::OpenSockets { ids }),
            PathEvent::CloseSocket(id) => self.output(Output::CloseSocket { id }),
            PathEvent::Signal { peer, bytes } => {
                if let Some((party, to)) = self.peers.member(peer) {
                    self.events.push_back(Event::Signal { party, to, bytes });
                }
            }
        }
    }

    fn on_tunnel_event(&mut self, event: TunnelEvent) {
        match event {
            TunnelEvent::SessionReady { party, peer } => {
                // Meanwhile the member may have been removed.
                if self.tunnel.session(party, peer).is_some_and(|session| session.ready) {
                    debug!(party = %party.short(), peer = %peer.short(), "session up");
                    self.connected.insert((party, peer));
                    self.events.push_back(Event::SessionUp { party, member: peer });
                }
            }
            TunnelEvent::SessionLost { party, peer } => self.on_session_lost(party, peer),
        }
        self.events.push_back(Event::Changed);
    }

    // From the network.

    /// Takes a datagram that arrived by some socket, stream or relaying member. Returns true if it is for neither the
    /// path machine nor the tunnel. An IP packet in it is written to `scratch` and delivered.
    pub(super) fn handle_datagram(
        &mut self,
        now: Now,
        local: PathLocal,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) -> bool {
        match self.paths.handle_datagram(now.instant, local, source, datagram) {
            Handled::Foreign => return true,
            Handled::Consumed => {}
            Handled::Tunnel { payload, path } => {
                if let Some(message) = datagram.get(payload) {
                    self.open(now, source, path, message, scratch, egress);
                }
            }
        }
        false
    }

    fn open(
        &mut self,
        now: Now,
        source: SocketAddr,
        path: Path,
        message: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        let from = source_of(path, source);
        match self.tunnel.handle_datagram(now.instant, from, message, scratch, &mut self.outbox) {
            Received::Packet { party, peer, packet } => {
                self.on_authenticated(now.instant, party, peer, path);
                egress.deliver(Deliver { party, packet });
            }
            Received::Control { party, peer, message } => {
                self.on_authenticated(now.instant, party, peer, path);
                self.on_control(now, (source, path), (party, peer), &message, scratch, egress);
            }
            Received::HandshakeReply { peer, datagram } => {
                if let Some((party, peer)) = peer {
                    self.on_authenticated(now.instant, party, peer, path);
                }
                self.reply(path, datagram);
            }
            Received::Authenticated { party, peer } => self.on_authenticated(now.instant, party, peer, path),
            Received::Dropped(reason) => trace!(%source, ?reason, "tunnel message dropped"),
        }
    }

    fn on_authenticated(&mut self, now: Instant, party: PartyId, peer: DeviceId, path: Path) {
        if let Some(peer) = self.peers.id(party, peer) {
            self.paths.on_authenticated(now, peer, path);
        }
    }

    fn on_control(
        &mut self,
        now: Now,
        (source, path): (SocketAddr, Path),
        (party, from): (PartyId, DeviceId),
        bytes: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match ControlMessage::decode(bytes) {
            None => {
                self.malformed += 1;
                debug!(party = %party.short(), peer = %from.short(), reason = "malformed", "control message dropped");
            }
            Some(ControlMessage::Forward { to, message }) => {
                self.forward(now.instant, party, from, to, message);
            }
            Some(ControlMessage::Forwarded { from: tag, message }) => {
                // A forwarded message holds no forwarded message.
                let direct = matches!(path.via, Via::Socket(_));
                let local = self.forwarded_by(party, from, tag).filter(|_| direct);
                match local {
                    Some(local) => {
                        self.handle_datagram(now, local, source, &message, scratch, egress);
                    }
                    None => {
                        trace!(peer = %from.short(), reason = "not direct, or unknown sender", "forwarded message dropped")
                    }
                }
            }
            Some(message) => {
                trace!(party = %party.short(), peer = %from.short(), message = message.name(), "control message");
                self.events.push_back(Event::Control { party, from, message });
            }
        }
    }

    /// Takes what happened to a stream to a relay.
    pub(super) fn handle_stream(
        &mut self,
        now: Now,
        id: StreamId,
        input: StreamInput,
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match input {
            StreamInput::Opened => {
                debug!(stream = id.0, "stream to relay open");
                self.paths.stream_opened(now.instant, id);
            }
            StreamInput::Closed => {
                debug!(
                    stream = id.0,
                    reason = "closed by the relay or never opened",
                    "stream to relay closed"
                );
                self.close_stream(now.instant, id);
            }
            StreamInput::Data(bytes) => {
                self.streams.push(id, &bytes);
                self.read_stream(now, id, scratch, egress);
            }
        }
    }

    fn read_stream(&mut self, now: Now, id: StreamId, scratch: &mut [u8], egress: &mut impl Egress) {
        loop {
            match self.streams.next_message(id) {
                Ok(Some((server, message))) => {
                    self.handle_datagram(now, PathLocal::Stream(id), server, &message, scratch, egress);
                }
                Ok(None) => return,
                Err(FramingError) => {
                    debug!(stream = id.0, reason = "not TURN", "closing stream to relay");
                    self.output(Output::StreamClose { id });
                    return self.close_stream(now.instant, id);
                }
            }
        }
    }

    fn close_stream(&mut self, now: Instant, id: StreamId) {
        self.streams.remove(id);
        self.paths.stream_closed(now, id);
    }

    // To the network.

    /// Takes an IP packet from a party's network device; what it becomes leaves with [`Self::flush`].
    pub(super) fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8]) {
        self.tunnel.handle_packet(now, party, packet, &mut self.outbox);
    }

    /// Sends a message to a member's engine through the tunnel; it leaves with [`Self::flush`].
    pub(super) fn send_control(
        &mut self,
        now: Instant,
        party: PartyId,
        to: DeviceId,
        message: &ControlMessage,
    ) {
        let Some(bytes) = message.encode() else { return };
        trace!(peer = %to.short(), message = message.name(), len = bytes.len(), "sending control message");
        if self.tunnel.send_control(now, party, to, &bytes, &mut self.outbox).is_err() {
            debug!(peer = %to.short(), message = message.name(), len = bytes.len(), reason = "too long", "control message dropped");
        }
    }

    /// Queues a datagram from one of the computer's sockets; it leaves with [`Self::flush`].
    pub(super) fn queue(&mut self, socket: SocketId, destination: SocketAddr, datagram: &[u8]) {
        self.queue.push(Local::Socket(socket), destination, datagram);
    }

    /// Sends everything that waits.
    pub(super) fn flush(&mut self, now: Now, egress: &mut impl Egress) {
        self.queue.flush(egress);
        self.send_outbox(now.instant, egress);
        while let Some(PathTransmit { local, destination, bytes }) = self.paths.poll_transmit() {
            match local {
                PathLocal::Member(relay) => self.member_relays.push(relay, bytes),
                PathLocal::Socket(_) | PathLocal::Stream(_) => {
                    transmit(local, destination, bytes.len(), &bytes, egress);
                }
            }
        }
        self.send_through_members(now.instant, egress);
    }

    fn send_outbox(&mut self, now: Instant, egress: &mut impl Egress) {
        let mut outbox = std::mem::take(&mut self.outbox);
        for burst in outbox.bursts() {
            self.send_burst(now, burst, egress);
        }
        for (party, packet) in outbox.deliveries() {
            egress.deliver(Deliver { party, packet });
        }
        outbox.clear();
        self.outbox = outbox;
    }

    fn send_burst(&mut self, now: Instant, mut burst: Burst<'_>, egress: &mut impl Egress) {
        let Some(peer) = self.peers.id(burst.party, burst.peer) else {
            trace!(peer = %burst.peer.short(), len = burst.bytes.len(), reason = "unknown peer", "datagrams dropped");
            return;
        };
        let Some(route) = self.paths.route(now, peer) else {
            trace!(peer = %burst.peer.short(), len = burst.bytes.len(), reason = "no path", "datagrams dropped");
            return;
        };
        if let Some(second) = route.secondary {
            self.send_hop(second, &mut burst, egress);
        }
        self.send_hop(route.primary, &mut burst, egress);
    }

    fn send_hop(&mut self, hop: Hop, burst: &mut Burst<'_>, egress: &mut impl Egress) {
        let PathLocal::Member(relay) = hop.local else { return send_along(hop, burst, egress) };
        let skip = burst.headroom;
        for segment in burst.segments() {
            self.member_relays.push(relay, segment[skip.min(segment.len())..].to_vec());
        }
    }

    /// Sends the answer to a handshake message back along the path it came by, before any route is chosen.
    fn reply(&mut self, path: Path, datagram: &[u8]) {
        let Some(hop) = self.paths.hop(path) else {
            trace!(?path, reason = "path is gone", "handshake reply dropped");
            return;
        };
        let message = framed(&hop, datagram);
        match hop.local {
            PathLocal::Member(relay) => self.member_relays.push(relay, message),
            local => transmit(local, hop.destination, message.len(), &message, &mut self.queue),
        }
    }

    // Members as relays.

    /// Asks members to relay to peers that are reached by a relay server only, or not at all.
    fn find_member_relays(&mut self, now: Instant, is_online: &dyn Fn(PartyId, &DeviceId) -> bool) {
        let wanted: BTreeSet<PeerId> = self.paths.peers_wanting_member_relay(now).into_iter().collect();
        self.member_relays.retain_searches(&wanted);
        for peer in wanted {
            let Some((party, to)) = self.peers.member(peer) else { continue };
            if is_online(party, &to) && self.member_relays.begin_search(now, peer) {
                self.request_relays(now, party, peer, to);
            }
        }
    }

    fn request_relays(&mut self, now: Instant, party: PartyId, peer: PeerId, to: DeviceId) {
        let members = self.tunnel.ready_peers(party);
        let rtt = |member| self.paths.direct_rtt(self.peers.id(party, member)?);
        let mut near: Vec<(Duration, DeviceId)> =
            members.filter_map(|member| Some((rtt(member)?, member))).collect();
        near.sort_unstable();
        near.truncate(MAX_ASKED);
        self.attempts.in_scope(peer, || debug!(count = near.len(), "asking members to relay"));
        for (_, member) in near {
            self.member_relays.on_asked(peer, member);
            self.send_control(now, party, member, &ControlMessage::RequestRelay { to });
        }
    }

    /// Takes a member's question whether this device would relay for it.
    pub(super) fn on_relay_request(&mut self, now: Instant, party: PartyId, from: DeviceId, to: DeviceId) {
        let direct_rtt = |device| self.paths.direct_rtt(self.peers.id(party, device)?);
        let near = self.peers.id(party, from).is_some_and(|peer| self.paths.is_direct(peer));
        let Some(rtt) = direct_rtt(to).filter(|_| near) else {
            debug!(peer = %from.short(), to = %to.short(), reason = "not direct", "relay request refused");
            return;
        };
        if self.member_relays.serve(now, party, from, to) {
            let rtt_ms = u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX);
            self.send_control(now, party, from, &ControlMessage::OfferRelay { to, rtt_ms });
        }
    }

    /// Takes a member's offer to relay for this device; used only if the member was asked.
    pub(super) fn on_relay_offer(
        &mut self,
        now: Instant,
        party: PartyId,
        from: DeviceId,
        to: DeviceId,
        rtt: Duration,
    ) {
        let Some((through, to)) = self.peers.id(party, from).zip(self.peers.id(party, to)) else {
            debug!(peer = %from.short(), reason = "unknown member", "relay offer ignored");
            return;
        };
        if self.member_relays.admit_offer(to, from) {
            debug!(peer = %from.short(), rtt_ms = rtt.as_millis(), "member offers to relay");
            self.paths.offer_member_relay(now, MemberRelay { through, to }, rtt);
        }
    }

    /// Forwards a message from one member to another.
    fn forward(&mut self, now: Instant, party: PartyId, from: DeviceId, to: MemberTag, message: Vec<u8>) {
        let Some(to) = self.peers.by_tag(party, to) else {
            trace!(peer = %from.short(), reason = "unknown receiver", "message not forwarded");
            return self.member_relays.on_unknown_receiver();
        };
        let is_direct = |device| self.peers.id(party, device).is_some_and(|peer| self.paths.is_direct(peer));
        let direct = is_direct(from) && is_direct(to);
        if self.member_relays.admit(now, party, (from, to), direct, message.len()) {
            let forwarded = ControlMessage::Forwarded { from: tag(&from), message };
            self.send_control(now, party, to, &forwarded);
        }
    }

    /// Returns the path by which a forwarded message came, if both are members and the relaying one is reached
    /// directly.
    fn forwarded_by(&self, party: PartyId, through: DeviceId, from: MemberTag) -> Option<PathLocal> {
        let from = self.peers.by_tag(party, from)?;
        let through = self.peers.id(party, through).filter(|peer| self.paths.is_direct(*peer))?;
        let to = self.peers.id(party, from).filter(|to| *to != through)?;
        Some(PathLocal::Member(MemberRelay { through, to }))
    }

    /// Wraps own messages for the members that relay them, and sends them.
    fn send_through_members(&mut self, now: Instant, egress: &mut impl Egress) {
        let waiting = self.member_relays.take_waiting();
        if waiting.is_empty() {
            return;
        }
        for (MemberRelay { through, to }, message) in waiting {
            let members = self.peers.member(through).zip(self.peers.member(to));
            let Some(((party, relaying), (_, to))) = members else { continue };
            // Nothing is relayed twice: the relaying member must be reached directly.
            if self.paths.is_direct(through) {
                let forward = ControlMessage::Forward { to: tag(&to), message };
                self.send_control(now, party, relaying, &forward);
            } else {
                trace!(peer = %relaying.short(), to = %to.short(), reason = "not reached directly any more", "message not sent");
                self.member_relays.on_relay_lost();
            }
        }
        self.send_outbox(now, egress);
        // Between the check above and sending, the route to the relaying member itself may have become a relayed one.
        // What is left is dropped, since nothing is relayed twice.
        for _ in self.member_relays.take_waiting() {
            trace!(reason = "would be relayed twice", "message not sent");
            self.member_relays.on_relay_lost();
        }
    }

    /// Returns the number of control messages that could not be read.
    pub(super) const fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Returns whose limit a tunnel message counts against that came by a path, in a datagram from an address.
fn source_of(path: Path, datagram: SocketAddr) -> Source {
    match path.via {
        Via::Socket(_) => Source::direct(datagram.ip()),
        Via::Relay(_) => Source::allocation(path.remote),
        Via::Member(MemberRelay { through, to }) => {
            Source::member_relay(datagram.ip(), through.0.into(), to.0.into())
        }
    }
}

fn tag(device: &DeviceId) -> MemberTag {
    device.0.first_chunk().copied().unwrap_or_default()
}

/// Sends datagrams by a socket or stream, in one piece where they lie as the hop wants them.
fn send_along(hop: Hop, burst: &mut Burst<'_>, egress: &mut impl Egress) {
    let headroom = if hop.channel.is_some() { CHANNEL_HEADER } else { 0 };
    if headroom == burst.headroom && matches!(hop.local, PathLocal::Socket(_)) {
        for segment in burst.segments().filter(|_| headroom > 0) {
            let (header, datagram) = segment.split_at_mut(headroom);
            header.copy_from_slice(&hop.header(datagram.len()).unwrap_or_default());
        }
        return transmit(hop.local, hop.destination, burst.segment, burst.bytes, egress);
    }
    // The route changed since the datagrams were written, or a stream frames each of them: one copy.
    let skip = burst.headroom;
    for segment in burst.segments() {
        let message = framed(&hop, &segment[skip.min(segment.len())..]);
        transmit(hop.local, hop.destination, message.len(), &message, egress);
    }
}

/// Returns a tunnel message with the header and padding that a hop wants.
fn framed(hop: &Hop, datagram: &[u8]) -> Vec<u8> {
    let mut bytes = hop.header(datagram.len()).map_or_else(Vec::new, Vec::from);
    bytes.extend_from_slice(datagram);
    bytes.resize(bytes.len() + hop.padding(datagram.len()), 0);
    bytes
}

fn transmit(
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
    egress.transmit(Transmit { local, destination, segment: segment.max(1), bytes });
}

#[cfg(test)]
mod tests;

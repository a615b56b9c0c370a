//! The node itself: wires signaling, connectivity and the view, and answers commands.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{
    AppError, Command, DeviceId, Now, PartyId, Reply, Settings, Snapshot, SocketId, StreamId, Timestamp,
};
use partyline_party::DeviceKey;
use partyline_wire::datagram;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use tracing::{debug, info, trace};

use crate::{
    connectivity::{Connectivity, Event as ConnectivityEvent, KnownNetworks, Seeds},
    control::ControlMessage,
    counters::Counters,
    egress::Egress,
    incoming,
    io::{
        DeviceInput, LocalNetwork, Output, PortMappingReport, RequestId, ServerId, ServerInput, StreamInput,
    },
    join_refusal::{ClockQuestion, ClockQuestions, JoinRefusal},
    settings,
    signaling::{Event as SignalingEvent, NewPartyRequest, Signaling},
    spans::peer_span,
    state::{Restored, SavedParty, SavedState, StateError},
    trusted_servers::TrustedServers,
    view::View,
};

/// The configuration of a [`Node`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings that apply where the user has changed nothing.
    pub settings: Settings,
    /// The version of this program, as it is shown to the user.
    pub version: String,
    /// The path machine's intervals. The user's settings override what they cover.
    pub paths: partyline_paths::Config,
    /// The extent and the intervals of the network check. The user's settings override what they cover.
    pub netcheck: partyline_netcheck::Config,
}

/// One device's part in all its parties. Inputs enter by `handle_*`; the [crate documentation](crate) says in which order
/// its methods are to be called.
pub struct Node {
    config: Config,
    settings: Settings,
    device: DeviceKey,
    signaling: Signaling,
    connectivity: Connectivity,
    view: View,
    clock_questions: ClockQuestions,
    outputs: VecDeque<Output>,
}

impl Node {
    /// Returns a node with the state that an earlier one saved ([`Self::save`]), or a new device without parties. The seed
    /// must be secret and fresh.
    ///
    /// # Errors
    /// Returns an error if the saved state is damaged or was written by a newer version.
    pub fn new(now: Now, seed: [u8; 32], config: Config, saved: Option<&[u8]>) -> Result<Self, StateError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let mut members = ChaCha20Rng::from_seed(seed);
        members.set_stream(1);
        let seeds = Seeds { paths: draw(), tunnel: draw(), netcheck: draw(), members };
        let restored = match saved {
            Some(bytes) => SavedState::decode(bytes)?.restore(now, &mut rng, &config.settings)?,
            None => Restored {
                device: DeviceKey::generate(&mut rng),
                memberships: Vec::new(),
                incoming: Vec::new(),
                addresses: Vec::new(),
                settings: config.settings.clone(),
                networks: KnownNetworks::default(),
                former: Vec::new(),
                trusted: TrustedServers::default(),
                dht_nodes: Vec::new(),
            },
        };
        let Restored {
            device,
            memberships,
            incoming,
            addresses,
            settings,
            networks,
            former,
            mut trusted,
            dht_nodes,
        } = restored;
        settings.servers.iter().for_each(|url| _ = trusted.insert(url));
        let (paths, netcheck) = (config.paths.clone(), config.netcheck);
        let connectivity = Connectivity::new(now.instant, seeds, paths, netcheck, &settings, networks);
        info!(device = %device.id().short(), parties = memberships.len(), "node started");
        let mut node = Self {
            signaling: Signaling::new(now, rng, settings.mtu, memberships, trusted)
                .with_former(former)
                .with_incoming(incoming)
                .with_addresses(now.instant, addresses),
            connectivity,
            view: View::new(config.version.clone()),
            clock_questions: ClockQuestions::default(),
            config,
            settings,
            device,
            outputs: VecDeque::new(),
        };
        node.signaling.set_beacon(now.instant, node.settings.lan_beacon);
        node.signaling.configure_dht(now.instant, node.settings.dht, &node.settings.bootstrap);
        node.signaling.add_dht_nodes(now.instant, dht_nodes);
        if saved.is_none() {
            node.outputs.push_back(Output::Save);
        }
        node.drain_events(now);
        Ok(node)
    }

    /// Returns this device's id.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device.id()
    }

    /// Returns the settings in force, passwords included.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the state to write when [`Output::Save`] asks for it. It holds secrets.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let parties = self.signaling.parties().map(SavedParty::new);
        let settings = settings::changed(&self.config.settings, &self.settings);
        let networks = self.connectivity.known_networks();
        let (former, trusted) = (self.signaling.former_parties(), self.signaling.trusted_servers());
        let nodes = self.signaling.dht_nodes();
        SavedState::new(&self.device, parties, settings, networks, former, trusted, nodes).encode()
    }

    /// Takes back a party that was just created or joined, because the state could not be written before the
    /// [`Output::Answer`] that would confirm it. What joining replaced (a membership that had ended, a pending leave) does
    /// not come back.
    pub fn abandon(&mut self, now: Now, party: PartyId) {
        self.signaling.abandon(now, party);
        self.drain_events(now);
    }

    // Time and outputs.

    /// Returns the next thing for the engine to do; `None` if there is none. See the
    /// [order of calls](crate#the-order-of-calls).
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the moment to call [`Self::handle_timeout`]. Every other call may move it in either direction; it may lie in
    /// the past, and there always is one, since relays are looked at every 20 seconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let parts =
            [self.signaling.poll_timeout(), self.connectivity.poll_timeout(), self.view.poll_timeout()];
        parts.into_iter().flatten().min()
    }

    /// Does what is due at `now`. To be called at the moment of [`Self::poll_timeout`]; earlier calls do no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        let Self { signaling, connectivity, .. } = self;
        connectivity.handle_timeout(now, &|party, member| signaling.is_online(now.instant, party, member));
        self.signaling.handle_timeout(now);
        for (request, result) in self.view.handle_timeout(now.instant) {
            self.answer(request, result);
        }
        self.drain_events(now);
    }

    /// Moves events between the parts, and then sends and delivers everything that waits. See the
    /// [order of calls](crate#the-order-of-calls).
    pub fn flush(&mut self, now: Now, egress: &mut impl Egress) {
        self.drain_events(now);
        self.connectivity.flush(now, egress);
    }

    // Packets.

    /// Takes an IP packet from a party's network device, in which the MSS of a SYN may be changed; what it becomes leaves
    /// with [`Self::flush`].
    pub fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8]) {
        self.connectivity.handle_packet(now, party, packet);
    }

    /// Takes a datagram that arrived on one of the computer's UDP sockets. An IP packet in it is written to `scratch`
    /// and leaves by [`Egress::deliver`] at once; answers leave with the next [`Self::flush`].
    ///
    /// `scratch` must have at least `max(datagram.len(), PACKET_ROOM)` bytes ([`PACKET_ROOM`](crate::PACKET_ROOM)), since
    /// a short datagram may be the last fragment of a longer message that another member relays. Otherwise the packet is
    /// dropped.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        socket: SocketId,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        // A socket for both families shows IPv4 addresses in the mapped form.
        let sender = SocketAddr::new(source.ip().to_canonical(), source.port());
        let outside = socket == SocketId::MAIN && !self.connectivity.is_excluded(sender.ip());
        match datagram::classify(datagram) {
            datagram::Kind::Direct if outside => self.signaling.handle_direct(now, sender, datagram),
            datagram::Kind::Dht if outside => self.signaling.handle_dht(now, sender, datagram),
            _ => self.connectivity.handle_datagram(now, socket, source, datagram, scratch, egress),
        }
    }

    /// Takes what happened to a stream that [`Output::StreamOpen`] asked for. Otherwise like [`Self::handle_datagram`];
    /// `scratch` must have at least 65,535 bytes, since a stream carries messages of that length.
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        input: StreamInput,
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        self.connectivity.handle_stream(now, stream, input, scratch, egress);
    }

    // Inputs from the engine.

    /// Takes the local ports of sockets that [`Output::OpenSockets`] asked for; `None` for one that could not be
    /// opened.
    pub fn handle_sockets_opened(&mut self, now: Now, opened: &[(SocketId, Option<u16>)]) {
        self.connectivity.on_sockets_opened(now.instant, opened);
        self.drain_events(now);
    }

    /// Takes the computer's own addresses: at the start, and whenever they change.
    pub fn handle_network(&mut self, now: Now, local: LocalNetwork) {
        let (on_link, routed) = (local.prefixes.clone(), local.routed.clone());
        self.signaling.set_families(now.instant, local.has_v4(), local.has_v6());
        let Some(change) = self.connectivity.set_network(now, local) else { return };
        if change.addresses_changed {
            self.signaling.check_servers(now);
            self.signaling.network_changed(now.instant);
        }
        if change.address_lost {
            self.signaling.address_lost(now);
        }
        self.signaling.set_networks(now.instant, &on_link, &routed);
        self.view.bump_revision();
        self.drain_events(now);
    }

    /// Takes note that the computer slept: every deadline may be long past, and the network another one.
    pub fn handle_wake(&mut self, now: Now) {
        debug!("computer woke up");
        self.connectivity.handle_wake(now.instant);
        self.signaling.handle_wake(now);
        self.handle_timeout(now);
    }

    /// Takes what the router's port mapping protocols say now: whenever that changes, and an empty report as soon as the
    /// computer has another router.
    pub fn handle_port_mapping(&mut self, now: Now, report: PortMappingReport) {
        self.connectivity.handle_port_mapping(now.instant, report);
        self.drain_events(now);
    }

    /// Takes the addresses of a host that [`Output::Resolve`] asked for; empty if there are none.
    pub fn handle_resolved(&mut self, now: Now, host: String, port: u16, addresses: Vec<SocketAddr>) {
        self.signaling.handle_resolved(now, &host, port, &addresses);
        self.connectivity.handle_resolved(now.instant, host, port, &addresses);
        self.drain_events(now);
    }

    /// Takes the address of a server that answers over TCP, as [`Output::Reach`] asked.
    pub fn handle_reached(&mut self, now: Now, address: IpAddr) {
        self.connectivity.on_tcp_reachable(now.instant, address);
        self.drain_events(now);
    }

    /// Takes what happened to the connection with a rendezvous server.
    pub fn handle_server(&mut self, now: Now, server: ServerId, input: ServerInput) {
        self.signaling.handle_server(now, server, input);
        self.drain_events(now);
    }

    /// Takes a server's time, as [`Output::AskTime`] asked; `None` if no server answered.
    pub fn handle_server_time(&mut self, request: RequestId, time: Option<Timestamp>) {
        if let Some(error) = self.clock_questions.on_server_time(request, time) {
            debug!(request, code = ?error.code, reason = %error.message, "command refused");
            self.answer(request, Err(error));
        }
    }

    /// Takes a LAN beacon.
    pub fn handle_beacon(&mut self, now: Now, source: SocketAddr, datagram: &[u8]) {
        self.signaling.handle_beacon(now, source, datagram);
        self.drain_events(now);
    }

    /// Takes the outcome of making a party's network device.
    pub fn handle_device(&mut self, now: Now, party: PartyId, input: DeviceInput) {
        self.signaling.handle_device(party, input);
        self.drain_events(now);
    }

    // What people see.

    /// Returns the number that grows whenever the snapshot may have changed.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.view.revision()
    }

    /// Reads the byte counts from which the snapshot's rates come; to be called before [`Self::snapshot`], at least once
    /// every two seconds while rates are shown.
    pub fn sample_traffic(&mut self, now: Now) {
        self.view.sample_traffic(now, &self.signaling, &self.connectivity);
    }

    /// Returns everything there is to show.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        self.view.snapshot(now, self.device.id(), &self.settings, &self.signaling, &self.connectivity)
    }

    /// Returns the members of a party with whom a session is up.
    #[must_use]
    pub fn connected(&self, party: PartyId) -> Vec<DeviceId> {
        self.signaling.connected(party).collect()
    }

    /// Returns everything that was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            signaling: self.signaling.counters().clone(),
            resends: *self.signaling.resend_counters(),
            member_relays: *self.connectivity.member_relay_counters(),
            probe_responder: *self.connectivity.probe_responder_counters(),
            malformed_control_messages: self.connectivity.malformed_control_messages(),
            paths: self.connectivity.path_counters(),
            tunnel: self.connectivity.tunnel().drops(),
            tunnel_peers: self.connectivity.tunnel().peer_drops(),
            handshakes: self.connectivity.tunnel().handshakes(),
            netcheck: *self.connectivity.netcheck_counters(),
            dht: *self.signaling.dht_counters(),
        }
    }

    // Commands.

    /// Carries out a command. The answer comes as [`Output::Answer`], mostly at once; an [`Output::Save`] that has to
    /// be done first comes before it.
    pub fn handle_command(&mut self, now: Now, request: RequestId, command: Command) {
        let stops = command == Command::Stop;
        // A ping is answered by the member's pong.
        if let Some(result) = self.execute(now, request, command).transpose() {
            if let Err(error) = &result {
                debug!(request, code = ?error.code, reason = %error.message, "command refused");
            }
            self.drain_events(now);
            self.answer(request, result);
        }
        if stops {
            self.outputs.push_back(Output::Stopped);
        }
        self.view.bump_revision();
    }

    fn answer(&mut self, request: RequestId, result: Result<Reply, AppError>) {
        self.outputs.push_back(Output::Answer { request, result: Box::new(result) });
    }

    /// Carries out a command; returns the reply, unless that comes later.
    fn execute(&mut self, now: Now, request: RequestId, command: Command) -> Result<Option<Reply>, AppError> {
        let Self { signaling, connectivity, view, settings, device, .. } = self;
        let reply = match command {
            Command::Snapshot => {
                self.sample_traffic(now);
                Reply::Snapshot(Box::new(self.snapshot(now)))
            }
            Command::Configure { settings } => done(self.configure(now, *settings))?,
            Command::TrustServer { url } => done(self.trust_server(now, &url))?,
            Command::MeasurePaths { party, members } => {
                connectivity.check_paths(now.instant, party, &members);
                Reply::Done
            }
            Command::Samples { party, member } => {
                Reply::Samples(view.samples(now.instant, signaling, party, member)?)
            }
            Command::Create { name, display_name, servers, range } => {
                let servers = if servers.is_empty() { settings.servers.clone() } else { servers };
                let display_name = name_or_own(display_name, settings);
                servers.iter().for_each(|url| signaling.trust_server(now, url));
                let request = NewPartyRequest { name, display_name, servers, range };
                let (party, link) = signaling.create(now, device, request)?;
                Reply::Created { party, link }
            }
            Command::Preview { link } => Reply::Preview(signaling.preview(&link)?),
            Command::Join { link, display_name } => {
                let display_name = name_or_own(display_name, settings);
                match signaling.join(now, device, &link, display_name) {
                    Ok(party) => Reply::Joined { party },
                    Err(JoinRefusal::Final(error)) => return Err(error),
                    Err(JoinRefusal::Clock(question)) => {
                        self.ask_time(request, question);
                        return Ok(None);
                    }
                }
            }
            Command::Invite { party, terms } => {
                Reply::Invite { link: signaling.create_invite(now, party, terms)? }
            }
            Command::Revoke { party, invite } => done(signaling.revoke_invite(now, party, invite))?,
            Command::Kick { party, member, scope } => {
                done(signaling.remove_member(now, party, member, scope))?
            }
            Command::SetApproval { party, on } => done(signaling.set_approval(now, party, on))?,
            Command::AnswerJoin { party, device, approve } => {
                done(signaling.answer_join(now, party, device, approve))?
            }
            Command::SetRange { party, range } => done(signaling.set_range(now, party, range))?,
            Command::RequestRange { party } => done(signaling.request_range(now.instant, party))?,
            Command::SetIncomingLevel { party, level } => {
                let policy = signaling.change_incoming(party, |policy| {
                    info!(party = %party.short(), ?level, "incoming packets filtered");
                    policy.level = level;
                    Ok(())
                })?;
                connectivity.set_incoming_policy(party, policy);
                Reply::Done
            }
            Command::SetPortRule { party, port, rule } => {
                let policy =
                    signaling.change_incoming(party, |policy| incoming::set_rule(policy, port, rule))?;
                connectivity.set_incoming_policy(party, policy);
                Reply::Done
            }
            Command::NewIdentity => {
                *device = signaling.new_identity(now);
                Reply::Done
            }
            Command::ForgetFormer { party } => done(signaling.forget_former(party))?,
            Command::Leave { party } => done(signaling.leave(now, party))?,
            Command::Up { party } => done(signaling.set_on(now, party, true))?,
            Command::Down { party } => done(signaling.set_on(now, party, false))?,
            Command::Ping { party, member } => {
                let number = view.open_ping(now.instant, request, signaling, party, member)?;
                connectivity.send_control(now.instant, party, member, &ControlMessage::Ping(number));
                return Ok(None);
            }
            Command::Netcheck { stun } => done(connectivity.check_network(now.instant, &stun))?,
            Command::Doctor => Reply::Doctor(view.findings(now.instant, signaling, connectivity)),
            Command::Stop => {
                self.stop(now);
                Reply::Done
            }
        };
        Ok(Some(reply))
    }

    fn ask_time(&mut self, request: RequestId, question: ClockQuestion) {
        debug!(request, servers = ?question.servers, reason = "an invite's end does not fit", "asking a server for its time");
        let trusted = self.signaling.trusted_servers();
        let servers = question.servers.iter().map(|url| (url.clone(), trusted.scope(url))).collect();
        self.outputs.push_back(Output::AskTime { request, servers });
        self.clock_questions.insert(request, question);
    }

    fn trust_server(&mut self, now: Now, url: &str) -> Result<(), AppError> {
        settings::check_server(url)?;
        info!(server = %url, "server confirmed");
        self.signaling.trust_server(now, url);
        self.outputs.push_back(Output::Save);
        Ok(())
    }

    fn configure(&mut self, now: Now, mut settings: Settings) -> Result<(), AppError> {
        settings::check(&settings)?;
        settings.restore_passwords(&self.settings);
        if settings == self.settings {
            return Ok(());
        }
        info!("settings changed");
        if settings.display_name != self.settings.display_name {
            self.signaling.set_display_name(now, &settings.display_name);
        }
        settings.servers.iter().for_each(|url| self.signaling.trust_server(now, url));
        self.settings = settings;
        self.connectivity.configure(now.instant, &self.settings);
        self.signaling.set_beacon(now.instant, self.settings.lan_beacon);
        self.signaling.set_mtu(now.instant, self.settings.mtu);
        self.signaling.configure_dht(now.instant, self.settings.dht, &self.settings.bootstrap);
        self.outputs.push_back(Output::Save);
        Ok(())
    }

    /// Ends cleanly: parties stay on for the next start, but their devices and connections go.
    fn stop(&mut self, now: Now) {
        info!("node stopping");
        self.view.set_stopping();
        self.outputs.push_back(Output::Save);
        self.signaling.stop(now);
    }

    // Events between the parts.

    /// Moves events between the parts until all are quiet. What one part made of an event may concern the other, so both
    /// are polled until neither has anything left.
    fn drain_events(&mut self, now: Now) {
        loop {
            self.connectivity.drive(now);
            let mut is_quiet = true;
            while let Some(event) = self.signaling.poll_event() {
                is_quiet = false;
                self.on_signaling_event(now, event);
            }
            while let Some(event) = self.connectivity.poll_event() {
                is_quiet = false;
                self.on_connectivity_event(now, event);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn on_signaling_event(&mut self, now: Now, event: SignalingEvent) {
        let connectivity = &mut self.connectivity;
        match event {
            SignalingEvent::Output(output) => self.outputs.push_back(output),
            SignalingEvent::SeenByDht(addresses) => connectivity.set_seen_by_dht(now.instant, addresses),
            SignalingEvent::Datagram { to, bytes } => connectivity.queue(to, &bytes),
            SignalingEvent::Control { party, to, message } => {
                connectivity.send_control(now.instant, party, to, &message);
            }
            SignalingEvent::PartyUp { party, secret, device } => {
                connectivity.set_party(now.instant, party, secret, &device);
                if let Some(party) = self.signaling.party(party) {
                    connectivity.set_incoming_policy(party.id(), party.incoming());
                }
            }
            SignalingEvent::PartyDown { party } => connectivity.remove_party(now.instant, party),
            SignalingEvent::PeerChanged(info) => connectivity.set_peer(now.instant, *info),
            SignalingEvent::PeerRemoved { party, device } => {
                connectivity.remove_peer(now, party, device);
                self.view.remove_member((party, device));
            }
            SignalingEvent::SignalReceived { party, from, bytes } => {
                connectivity.handle_signal(now.instant, party, from, &bytes);
            }
            SignalingEvent::RelaysGranted { server, grant, scope } => {
                connectivity.on_relay_grant(now.instant, server, grant, scope);
            }
            SignalingEvent::ServerTrusted { server } => connectivity.trust_relays(now.instant, server),
            SignalingEvent::ServerDown { server } => connectivity.on_server_down(now.instant, server),
            SignalingEvent::ServerForgotten { server } => connectivity.forget_server(now.instant, server),
            SignalingEvent::Online(online) => connectivity.set_online(now.instant, online),
            SignalingEvent::Changed => self.view.bump_revision(),
        }
    }

    fn on_connectivity_event(&mut self, now: Now, event: ConnectivityEvent) {
        let signaling = &mut self.signaling;
        match event {
            ConnectivityEvent::Output(output) => self.outputs.push_back(output),
            ConnectivityEvent::Candidates(candidates) => signaling.set_candidates(now.instant, candidates),
            ConnectivityEvent::Nat(nat) => signaling.set_nat(now.instant, nat),
            ConnectivityEvent::PublicAddressChanged | ConnectivityEvent::ServerSilent => {
                signaling.check_servers(now);
            }
            ConnectivityEvent::Signal { party, to, bytes } => signaling.send_signal(now, party, to, bytes),
            ConnectivityEvent::SessionUp { party, member } => signaling.on_session_up(now, party, member),
            ConnectivityEvent::SessionDown { party, member } => {
                signaling.on_session_down(now.instant, party, member)
            }
            ConnectivityEvent::Control { party, from, message } => {
                self.on_control(now, party, from, message);
            }
            ConnectivityEvent::Sampled { member: (party, device), rtt, kind } => {
                if rtt.is_none() {
                    signaling.doubt_servers(now);
                }
                // The member may have been removed after the check.
                if signaling.is_member(party, &device) {
                    trace!(peer = %device.short(), ?rtt, ?kind, "path sampled");
                    self.view.on_sample(now, (party, device), rtt, kind);
                }
            }
            ConnectivityEvent::Attempted { method, succeeded, took } => {
                self.view.on_attempt(method, succeeded, took);
                self.outputs.push_back(Output::PathAttempted { method, succeeded, took });
            }
            ConnectivityEvent::RouterFull { .. } | ConnectivityEvent::Changed => self.view.bump_revision(),
        }
    }

    fn on_control(&mut self, now: Now, party: PartyId, from: DeviceId, message: ControlMessage) {
        let _span = peer_span(party, from).entered();
        self.signaling.on_received(now.instant, party, from);
        match message {
            ControlMessage::Sealed { topic, sealed } => {
                self.signaling.handle_sealed(now, party, from, &topic, &sealed);
            }
            ControlMessage::Ping(number) => {
                let pong = ControlMessage::Pong(number);
                self.connectivity.send_control(now.instant, party, from, &pong);
            }
            ControlMessage::Pong(number) => {
                if let Some((request, result)) = self.view.on_pong(now.instant, party, from, number) {
                    self.answer(request, result);
                }
            }
            message => self.connectivity.handle_control(now.instant, party, from, message),
        }
    }
}

fn done(result: Result<(), AppError>) -> Result<Reply, AppError> {
    result.map(|()| Reply::Done)
}

/// Returns the name of a command, or else the one in the settings.
fn name_or_own(name: String, settings: &Settings) -> String {
    if name.is_empty() { settings.display_name.clone() } else { name }
}

#[cfg(test)]
mod tests;

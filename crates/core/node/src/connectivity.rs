//! Connectivity: finds and keeps a path to every member, and carries packets along it.
//!
//! [`Connectivity`] gathers this device's candidates, measures its NAT, selects relays, and feeds all of it to the path
//! machine inside the [packet path](packet_path). It also does for other members what they do for it: sends filtering
//! probes, leases a second port, and relays between members that cannot reach each other.

mod attempts;
mod candidates;
mod event;
mod known_networks;
mod member_relays;
mod network_check;
mod packet_path;
mod peers;
mod probe_responder;
mod relays;
mod second_port;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{
    AddressScope, AppError, Badge, DeviceId, IncomingPolicy, NatProfile, NetworkReport, Now, PartyId,
    Settings, SocketId, StreamId, is_public,
};
use partyline_netcheck::{
    Event as NetcheckEvent, FilteringProbeRequest, Netcheck, PeerMapping, PortPair, ProbeRound, StunServer,
};
use partyline_paths::{Local as PathLocal, Paths, PeerId, PeerView};
use partyline_tunnel::{SessionStats, Tunnel};
use partyline_wire::rendezvous::RelayGrant;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore as _;
use tracing::{debug, trace};
use x25519_dalek::StaticSecret;

use self::{
    candidates::LocalCandidates,
    network_check::NetworkCheck,
    packet_path::PacketPath,
    probe_responder::{PROBE_COPIES, ProbeResponder},
    relays::SelectedRelays,
    second_port::{SECOND_PORT, SecondPorts},
};
pub(crate) use self::{candidates::NetworkChange, event::Event, known_networks::KnownNetworks};
pub use self::{member_relays::MemberRelayCounters, probe_responder::ProbeResponderCounters};
use crate::{
    control::ControlMessage,
    egress::Egress,
    host_names::{Found, HostNames},
    io::{DeviceConfig, LocalNetwork, Output, PortMappingReport, ServerId, StreamInput},
    signaling::PeerInfo,
};

/// Bounds of the keepalive interval: mappings that live shorter are not worth keeping, and a path that died has to be
/// noticed.
const MIN_KEEPALIVE: Duration = Duration::from_secs(5);
const MAX_KEEPALIVE: Duration = Duration::from_secs(25);
/// How often relays are ranked.
const RELAY_CHECK: Duration = Duration::from_secs(20);
/// Members asked for a filtering probe at a time.
const MAX_PROBE_REQUESTS: usize = 3;
/// Members whose paths one command can have measured.
const MAX_MEASURED: usize = 32;

/// Paths, tunnels, and what they need to know about the network.
pub(crate) struct Connectivity {
    packet_path: PacketPath,
    netcheck: Netcheck,
    network_check: NetworkCheck,
    candidates: LocalCandidates,
    relays: SelectedRelays,
    /// The hosts of relays and of the STUN servers that the user named.
    names: HostNames,
    relay_check_at: Instant,
    known_networks: KnownNetworks,
    /// What the router said last about the flows to the keepalive servers.
    peer_mappings: Vec<PeerMapping>,
    /// The servers that the engine was last told to ask the router about.
    keepalive_servers: Vec<SocketAddr>,
    probe_responder: ProbeResponder,
    second_ports: SecondPorts,
    /// The addresses at which nodes of the DHT see the main socket, which count where no STUN server sees it.
    seen_by_dht: Vec<SocketAddr>,
    /// The path machine's configuration where the settings say nothing.
    path_defaults: partyline_paths::Config,
    rng: ChaCha20Rng,
    events: VecDeque<Event>,
}

/// Randomness for the machines inside; each seed must be secret and fresh.
pub(crate) struct Seeds {
    pub paths: [u8; 32],
    pub tunnel: [u8; 32],
    pub netcheck: [u8; 32],
    /// For the choice among members and for tokens of second ports.
    pub members: ChaCha20Rng,
}

impl Connectivity {
    /// Returns connectivity without any party.
    pub(crate) fn new(
        now: Instant,
        seeds: Seeds,
        paths: partyline_paths::Config,
        netcheck: partyline_netcheck::Config,
        settings: &Settings,
        known_networks: KnownNetworks,
    ) -> Self {
        let netcheck = partyline_netcheck::Config { enabled: settings.nat_detection, ..netcheck };
        let machine = Paths::new(seeds.paths, path_config(&paths, settings));
        let tunnel = Tunnel::new(now, seeds.tunnel);
        let mut connectivity = Self {
            packet_path: PacketPath::new(now, machine, tunnel, settings.serve_friends),
            netcheck: Netcheck::new(now, seeds.netcheck, netcheck),
            network_check: NetworkCheck::default(),
            candidates: LocalCandidates::default(),
            relays: SelectedRelays::default(),
            names: HostNames::default(),
            relay_check_at: now,
            known_networks,
            peer_mappings: Vec::new(),
            keepalive_servers: Vec::new(),
            probe_responder: ProbeResponder::default(),
            second_ports: SecondPorts::default(),
            seen_by_dht: Vec::new(),
            path_defaults: paths,
            rng: seeds.members,
            events: VecDeque::new(),
        };
        connectivity.relays.set_own(settings.relays.clone());
        connectivity.sync_names(now);
        connectivity
    }

    /// Returns the next thing for another part of the node.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let parts = [
            Some(self.relay_check_at),
            self.names.poll_timeout(),
            self.packet_path.poll_timeout(),
            self.netcheck.poll_timeout(),
            self.second_ports.poll_timeout(),
        ];
        parts.into_iter().flatten().min()
    }

    /// Lets time pass. `is_online` says which members are worth a search for a relaying member.
    pub(crate) fn handle_timeout(&mut self, now: Now, is_online: &dyn Fn(PartyId, &DeviceId) -> bool) {
        self.packet_path.handle_timeout(now, is_online);
        self.netcheck.handle_timeout(now.instant);
        if self.packet_path.paths().unanswering_relays(now.instant).next().is_some() {
            self.check_hosts(now.instant);
        }
        if self.second_ports.expire(now.instant) {
            debug!("second port closed");
            self.output(Output::CloseSocket { id: SECOND_PORT });
        }
        if self.relay_check_at <= now.instant {
            self.relay_check_at = now.instant + RELAY_CHECK;
            self.update_reflexive(now.instant);
            self.rank_relays(now.instant);
        }
    }

    /// Lets the machines act on each other, and collects their events.
    pub(crate) fn drive(&mut self, now: Now) {
        loop {
            self.packet_path.drive(now);
            while let Some(event) = self.packet_path.poll_event() {
                // Some events concern the network check, too.
                match &event {
                    Event::SessionUp { .. } | Event::SessionDown { .. } => {
                        let available = !self.packet_path.connected_devices().is_empty();
                        self.netcheck.set_observers_available(now.instant, available);
                    }
                    Event::PublicAddressChanged => self.on_public_address_changed(now.instant),
                    // A relayed address may be among those that were won or lost.
                    Event::Candidates(_) => {
                        self.check_hosts(now.instant);
                        self.update_reflexive(now.instant);
                    }
                    Event::RouterFull { spray_limit } => self.on_router_full(now, *spray_limit),
                    _ => {}
                }
                self.events.push_back(event);
            }
            let Some(event) = self.netcheck.poll_event() else { break };
            self.on_netcheck_event(now, event);
        }
        while let Some(transmit) = self.netcheck.poll_transmit() {
            self.packet_path.queue(transmit.socket, transmit.destination, &transmit.bytes);
        }
        self.report_keepalive_servers();
        let lookups = self.names.poll_lookups(now.instant).into_iter();
        self.events.extend(lookups.map(|(host, port)| Event::Output(Output::Resolve { host, port })));
    }

    fn report_keepalive_servers(&mut self) {
        let servers = self.netcheck.keepalive_servers();
        if servers != self.keepalive_servers {
            debug!(?servers, was = ?self.keepalive_servers, "keepalive servers changed");
            self.keepalive_servers.clone_from(&servers);
            self.output(Output::KeepaliveServers { servers });
        }
    }

    fn output(&mut self, output: Output) {
        self.events.push_back(Event::Output(output));
    }

    /// Looks up the hosts that are in use now, and forgets the others.
    fn sync_names(&mut self, now: Instant) {
        let named = self.network_check.hosts().cloned();
        self.names.set_wanted(now, self.relays.hosts().into_iter().chain(named));
    }

    /// Notes which servers answer. Where one has fallen silent, it may have moved.
    fn check_hosts(&mut self, now: Instant) {
        let answering = self.answering_servers(now);
        if self.names.on_answering(now, |address| answering.contains(address)) {
            self.events.push_back(Event::ServerSilent);
        }
    }

    /// Returns the addresses at which relays and STUN servers answer, as far as they were asked. An allocation shows
    /// more than a response of long ago.
    fn answering_servers(&self, now: Instant) -> BTreeSet<SocketAddr> {
        let servers = self.netcheck.report().servers.into_iter();
        let responding = servers.filter(|server| server.rtt.is_some() && !server.timed_out);
        let mut answering: BTreeSet<SocketAddr> = responding.map(|server| server.address).collect();
        let paths = self.packet_path.paths();
        paths.silent_relays().for_each(|address| _ = answering.remove(&address));
        answering.extend(paths.granting_relays());
        paths.unanswering_relays(now).for_each(|address| _ = answering.remove(&address));
        answering
    }

    // Parties and members.

    /// Sets what the members of a party may reach on this computer.
    pub(crate) fn set_incoming_policy(&mut self, party: PartyId, policy: &IncomingPolicy) {
        self.packet_path.set_incoming_policy(party, policy);
    }

    /// Adds a party's network, or changes its addresses.
    pub(crate) fn set_party(
        &mut self,
        now: Instant,
        party: PartyId,
        secret: StaticSecret,
        device: &DeviceConfig,
    ) {
        self.packet_path.set_party(now, party, secret, device);
        self.gather(now);
    }

    /// Forgets a party with all its sessions.
    pub(crate) fn remove_party(&mut self, now: Instant, party: PartyId) {
        self.packet_path.remove_party(now, party);
        self.gather(now);
    }

    /// Adds a member, or takes what changed about it.
    pub(crate) fn set_peer(&mut self, now: Instant, info: PeerInfo) {
        self.packet_path.set_peer(now, info);
    }

    /// Forgets a member with its paths and its session.
    pub(crate) fn remove_peer(&mut self, now: Now, party: PartyId, device: DeviceId) {
        self.packet_path.remove_peer(now, party, device);
    }

    /// Takes a signal from a member's path machine.
    pub(crate) fn handle_signal(&mut self, now: Instant, party: PartyId, from: DeviceId, bytes: &[u8]) {
        match self.packet_path.peers().id(party, from) {
            Some(peer) => self.packet_path.paths_mut().handle_signal(now, peer, bytes),
            None => debug!(peer = %from.short(), reason = "unknown member", "signal dropped"),
        }
    }

    /// Checks the paths to members that the user looks at, at most [`MAX_MEASURED`] of them.
    pub(crate) fn check_paths(&mut self, now: Instant, party: PartyId, members: &[DeviceId]) {
        for member in members.iter().take(MAX_MEASURED) {
            if let Some(peer) = self.packet_path.peers().id(party, *member) {
                self.packet_path.paths_mut().measure(now, peer);
            }
        }
    }

    // The network.

    /// Takes the computer's own addresses. Returns what that means; `None` if nothing changed.
    pub(crate) fn set_network(&mut self, now: Now, network: LocalNetwork) -> Option<NetworkChange> {
        let change = self.candidates.set_network(network)?;
        let NetworkChange { addresses_changed, address_lost } = change;
        debug!(addresses_changed, address_lost, "local network changed");
        let routes = self.candidates.network().routes.clone();
        self.packet_path.paths_mut().set_routes(now.instant, routes);
        if !addresses_changed {
            // An address may be of another card now, deprecated, or inside a network that is routed elsewhere.
            self.gather(now.instant);
        } else {
            self.forget_network(now.instant);
            self.netcheck.set_local_addresses(now.instant, self.candidates.host_addresses());
            self.apply_peer_mappings(now.instant);
            self.recall_network(now);
            self.gather(now.instant);
            self.packet_path.paths_mut().network_changed(now.instant);
            self.names.expedite_all(now.instant);
        }
        Some(change)
    }

    /// The router has another address, or lost its mappings: seen from outside, that is another network.
    fn on_public_address_changed(&mut self, now: Instant) {
        debug!("public address changed, measuring again");
        self.forget_network(now);
        self.netcheck.restart(now);
        self.apply_peer_mappings(now);
        self.gather(now);
        self.packet_path.paths_mut().network_changed(now);
    }

    /// The router refused a new flow while a spray went on: it is remembered as small.
    fn on_router_full(&mut self, now: Now, spray_limit: u32) {
        if self.known_networks.remember_small_router(now, self.candidates.network(), spray_limit) {
            self.output(Output::Save);
        }
    }

    /// Forgets what was true of another network.
    fn forget_network(&mut self, now: Instant) {
        debug!("reflexive addresses and reachability forgotten");
        self.candidates.set_reflexive(Vec::new());
        self.seen_by_dht.clear();
        self.network_check.on_network_changed();
        self.netcheck.set_tcp_reachable(now, []);
        self.packet_path.member_relays_mut().network_changed(now);
    }

    /// The computer slept: all paths are checked again.
    pub(crate) fn handle_wake(&mut self, now: Instant) {
        self.names.expedite_all(now);
        self.packet_path.paths_mut().network_changed(now);
    }

    /// Announces where servers see the main socket. Where they all see it from inside its own network, the router's address
    /// is where their relay is, and its port most likely the socket's own.
    fn update_reflexive(&mut self, now: Instant) {
        let mut reflexive = self.netcheck.reflexive();
        if reflexive.is_empty() {
            reflexive.clone_from(&self.seen_by_dht);
        }
        if reflexive.is_empty() {
            reflexive.extend(self.inferred_address());
        }
        if reflexive != self.candidates.reflexive() {
            debug!(?reflexive, "addresses to announce changed");
            self.candidates.set_reflexive(reflexive);
            self.gather(now);
        }
    }

    fn inferred_address(&self) -> Option<SocketAddr> {
        if !self.netcheck.is_seen_from_inside() {
            return None;
        }
        let servers = self.netcheck.keepalive_servers().into_iter();
        let addresses = self.packet_path.paths().relayed_addresses().chain(servers);
        let own = self.candidates.host_addresses();
        let outside = addresses.map(|address| address.ip()).find(|ip| ip.is_ipv4() && is_public(*ip));
        let port = self.candidates.network().port_v4?;
        outside.filter(|ip| own.iter().all(|own| own.ip() != *ip)).map(|ip| SocketAddr::new(ip, port))
    }

    /// Takes what the router's port mapping protocols say now.
    pub(crate) fn handle_port_mapping(&mut self, now: Instant, report: PortMappingReport) {
        let PortMappingReport { mapped, protocols, peer_mappings } = report;
        if self.candidates.set_mapped(mapped) {
            debug!(router = ?self.candidates.router_address(), "mapped ports changed");
            self.netcheck.set_router_address(now, self.candidates.router_address());
            self.gather(now);
        }
        if self.network_check.set_router(protocols) {
            self.events.push_back(Event::Changed);
        }
        self.peer_mappings = peer_mappings;
        self.apply_peer_mappings(now);
    }

    /// Hands the router's statements to netcheck, which forgets them on another network and when the router moved.
    /// They hold until the router is asked again, and a report arrives that replaces them.
    fn apply_peer_mappings(&mut self, now: Instant) {
        self.netcheck.set_peer_mappings(now, self.peer_mappings.clone());
    }

    /// Takes the addresses of a host.
    pub(crate) fn handle_resolved(
        &mut self,
        now: Instant,
        host: String,
        port: u16,
        addresses: &[SocketAddr],
    ) {
        let answering = self.answering_servers(now);
        let key = (host, port);
        let found = self.names.on_resolved(now, &key, addresses, |address| answering.contains(address));
        debug!(host = key.0, port, ?addresses, ?found, "host looked up");
        let in_use = self.names.addresses(&key);
        let named_changed = self.network_check.on_resolved(&key, in_use);
        if self.relays.on_resolved(&key, in_use) || named_changed {
            self.apply_relays(now);
        }
        if found == Found::Moved {
            // Both the old and the new address may work, or only the new one.
            self.packet_path.paths_mut().verify_relays(now);
        }
    }

    /// Notes that rendezvous servers are connected, or that none is.
    pub(crate) fn set_online(&mut self, now: Instant, online: bool) {
        self.netcheck.set_online(now, online);
    }

    /// Applies the user's settings.
    pub(crate) fn configure(&mut self, now: Instant, settings: &Settings) {
        self.packet_path.member_relays_mut().set_serves_members(settings.serve_friends);
        self.relays.set_own(settings.relays.clone());
        self.sync_names(now);
        let config = path_config(&self.path_defaults, settings);
        debug!(
            direct = settings.direct,
            relay = settings.relay,
            serves = settings.serve_friends,
            "paths configured"
        );
        self.packet_path.paths_mut().configure(now, config);
        self.apply_relays(now);
        self.netcheck.set_enabled(now, settings.nat_detection);
    }

    fn gather(&mut self, now: Instant) {
        let candidates = self.candidates.gather();
        debug!(count = candidates.len(), "candidates gathered");
        self.packet_path.paths_mut().set_local(now, candidates);
    }

    // Relay servers.

    /// Takes relay credentials that a rendezvous server granted.
    pub(crate) fn on_relay_grant(
        &mut self,
        now: Instant,
        server: ServerId,
        grant: RelayGrant,
        scope: AddressScope,
    ) {
        self.relays.on_grant(server, grant, scope);
        self.sync_names(now);
        self.apply_relays(now);
    }

    /// Uses relays of a rendezvous server at private addresses, too, since the user confirmed the server.
    pub(crate) fn trust_relays(&mut self, now: Instant, server: ServerId) {
        self.relays.trust(server);
        self.apply_relays(now);
    }

    /// Returns a relay that a rendezvous server named, if it is not used because of its address.
    pub(crate) fn private_relay(&self, server: ServerId) -> Option<(String, IpAddr)> {
        self.relays.private_relay(server)
    }

    /// Forgets what a rendezvous server granted, because no party uses the server any more.
    pub(crate) fn forget_server(&mut self, now: Instant, server: ServerId) {
        self.relays.forget(server);
        self.sync_names(now);
        self.apply_relays(now);
    }

    /// The connection with a rendezvous server was lost. If the server has moved, so have its relays.
    pub(crate) fn on_server_down(&mut self, now: Instant, server: ServerId) {
        let hosts = self.relays.hosts_of(server);
        self.names.doubt(now, |host| hosts.contains(host));
        self.packet_path.paths_mut().verify_relays(now);
    }

    fn apply_relays(&mut self, now: Instant) {
        self.packet_path.paths_mut().set_relays(now, self.relays.ranked());
        self.netcheck.set_servers(now, self.stun_servers());
        self.apply_nat(now);
    }

    /// Prefers relays that answer, and among those the nearest, once that is measured.
    fn rank_relays(&mut self, now: Instant) {
        let relays: BTreeSet<String> = self.relays.servers().into_iter().map(|relay| relay.name).collect();
        let mut answers: BTreeMap<String, Option<Duration>> = BTreeMap::new();
        // Servers that the user named for a check are no relays.
        for server in
            self.netcheck.report().servers.into_iter().filter(|server| relays.contains(&server.name))
        {
            let rtt = server.rtt.filter(|_| !server.timed_out);
            let best = answers.entry(server.name).or_default();
            *best = best.iter().copied().chain(rtt).min();
        }
        if self.relays.rank(&answers) {
            self.packet_path.paths_mut().set_relays(now, self.relays.ranked());
        }
    }

    /// Returns all STUN servers: the relays, and those that the user named.
    fn stun_servers(&self) -> Vec<StunServer> {
        self.relays.stun_servers().into_iter().chain(self.network_check.named_servers()).collect()
    }

    /// Tells the path machine what the NAT does, and which servers can say where a fresh socket is seen.
    fn apply_nat(&mut self, now: Instant) {
        let servers = self.stun_servers().into_iter().map(|server| server.address).collect();
        self.packet_path.paths_mut().set_nat(now, self.netcheck.profile().clone(), servers);
    }

    // The network check.

    /// Measures the network again, with further servers where some are named.
    ///
    /// # Errors
    /// Names that are no servers.
    pub(crate) fn check_network(&mut self, now: Instant, servers: &[String]) -> Result<(), AppError> {
        let hosts = self.network_check.begin(servers)?;
        self.sync_names(now);
        self.names.doubt(now, |host| hosts.contains(host));
        self.netcheck.remeasure(now);
        Ok(())
    }

    /// Notes that a server answers over TCP.
    pub(crate) fn on_tcp_reachable(&mut self, now: Instant, address: IpAddr) {
        let reachable = self.network_check.on_tcp_reachable(address);
        self.netcheck.set_tcp_reachable(now, reachable);
    }

    fn on_netcheck_event(&mut self, now: Now, event: NetcheckEvent) {
        match event {
            NetcheckEvent::Reflexive(addresses) => {
                debug!(?addresses, "reflexive addresses changed");
                self.update_reflexive(now.instant);
            }
            NetcheckEvent::Profile(profile) => self.on_profile(now, profile),
            NetcheckEvent::UdpBlocked(blocked) => {
                debug!(blocked, "reachability by UDP changed");
                self.events.push_back(Event::Changed);
            }
            NetcheckEvent::OpenProbeSockets { ids } => self.output(Output::OpenSockets { ids }),
            NetcheckEvent::CloseProbeSockets { ids } => {
                ids.into_iter().for_each(|id| self.output(Output::CloseSocket { id }));
                self.remember_network(now);
                self.events.push_back(Event::Changed);
            }
            NetcheckEvent::RequestFilteringProbe(request) => {
                self.request_filtering_probes(now.instant, request)
            }
            NetcheckEvent::RequestProbeRound(round) => self.request_probe_round(now.instant, round),
            NetcheckEvent::ServerTimedOut(address) => {
                self.output(Output::Reach { address });
                self.check_hosts(now.instant);
            }
        }
    }

    fn on_profile(&mut self, now: Now, profile: NatProfile) {
        debug!(mapping = ?profile.mapping, filtering = ?profile.filtering, lifetime = ?profile.lifetime, "NAT profile changed");
        let keepalive = keepalive(&self.path_defaults, profile.lifetime);
        self.packet_path.paths_mut().set_keepalive(keepalive);
        self.events.push_back(Event::Nat(profile));
        self.rank_relays(now.instant);
        self.apply_nat(now.instant);
        self.remember_network(now);
    }

    /// Shows what this network's NAT did when it was measured last, until it is measured again.
    fn recall_network(&mut self, now: Now) {
        let known = self.known_networks.recall(now, self.candidates.network());
        self.network_check.set_recalled(known.map(|(.., measured_at)| measured_at));
        let spray_limit = self.known_networks.spray_limit(now, self.candidates.network());
        self.packet_path.paths_mut().set_spray_limit(spray_limit);
        if let Some((nat, age, _)) = known {
            debug!(age_s = age.as_secs(), "network recognized");
            self.netcheck.load_cached_profile(now.instant, nat, age);
        }
    }

    /// Remembers what a measurement found, once it is over.
    fn remember_network(&mut self, now: Now) {
        let Some(finished_at) = self.netcheck.finished_at() else { return };
        let network = self.candidates.network();
        if self.known_networks.remember(now, network, finished_at, self.netcheck.profile()) {
            self.output(Output::Save);
        }
    }

    // What members do for each other's network check.

    /// Asks some connected members for filtering probes, and one for a second port: one whose own NAT sends from one port
    /// to every destination. They are chosen at random, so that in a large party not all ask the same few.
    fn request_filtering_probes(&mut self, now: Instant, request: FilteringProbeRequest) {
        let FilteringProbeRequest { to, token } = request;
        let mut members: Vec<(DeviceId, PartyId)> =
            self.packet_path.connected_devices().into_iter().collect();
        shuffle(&mut members, &mut self.rng);
        debug!(count = members.len().min(MAX_PROBE_REQUESTS), "asking members for filtering probes");
        for (member, party) in members.iter().take(MAX_PROBE_REQUESTS) {
            let message = ControlMessage::SendFilteringProbe { to, token };
            self.packet_path.send_control(now, *party, *member, &message);
        }
        let peers = self.packet_path.peers();
        let lender = members.iter().find(|(member, party)| peers.has_independent_mapping(*party, *member));
        let lender = lender.map(|(member, party)| (*party, *member));
        self.second_ports.set_lender(lender);
        if let Some((party, member)) = lender {
            debug!(peer = %member.short(), "asking member for a second port");
            self.packet_path.send_control(now, party, member, &ControlMessage::RequestSecondPort);
        }
    }

    fn request_probe_round(&mut self, now: Instant, ProbeRound { to, token }: ProbeRound) {
        if let Some((party, member)) = self.second_ports.lender() {
            self.packet_path.send_control(now, party, member, &ControlMessage::SendProbeRound { to, token });
        }
    }

    /// Takes a control message that concerns connectivity.
    pub(crate) fn handle_control(
        &mut self,
        now: Instant,
        party: PartyId,
        from: DeviceId,
        message: ControlMessage,
    ) {
        match message {
            ControlMessage::RequestRelay { to } => self.packet_path.on_relay_request(now, party, from, to),
            ControlMessage::OfferRelay { to, rtt_ms } => {
                let rtt = Duration::from_millis(rtt_ms.into());
                self.packet_path.on_relay_offer(now, party, from, to, rtt);
            }
            ControlMessage::SendFilteringProbe { to, token } => {
                self.send_filtering_probe(now, party, from, FilteringProbeRequest { to, token });
            }
            ControlMessage::RequestSecondPort => self.on_second_port_request(now, party, from),
            ControlMessage::GrantSecondPort { first, second } => {
                self.on_second_port_grant(now, party, from, PortPair { first, second });
            }
            ControlMessage::SendProbeRound { to, token } => {
                self.send_probe_round(now, party, from, &ProbeRound { to, token });
            }
            ControlMessage::Sealed { .. }
            | ControlMessage::Ping(_)
            | ControlMessage::Pong(_)
            | ControlMessage::Forward { .. }
            | ControlMessage::Forwarded { .. } => {}
        }
    }

    fn send_filtering_probe(
        &mut self,
        now: Instant,
        party: PartyId,
        from: DeviceId,
        request: FilteringProbeRequest,
    ) {
        let own_address = self.packet_path.peers().is_seen_at(party, from, request.to);
        let serves_members = self.packet_path.member_relays().serves_members();
        match self.probe_responder.admit(now, from, serves_members, own_address) {
            Ok(()) => {
                debug!(peer = %from.short(), to = %request.to, "filtering probe sent");
                let packet = request.packet();
                (0..PROBE_COPIES).for_each(|_| self.packet_path.queue(SocketId::MAIN, request.to, &packet));
            }
            Err(reason) => debug!(peer = %from.short(), reason, "filtering probe refused"),
        }
    }

    fn on_second_port_request(&mut self, now: Instant, party: PartyId, from: DeviceId) {
        let server = self.keepalive_servers.iter().copied().find(SocketAddr::is_ipv4);
        let server = server.filter(|_| self.packet_path.member_relays().serves_members());
        let mut token = [0; 12];
        self.rng.fill_bytes(&mut token);
        if self.second_ports.on_request(now, party, from, server, token) {
            self.output(Output::OpenSockets { ids: vec![SECOND_PORT] });
        }
    }

    fn on_second_port_grant(&mut self, now: Instant, party: PartyId, from: DeviceId, pair: PortPair) {
        let peers = self.packet_path.peers();
        // Packets will be sent there, so both have to be the member's own.
        if ![pair.first, pair.second].iter().all(|address| peers.is_seen_at(party, from, *address)) {
            debug!(peer = %from.short(), ?pair, reason = "not its addresses", "second port ignored");
        } else if self.second_ports.admit_grant(party, from) {
            self.netcheck.set_port_pair(now, pair);
        }
    }

    fn send_probe_round(&mut self, now: Instant, party: PartyId, from: DeviceId, round: &ProbeRound) {
        let peers = self.packet_path.peers();
        let own_addresses = round.to.iter().all(|to| peers.is_seen_at(party, from, *to));
        if !own_addresses {
            debug!(peer = %from.short(), to = ?round.to, reason = "not its addresses", "probe round refused");
            return;
        }
        if !self.second_ports.admit_round(now, party, from) {
            return;
        }
        trace!(peer = %from.short(), to = ?round.to, "probe round sent");
        let packet = round.packet();
        for destination in round.to {
            self.packet_path.queue(SocketId::MAIN, destination, &packet);
            self.packet_path.queue(SECOND_PORT, destination, &packet);
        }
    }

    // Packets and sockets.

    /// See [`crate::Node::handle_packet`].
    pub(crate) fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8]) {
        self.packet_path.handle_packet(now, party, packet);
    }

    /// Takes a datagram to the part whose socket it arrived on; see [`crate::Node::handle_datagram`].
    pub(crate) fn handle_datagram(
        &mut self,
        now: Now,
        socket: SocketId,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        if socket.is_probe() {
            self.netcheck.handle_datagram(now.instant, socket, source, datagram);
        } else if socket == SECOND_PORT {
            let first = self.candidates.reflexive().iter().copied().find(SocketAddr::is_ipv4);
            if let Some((party, to, message)) = self.second_ports.on_datagram(source, datagram, first) {
                debug!(peer = %to.short(), ?message, "second port granted");
                self.packet_path.send_control(now.instant, party, to, &message);
            }
        } else {
            let local = PathLocal::Socket(socket);
            let foreign = self.packet_path.handle_datagram(now, local, source, datagram, scratch, egress);
            if foreign && socket == SocketId::MAIN {
                self.netcheck.handle_datagram(now.instant, socket, source, datagram);
            }
        }
    }

    /// Takes the addresses at which nodes of the DHT see the main socket.
    pub(crate) fn set_seen_by_dht(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        self.seen_by_dht = addresses;
        self.update_reflexive(now);
    }

    /// Returns true for an address inside a party, from which nothing outside the tunnel can come.
    pub(crate) fn is_excluded(&self, address: IpAddr) -> bool {
        self.packet_path.paths().is_excluded(address)
    }

    /// Queues a datagram for the main socket, unless it would go into a party.
    pub(crate) fn queue(&mut self, to: SocketAddr, bytes: &[u8]) {
        if !self.is_excluded(to.ip()) {
            self.packet_path.queue(SocketId::MAIN, to, bytes);
        }
    }

    /// See [`crate::Node::handle_stream`].
    pub(crate) fn handle_stream(
        &mut self,
        now: Now,
        id: StreamId,
        input: StreamInput,
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        self.packet_path.handle_stream(now, id, input, scratch, egress);
    }

    /// Takes the local ports of sockets that were asked for; `None` for one that could not be opened.
    pub(crate) fn on_sockets_opened(&mut self, now: Instant, opened: &[(SocketId, Option<u16>)]) {
        let (probes, others): (Vec<_>, Vec<_>) = opened.iter().copied().partition(|(id, _)| id.is_probe());
        let (second, punch): (Vec<_>, Vec<_>) = others.into_iter().partition(|(id, _)| *id == SECOND_PORT);
        let failed = opened.iter().filter(|(_, port)| port.is_none()).count();
        if failed > 0 {
            debug!(failed, count = opened.len(), "sockets could not be opened");
        }
        if !probes.is_empty() {
            self.netcheck.probe_sockets_opened(now, &probes);
        }
        for (_, port) in second {
            for (server, request) in self.second_ports.on_opened(port.is_some()) {
                self.packet_path.queue(SECOND_PORT, server, &request);
            }
        }
        if !punch.is_empty() {
            self.packet_path.paths_mut().sockets_opened(now, &punch);
        }
    }

    /// See [`PacketPath::send_control`].
    pub(crate) fn send_control(
        &mut self,
        now: Instant,
        party: PartyId,
        to: DeviceId,
        message: &ControlMessage,
    ) {
        self.packet_path.send_control(now, party, to, message);
    }

    /// Sends everything that waits.
    pub(crate) fn flush(&mut self, now: Now, egress: &mut impl Egress) {
        self.packet_path.flush(now, egress);
    }

    // What can be asked.

    /// Returns the session with a member.
    pub(crate) fn session(&self, party: PartyId, device: DeviceId) -> Option<SessionStats> {
        self.packet_path.session(party, device)
    }

    /// Returns what is known about the paths to a member.
    pub(crate) fn path(&self, now: Instant, party: PartyId, device: DeviceId) -> Option<PeerView> {
        self.packet_path.path(now, party, device)
    }

    /// Returns the member that the path machine knows under an id.
    pub(crate) fn member(&self, id: PeerId) -> Option<(PartyId, DeviceId)> {
        self.packet_path.peers().member(id)
    }

    /// Returns what the NAT does.
    pub(crate) fn nat(&self) -> &NatProfile {
        self.netcheck.profile()
    }

    /// Returns the NAT's badge for people.
    pub(crate) fn badge(&self) -> Option<Badge> {
        self.netcheck.badge()
    }

    /// Returns the main socket's port.
    pub(crate) fn port(&self) -> Option<u16> {
        let network = self.candidates.network();
        network.port_v4.or(network.port_v6)
    }

    /// Returns the router's own address, as far as an opened port or its word about a flow shows it.
    pub(crate) fn router_address(&self) -> Option<IpAddr> {
        let mut promised = self.peer_mappings.iter().map(|mapping| mapping.external.ip());
        self.candidates.router_address().or_else(|| promised.find(IpAddr::is_ipv4))
    }

    /// Returns the addresses of the main socket on this computer's interfaces.
    pub(crate) fn host_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.host_addresses().into_iter()
    }

    /// Returns the addresses at which servers see the main socket.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        self.netcheck.reflexive()
    }

    /// Describes the network check for people.
    pub(crate) fn network_report(&self, now: Now) -> NetworkReport {
        self.network_check.report(now, self.netcheck.report())
    }

    /// Returns the networks that were measured before.
    pub(crate) const fn known_networks(&self) -> &KnownNetworks {
        &self.known_networks
    }

    /// Returns the counters of filtering probes sent on behalf of other members.
    pub(crate) const fn probe_responder_counters(&self) -> &ProbeResponderCounters {
        self.probe_responder.counters()
    }

    /// Returns the counters of relaying between members.
    pub(crate) const fn member_relay_counters(&self) -> &MemberRelayCounters {
        self.packet_path.member_relays().counters()
    }

    /// Returns the number of control messages that could not be read.
    pub(crate) const fn malformed_control_messages(&self) -> u64 {
        self.packet_path.malformed()
    }

    /// Returns the path machine's counters of dropped datagrams.
    pub(crate) fn path_counters(&self) -> partyline_paths::Counters {
        self.packet_path.paths().counters()
    }

    /// Returns the tunnel, for its counters.
    pub(crate) const fn tunnel(&self) -> &partyline_tunnel::Tunnel {
        self.packet_path.tunnel()
    }

    /// Returns the network check's counters of requests.
    pub(crate) const fn netcheck_counters(&self) -> &partyline_netcheck::Counters {
        self.netcheck.counters()
    }
}

/// Shuffles a list (Fisher and Yates). The lists here are so short that the bias of the remainder does not matter.
fn shuffle<T>(list: &mut [T], rng: &mut ChaCha20Rng) {
    for end in (1..list.len()).rev() {
        list.swap(end, rng.next_u32() as usize % (end + 1));
    }
}

/// Combines the defaults of the path machine with the user's settings.
fn path_config(defaults: &partyline_paths::Config, settings: &Settings) -> partyline_paths::Config {
    partyline_paths::Config {
        direct: settings.direct,
        relay: settings.relay,
        methods: settings.methods,
        direct_timeout: Duration::from_secs(u64::from(settings.direct_timeout_s)),
        ..defaults.clone()
    }
}

/// Returns how long idle paths may be silent: two thirds of the lifetime of the NAT's mappings, once that was measured.
/// The other side has a NAT of its own and sees to that itself.
fn keepalive(defaults: &partyline_paths::Config, lifetime: Option<Duration>) -> Duration {
    lifetime.map_or(defaults.keepalive, |lifetime| (lifetime * 2 / 3).clamp(MIN_KEEPALIVE, MAX_KEEPALIVE))
}

#[cfg(test)]
mod tests;

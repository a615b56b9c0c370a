//! The machine that measures the network and keeps the main socket's mapping alive.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Badge, CheckStep, CheckTopic, NatProfile, SocketId, StepState};
use partyline_timing::Jitter;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use tracing::{debug, info, trace};

use crate::{
    address::{Family, is_inside_view, is_public},
    api::{Config, Event, PeerMapping, PortPair, Report, StunServer, Transmit},
    client::{Client, Delivery, Handled, Request, Response},
    context::{DiscoveryConfig, Reference},
    counters::Counters,
    discovery::{BehaviorDiscovery, Continuity},
    history::DestinationHistory,
    idle_lifetime::{IdleLifetime, PROFILE_MAX_AGE},
    peer_mappings::PeerMappings,
    probe_sockets::ProbeSockets,
    profile::{self, Evidence},
    purpose::Purpose,
    servers::Servers,
    stun,
};

const MAX_LOCAL_ADDRESSES: usize = 32;
const SEEN_FROM_INSIDE: &str =
    "the server is in this computer's own network; only a server elsewhere shows what the router does";
/// How many times as long as others a keepalive request may stay unanswered: a mapping that was seen is not given up as
/// lightly as an address that nothing responds at.
const KEEPALIVE_TIMEOUT_FACTOR: u32 = 4;
/// Measurements that are repeated at once because a mapping changed, and when that is allowed again.
const MAX_RESTARTS: u32 = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// One measurement of the policies.
#[derive(Debug, Clone, Copy)]
struct Measurement {
    began_at: Instant,
    /// Datagrams that the client had sent before.
    sent_before: u32,
    /// When it ended, and how many datagrams it took.
    ended: Option<(Instant, u32)>,
    /// How many measurements before it were repeated because a mapping changed.
    restarts: u32,
}

/// Measures the NAT, and watches the mapping of the main socket.
///
/// Where no probe sockets are opened, let it send before anything else does: a socket that has sent nothing yet shows
/// most of a NAT that preserves ports or filters.
#[derive(Debug)]
pub struct Netcheck {
    config: Config,
    client: Client,
    rng: ChaCha12Rng,
    history: DestinationHistory,
    servers: Servers,
    local: Vec<SocketAddr>,
    router: Option<IpAddr>,
    peer_mappings: PeerMappings,
    online: bool,
    tcp_reachable: BTreeSet<IpAddr>,
    keepalive: bool,
    keepalive_at: Option<Instant>,
    observers_available: bool,
    probe_sockets: ProbeSockets,
    measurement: Measurement,
    /// Over IPv4 and over IPv6.
    discoveries: [BehaviorDiscovery; 2],
    idle_lifetime: IdleLifetime,
    /// When a test wants to go on.
    step_at: Option<Instant>,
    profile: NatProfile,
    published_profile: NatProfile,
    published_reflexive: Vec<SocketAddr>,
    events: VecDeque<Event>,
}

impl Netcheck {
    /// Returns a machine that does nothing until it has servers. `seed` makes transaction ids and jitter.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], config: Config) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut client_seed = [0; 32];
        rng.fill_bytes(&mut client_seed);
        Self {
            config,
            client: Client::new(client_seed),
            rng,
            history: DestinationHistory::default(),
            servers: Servers::default(),
            local: Vec::new(),
            router: None,
            peer_mappings: PeerMappings::default(),
            online: false,
            tcp_reachable: BTreeSet::new(),
            keepalive: true,
            keepalive_at: None,
            observers_available: false,
            probe_sockets: ProbeSockets::default(),
            measurement: Measurement { began_at: now, sent_before: 0, ended: None, restarts: 0 },
            discoveries: Family::BOTH.map(|_| BehaviorDiscovery::new(DiscoveryConfig::default())),
            idle_lifetime: IdleLifetime::default(),
            step_at: None,
            profile: NatProfile::default(),
            published_profile: NatProfile::default(),
            published_reflexive: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Replaces the list of servers, best first; at most 16 are used. Other servers than before restart the
    /// measurement.
    pub fn set_servers(&mut self, now: Instant, servers: Vec<StunServer>) {
        let servers = Servers::new(now, servers, self.server_limit());
        // Names resolve in another order every time, which is no reason to measure again.
        if servers.identities() != self.servers.identities() {
            self.servers = servers;
            self.client.clear_credentials();
            self.client.add_credentials(self.servers.credentials());
            self.measure(now, "servers changed");
        }
    }

    /// Sets the main socket's own addresses: that of each interface, with the socket's port. A change means another
    /// network and restarts everything.
    pub fn set_local_addresses(&mut self, now: Instant, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_LOCAL_ADDRESSES);
        if addresses != self.local {
            debug!(before = ?self.local, now = ?addresses, "local addresses changed");
            self.history.enter_network(&addresses);
            self.local = addresses;
            self.restart(now);
        }
    }

    /// Forgets what is known and measures again, as after a move to another network.
    pub fn restart(&mut self, now: Instant) {
        self.measurement.restarts = 0;
        self.profile = NatProfile::default();
        self.idle_lifetime = IdleLifetime::default();
        self.peer_mappings = PeerMappings::default();
        self.servers.forget_responses();
        self.measure(now, "network changed");
    }

    /// Measures again on request. What is known stays until it is contradicted.
    pub fn remeasure(&mut self, now: Instant) {
        self.measurement.restarts = 0;
        self.measure(now, "requested");
    }

    /// Switches the measurement of the policies on or off, whatever [`Config::enabled`] said. When it is switched off,
    /// what was measured is forgotten.
    pub fn set_enabled(&mut self, now: Instant, enabled: bool) {
        if self.config.enabled != enabled {
            self.config.enabled = enabled;
            self.servers.limit = self.server_limit();
            self.measurement.restarts = 0;
            self.measure(now, if enabled { "switched on" } else { "switched off" });
        }
    }

    /// Takes fresh sockets with the ports they are bound to (`None` for a socket that could not be opened), at most 8.
    /// The first two make the measurement, the others show how ports are allocated. Called in answer to
    /// [`Event::OpenProbeSockets`], or before [`Netcheck::set_servers`] and [`Netcheck::restart`]; each measurement needs
    /// new ones.
    pub fn probe_sockets_opened(&mut self, now: Instant, opened: &[(SocketId, Option<u16>)]) {
        if self.probe_sockets.on_opened(opened) {
            self.assign_sockets();
            self.step(now);
        }
    }

    /// Sets whether any server is reachable over TCP. Otherwise silence is not taken for blocked UDP.
    pub fn set_online(&mut self, now: Instant, online: bool) {
        if self.online != online {
            debug!(online, "reachability over TCP changed");
            self.online = online;
            self.step(now);
        }
    }

    /// Sets the addresses at which STUN servers respond over TCP or TLS. If these are silent over UDP, they are not down.
    pub fn set_tcp_reachable(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        let reachable = addresses.into_iter().collect();
        if self.tcp_reachable != reachable {
            debug!(addresses = ?reachable, "servers respond over TCP");
            self.tcp_reachable = reachable;
            self.step(now);
        }
    }

    /// Sets the router's external address as port mapping learned it; `None` while no port is mapped.
    pub fn set_router_address(&mut self, now: Instant, external: Option<IpAddr>) {
        if self.router != external {
            debug!(before = ?self.router, now = ?external, "router's external address changed");
        }
        self.router = external;
        self.update_main_is_mapped();
        self.step(now);
    }

    /// Replaces the router's statements about mappings of the main socket. [`Netcheck::set_local_addresses`] and
    /// [`Netcheck::restart`] forget them.
    pub fn set_peer_mappings(&mut self, now: Instant, mappings: Vec<PeerMapping>) {
        if self.peer_mappings.replace(mappings) {
            self.update_main_is_mapped();
            self.schedule_keepalive(now);
            self.step(now);
        }
    }

    /// Sets whether the main socket's mapping must be kept alive (default: yes).
    pub fn set_keepalive(&mut self, now: Instant, keepalive: bool) {
        debug!(keepalive, "keepalives switched");
        self.keepalive = keepalive;
        self.schedule_keepalive(now);
    }

    /// Sets whether there are members that could send packets. The first ones are a reason to measure again where
    /// filtering is still unknown.
    pub fn set_observers_available(&mut self, now: Instant, available: bool) {
        if self.observers_available == available {
            return;
        }
        debug!(available, "availability of observers changed");
        self.observers_available = available;
        self.discoveries.iter_mut().for_each(|discovery| discovery.set_observers_available(available));
        let probes = self.config.probe_sockets > 0 && self.config.enabled;
        let useful = probes && self.profile.filtering.is_none() && self.measurement.ended.is_some();
        if available && useful {
            // The first ones need not wait for the lifetime test, which takes minutes.
            let first = !self.discovery(Family::V4).has_asked_members();
            self.measure_again(now, "members could test filtering", first);
        }
    }

    /// Takes two ports that a member offers in answer to [`Event::RequestFilteringProbe`]. Useless ones are ignored.
    pub fn set_port_pair(&mut self, now: Instant, pair: PortPair) {
        self.discovery_mut(Family::V4).set_port_pair(pair);
        self.step(now);
    }

    /// Takes a profile that was measured in this network earlier, so long ago. It is shown until it is contradicted. To
    /// be called after [`Netcheck::set_local_addresses`] or [`Netcheck::restart`], which forget it.
    pub fn load_cached_profile(&mut self, now: Instant, profile: &NatProfile, age: Duration) {
        if self.measurement.ended.is_some() || !self.config.enabled {
            return;
        }
        debug!(age_s = age.as_secs(), ?profile, "cached profile is shown");
        self.profile =
            NatProfile { udp_blocked: None, double_nat: None, carrier_nat: None, ..profile.clone() };
        if let Some(lifetime) = profile.lifetime {
            self.idle_lifetime.restore(now, lifetime, age);
        }
        self.step(now);
    }

    /// Takes a datagram. Returns true if it belongs to the measurement, or pretends to: then nothing else wants it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let consumed = self.take_datagram(now, socket, source, bytes);
        if consumed {
            self.step(now);
        }
        consumed
    }

    /// Does what is due. To be called when the moment of [`Netcheck::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (destination, purpose) in self.client.handle_timeout(now) {
            match purpose {
                Purpose::Contact(index) | Purpose::Keepalive(index) => {
                    self.servers.on_outcome(now, index, false);
                    self.events.push_back(Event::ServerTimedOut(destination));
                }
                Purpose::CreateMapping(index) => self.idle_lifetime.on_timeout(index),
                other => self.discovery_mut(Family::of(destination)).on_timeout(now, other),
            }
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.send_keepalives(now);
        }
        self.step(now);
    }

    /// Returns the moment of the next [`Netcheck::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.step_at, self.client.poll_timeout(), self.servers.poll_timeout(), self.keepalive_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.client.poll_transmit()?;
        if transmit.socket == SocketId::MAIN {
            self.history.on_sent(transmit.destination);
        }
        Some(transmit)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns what is known of the network.
    #[must_use]
    pub const fn profile(&self) -> &NatProfile {
        &self.profile
    }

    /// Returns the profile in one word, once known. Over IPv6 every computer has a public address, whatever is in front
    /// of it, so only an IPv4 address of its own shows that nothing is.
    #[must_use]
    pub fn badge(&self) -> Option<Badge> {
        let own = |ip: &IpAddr| ip.is_ipv4() && is_public(*ip) && self.is_own(*ip);
        self.profile.badge(self.profile.public.iter().any(own))
    }

    /// Returns the main socket's reflexive addresses, IPv4 first, one per server and mapping, at most 8. What a server in
    /// this computer's own network sees is none.
    #[must_use]
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        profile::reflexive(&self.servers, &self.local)
    }

    /// Returns true if some server sees this computer from inside its own network.
    #[must_use]
    pub fn is_seen_from_inside(&self) -> bool {
        profile::is_seen_from_inside(&self.servers, &self.local)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.local.iter().any(|local| local.ip() == ip)
    }

    /// Returns the servers that get the main socket's keepalives: one of each address family.
    #[must_use]
    pub fn keepalive_servers(&self) -> Vec<SocketAddr> {
        self.servers.all_responding().map(|(_, report)| report.address).collect()
    }

    /// Returns when the present measurement ended.
    #[must_use]
    pub fn finished_at(&self) -> Option<Instant> {
        self.measurement.ended.map(|(at, _)| at)
    }

    /// Returns the counters of requests and of their outcomes.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.client.counters
    }

    /// Returns the state of the measurement.
    #[must_use]
    pub fn report(&self) -> Report {
        let Measurement { began_at, ended, .. } = self.measurement;
        Report {
            servers: self.servers.reports().cloned().collect(),
            enabled: self.config.enabled,
            finished: ended.is_some(),
            finished_at: self.finished_at(),
            duration: ended.map(|(at, _)| at.saturating_duration_since(began_at)),
            packets: ended.map_or_else(|| self.packets(), |(_, packets)| packets),
            steps: self.steps(),
            confidence: profile::confidence(&self.profile),
            gaps: self.gaps().collect(),
        }
    }

    fn gaps(&self) -> impl Iterator<Item = &'static str> {
        let inside = !self.discovery(Family::V4).has_begun() && self.is_seen_from_inside();
        let tests = self.discovery(Family::V4).gaps().chain(self.idle_lifetime.gap());
        inside.then_some(SEEN_FROM_INSIDE).into_iter().chain(tests)
    }

    /// Begins a measurement. What is known stays until it is contradicted.
    fn measure(&mut self, now: Instant, reason: &'static str) {
        debug!(
            reason,
            enabled = self.config.enabled,
            servers = self.servers.reports().count(),
            restarts = self.measurement.restarts,
            "measurement begins"
        );
        self.client.clear();
        self.servers.restart(now);
        self.servers.v4_only = !self.local.is_empty() && self.local.iter().all(SocketAddr::is_ipv4);
        let config = self.discovery_config();
        self.discoveries = Family::BOTH.map(|_| BehaviorDiscovery::new(config.clone()));
        self.idle_lifetime.stop();
        let (sent_before, restarts) = (self.client.sent, self.measurement.restarts);
        self.measurement = Measurement { began_at: now, sent_before, ended: None, restarts };
        self.renew_probe_sockets();
        self.schedule_keepalive(now);
        self.step(now);
    }

    fn discovery_config(&self) -> DiscoveryConfig {
        DiscoveryConfig {
            response_timeout: self.config.response_timeout,
            local: self.local.iter().map(SocketAddr::ip).collect(),
            main_port: self.local.first().map(SocketAddr::port).filter(|port| *port != 0),
            main_is_fresh: self.history.is_fresh(),
            main_is_mapped: self.main_is_mapped(),
            observers_available: self.observers_available,
        }
    }

    /// Repeats the measurement because what was measured no longer holds. A mapping that expires between two keepalives is what the
    /// lifetime test is about to show, so that it goes on unless `urgent`.
    fn measure_again(&mut self, now: Instant, reason: &'static str, urgent: bool) {
        if self.idle_lifetime.is_running() && !urgent {
            debug!(reason, "no new measurement while the lifetime test runs");
            return;
        }
        if now.saturating_duration_since(self.measurement.began_at) >= RESTART_WINDOW {
            self.measurement.restarts = 0;
        }
        if self.measurement.restarts >= MAX_RESTARTS {
            debug!(reason, count = self.measurement.restarts, "no new measurement after so many");
            return;
        }
        self.measurement.restarts += 1;
        self.measure(now, reason);
    }

    /// Uses sockets that were opened beforehand, or asks for fresh ones.
    fn renew_probe_sockets(&mut self) {
        let wanted = self.config.enabled && !self.servers.is_empty();
        if wanted && self.probe_sockets.has_fresh() {
            self.assign_sockets();
        } else {
            let count = if wanted { self.config.probe_sockets } else { 0 };
            self.events.extend(self.probe_sockets.request(count));
        }
    }

    fn assign_sockets(&mut self) {
        let fresh = self.probe_sockets.take_fresh();
        self.discoveries.iter_mut().for_each(|discovery| discovery.assign_sockets(&fresh));
    }

    fn take_datagram(&mut self, now: Instant, socket: SocketId, source: SocketAddr, bytes: &[u8]) -> bool {
        if self.client.hairpinned(socket, bytes) == Some(Purpose::Hairpin) {
            debug!(%source, ?socket, "packet came back through the NAT");
            self.discovery_mut(Family::of(source)).on_hairpinned();
            return true;
        }
        if let Some(Purpose::CheckMapping(index)) = self.client.redirected_response(socket, source, bytes) {
            self.idle_lifetime.on_checked(socket, index);
            return true;
        }
        if let Some(token) = stun::indication_id(bytes) {
            let discovery = &mut self.discoveries[Family::V4 as usize];
            let taken = discovery.on_indication(now, &self.client, (socket, source, token));
            trace!(%source, ?socket, taken, "indication received");
            return taken;
        }
        match self.client.handle_datagram(now, socket, source, bytes) {
            Handled::Foreign => false,
            Handled::Consumed => true,
            Handled::Response(response) => {
                self.on_response(now, &response);
                true
            }
        }
    }

    fn on_response(&mut self, now: Instant, response: &Response) {
        let continuity = match response.purpose {
            Purpose::Contact(index) | Purpose::Keepalive(index) => {
                self.on_server_response(now, index, response)
            }
            Purpose::CreateMapping(_) | Purpose::CheckMapping(_) => {
                self.idle_lifetime.on_response(now, response);
                Continuity::Same
            }
            _ => self.discovery_mut(Family::of(response.destination)).on_response(now, response),
        };
        if continuity == Continuity::Changed {
            let seen = response.binding.map(|binding| binding.reflexive);
            self.peer_mappings.on_mapping_changed(response.destination, seen);
            self.measure_again(now, "mapping changed", false);
        }
    }

    fn on_server_response(&mut self, now: Instant, index: usize, response: &Response) -> Continuity {
        if response.alternate.is_some_and(|to| self.servers.redirect(now, index, to)) {
            self.client.add_credentials(self.servers.credentials());
            return Continuity::Same;
        }
        let Some(report) = self.servers.on_outcome(now, index, response.binding.is_some()) else {
            return Continuity::Same;
        };
        let Some(binding) = response.binding else { return Continuity::Same };
        report.reflexive = Some(binding.reflexive);
        report.other_address = binding.other_address;
        report.rtt = response.rtt.or(report.rtt);
        self.client.add_credentials(self.servers.credentials());
        if is_inside_view(response.destination.ip(), binding.reflexive.ip(), |ip| self.is_own(ip)) {
            debug!(server = %response.destination, reflexive = %binding.reflexive, "server is in this computer's network");
            return Continuity::Same;
        }
        let discovery = &mut self.discoveries[Family::of(response.destination) as usize];
        if self.measurement.ended.is_some() && !discovery.has_begun() {
            // The measurement ended without this family; its sockets are gone.
            debug!(server = %response.destination, reason = "another address family responds", "measurement is incomplete");
            return Continuity::Changed;
        }
        if let Some(other) = binding.other_address.filter(|_| !discovery.is_done()) {
            let elapsed = response.received_at.saturating_duration_since(response.sent_at);
            let (server, rtt) = (response.destination, response.rtt.unwrap_or(elapsed));
            let mut reference = Reference { server, other, rtt, untouched: false };
            reference.untouched = self.history.is_untouched(&reference);
            discovery.add_reference(reference);
        }
        discovery.on_contact(response)
    }

    /// Does whatever can be done now, and reports what changed.
    fn step(&mut self, now: Instant) {
        for family in Family::BOTH {
            while let Some(index) = self.servers.next(now, family) {
                self.send_to_server(now, index, Purpose::Contact(index), self.config.response_timeout);
            }
        }
        if self.config.enabled {
            for (family, discovery) in Family::BOTH.into_iter().zip(&mut self.discoveries) {
                discovery.step(now, self.servers.progress(now, family), &mut self.client);
                self.events.extend(std::iter::from_fn(|| discovery.poll_event()));
            }
            self.finish(now);
            if self.idle_lifetime.step(now, &mut self.client) {
                self.events.extend(self.probe_sockets.close());
            }
        }
        self.step_at = self.next_step_at(now).filter(|_| self.config.enabled);
        self.publish();
    }

    /// Ends the measurement once all tests ended, and begins the lifetime test with the same sockets.
    fn finish(&mut self, now: Instant) {
        if self.measurement.ended.is_some() || self.servers.is_empty() || !self.is_over(now) {
            return;
        }
        self.measurement.ended = Some((now, self.packets()));
        let after_ms = now.saturating_duration_since(self.measurement.began_at).as_millis();
        let found = self.discovery(Family::V4).policies();
        info!(after_ms, count = self.packets(), ?found, "network measured");
        let discovery = &self.discoveries[Family::V4 as usize];
        let keepalive = self.keepalive;
        self.idle_lifetime.begin(now, || keepalive.then(|| discovery.lifetime_test(now)).flatten());
        if !self.idle_lifetime.is_running() {
            self.events.extend(self.probe_sockets.close());
        }
    }

    /// A family whose servers do not respond holds the other one up for a moment only.
    fn is_over(&self, now: Instant) -> bool {
        let done = |family: Family| self.discovery(family).is_done();
        let unused =
            |family: Family| !self.discovery(family).has_begun() && self.servers.is_exhausted(now, family);
        let all = Family::BOTH.into_iter().all(|family| done(family) || unused(family));
        // If servers respond although nothing was measured, all of them are in this computer's own network.
        let any =
            Family::BOTH.into_iter().any(done) || self.servers.all_timed_out() || self.servers.any_responds();
        all && any
    }

    fn next_step_at(&self, now: Instant) -> Option<Instant> {
        let running = self.measurement.ended.is_none();
        let grace = self.servers.grace_ends_at(now).filter(|_| running);
        let tests = self.discoveries.iter().filter_map(|discovery| discovery.poll_timeout(now));
        tests.chain(grace).chain(self.idle_lifetime.poll_timeout()).min()
    }

    fn send_to_server(&mut self, now: Instant, index: usize, purpose: Purpose, timeout: Duration) {
        let Some(destination) = self.servers.address(index) else { return };
        let delivery = Delivery::Retransmit { timeout };
        self.client.send(now, Request::plain(SocketId::MAIN, destination, purpose, delivery));
    }

    /// Sends one request to one server of each family that responds; if none does, to all once more.
    fn send_keepalives(&mut self, now: Instant) {
        if self.finished_at().is_some_and(|at| at + PROFILE_MAX_AGE <= now) {
            self.measurement.restarts = 0;
            return self.measure(now, "profile is a day old");
        }
        let responding: Vec<_> = self.servers.all_responding().map(|(index, _)| index).collect();
        if responding.is_empty() {
            self.servers.retry_timed_out(now);
        }
        let timeout = self.config.response_timeout * KEEPALIVE_TIMEOUT_FACTOR;
        for index in responding {
            trace!(server = ?self.servers.address(index), "keepalive sent");
            self.send_to_server(now, index, Purpose::Keepalive(index), timeout);
        }
        self.schedule_keepalive(now);
    }

    fn schedule_keepalive(&mut self, now: Instant) {
        let wanted = self.keepalive && !self.servers.is_empty();
        let servers = self.servers.all_responding().map(|(_, report)| report);
        let interval = self.peer_mappings.keepalive_interval(servers, self.config.keepalive_interval);
        let jittered = Jitter::between(0.9, 1.1).apply(interval, &mut self.rng);
        trace!(wanted, after_ms = jittered.as_millis(), "keepalive scheduled");
        self.keepalive_at = wanted.then(|| now + jittered);
    }

    /// A main socket that the router treats in a way of its own shows nothing of how it treats other sockets.
    fn update_main_is_mapped(&mut self) {
        let mapped = self.main_is_mapped();
        self.discoveries.iter_mut().for_each(|discovery| discovery.set_main_is_mapped(mapped));
    }

    const fn main_is_mapped(&self) -> bool {
        self.router.is_some() || !self.peer_mappings.is_empty()
    }

    const fn server_limit(&self) -> usize {
        if self.config.enabled { usize::MAX } else { 1 }
    }

    const fn discovery(&self, family: Family) -> &BehaviorDiscovery {
        &self.discoveries[family as usize]
    }

    const fn discovery_mut(&mut self, family: Family) -> &mut BehaviorDiscovery {
        &mut self.discoveries[family as usize]
    }

    /// Returns the number of datagrams sent for the present measurement.
    const fn packets(&self) -> u32 {
        self.client.sent - self.measurement.sent_before
    }

    fn steps(&self) -> Vec<CheckStep> {
        let profile = &self.profile;
        let known = [
            (CheckTopic::Address, !profile.public.is_empty()),
            (CheckTopic::Filtering, profile.filtering.is_some()),
            (CheckTopic::Mapping, profile.mapping.is_some()),
            (CheckTopic::Allocation, profile.allocation.is_some()),
            (CheckTopic::Hairpin, profile.hairpin.is_some()),
            (CheckTopic::Ipv6, profile.ipv6 == Some(false) || profile.firewall_v6.is_some()),
        ];
        let step = |(what, known)| CheckStep { what, state: self.step_state(what, known) };
        known.into_iter().map(step).chain([self.lifetime_step()]).collect()
    }

    fn step_state(&self, what: CheckTopic, known: bool) -> StepState {
        let family = if what == CheckTopic::Ipv6 { Family::V6 } else { Family::V4 };
        let running = self.config.enabled && self.discovery(family).is_testing(what);
        match (known, self.measurement.ended.is_some()) {
            (true, _) => StepState::Known,
            (false, true) => StepState::Unknown,
            (false, false) if running => StepState::Running,
            (false, false) => StepState::Waiting,
        }
    }

    fn lifetime_step(&self) -> CheckStep {
        let state = match (self.idle_lifetime.is_running(), self.profile.lifetime.is_some()) {
            (true, _) => StepState::Running,
            (false, true) => StepState::Known,
            (false, false) if self.measurement.ended.is_some() => StepState::Unknown,
            (false, false) => StepState::Waiting,
        };
        CheckStep { what: CheckTopic::Lifetime, state }
    }

    /// Updates the profile and reports what changed.
    fn publish(&mut self) {
        self.profile = self.evidence().profile(&self.profile);
        let reflexive = self.reflexive();
        if reflexive != self.published_reflexive {
            debug!(before = ?self.published_reflexive, now = ?reflexive, "reflexive addresses changed");
            self.published_reflexive.clone_from(&reflexive);
            self.events.push_back(Event::Reflexive(reflexive));
        }
        if self.profile != self.published_profile {
            self.publish_profile();
        }
    }

    fn publish_profile(&mut self) {
        let before = self.published_profile.udp_blocked;
        if let Some(blocked) = self.profile.udp_blocked.filter(|blocked| Some(*blocked) != before) {
            debug!(blocked, "verdict on UDP changed");
            self.events.push_back(Event::UdpBlocked(blocked));
        }
        debug!(profile = ?self.profile, "profile changed");
        self.published_profile.clone_from(&self.profile);
        self.events.push_back(Event::Profile(self.profile.clone()));
    }

    fn evidence(&self) -> Evidence<'_> {
        let [v4, v6] = &self.discoveries;
        Evidence {
            servers: &self.servers,
            local: &self.local,
            router: self.router.or_else(|| self.peer_mappings.external_ip()),
            online: self.online,
            tcp_reachable: &self.tcp_reachable,
            v4: v4.policies(),
            v4_done: v4.is_done(),
            v6: v6.policies(),
            lifetime: self.idle_lifetime.found(),
        }
    }
}

//! The machine itself: what it holds, and how time and the other machines' events move it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Candidate, CandidateKind, DeviceId, Now, PartyId, Settings};
use partyline_netcheck::Netcheck;
use partyline_party::{DeviceKey, Reachability};
use partyline_paths::{Event as PathEvent, Paths, RelayTransport, Via};
use partyline_tunnel::{Event as TunnelEvent, Outbox, PathConfig, RELAY_HEADROOM, Tunnel};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::{
    commands::Pings,
    egress::TransmitQueue,
    farewell::Farewells,
    io::{LocalNetwork, Output, ServerId},
    known::KnownNetworks,
    lent_port::Ports,
    link::ServerLink,
    local::LocalParty,
    mail::Mail,
    measure::Measurements,
    methods::Methods,
    network::NetworkCheck,
    observer::Errands,
    passage::Passages,
    peers::Peers,
    refusals::Refusals,
    relays::Relays,
    state::{Restored, SavedState},
    streams::Streams,
};

/// What the node is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// What counts where the user has set nothing else.
    pub settings: Settings,
    /// The version of this program, for people.
    pub version: String,
    /// How paths are looked for, as far as that is no setting.
    pub paths: partyline_paths::Config,
    /// How the network is measured, if it is.
    pub netcheck: partyline_netcheck::Config,
}

/// One device's part in all its parties.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) device: DeviceKey,
    pub(crate) parties: BTreeMap<PartyId, LocalParty>,
    pub(crate) links: BTreeMap<ServerId, ServerLink>,
    pub(crate) relays: Relays,
    pub(crate) paths: Paths,
    pub(crate) tunnel: Tunnel,
    pub(crate) netcheck: Netcheck,
    pub(crate) network: NetworkCheck,
    pub(crate) known: KnownNetworks,
    pub(crate) peers: Peers,
    pub(crate) measurements: Measurements,
    pub(crate) passages: Passages,
    pub(crate) errands: Errands,
    pub(crate) ports: Ports,
    pub(crate) mail: Mail,
    pub(crate) local: LocalNetwork,
    pub(crate) reflexive: Vec<SocketAddr>,
    pub(crate) mapped: Vec<SocketAddr>,
    pub(crate) reach: Reachability,
    pub(crate) outbox: Outbox,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) transmits: TransmitQueue,
    pub(crate) pings: Pings,
    pub(crate) revision: u32,
    pub(crate) next_server: u32,
    pub(crate) next_message: u32,
    pub(crate) refusals: Refusals,
    pub(crate) methods: Methods,
    pub(crate) farewells: Farewells,
    relays_at: Instant,
    pub(crate) stopping: bool,
    pub(crate) streams: Streams,
}

impl Node {
    /// A node with what was saved, or a new device with no parties. The seed must be secret and fresh.
    ///
    /// # Errors
    /// The saved state is not one this version can read; it is left as it is.
    pub fn new(
        now: Now,
        seed: [u8; 32],
        config: Config,
        saved: Option<&[u8]>,
    ) -> Result<Self, crate::StateError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let (paths, tunnel, netcheck) = (draw(), draw(), draw());
        let Restored { device, parties, settings, networks } = match saved {
            Some(bytes) => SavedState::decode(bytes)?.restore(now, &mut rng, &config.settings)?,
            None => Restored {
                device: DeviceKey::generate(&mut rng),
                parties: BTreeMap::new(),
                settings: config.settings.clone(),
                networks: KnownNetworks::default(),
            },
        };
        let path_config = Self::path_config(&config.paths, &settings);
        let netcheck_config =
            partyline_netcheck::Config { enabled: settings.nat_detection, ..config.netcheck };
        let mut node = Self {
            paths: Paths::new(paths, path_config),
            tunnel: Tunnel::new(now.instant, tunnel),
            netcheck: Netcheck::new(now.instant, netcheck, netcheck_config),
            config,
            settings,
            rng,
            device,
            parties,
            links: BTreeMap::new(),
            relays: Relays::default(),
            network: NetworkCheck::default(),
            known: networks,
            peers: Peers::default(),
            measurements: Measurements::new(),
            passages: Passages::new(now.instant),
            errands: Errands::default(),
            ports: Ports::default(),
            mail: Mail::default(),
            local: LocalNetwork::default(),
            reflexive: Vec::new(),
            mapped: Vec::new(),
            reach: Reachability::default(),
            outbox: Outbox::new(),
            outputs: VecDeque::new(),
            transmits: TransmitQueue::default(),
            pings: Pings::default(),
            revision: 1,
            next_server: 0,
            next_message: 0,
            refusals: Refusals::default(),
            methods: Methods::default(),
            farewells: Farewells::default(),
            relays_at: now.instant,
            stopping: false,
            streams: Streams::default(),
        };
        node.relays.set_own(node.settings.relays.clone());
        node.look_up_relays();
        let on: Vec<PartyId> = node.parties.iter().filter(|(_, party)| party.on).map(|(id, _)| *id).collect();
        on.into_iter().for_each(|party| node.switch_on(now, party));
        if saved.is_none() {
            node.outputs.push_back(Output::Save);
        }
        Ok(node)
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device.id()
    }

    /// The next thing the engine has to do. Ask until there is none, after every input and after [`Self::flush`]; what the
    /// answers make the node send leaves with another flush.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Grows whenever the snapshot may have changed.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// The moment to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(ServerLink::deadline);
        let parties = self.parties.values().filter_map(LocalParty::deadline);
        let machines = [
            Some(self.relays_at),
            (self.peers.count() > 1).then(|| self.passages.deadline()),
            self.paths.poll_timeout(),
            self.netcheck.poll_timeout(),
            self.tunnel.poll_timeout(),
            self.pings.deadline(),
            self.mail.deadline(),
            self.farewells.deadline(),
            self.ports.deadline(),
        ];
        links.chain(parties).chain(machines.into_iter().flatten()).min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Now) {
        self.paths.handle_timeout(now.instant);
        self.netcheck.handle_timeout(now.instant);
        self.open_links(now);
        self.tend_parties(now);
        self.seek_passages(now);
        self.send_again(now);
        self.end_farewells(now);
        self.take_ports_back(now.instant);
        if self.relays_at <= now.instant {
            self.relays_at = now.instant + RELAY_CHECK;
            self.renew_relays(now);
            self.rank_relays(now);
        }
        self.expire_pings(now.instant);
        self.settle(now);
    }

    /// Takes the list of the computer's own addresses; to be called at the start and whenever it changes.
    pub fn handle_network(&mut self, now: Now, local: LocalNetwork) {
        if local == self.local {
            return;
        }
        let before = self.host_addresses();
        self.local = local;
        let after = self.host_addresses();
        if after != before {
            self.move_to_network(now);
        }
        if before.iter().any(|address| !after.contains(address)) {
            self.leave_links();
        }
        self.parties.values_mut().for_each(|party| party.beacon_soon(now.instant));
        self.check_ranges();
        self.touch();
    }

    fn move_to_network(&mut self, now: Now) {
        self.reflexive.clear();
        self.passages.network_changed(now.instant);
        self.netcheck.set_local_addresses(now.instant, self.host_addresses());
        self.recall_network(now);
        self.gather(now);
        self.paths.network_changed(now.instant);
        self.check_links(now);
        self.look_up_relays();
    }

    /// The router has another address, or lost its table: to whoever is outside that is another network.
    fn router_moved(&mut self, now: Now) {
        self.reflexive.clear();
        self.passages.network_changed(now.instant);
        self.netcheck.restart(now.instant);
        self.gather(now);
        self.paths.network_changed(now.instant);
        self.check_links(now);
    }

    /// The computer slept: every deadline may be long past, and the network another one.
    pub fn handle_wake(&mut self, now: Now) {
        self.paths.network_changed(now.instant);
        self.check_links(now);
        self.parties.values_mut().for_each(|party| party.beacon_soon(now.instant));
        self.handle_timeout(now);
    }

    /// Takes the ports that the router opened for the tunnel's socket; the whole list every time.
    pub fn handle_mapped(&mut self, now: Now, mapped: Vec<SocketAddr>) {
        if self.mapped != mapped {
            self.mapped = mapped;
            self.netcheck.set_router_address(
                now.instant,
                self.mapped.iter().map(SocketAddr::ip).find(std::net::IpAddr::is_ipv4),
            );
            self.gather(now);
        }
    }

    /// Takes the addresses of a host that [`Output::Resolve`] asked for; empty if there are none.
    pub fn handle_resolved(&mut self, now: Now, host: String, port: u16, addresses: Vec<SocketAddr>) {
        self.note_stun(&host, port, &addresses);
        self.relays.resolved(host, port, addresses);
        self.apply_relays(now);
    }

    /// Lets the machines act on each other until all are quiet.
    pub(crate) fn settle(&mut self, now: Now) {
        while let Some(event) = self.paths.poll_event() {
            self.on_path_event(now, event);
        }
        while let Some(event) = self.netcheck.poll_event() {
            self.on_netcheck_event(now, event);
        }
        while let Some(transmit) = self.netcheck.poll_transmit() {
            self.send_netcheck(&transmit);
        }
        self.tunnel.handle_timeout(now.instant, &mut self.outbox);
        while let Some(event) = self.tunnel.poll_event() {
            self.on_tunnel_event(now, event);
        }
    }

    fn on_path_event(&mut self, now: Now, event: PathEvent) {
        match event {
            PathEvent::LocalCandidates(candidates) => {
                self.reach.candidates = candidates;
                self.reach.candidates.truncate(partyline_wire::announcement::MAX_CANDIDATES);
                self.announce_all(now.instant);
            }
            PathEvent::PublicAddressChanged => self.router_moved(now),
            PathEvent::PathChanged { peer, path, .. } => {
                let Some((party, device)) = self.peers.member(peer) else { return };
                let shape = path.map(|path| PathConfig {
                    headroom: if matches!(path.via, Via::Relay(_)) { RELAY_HEADROOM } else { 0 },
                    mtu: None,
                });
                self.tunnel.set_path(now.instant, party, device, shape);
                self.touch();
            }
            PathEvent::Sampled { peer, rtt, kind } => {
                if let Some(member) = self.peers.member(peer) {
                    self.measurements.entry(member).or_default().sampled(now, rtt, kind);
                }
            }
            PathEvent::Attempted { method, succeeded: worked, took } => {
                self.methods.count(method, worked, took);
                self.outputs.push_back(Output::Tried { method, worked, took });
            }
            PathEvent::OpenStream { stream, transport, address, host } => {
                self.streams.add(stream, address);
                let tls = transport == RelayTransport::Tls;
                self.outputs.push_back(Output::StreamOpen { id: stream, tls, address, host });
            }
            PathEvent::OpenSockets(ids) => self.outputs.push_back(Output::OpenSockets { ids }),
            PathEvent::CloseSocket(id) => self.outputs.push_back(Output::CloseSocket { id }),
            PathEvent::Signal { peer, bytes } => self.signal(now, peer, bytes),
            PathEvent::CloseStream(id) => {
                self.streams.remove(id);
                self.outputs.push_back(Output::StreamClose { id });
            }
        }
    }

    fn on_netcheck_event(&mut self, now: Now, event: partyline_netcheck::Event) {
        match event {
            partyline_netcheck::Event::Reflexive(addresses) => {
                self.reflexive = addresses;
                self.gather(now);
            }
            partyline_netcheck::Event::Profile(profile) => {
                self.paths.set_keepalive(keepalive(&self.config.paths, profile.lifetime));
                self.reach.nat = profile;
                self.rank_relays(now);
                self.tell_nat(now);
                self.announce_all(now.instant);
                self.remember_network(now);
            }
            partyline_netcheck::Event::UdpBlocked(_) => self.touch(),
            partyline_netcheck::Event::OpenProbeSockets { ids } => {
                self.outputs.push_back(Output::OpenSockets { ids });
            }
            partyline_netcheck::Event::CloseProbeSockets { ids } => {
                self.outputs.extend(ids.into_iter().map(|id| Output::CloseSocket { id }));
                self.remember_network(now);
                self.touch();
            }
            partyline_netcheck::Event::RequestFilteringProbe(errand) => self.ask_observers(now, errand),
            partyline_netcheck::Event::RequestProbeRound(round) => self.ask_for_round(now, round),
            partyline_netcheck::Event::ServerTimedOut(address) => {
                self.outputs.push_back(Output::Reach { address })
            }
        }
    }

    fn on_tunnel_event(&mut self, now: Now, event: TunnelEvent) {
        match event {
            TunnelEvent::SessionReady { party, peer: device } => self.introduce(now, party, device),
            TunnelEvent::SessionLost { .. } => {}
        }
        self.tell_observers(now);
        self.touch();
    }

    /// Addresses of the tunnel's socket on this computer's interfaces.
    pub(crate) fn host_addresses(&self) -> Vec<SocketAddr> {
        let port = |address: &std::net::IpAddr| {
            if address.is_ipv4() { self.local.port_v4 } else { self.local.port_v6 }
        };
        self.local
            .addresses
            .iter()
            .filter_map(|address| Some(SocketAddr::new(*address, port(address)?)))
            .collect()
    }

    /// Tells the path machine every candidate known by now.
    pub(crate) fn gather(&mut self, now: Now) {
        let kinds = [
            (CandidateKind::Host, self.host_addresses()),
            (CandidateKind::Mapped, self.mapped.clone()),
            (CandidateKind::ServerReflexive, self.reflexive.clone()),
        ];
        let mut candidates: Vec<Candidate> = Vec::new();
        for (kind, addresses) in kinds {
            for address in addresses {
                if candidates.iter().all(|known| known.address != address) {
                    candidates.push(Candidate { kind, address });
                }
            }
        }
        self.paths.set_local(now.instant, candidates);
    }

    /// The view changed.
    pub(crate) fn touch(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }
}

/// How long idle paths may be silent: two thirds of what the NAT's mappings live, once that was measured. The other
/// side has its own NAT and sees to it itself.
fn keepalive(usual: &partyline_paths::Config, lifetime: Option<Duration>) -> Duration {
    lifetime
        .map_or(usual.keepalive, |lifetime| (lifetime * 2 / 3).clamp(SHORTEST_KEEPALIVE, LONGEST_KEEPALIVE))
}

/// Bounds of the keepalive: mappings that live shorter are not worth keeping, and a path that died is to be noticed.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(5);
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(25);
/// How often relay credentials are looked at.
const RELAY_CHECK: Duration = Duration::from_secs(20);
/// How long after a wall-clock deadline at most the node looks again, whatever the clock does.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(600);

//! Connectivity of one device, driven by its inputs alone. A STUN server answers with real messages where a test lets it.

use partyline_model::{CandidateKind, RouterCheck};
use partyline_wire::rendezvous::RelayServer;
use rand_core::SeedableRng as _;

use super::*;
use crate::host_names::RETRY_INTERVAL;
use crate::testing::{Exit, PARTY, after, binding_response, device, device_config, peer_info, secret, start};

const SECOND: Duration = Duration::from_secs(1);
const MEMBER: u8 = 2;

fn server() -> SocketAddr {
    ([192, 0, 2, 53], 3478).into()
}

/// The address at which the server sees this device's main socket.
fn reflexive() -> SocketAddr {
    ([203, 0, 113, 1], 5000).into()
}

/// The address at which servers see the member's sockets.
fn member_address() -> SocketAddr {
    ([203, 0, 113, 2], 6000).into()
}

fn network(host: [u8; 4]) -> LocalNetwork {
    LocalNetwork {
        addresses: vec![std::net::IpAddr::from(host).into()],
        port_v4: Some(41_641),
        ..LocalNetwork::default()
    }
}

struct Device {
    now: Now,
    connectivity: Connectivity,
    exit: Exit,
    events: Vec<Event>,
    scratch: Vec<u8>,
}

impl Device {
    /// A device on a network, in a party with one other member.
    fn new(settings: &Settings) -> Self {
        let now = start();
        let members = ChaCha20Rng::from_seed([4; 32]);
        let seeds = Seeds { paths: [1; 32], tunnel: [2; 32], netcheck: [3; 32], members };
        let connectivity = Connectivity::new(
            now.instant,
            seeds,
            partyline_paths::Config::default(),
            partyline_netcheck::Config::default(),
            settings,
            KnownNetworks::default(),
        );
        let mut device =
            Self { now, connectivity, exit: Exit::default(), events: Vec::new(), scratch: vec![0; 4096] };
        device.connectivity.set_network(now, network([192, 168, 1, 7])).expect("a change");
        device.connectivity.set_party(now.instant, PARTY, secret(1), &device_config(1));
        let mut info = peer_info(1, MEMBER);
        if let Some(paths) = &mut info.paths {
            paths.nat.public = vec![member_address().ip()];
        }
        device.connectivity.set_peer(now.instant, info);
        device
    }

    /// A device that knows a STUN server.
    fn with_server() -> Self {
        let mut device = Self::new(&Settings::default());
        device.connectivity.set_online(device.now.instant, true);
        let name = server().to_string();
        device.connectivity.check_network(device.now.instant, &[name]).expect("the name of a server");
        device.run();
        let [Output::Resolve { host, port }] = &device.outputs()[..] else { panic!("one host to resolve") };
        assert_eq!((host.as_str(), *port), ("192.0.2.53", 3478));
        device.connectivity.handle_resolved(device.now.instant, host.clone(), *port, &[server()]);
        device
    }

    /// A device whose server has answered.
    fn with_reflexive_address() -> Self {
        let mut device = Self::with_server();
        device.answer_for(2 * SECOND);
        assert_eq!(device.connectivity.reflexive(), [reflexive()]);
        device
    }

    fn run(&mut self) {
        self.connectivity.drive(self.now);
        self.events.extend(std::iter::from_fn(|| self.connectivity.poll_event()));
        self.connectivity.flush(self.now, &mut self.exit);
    }

    /// Lets time pass without an answer to anything.
    fn advance(&mut self, span: Duration) {
        let end = self.now.instant + span;
        self.run();
        while self.now.instant < end {
            let due = self.connectivity.poll_timeout().unwrap_or(end).min(end);
            let wait = due.saturating_duration_since(self.now.instant);
            self.now = after(self.now, wait.max(Duration::from_millis(1)));
            self.connectivity.handle_timeout(self.now, &|_, _| true);
            self.run();
        }
    }

    /// Lets time pass while the STUN server answers requests from the main socket.
    fn answer_for(&mut self, span: Duration) {
        for _ in 0..span.as_millis() / 50 {
            self.advance(Duration::from_millis(50));
            for (to, request) in self.exit.take_from(SocketId::MAIN) {
                if to == server() && request[..2] == [0, 1] {
                    self.receive(SocketId::MAIN, server(), &binding_response(&request, reflexive()));
                }
            }
            self.run();
        }
    }

    fn receive(&mut self, socket: SocketId, source: SocketAddr, datagram: &[u8]) {
        let Self { now, connectivity, exit, scratch, .. } = self;
        connectivity.handle_datagram(*now, socket, source, datagram, scratch, exit);
    }

    fn report(&mut self, report: PortMappingReport) {
        self.connectivity.handle_port_mapping(self.now.instant, report);
        self.run();
    }

    fn control(&mut self, message: ControlMessage) {
        self.connectivity.handle_control(self.now.instant, PARTY, device(MEMBER), message);
        self.run();
    }

    /// Returns what the engine was asked for since the last call.
    fn outputs(&mut self) -> Vec<Output> {
        let events = std::mem::take(&mut self.events).into_iter();
        let outputs = events.filter_map(|event| match event {
            Event::Output(output) => Some(output),
            _ => None,
        });
        outputs.collect()
    }

    /// Returns the candidates that were announced last, as kinds and addresses.
    fn candidates(&self) -> Vec<(CandidateKind, SocketAddr)> {
        let last = self.events.iter().rev().find_map(|event| match event {
            Event::Candidates(candidates) => Some(candidates),
            _ => None,
        });
        let announced = last.into_iter().flatten();
        announced.map(|candidate| (candidate.kind, candidate.address)).collect()
    }
}

#[test]
fn server_that_answers_makes_a_candidate_and_gets_the_keepalives() {
    let mut device = Device::with_reflexive_address();
    assert!(device.candidates().contains(&(CandidateKind::ServerReflexive, reflexive())));
    let asked: Vec<_> = device
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::KeepaliveServers { servers } => Some(servers),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [vec![server()]], "reported once");
}

#[test]
fn keepalive_servers_are_reported_again_when_they_stop_to_answer() {
    let mut device = Device::with_reflexive_address();
    device.outputs();
    device.connectivity.set_network(device.now, network([192, 168, 9, 9])).expect("a change");
    device.run();
    let outputs = device.outputs();
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::KeepaliveServers { servers } if servers.is_empty())),
        "{outputs:?}"
    );
}

#[test]
fn port_mapping_report_makes_candidates_until_the_next_one_takes_them_back() {
    let mut device = Device::new(&Settings::default());
    let mapped = SocketAddr::from(([203, 0, 113, 9], 7000));
    let check = RouterCheck { protocol: "PCP".to_owned(), works: true, problem: None };
    let report =
        PortMappingReport { mapped: vec![mapped], protocols: vec![check.clone()], peer_mappings: Vec::new() };
    device.report(report.clone());
    assert!(device.candidates().contains(&(CandidateKind::Mapped, mapped)));
    assert_eq!(device.connectivity.network_report(device.now).router, [check]);
    device.events.clear();
    device.report(report);
    assert!(device.events.is_empty(), "the same report is no news");
    device.report(PortMappingReport::default());
    assert!(!device.candidates().contains(&(CandidateKind::Mapped, mapped)));
    assert!(device.events.iter().any(|event| matches!(event, Event::Changed)));
    assert!(device.connectivity.network_report(device.now).router.is_empty());
}

#[test]
fn what_the_router_says_about_flows_outlives_a_new_measurement() {
    let mut device = Device::with_reflexive_address();
    assert_eq!(device.connectivity.nat().double_nat, None, "unknown without the router's word");
    let external = SocketAddr::from(([100, 64, 0, 1], 41_641));
    let mapping = PeerMapping { remote: server(), external, lifetime: 600 * SECOND };
    device.report(PortMappingReport { peer_mappings: vec![mapping], ..PortMappingReport::default() });
    assert_eq!(device.connectivity.nat().double_nat, Some(true));
    device.connectivity.on_public_address_changed(device.now.instant);
    device.answer_for(5 * SECOND);
    assert_eq!(device.connectivity.nat().double_nat, Some(true));
}

#[test]
fn blocked_udp_is_proven_by_tcp_only_on_the_same_network() {
    let mut device = Device::with_server();
    device.advance(20 * SECOND);
    let outputs = device.outputs();
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Reach { address } if *address == server())),
        "{outputs:?}"
    );
    assert_eq!(device.connectivity.nat().udp_blocked, None);
    device.connectivity.on_tcp_reachable(device.now.instant, server().ip());
    device.advance(20 * SECOND);
    assert_eq!(device.connectivity.nat().udp_blocked, Some(true));
    device.connectivity.set_network(device.now, network([192, 168, 9, 9])).expect("a change");
    device.advance(20 * SECOND);
    assert_eq!(device.connectivity.nat().udp_blocked, None, "the server may be out of reach altogether");
}

fn grant(url: &str) -> RelayGrant {
    RelayGrant {
        servers: vec![RelayServer { url: url.to_owned(), region: String::new() }],
        username: "ana".to_owned(),
        password: "secret".to_owned(),
        realm: "example".to_owned(),
        expires: start().unix,
    }
}

#[test]
fn relay_of_an_unconfirmed_server_gets_no_packet_at_a_private_address() {
    for url in ["turn:relay.example", "turn:relay.example?transport=tcp", "turns:relay.example:3478"] {
        let mut device = Device::new(&Settings::default());
        device.connectivity.set_online(device.now.instant, true);
        device.connectivity.on_relay_grant(device.now.instant, ServerId(1), grant(url), AddressScope::Public);
        let host = || "relay.example".to_owned();
        let private = ["127.0.0.1:3478", "192.168.1.1:3478", "[fe80::1]:3478", "[fd00::1]:3478"]
            .map(|address| address.parse::<SocketAddr>().expect("an address"));
        let contacted = |device: &mut Device| {
            device.advance(20 * SECOND);
            let aimed = |output: &Output| match output {
                Output::StreamOpen { address, .. } | Output::Reach { address } => private.contains(address),
                Output::KeepaliveServers { servers } => private.iter().any(|ip| servers.contains(ip)),
                _ => false,
            };
            let streams = device.outputs().iter().any(aimed);
            let sent = device.exit.take_from(SocketId::MAIN);
            streams || sent.iter().any(|(to, _)| private.contains(to))
        };
        device.connectivity.handle_resolved(device.now.instant, host(), 3478, &private);
        assert!(!contacted(&mut device), "{url}");
        let refused = device.connectivity.private_relay(ServerId(1));
        assert_eq!(refused, Some((host(), private[0].ip())));
        device.connectivity.trust_relays(device.now.instant, ServerId(1));
        assert!(contacted(&mut device), "{url} once its server is confirmed");
        assert_eq!(device.connectivity.private_relay(ServerId(1)), None);
    }
}

#[test]
fn granted_relays_are_resolved_until_an_address_is_known_and_then_used() {
    let mut device = Device::new(&Settings::default());
    let grant = grant("turn:relay.example");
    let lookups = |device: &mut Device| {
        let outputs = device.outputs().into_iter();
        outputs
            .filter(|output| matches!(output, Output::Resolve { host, .. } if host == "relay.example"))
            .count()
    };
    device.connectivity.on_relay_grant(device.now.instant, ServerId(1), grant, AddressScope::Public);
    device.run();
    assert_eq!(lookups(&mut device), 1);
    device.connectivity.handle_resolved(device.now.instant, "relay.example".to_owned(), 3478, &[]);
    device.advance(RETRY_INTERVAL);
    assert_eq!(lookups(&mut device), 1, "tried again");
    let address = SocketAddr::from(([192, 0, 2, 99], 3478));
    device.connectivity.handle_resolved(device.now.instant, "relay.example".to_owned(), 3478, &[address]);
    device.advance(SECOND);
    let sent = device.exit.take_from(SocketId::MAIN);
    assert!(sent.iter().any(|(to, bytes)| *to == address && bytes[..2] == [0, 3]), "an Allocate request");
    device.connectivity.forget_server(device.now.instant, ServerId(1));
    device.advance(2 * RELAY_CHECK);
    assert_eq!(lookups(&mut device), 0, "forgotten");
    assert!(device.connectivity.stun_servers().is_empty());
}

#[test]
fn another_network_is_measured_again_and_only_a_lost_address_costs_connections() {
    let mut device = Device::with_reflexive_address();
    device.outputs();
    let two = LocalNetwork {
        addresses: [[192, 168, 1, 7], [10, 0, 0, 7]].map(|host| std::net::IpAddr::from(host).into()).to_vec(),
        ..network([192, 168, 1, 7])
    };
    let change = device.connectivity.set_network(device.now, two);
    assert_eq!(change, Some(NetworkChange { addresses_changed: true, address_lost: false }));
    assert!(device.connectivity.reflexive().is_empty(), "to be measured again");
    let change = device.connectivity.set_network(device.now, network([10, 0, 0, 7]));
    assert_eq!(change, Some(NetworkChange { addresses_changed: true, address_lost: true }));
    assert_eq!(device.connectivity.set_network(device.now, network([10, 0, 0, 7])), None);
    device.answer_for(2 * SECOND);
    assert_eq!(device.connectivity.reflexive(), [reflexive()]);
}

#[test]
fn filtering_probe_goes_only_where_the_member_says_it_is() {
    let mut device = Device::new(&Settings::default());
    let probe = |to| ControlMessage::SendFilteringProbe { to, token: [7; 12] };
    device.run();
    device.exit.sent.clear();
    device.control(probe(([198, 51, 100, 1], 53).into()));
    assert!(device.exit.sent.iter().all(|(_, to, _)| to.port() != 53), "not aimed at others");
    device.control(probe(member_address()));
    let sent = device.exit.take_from(SocketId::MAIN);
    assert_eq!(sent.iter().filter(|(to, _)| *to == member_address()).count(), PROBE_COPIES);
    let counters = device.connectivity.probe_responder_counters();
    assert_eq!((counters.answered, counters.foreign_address), (1, 1));
    let settings = Settings { serve_friends: false, ..Settings::default() };
    device.connectivity.configure(device.now.instant, &settings);
    device.control(probe(member_address()));
    assert_eq!(device.connectivity.probe_responder_counters().not_willing, 1);
}

#[test]
fn second_port_is_opened_for_a_member_serves_its_rounds_and_is_closed_again() {
    let mut device = Device::with_reflexive_address();
    device.outputs();
    device.control(ControlMessage::RequestSecondPort);
    let outputs = device.outputs();
    assert!(matches!(&outputs[..], [Output::OpenSockets { ids }] if *ids == [SECOND_PORT]), "{outputs:?}");
    device.exit.sent.clear();
    device.connectivity.on_sockets_opened(device.now.instant, &[(SECOND_PORT, Some(9))]);
    device.run();
    let asked = device.exit.take_from(SECOND_PORT);
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [server(), server()]);
    let second = SocketAddr::new(reflexive().ip(), 5001);
    device.receive(SECOND_PORT, server(), &binding_response(&asked[0].1, second));
    let to = [member_address(), SocketAddr::new(member_address().ip(), 6001)];
    device.control(ControlMessage::SendProbeRound { to, token: [8; 12] });
    let from_second: Vec<_> = device.exit.take_from(SECOND_PORT).into_iter().map(|(to, _)| to).collect();
    assert_eq!(from_second, to);
    device.control(ControlMessage::SendProbeRound { to: [server(), to[0]], token: [8; 12] });
    assert!(device.exit.take_from(SECOND_PORT).is_empty(), "not aimed at others");
    device.advance(15 * SECOND);
    let closed = |output: &Output| matches!(output, Output::CloseSocket { id } if *id == SECOND_PORT);
    assert_eq!(device.outputs().iter().filter(|output| closed(output)).count(), 1);
}

#[test]
fn second_port_that_nobody_asked_for_is_ignored() {
    let mut device = Device::with_reflexive_address();
    device.exit.sent.clear();
    let second = SocketAddr::new(member_address().ip(), 6001);
    device.control(ControlMessage::GrantSecondPort { first: member_address(), second });
    device.advance(2 * SECOND);
    assert!(device.exit.sent.iter().all(|(_, to, _)| *to != second), "nothing is sent to an offered address");
}

#[test]
fn silence_between_checks_follows_the_measured_lifetime_of_mappings() {
    let defaults = partyline_paths::Config::default();
    let after = |seconds| keepalive(&defaults, Some(Duration::from_secs(seconds)));
    assert_eq!(keepalive(&defaults, None), defaults.keepalive, "not measured");
    assert_eq!((after(30), after(1), after(3600)), (20 * SECOND, MIN_KEEPALIVE, MAX_KEEPALIVE));
}

#[test]
fn every_order_of_members_can_come_out_of_a_shuffle() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut orders = BTreeSet::new();
    for _ in 0..200 {
        let mut list = [1, 2, 3];
        shuffle(&mut list, &mut rng);
        orders.insert(list);
    }
    assert_eq!(orders.len(), 6);
}

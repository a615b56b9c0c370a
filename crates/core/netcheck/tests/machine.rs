//! Keepalives, changes of the network, blocked UDP, servers of all kinds, and datagrams from strangers.

mod common;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use common::{
    INSIDE, INSIDE_V6, LINE, Line, Nat, OUTSIDE, Rules, Server, TUNNEL_PORT, UDP, World, full_server, nat,
};
use partyline_model::{Allocation, Badge, CheckTopic, Filtering, Mapping, NatProfile, SocketId, StepState};
use partyline_nat::PortCollision;
use partyline_netcheck::{
    Config, CredentialMechanism, Event, Netcheck, PeerMapping, StunCredentials, StunServer,
};
use proptest::prelude::*;
use stun_rs::{
    HMACKey, MessageClass, MessageDecoder, MessageEncoderBuilder, StunMessageBuilder,
    attributes::stun::{Fingerprint, MessageIntegritySha256, XorMappedAddress},
    get_input_text,
    methods::BINDING,
};

/// As many probe sockets as the engine opens.
const PROBE_SOCKETS: u16 = 7;

fn home() -> Nat {
    let (mapping, filtering) = (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    nat(
        7,
        Rules { collision: PortCollision::Random, ..Rules::new(mapping, filtering, Allocation::Preserving) },
    )
}

fn measured() -> World {
    let mut world = World::new(7, Some(home()), vec![full_server()], LINE, 0);
    world.measure();
    world
}

#[test]
fn idle_mapping_costs_one_request_per_keepalive_interval() {
    let mut world = measured();
    let before: u32 = world.sent.values().sum();
    world.run(Duration::from_secs(220));
    let asked = world.sent.values().sum::<u32>() - before;
    assert!((9..=11).contains(&asked), "{asked} questions in 220 s");
    let now = world.now();
    world.netcheck.set_keepalive(now, false);
    let before: u32 = world.sent.values().sum();
    world.run(Duration::from_secs(220));
    assert_eq!(world.sent.values().sum::<u32>(), before);
    assert_eq!(world.netcheck.poll_timeout(), None);
}

#[test]
fn peer_mapping_saves_keepalives_until_the_router_breaks_it() {
    let mut world = measured();
    let server = world.netcheck.keepalive_servers()[0];
    let external = world.netcheck.reflexive()[0];
    let questions = |world: &mut World| {
        let before = world.sent[&server];
        world.run(Duration::from_secs(600));
        world.sent[&server] - before
    };
    let usual = questions(&mut world);
    let promise = PeerMapping { remote: server, external, lifetime: Duration::from_secs(1200) };
    let elsewhere = PeerMapping { external: SocketAddr::new(external.ip(), external.port() ^ 1), ..promise };
    let short = PeerMapping { lifetime: Duration::from_secs(4), ..promise };
    for (promise, fewer) in [(elsewhere, false), (short, false), (promise, true)] {
        let now = world.now();
        world.netcheck.set_peer_mappings(now, vec![promise]);
        let now = questions(&mut world);
        assert_eq!(now * 2 < usual, fewer, "{now} instead of {usual} questions for {promise:?}");
    }
    assert_eq!(world.netcheck.profile().double_nat, Some(false), "the router says where the flow is seen");
    let (mapping, filtering) = (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    world.replace_nat(Nat::new(
        9,
        [11, 0, 0, 9].into(),
        Rules::new(mapping, filtering, Allocation::Preserving),
    ));
    world.run(Duration::from_secs(120));
    assert!(questions(&mut world) * 2 > usual, "a router that did not keep its word");
}

#[test]
fn peer_mapping_with_a_shared_address_shows_a_second_nat() {
    let mut world = World::new(7, Some(home()), vec![full_server()], LINE, 0);
    let promise = |remote| PeerMapping {
        remote,
        external: ([100, 64, 0, 9], 7).into(),
        lifetime: Duration::from_secs(600),
    };
    let now = world.now();
    world.netcheck.set_peer_mappings(now, vec![promise(world.servers[0].address)]);
    world.measure();
    let profile = world.netcheck.profile();
    assert_eq!((profile.double_nat, profile.carrier_nat), (Some(true), Some(true)));
}

#[test]
fn changed_mapping_is_reported_and_measured_again() {
    let mut world = measured();
    let now = world.now();
    let nat = world.nat();
    nat.reset();
    // Another computer in the home is faster and takes our port.
    nat.outbound(now, UDP, (IpAddr::from([192, 168, 1, 9]), TUNNEL_PORT).into(), full_server().address);
    world.events.clear();
    world.run(Duration::from_secs(90));
    let found = world.events.iter().find_map(|(_, event)| match event {
        Event::Reflexive(addresses) => Some(addresses.clone()),
        _ => None,
    });
    let found = found.expect("the change is reported");
    assert!(found.len() == 1 && found[0].ip() == OUTSIDE && found[0].port() != TUNNEL_PORT, "{found:?}");
    assert_eq!(world.netcheck.profile().mapping, Some(Mapping::EndpointIndependent));
    assert_eq!(world.netcheck.profile().filtering, Some(Filtering::AddressAndPortDependent), "kept");
}

#[test]
fn silence_is_blocked_udp_only_if_servers_are_reachable_over_tcp() {
    let dead = Server { silent: true, ..full_server() };
    let mut world = World::new(3, Some(home()), vec![dead], LINE, 0);
    world.run(Duration::from_secs(30));
    assert_eq!(world.netcheck.profile().udp_blocked, None);
    let now = world.now();
    world.netcheck.set_online(now, true);
    assert_eq!(world.netcheck.profile().udp_blocked, None, "one dead server proves nothing");
    let now = world.now();
    world.netcheck.set_tcp_reachable(now, [full_server().address.ip()]);
    assert_eq!(world.netcheck.badge(), Some(Badge::UdpBlocked));
    world.servers[0].silent = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.netcheck.profile().udp_blocked, Some(false));
    let found: Vec<_> = world.events.iter().filter(|(_, e)| matches!(e, Event::UdpBlocked(_))).collect();
    assert!(matches!(found[..], [(_, Event::UdpBlocked(true)), (_, Event::UdpBlocked(false))]), "{found:?}");
    assert_eq!(world.netcheck.profile().mapping, Some(Mapping::EndpointIndependent));
}

#[test]
fn unanswered_request_is_retransmitted_and_times_out() {
    let dead = Server { silent: true, ..Server::new([11, 0, 1, 1], 3478) };
    let config = Config { keepalive_interval: Duration::from_secs(100), ..Config::default() };
    let mut world = World::with_config(3, None, vec![dead.clone()], LINE, 0, config);
    let mut sent_at = Vec::new();
    for step in 0..100u64 {
        let before = world.sent.get(&dead.address).copied().unwrap_or(0);
        world.run(Duration::from_millis(50));
        if world.sent.get(&dead.address).copied().unwrap_or(0) > before {
            sent_at.push(step * 50);
        }
    }
    assert_eq!(sent_at, [0, 200, 700, 1200, 1700, 2200]);
    assert!(world.netcheck.report().servers[0].timed_out);
}

#[test]
fn late_response_of_a_server_counts() {
    let far = Line { latency: Duration::from_millis(1400), ..LINE };
    let mut world = World::new(3, Some(home()), vec![full_server()], far, 0);
    world.run(Duration::from_millis(2600));
    assert!(world.netcheck.report().servers[0].timed_out);
    world.run(Duration::from_millis(400));
    assert_eq!(world.netcheck.profile().public, vec![OUTSIDE]);
    assert!(!world.netcheck.report().servers[0].timed_out);
}

#[test]
fn disabled_measurement_learns_only_the_public_address() {
    let config = Config { enabled: false, ..Config::default() };
    let mut world = World::with_config(3, Some(home()), vec![full_server()], LINE, 0, config);
    world.run(Duration::from_secs(10));
    assert_eq!(world.netcheck.profile().public, vec![OUTSIDE]);
    assert_eq!(world.netcheck.profile().mapping, None);
    assert_eq!(world.sent.values().sum::<u32>(), 1);
}

#[test]
fn disabling_the_measurement_leaves_no_timeout_behind() {
    for ms in (0..1000).step_by(50) {
        let mut world = World::new(3, Some(home()), vec![full_server()], LINE, PROBE_SOCKETS);
        world.run(Duration::from_millis(ms));
        let now = world.now();
        world.netcheck.set_enabled(now, false);
        world.skip(Duration::from_secs(10));
        let now = world.now();
        world.netcheck.handle_timeout(now);
        assert!(world.netcheck.poll_timeout().is_none_or(|at| at > world.now()), "disabled after {ms} ms");
    }
}

#[test]
fn router_with_a_private_or_foreign_address_shows_a_second_nat() {
    let mut world = measured();
    let verdicts =
        [([100, 64, 0, 9], true), ([192, 168, 0, 2], true), ([11, 0, 0, 9], true), ([11, 0, 0, 1], false)];
    for (address, double) in verdicts {
        let now = world.now();
        world.netcheck.set_router_address(now, Some(IpAddr::from(address)));
        assert_eq!(world.netcheck.profile().double_nat, Some(double), "{address:?}");
    }
    let now = world.now();
    world.netcheck.set_router_address(now, None);
    assert_eq!(world.netcheck.profile().double_nat, None);
}

#[test]
fn servers_of_both_families_give_an_address_each() {
    let v6: SocketAddr = "[2001:db8::1]:3478".parse().expect("an address");
    let mut world =
        World::new(9, None, vec![full_server(), Server { address: v6, ..full_server() }], LINE, 0);
    world.servers[1].other = None;
    world.run(Duration::from_millis(100));
    assert_eq!(world.sent.get(&v6), None, "without an IPv6 address nobody is asked over IPv6");
    assert_eq!(world.netcheck.profile().ipv6, Some(false));
    let local = ["[2001:db8::7]:41641", "11.0.0.1:41641"].map(|a| a.parse().expect("an address"));
    let now = world.now();
    world.netcheck.set_local_addresses(now, local.to_vec());
    world.run(Duration::from_millis(100));
    let seen = [SocketAddr::new(OUTSIDE, TUNNEL_PORT), SocketAddr::new(INSIDE_V6, TUNNEL_PORT)];
    assert_eq!(world.netcheck.reflexive(), seen);
    assert_eq!(world.netcheck.profile().ipv6, Some(true));
}

/// What Happy Eyeballs (RFC 8305) is for: a family that is broken delays nothing of the one that works.
#[test]
fn broken_family_does_not_delay_the_first_response_of_the_other() {
    let v6: SocketAddr = "[2001:db8::1]:3478".parse().expect("an address");
    for broken in [Some(0), Some(1), None] {
        let both = vec![full_server(), Server { address: v6, other: None, ..full_server() }];
        let mut world = World::new(7, Some(home()), both, LINE, 7);
        broken.into_iter().for_each(|index: usize| world.servers[index].silent = true);
        // A, AAAA: one name, as a server with both has.
        let named = |server: &Server| StunServer::new("stun", server.address);
        let servers: Vec<_> = world.servers.iter().map(named).collect();
        let now = world.now();
        world.netcheck.set_servers(now, servers);
        let local = [(INSIDE, TUNNEL_PORT).into(), SocketAddr::new(INSIDE_V6, TUNNEL_PORT)];
        let now = world.now();
        world.netcheck.set_local_addresses(now, local.to_vec());
        world.events.clear();
        world.run(Duration::from_secs(3));
        let found = world.events.iter().find(|(_, event)| matches!(event, Event::Reflexive(_)));
        let (at, _) = found.expect("somebody answered");
        assert_eq!(*at, 2 * LINE.latency, "one round trip, with {broken:?} broken");
        assert!(world.netcheck.report().finished, "with {broken:?} broken");
        let works = |index: usize| broken != Some(index);
        assert_eq!(world.netcheck.profile().mapping.is_some(), works(0));
        assert_eq!(world.netcheck.profile().ipv6, works(1).then_some(true));
        let badge = works(0).then_some(Badge::PortRestricted);
        assert_eq!(world.netcheck.badge(), badge, "a public IPv6 address does not make an open network");
    }
}

#[test]
fn mapped_address_of_an_old_server_is_understood() {
    let old = Server { classic: true, ..full_server() };
    let mut world = World::new(9, Some(home()), vec![old], LINE, 0);
    world.measure();
    assert_eq!(world.netcheck.profile().filtering, Some(Filtering::AddressAndPortDependent));
}

#[test]
fn cached_profile_is_shown_at_once_and_kept_until_contradicted() {
    let long_ago = Duration::from_secs(3600);
    let profile = measured().netcheck.profile().clone();
    let mut world = World::new(7, Some(home()), vec![Server::new([11, 0, 1, 1], 3478)], LINE, 0);
    let now = world.now();
    world.netcheck.load_cached_profile(now, &profile, long_ago);
    assert_eq!(world.netcheck.profile().filtering, profile.filtering);
    world.measure();
    assert_eq!(world.netcheck.profile().filtering, profile.filtering, "nobody could contradict it");

    let moved = NatProfile { public: vec![IpAddr::from([11, 0, 0, 99])], ..profile.clone() };
    let mut world = World::new(7, Some(home()), vec![Server::new([11, 0, 1, 1], 3478)], LINE, 0);
    let now = world.now();
    world.netcheck.load_cached_profile(now, &moved, long_ago);
    world.measure();
    assert_eq!(world.netcheck.profile().filtering, None, "another public address is another network");

    let lived = NatProfile { lifetime: Some(Duration::from_secs(58)), ..profile };
    for (age, again) in [(long_ago, false), (Duration::from_secs(90_000), true)] {
        let mut world = World::new(7, Some(home()), vec![full_server()], LINE, 7);
        let now = world.now();
        world.netcheck.load_cached_profile(now, &lived, age);
        world.measure();
        let doing = world.netcheck.report().steps.iter().any(|step| step.state == StepState::Running);
        assert_eq!(doing, again, "a lifetime is believed for a day");
    }
}

#[test]
fn profile_is_measured_again_after_a_day() {
    let mut world = measured();
    let first = world.netcheck.finished_at();
    world.run(Duration::from_secs(86_000));
    assert_eq!(world.netcheck.finished_at(), first);
    world.run(Duration::from_secs(500));
    assert!(world.netcheck.finished_at() > first);
}

#[test]
fn lifetime_of_an_idle_mapping_is_measured_in_five_minutes() {
    let cases =
        [(10, None), (20, Some(14)), (30, Some(28)), (120, Some(118)), (179, Some(178)), (900, Some(298))];
    for (lifetime, found) in cases {
        for (mapping, inbound_refreshes) in
            [(Mapping::EndpointIndependent, true), (Mapping::AddressAndPortDependent, false)]
        {
            let policies = Rules::new(mapping, Filtering::AddressAndPortDependent, Allocation::Random);
            let rules = Rules { lifetime: Duration::from_secs(lifetime), inbound_refreshes, ..policies };
            let mut world = World::new(3, Some(nat(3, rules)), vec![full_server()], LINE, 7);
            world.measure();
            let before = world.sent.values().sum::<u32>();
            world.run(Duration::from_secs(310));
            assert_eq!(world.netcheck.profile().lifetime, found.map(Duration::from_secs), "{rules:?}");
            let packets = world.sent.values().sum::<u32>() - before;
            // A mapping that dies between two refreshes is a new one every time, and measured again once a minute.
            assert!(packets < 100 || lifetime < 22, "{packets} packets");
            let report = world.netcheck.report();
            let step = report.steps.iter().find(|step| step.what == CheckTopic::Lifetime).expect("a step");
            assert_eq!(step.state, if found.is_some() { StepState::Known } else { StepState::Unknown });
        }
    }
}

#[test]
fn server_without_response_port_leaves_lifetime_unknown() {
    let mut world = World::new(3, Some(home()), vec![full_server()], LINE, 7);
    world.servers[0].ignores_response_port = true;
    world.measure();
    world.run(Duration::from_secs(310));
    assert_eq!(world.netcheck.profile().lifetime, None);
    assert!(world.netcheck.report().gaps.iter().any(|gap| gap.contains("idle mappings")));
}

/// The address at which the server sees this computer.
fn seen() -> SocketAddr {
    ([11, 0, 0, 7], 4000).into()
}

/// A machine with one question open, and the answer to it.
fn asked() -> (Netcheck, std::time::Instant, SocketAddr, Vec<u8>) {
    let server = full_server();
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let now = std::time::Instant::now();
    let mut netcheck = Netcheck::new(now, [1; 32], Config::default());
    netcheck.set_servers(now, vec![StunServer::new("one", server.address)]);
    let question = netcheck.poll_transmit().expect("a question").bytes;
    let answer = server.respond(server.address, seen(), &question).expect("an answer").bytes;
    (netcheck, now, server.address, answer)
}

#[test]
fn responses_from_elsewhere_or_at_another_socket_are_dropped_and_counted() {
    let (mut netcheck, now, server, answer) = asked();
    let stranger = SocketAddr::new(Ipv4Addr::new(11, 9, 9, 9).into(), 3478);
    assert!(netcheck.handle_datagram(now, SocketId::MAIN, stranger, &answer));
    assert!(netcheck.handle_datagram(now, SocketId::probe(0), server, &answer));
    assert_eq!(netcheck.counters().dropped.wrong_source, 2);
    assert!(netcheck.reflexive().is_empty());
    let mapped_source = SocketAddr::new(Ipv4Addr::new(11, 0, 1, 1).to_ipv6_mapped().into(), 3478);
    assert!(
        netcheck.handle_datagram(now, SocketId::MAIN, mapped_source, &answer),
        "as a dual-stack socket has it"
    );
    assert_eq!(netcheck.reflexive(), vec![seen()]);
    assert!(netcheck.handle_datagram(now, SocketId::MAIN, server, &answer));
    assert_eq!(netcheck.counters().dropped.duplicate, 1);
}

#[test]
fn redirection_without_an_alternate_server_is_a_refusal() {
    let (mut netcheck, now, server, answer) = asked();
    let mut redirection = vec![0x01, 0x11, 0, 12];
    redirection.extend_from_slice(&answer[4..20]);
    // ERROR-CODE 300 without a reason, then the length of one attribute only.
    redirection.extend_from_slice(&[0, 9, 0, 4, 0, 0, 3, 0]);
    redirection[3] = 8;
    assert!(netcheck.handle_datagram(now, SocketId::MAIN, server, &redirection));
    assert_eq!(netcheck.counters().dropped.unusable, 1);
    assert_eq!(netcheck.poll_transmit(), None);
    assert!(netcheck.report().servers[0].timed_out);
}

/// The refusal that names another server (300, ALTERNATE-SERVER), to the question that is under way.
fn redirection(netcheck: &mut Netcheck, to: [u8; 4]) -> (SocketAddr, Vec<u8>) {
    let question = netcheck.poll_transmit().expect("a question");
    let mut bytes = vec![0x01, 0x11, 0, 20];
    bytes.extend_from_slice(&question.bytes[4..20]);
    bytes.extend_from_slice(&[0, 9, 0, 4, 0, 0, 3, 0, 0x80, 0x23, 0, 8, 0, 1, 0x0d, 0x96]);
    bytes.extend_from_slice(&to);
    (question.destination, bytes)
}

#[test]
fn redirection_is_followed_but_not_in_circles_and_not_into_a_private_network() {
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let now = std::time::Instant::now();
    let (first, second) = ([11, 0, 1, 1], [11, 0, 1, 9]);
    for (hops, followed) in [(vec![second], 1), (vec![second, first], 1), (vec![[192, 168, 1, 1]], 0)] {
        let mut netcheck = Netcheck::new(now, [1; 32], Config::default());
        netcheck.set_servers(now, vec![StunServer::new("one", (first, 3478).into())]);
        for to in &hops {
            let (source, bytes) = redirection(&mut netcheck, *to);
            assert!(netcheck.handle_datagram(now, SocketId::MAIN, source, &bytes));
        }
        let asked = netcheck.poll_transmit().map(|question| question.destination);
        assert_eq!(asked.is_some(), hops.len() == followed, "{hops:?}: {asked:?}");
        assert_eq!(netcheck.report().servers[0].timed_out, hops.len() != followed);
    }
}

#[test]
fn server_in_the_same_network_shows_neither_an_open_network_nor_a_nat() {
    let server = StunServer::new("home", ([192, 168, 1, 5], 3478).into());
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let mut now = std::time::Instant::now();
    let mut netcheck = Netcheck::new(now, [1; 32], Config { probe_sockets: 0, ..Config::default() });
    let own = SocketAddr::new(INSIDE, 4000);
    netcheck.set_local_addresses(now, vec![own]);
    netcheck.set_servers(now, vec![server.clone()]);
    let mut stun = full_server();
    stun.address = server.address;
    for _ in 0..200 {
        while let Some(question) = netcheck.poll_transmit() {
            if let Some(answer) = stun.respond(server.address, own, &question.bytes) {
                netcheck.handle_datagram(now, question.socket, server.address, &answer.bytes);
            }
        }
        now = netcheck.poll_timeout().map_or(now, |at| at.max(now));
        netcheck.handle_timeout(now);
    }
    assert_eq!((netcheck.badge(), netcheck.reflexive()), (None, vec![]));
    let (profile, report) = (netcheck.profile(), netcheck.report());
    assert_eq!((profile.mapping, profile.public.len()), (None, 0));
    assert!(report.finished && report.gaps[0].contains("own network"), "{report:?}");
}

#[test]
fn unknown_comprehension_required_attribute_makes_a_response_unusable() {
    for (kind, usable) in [(0x7ff0u16, false), (0xfff0, true), (0x0004, true)] {
        let (mut netcheck, now, server, answer) = asked();
        // The fingerprint goes, since the message changes.
        let mut answer = answer[..answer.len() - 8].to_vec();
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&[0, 8, 0, 1, 1, 1, 1, 1, 1, 1]);
        let length = u16::try_from(answer.len() - 20).expect("short");
        answer[2..4].copy_from_slice(&length.to_be_bytes());
        assert!(netcheck.handle_datagram(now, SocketId::MAIN, server, &answer));
        assert_eq!(!netcheck.reflexive().is_empty(), usable, "{kind:#x}");
    }
}

proptest! {
    #[test]
    fn garbage_is_not_consumed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut netcheck, now, server, _) = asked();
        prop_assert!(!netcheck.handle_datagram(now, SocketId::MAIN, server, &bytes));
    }

    #[test]
    fn broken_responses_never_panic_and_never_mislead(
        at in 20usize..100, with in any::<u8>(), cut in 20usize..100, tail in proptest::collection::vec(any::<u8>(), 0..40)
    ) {
        let (mut netcheck, now, server, mut answer) = asked();
        let index = at % answer.len();
        answer[index.max(20)] = with;
        answer.truncate(cut);
        answer.extend_from_slice(&tail);
        prop_assert!(netcheck.handle_datagram(now, SocketId::MAIN, server, &answer));
        let dropped = netcheck.counters().dropped;
        // A fingerprint whose own type is broken protects nothing any more, and the rest is as it was.
        let unharmed = netcheck.reflexive() == vec![SocketAddr::new(INSIDE, 4000)];
        prop_assert!(unharmed || dropped.malformed + dropped.unusable == 1);
    }
}

#[test]
fn probe_sockets_are_requested_and_used_once_a_server_responds() {
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let now = std::time::Instant::now();
    let server = full_server();
    let mut netcheck = Netcheck::new(now, [1; 32], Config { probe_sockets: 2, ..Config::default() });
    netcheck.set_servers(now, vec![StunServer::new("one", server.address)]);
    let wanted =
        std::iter::from_fn(|| netcheck.poll_event()).find(|e| matches!(e, Event::OpenProbeSockets { .. }));
    let ids = [0, 1].map(SocketId::probe).to_vec();
    assert_eq!(wanted, Some(Event::OpenProbeSockets { ids: ids.clone() }));
    netcheck.probe_sockets_opened(now, &[(ids[0], Some(4001)), (ids[1], Some(4002))]);
    let question = netcheck.poll_transmit().expect("a question");
    assert_eq!(question.socket, SocketId::MAIN, "its public address is what is wanted first");
    let seen = SocketAddr::new(OUTSIDE, 4000);
    let answer = server.respond(server.address, seen, &question.bytes).expect("an answer").bytes;
    netcheck.handle_datagram(now, SocketId::MAIN, server.address, &answer);
    let sockets: Vec<_> = std::iter::from_fn(|| netcheck.poll_transmit()).map(|t| t.socket).collect();
    assert!(sockets.contains(&SocketId::probe(0)) && sockets.contains(&SocketId::probe(1)), "{sockets:?}");
    assert!(!sockets.contains(&SocketId::MAIN), "{sockets:?}");
    netcheck.remeasure(now);
    let events: Vec<_> = std::iter::from_fn(|| netcheck.poll_event()).collect();
    assert!(events.contains(&Event::CloseProbeSockets { ids }), "{events:?}");
    let fresh = [2, 3].map(SocketId::probe).to_vec();
    assert!(events.contains(&Event::OpenProbeSockets { ids: fresh }), "each measurement needs fresh ones");
}

#[test]
fn same_servers_in_another_order_do_not_restart_the_measurement() {
    let other = Server::new([11, 0, 2, 1], 3478);
    let mut world = World::new(7, Some(home()), vec![full_server(), other], LINE, 0);
    world.measure();
    let list = |world: &World| {
        let named = |(i, s): (usize, &Server)| StunServer::new(format!("stun{i}"), s.address);
        world.servers.iter().enumerate().map(named).rev().collect::<Vec<_>>()
    };
    let list = list(&world);
    let now = world.now();
    world.netcheck.set_servers(now, list);
    assert!(world.netcheck.report().finished);
}

#[test]
fn measurement_with_one_plain_server_ends_and_says_what_it_cannot_tell() {
    let mut world = World::new(7, Some(home()), vec![Server::new([11, 0, 1, 1], 3478)], LINE, 7);
    world.measure();
    for round in 0u16..3 {
        let report = world.netcheck.report();
        assert!(report.finished, "round {round}");
        assert!(
            report.steps.iter().all(|step| !matches!(step.state, StepState::Running | StepState::Waiting))
        );
        assert_eq!(world.netcheck.badge(), None, "one address cannot show independence");
        assert!(
            report.gaps.iter().any(|gap| gap.contains("two addresses and two ports")),
            "{:?}",
            report.gaps
        );
        let now = world.now();
        world.netcheck.remeasure(now);
        assert!(!world.netcheck.report().finished);
        world.measure();
    }
}

/// The answer to a question, signed with a password that both share (RFC 8489, section 9.1).
fn signed_answer(question: &[u8], password: &str) -> Vec<u8> {
    let (request, _) = MessageDecoder::default().decode(question).expect("well-formed");
    let key = HMACKey::new_short_term(password).expect("a password");
    let answer = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
        .with_transaction_id(*request.transaction_id())
        .with_attribute(XorMappedAddress::from(SocketAddr::new(OUTSIDE, 4000)))
        .with_attribute(MessageIntegritySha256::new(key))
        .with_attribute(Fingerprint::default())
        .build();
    let mut buffer = [0; 256];
    let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &answer).expect("room");
    buffer[..length].to_vec()
}

#[test]
fn short_term_credentials_sign_the_first_request_and_require_signed_responses() {
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let now = std::time::Instant::now();
    let server = full_server();
    let mut netcheck = Netcheck::new(now, [1; 32], Config::default());
    let credentials = StunCredentials {
        username: "anna".into(),
        password: "secret".into(),
        mechanism: CredentialMechanism::ShortTerm,
    };
    let known = StunServer { credentials: Some(credentials), ..StunServer::new("one", server.address) };
    netcheck.set_servers(now, vec![known]);
    let question = netcheck.poll_transmit().expect("a question").bytes;
    let (request, _) = MessageDecoder::default().decode(&question).expect("well-formed");
    let key = HMACKey::new_short_term("secret").expect("a password");
    let text = get_input_text::<MessageIntegritySha256>(&question).expect("something signed");
    let proof = request.get::<MessageIntegritySha256>().and_then(|a| a.as_message_integrity_sha256().ok());
    assert!(proof.expect("a signature").validate(&text, &key));

    let unsigned =
        server.respond(server.address, (OUTSIDE, 4000).into(), &question).expect("an answer").bytes;
    for forged in [unsigned, signed_answer(&question, "guess")] {
        assert!(netcheck.handle_datagram(now, SocketId::MAIN, server.address, &forged));
        assert!(netcheck.reflexive().is_empty(), "as if it had never come");
    }
    assert_eq!(netcheck.counters().dropped.malformed, 2);
    netcheck.handle_datagram(now, SocketId::MAIN, server.address, &signed_answer(&question, "secret"));
    assert_eq!(netcheck.reflexive(), vec![SocketAddr::new(OUTSIDE, 4000)]);
}

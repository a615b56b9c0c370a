//! Failing paths, restarting servers, changing networks, and idle peers.

mod common;

use std::{cell::Cell, rc::Rc, time::Duration};

use partyline_model::{AttemptOutcome, CandidateKind, Method, PathKind};
use partyline_paths::{Config, PeerId, RelayTransport};
use partyline_tests_netsim::Datagram;

use self::common::{Nat, World, pair};

const SOON: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// Two members on a direct path, and a switch that cuts it.
fn connected() -> (World, Rc<Cell<bool>>) {
    let mut world = pair(Nat::Cone, Nat::Cone, Config::default());
    let cut = Rc::new(Cell::new(false));
    let seen = cut.clone();
    world.lose(move |p| seen.get() && !through_server(p));
    world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
    world.run(2 * SECOND);
    (world, cut)
}

fn through_server(packet: &Datagram) -> bool {
    [packet.source, packet.destination].iter().any(|a| a.ip().to_string().starts_with("203.0.113."))
}

#[test]
fn a_failed_path_is_left_within_a_second_and_found_again() {
    let (mut world, cut) = connected();
    world.exchange(0, 1, 2 * SECOND, TICK);
    cut.set(true);
    world.exchange(0, 1, SECOND, TICK);
    let sent = world.exchange(0, 1, 5 * SECOND, TICK);
    assert!(world.both(PathKind::Relay));
    cut.set(false);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
    world.run_to(6 * SOON, "the direct path", |w| w.both(PathKind::Direct));
}

#[test]
fn a_path_that_failed_while_idle_is_replaced_at_the_first_packets() {
    let (mut world, cut) = connected();
    world.run(12 * SOON);
    cut.set(true);
    world.exchange(0, 1, SECOND, TICK);
    let sent = world.exchange(0, 1, SECOND, TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
}

#[test]
fn one_way_traffic_does_not_make_a_path_suspect() {
    let (mut world, _cut) = connected();
    for _ in 0..500 {
        world.send(0, 1);
        world.run(TICK);
        let now = world.now();
        let route = world.homes[0].paths.route(now, PeerId(1)).unwrap();
        assert_eq!(route.secondary, None);
    }
}

#[test]
fn loss_and_jitter_do_not_make_paths_flap() {
    let (mut world, _cut) = connected();
    world.add_loss_and_jitter(77, 0.05, Duration::from_millis(30));
    world.exchange(0, 1, 6 * SOON, 2 * TICK);
    world.run(30 * SOON);
    world.exchange(0, 1, 6 * SOON, 2 * TICK);
    for home in 0..2 {
        let view = world.homes[home].paths.view(world.now(), PeerId(1 - home as u32)).unwrap();
        assert!(view.history.len() <= 2, "{:?}", view.history);
        let rtt = view.quality.rtt_ms.unwrap();
        assert!((40.0..100.0).contains(&rtt), "{rtt}");
        assert!(view.quality.loss.unwrap() < 0.4, "{:?}", view.quality);
    }
}

#[test]
fn direct_paths_survive_a_router_that_lost_its_filter_state() {
    for home in 0..2 {
        let (mut world, _cut) = connected();
        world.run(2 * SOON);
        world.lose_filter_state(home);
        world.run(2 * SOON);
        assert!(world.both(PathKind::Direct), "idle, {home}");
        world.lose_filter_state(home);
        world.exchange(0, 1, SOON, 10 * TICK);
        assert!(world.both(PathKind::Direct), "busy, {home}");
    }
}

/// Nothing reaches an idle member after that until it sends something to the very peer. Another peer is an open host, which
/// answers whatever happens.
#[test]
fn an_idle_member_notices_that_its_router_has_lost_its_filter_state() {
    for (nat, seconds) in
        [Nat::Cone, Nat::Symmetric].into_iter().flat_map(|nat| (20..40).map(move |s| (nat, s)))
    {
        let mut world = pair(Nat::Cone, nat, Config::default());
        let third = world.home(Nat::Open, Config::default());
        world.gather(third);
        world.introduce(1, third);
        let connected = |w: &World| [0, third].iter().all(|other| w.is_validated(1, *other));
        world.run_to(SOON, "a path", |w| connected(w) && w.is_validated(0, 1));
        world.run(seconds * SECOND);
        world.lose_filter_state(1);
        // What the other side sends does not wake it.
        let sent = |world: &mut World, span: Duration| {
            let (end, first) = (world.now() + span, world.sent.len());
            while world.now() < end {
                world.send(0, 1);
                world.run(10 * TICK);
            }
            world.sent[first..].to_vec()
        };
        sent(&mut world, 6 * SECOND);
        let sent = sent(&mut world, SECOND);
        world.run(SECOND);
        assert_eq!((sent.len(), world.missing(&sent)), (10, vec![]), "{nat:?} after {seconds} s");
    }
}

#[test]
fn an_unreachable_peer_has_no_route() {
    let (mut world, _cut) = connected();
    world.lose(|_| true);
    world.set_relay_alive(0, false);
    for _ in 0..300 {
        world.send(0, 1);
        world.run(10 * TICK);
    }
    assert!(world.both(None));
    assert_eq!(world.send(0, 1), None);
    assert_eq!(world.homes[0].changes.last().map(|change| change.2), Some(None));
}

#[test]
fn a_restarted_relay_serves_again_and_leaves_direct_paths_alone() {
    let mut world = pair(Nat::Symmetric, Nat::Symmetric, Config::default());
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    world.exchange(0, 1, SECOND, TICK);
    let relayed =
        |w: &World| w.homes[0].candidates.iter().find(|c| c.kind == CandidateKind::Relayed).copied();
    let before = relayed(&world);
    world.restart_relay(0);
    world.exchange(0, 1, 3 * SECOND, TICK);
    let sent = world.exchange(0, 1, SECOND, TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
    assert_ne!(relayed(&world), before);

    let (mut world, _cut) = connected();
    world.restart_relay(0);
    let sent = world.exchange(0, 1, 2 * SOON, TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
    assert!(world.homes[0].changes.len() <= 2, "{:?}", world.homes[0].changes);
}

#[test]
fn an_idle_relay_notices_a_restart_by_itself() {
    let mut world = pair(Nat::Symmetric, Nat::Symmetric, Config::default());
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    world.run(SOON);
    world.restart_relay(0);
    world.run(4 * SOON);
    let sent = world.exchange(0, 1, SECOND, TICK);
    world.run(SECOND);
    assert!(!sent.is_empty());
    assert_eq!(world.missing(&sent), []);
}

#[test]
fn messages_flow_within_two_seconds_of_a_change_of_network() {
    let (mut world, _cut) = connected();
    world.exchange(0, 1, SECOND, TICK);
    world.roam(0, [10, 9, 9, 9], [198, 51, 100, 77]);
    world.gather(0);
    world.exchange(0, 1, 2 * SECOND, TICK);
    let sent = world.exchange(0, 1, SECOND, TICK);
    world.run(SECOND);
    assert!(sent.len() > 150);
    assert_eq!(world.missing(&sent), []);
    world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
}

#[test]
fn udp_is_used_again_once_it_works() {
    let mut world = pair(Nat::Symmetric, Nat::Symmetric, Config::default());
    world.block_udp(1, true);
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    world.block_udp(1, false);
    let over_udp = |w: &World| {
        let why = w.homes[1].paths.view(w.now(), PeerId(0)).unwrap().attempts;
        why.iter().any(|a| a.method == Method::RelayUdp && a.outcome == AttemptOutcome::Worked)
    };
    for _ in 0..40 {
        let sent = world.exchange(0, 1, SOON, 10 * TICK);
        world.run(SECOND);
        assert_eq!(world.missing(&sent), []);
    }
    assert!(over_udp(&world));
    assert_eq!(world.allocations()[0], 2, "the TLS allocation was given back");
}

#[test]
fn a_dead_relay_does_not_prevent_a_direct_path() {
    let mut world = World::new();
    world.set_relay_alive(0, false);
    for home in 0..2 {
        world.home(Nat::Cone, Config::default());
        world.set_relays(home, &[RelayTransport::Udp, RelayTransport::Tcp, RelayTransport::Tls]);
        world.gather(home);
    }
    world.introduce(0, 1);
    world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
    world.run(2 * SOON);
    let why = world.homes[0].paths.view(world.now(), PeerId(1)).unwrap().attempts;
    let udp = why.iter().find(|a| a.method == Method::RelayUdp).unwrap();
    assert!(udp.note.contains("did not answer"), "{udp:?}");
}

#[test]
fn an_idle_peer_costs_one_packet_in_four_seconds_each_way() {
    let (mut world, _cut) = connected();
    world.run(SOON);
    world.record();
    let minutes = 10;
    world.run(Duration::from_secs(60 * minutes));
    let record = world.recorded();
    for home in 0..2 {
        let packets =
            record.iter().filter(|p| p.sender == Some(world.homes[home].host) && !through_server(p)).count();
        assert!(packets > 0 && packets as u64 <= minutes * 16, "{packets} packets in {minutes} minutes");
    }
    assert!(world.both(PathKind::Direct));
}

#[test]
fn measurements_on_request_are_limited_to_one_per_second() {
    let (mut world, _cut) = connected();
    world.run(SOON);
    let seconds = 20;
    let before = world.homes[0].sent_packets;
    for _ in 0..seconds * 10 {
        let now = world.now();
        world.homes[0].paths.measure(now, PeerId(1));
        world.drain(0);
        world.run(Duration::from_millis(100));
    }
    let packets = world.homes[0].sent_packets - before;
    assert!((seconds - 3..=seconds + 3).contains(&packets), "{packets} packets in {seconds} seconds");
}

#[test]
fn two_hundred_and_fifty_idle_peers_cost_only_keepalives() {
    let mut world = World::new();
    world.home(Nat::Open, Config::default());
    world.home(Nat::Open, Config::default());
    (0..2).for_each(|home| world.gather(home));
    for peer in 0..250u32 {
        for (me, other) in [(0usize, 1usize), (1, 0)] {
            let mut params = common::params(me, other, world.homes[other].candidates.clone());
            params.local_tag.0[0] = peer as u8;
            params.remote_tag.0[0] = peer as u8;
            params.local_tag.0[1] = me as u8;
            params.remote_tag.0[1] = other as u8;
            let now = world.now();
            world.homes[me].paths.set_peer(now, PeerId(peer + 10), params);
            world.drain(me);
        }
    }
    world.run(SOON);
    let connected =
        (0..250).filter(|p| world.homes[0].paths.view(world.now(), PeerId(p + 10)).unwrap().kind.is_some());
    assert_eq!(connected.count(), 250);
    let before = world.homes[0].sent_packets + world.homes[1].sent_packets;
    world.run(Duration::from_secs(150));
    let packets = world.homes[0].sent_packets + world.homes[1].sent_packets - before;
    assert!(packets <= 250 * 2 * 11, "{packets}");
}

//! How two members connect: relay first, direct where possible, over a stream where UDP is blocked.

mod common;

use std::time::Duration;

use partyline_model::{AttemptOutcome, Candidate, CandidateKind, Method, PathKind};
use partyline_paths::{Config, Paths, PeerId, RelayTransport};

use self::common::{Nat, World, pair};

const SOON: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);

#[test]
fn cone_nats_connect_directly() {
    let mut world = pair(Nat::Cone, Nat::Cone, Config::default());
    let took = world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
    assert!(took <= Duration::from_millis(400), "{took:?}");
}

#[test]
fn relay_comes_first_and_direct_takes_over_without_a_lost_or_doubled_message() {
    let mut world = pair(Nat::Cone, Nat::Cone, Config::default());
    // Direct packets get through only after a second, as if the NATs took a while to be opened.
    let opens = world.now() + Duration::from_secs(1);
    let clock = std::rc::Rc::new(std::cell::Cell::new(world.now()));
    let seen = clock.clone();
    world.lose(move |p| {
        let relayed = [p.source, p.destination].iter().any(|a| a.ip().to_string() == "203.0.113.1");
        !relayed && seen.get() < opens
    });
    let took = world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    assert!(took <= Duration::from_millis(400), "{took:?}");
    let mut sent = Vec::new();
    while !world.both(PathKind::Direct) {
        clock.set(world.now());
        sent.extend(world.exchange(0, 1, TICK, TICK));
        assert!(world.net.elapsed() < SOON, "no upgrade");
    }
    sent.extend(world.exchange(0, 1, Duration::from_secs(2), TICK));
    world.run(Duration::from_secs(1));
    assert!(sent.len() > 400);
    assert_eq!(world.missing(&sent), []);
    assert_eq!(world.homes[0].duplicates + world.homes[1].duplicates, 0);
}

#[test]
fn symmetric_nats_stay_on_the_relay_and_explain_why() {
    let mut world = pair(Nat::Symmetric, Nat::Symmetric, Config::default());
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    let sent = world.exchange(0, 1, Duration::from_secs(8), 5 * TICK);
    world.run(Duration::from_secs(1));
    assert!(world.both(PathKind::Relay));
    assert_eq!(world.missing(&sent), []);
    let view = world.homes[0].paths.view(world.now(), PeerId(1)).unwrap();
    assert_eq!(view.relay.as_deref(), Some("relay 0"));
    let outcome = |method| view.attempts.iter().find(|a| a.method == method).map(|a| a.outcome);
    assert_eq!(outcome(Method::RelayUdp), Some(AttemptOutcome::Worked));
    assert_eq!(outcome(Method::Punch), Some(AttemptOutcome::NoAnswer));
    assert_eq!(outcome(Method::Ipv6), Some(AttemptOutcome::Impossible));
}

#[test]
fn an_open_member_is_reached_from_behind_a_symmetric_nat() {
    let mut world = pair(Nat::Open, Nat::Symmetric, Config { relay: false, ..Config::default() });
    world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
}

#[test]
fn members_on_one_lan_use_it() {
    let mut world = World::new();
    world.home(Nat::Cone, Config::default());
    world.housemate(0, Config::default());
    (0..2).for_each(|home| world.gather(home));
    world.introduce(0, 1);
    world.run_to(SOON, "the LAN", |w| w.both(PathKind::Lan));
}

#[test]
fn direct_paths_that_are_switched_off_are_not_tried() {
    let mut world = pair(Nat::Open, Nat::Open, Config { direct: false, ..Config::default() });
    world.run(SOON);
    assert!(world.both(PathKind::Relay));
}

#[test]
fn a_member_without_udp_is_relayed_over_tls() {
    let mut world = pair(Nat::Cone, Nat::Cone, Config::default());
    world.block_udp(1, true);
    let took = world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let sent = world.exchange(0, 1, Duration::from_secs(3), 2 * TICK);
    world.run(Duration::from_secs(1));
    assert_eq!(world.missing(&sent), []);
    let why = world.homes[1].paths.view(world.now(), PeerId(0)).unwrap().attempts;
    assert!(
        why.iter().any(|a| a.method == Method::RelayTls && a.outcome == AttemptOutcome::Worked),
        "{why:?}"
    );
}

/// Two homes of which only the first has a relay.
fn one_relay(nats: [Nat; 2]) {
    let mut world = World::new();
    nats.into_iter().for_each(|nat| _ = world.home(nat, Config::default()));
    world.set_relays(0, &[RelayTransport::Udp]);
    (0..2).for_each(|home| world.gather(home));
    world.introduce(0, 1);
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    let sent = world.exchange(0, 1, Duration::from_secs(2), TICK);
    world.run(Duration::from_secs(1));
    assert_eq!(world.missing(&sent), []);
}

#[test]
fn one_allocation_serves_both() {
    one_relay([Nat::Symmetric, Nat::Cone]);
}

#[test]
fn one_allocation_serves_both_behind_symmetric_nats() {
    // The relay sees the other at a port that nobody announced, and says so in Data indications.
    one_relay([Nat::Symmetric, Nat::Symmetric]);
}

#[test]
fn no_message_is_lost_while_the_second_relay_is_allocated() {
    // The later member reaches the other's relay without one of its own first, and then through its own.
    for nats in [[Nat::Cone, Nat::Symmetric], [Nat::Symmetric, Nat::Cone], [Nat::Symmetric, Nat::Symmetric]] {
        for head_start in (0..200).step_by(10).map(Duration::from_millis) {
            let mut world = World::new();
            nats.into_iter().for_each(|nat| _ = world.home(nat, Config::default()));
            world.signaling = false;
            world.set_relays(0, &[RelayTransport::Udp]);
            (0..2).for_each(|home| world.gather(home));
            world.run(Duration::from_secs(1));
            world.signaling = true;
            world.set_relays(1, &[RelayTransport::Udp]);
            world.run(head_start);
            world.introduce(0, 1);
            let sent = world.exchange(0, 1, Duration::from_secs(2), TICK);
            world.run(Duration::from_secs(1));
            assert_eq!(world.missing(&sent), [], "{nats:?}, {head_start:?}");
        }
    }
}

#[test]
fn an_allocation_of_an_earlier_run_is_released_and_replaced() {
    let mut world = pair(Nat::Symmetric, Nat::Symmetric, Config::default());
    world.run_to(SOON, "the relay", |w| w.both(PathKind::Relay));
    world.homes[0].paths = Paths::new([42; 32], Config::default());
    world.homes[0].candidates.clear();
    world.set_relays(0, &[RelayTransport::Udp]);
    let relayed = |w: &World| w.homes[0].candidates.iter().any(|c| c.kind == CandidateKind::Relayed);
    world.run_to(Duration::from_secs(1), "an allocation", relayed);
    assert_eq!(world.allocations(), [2]);
}

#[test]
fn ipv6_connects_without_relay_or_punching() {
    let mut world = World::new();
    for home in 0..2 {
        world.home(Nat::Open, Config::default());
        world.set_address(home, format!("2001:db8::{home}").parse().unwrap());
        world.gather(home);
    }
    world.introduce(0, 1);
    world.run_to(SOON, "IPv6", |w| w.both(PathKind::DirectV6));
}

#[test]
fn a_mapped_port_is_used_and_reported_as_such() {
    let mut world = World::new();
    world.home(Nat::Symmetric, Config::default());
    world.home(Nat::Open, Config::default());
    world.signaling = false;
    (0..2).for_each(|home| world.gather(home));
    let address = world.homes[1].address;
    world.set_peer(0, 1, vec![Candidate { kind: CandidateKind::Mapped, address }]);
    world.set_peer(1, 0, Vec::new());
    world.run_to(SOON, "the mapped port", |w| w.kind(0, 1) == Some(PathKind::Mapped));
    world.run_to(SOON, "the learned address", |w| w.kind(1, 0) == Some(PathKind::Direct));
}

#[test]
fn loss_and_jitter_do_not_prevent_a_direct_path() {
    for seed in 0..20 {
        let mut world = pair(Nat::Cone, Nat::Cone, Config::default());
        world.add_loss_and_jitter(seed, 0.05, Duration::from_millis(30));
        let took = world.run_to(SOON, "a direct path", |w| w.both(PathKind::Direct));
        assert!(took <= Duration::from_secs(2), "seed {seed}: {took:?}");
    }
}

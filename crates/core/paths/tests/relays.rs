//! Which relay carries packets, and what happens when it or the path to it fails.

#![allow(clippy::unwrap_used)]

mod common;

use std::{net::SocketAddr, time::Duration};

use partyline_model::{CandidateKind, PathKind};
use partyline_paths::{Config, Local, Paths, PeerId, RelayTransport, SocketId};
use partyline_tests_netsim::{Datagram, LongTermCredentials, stun};
use stun_rs::{
    MessageClass, StunMessage,
    attributes::{
        stun::{MessageIntegrity, MessageIntegritySha256, Nonce, Realm, XorMappedAddress},
        turn::{LifeTime, XorRelayedAddress},
    },
    get_input_text,
};

use self::common::{Nat, World};

const SOON: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_millis(500);

/// Two members that can only be relayed, and `servers` relay servers of which the first `full` refuse allocations.
fn relayed_past(full: usize, servers: usize) -> World {
    let mut world = World::new();
    (1..servers).for_each(|_| world.add_relay());
    world.relays.iter_mut().take(full).for_each(|relay| relay.set_full(true));
    for home in 0..2 {
        world.home(Nat::Symmetric, Config::default());
        world.set_relays(home, &[RelayTransport::Udp, RelayTransport::Tls]);
        world.gather(home);
    }
    world.introduce(0, 1);
    world.run_to(SOON, "the relay", is_relayed);
    world.exchange(0, 1, 2 * SECOND, TICK);
    world
}

/// The same, with room at all of them.
fn relayed(servers: usize) -> World {
    relayed_past(0, servers)
}

fn is_relayed(world: &World) -> bool {
    world.both(PathKind::Relay)
}

/// The number of the server whose relay a member uses.
fn used(world: &World, home: u32) -> usize {
    let view = world.homes[home as usize].paths.view(world.now(), PeerId(1 - home)).unwrap();
    view.relay.unwrap().strip_prefix("relay ").unwrap().parse().unwrap()
}

/// Whether a packet passes between a home and a server, or from one server to the other.
fn between(packet: &Datagram, one: &str, other: &str) -> bool {
    let [from, to] = [packet.source.ip().to_string(), packet.destination.ip().to_string()];
    [(&from, &to), (&to, &from)].iter().any(|(a, b)| *a == one && *b == other)
}

#[test]
fn another_relay_carries_on_as_soon_as_the_one_in_use_is_suspect() {
    for again in [false, true] {
        let mut world = relayed(2);
        let dead = used(&world, 0);
        world.set_relay_alive(dead, false);
        world.exchange(0, 1, HALF + 5 * TICK, TICK);
        let sent = world.exchange(0, 1, 20 * SECOND, TICK);
        world.run(SECOND);
        assert_eq!(world.missing(&sent), []);
        assert_eq!((used(&world, 0), used(&world, 1)), (1 - dead, 1 - dead));
        assert!(is_relayed(&world));
        if again {
            world.set_relay_alive(dead, true);
            let sent = world.exchange(0, 1, 60 * SECOND, 5 * TICK);
            world.set_relay_alive(1 - dead, false);
            world.exchange(0, 1, HALF + 5 * TICK, TICK);
            let more = world.exchange(0, 1, 5 * SECOND, TICK);
            world.run(SECOND);
            assert_eq!(world.missing(&sent), []);
            assert_eq!(world.missing(&more), []);
        }
    }
}

#[test]
fn the_relay_that_is_nearer_to_both_together_is_used() {
    let mut world = relayed(2);
    assert_eq!((used(&world, 0), used(&world, 1)), (0, 0));
    let before = world.homes.iter().map(|home| home.duplicates).sum::<usize>();
    world.delay(|packet| {
        let far = between(packet, "203.0.113.1", "198.51.100.2");
        let middling =
            [packet.source, packet.destination].iter().any(|a| a.ip().to_string() == "203.0.113.2");
        if far {
            6 * TICK
        } else if middling {
            TICK
        } else {
            Duration::ZERO
        }
    });
    let sent = world.exchange(0, 1, 60 * SECOND, 2 * TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
    assert_eq!((used(&world, 0), used(&world, 1)), (1, 1));
    assert_eq!(world.homes.iter().map(|home| home.duplicates).sum::<usize>(), before);
    let view = world.homes[0].paths.view(world.now(), PeerId(1)).unwrap();
    assert!(view.history.len() <= 3, "{:?}", view.history);
}

#[test]
fn a_relay_that_loses_packets_is_left_for_one_that_does_not() {
    let mut world = relayed(2);
    let lossy = format!("203.0.113.{}", used(&world, 0) + 1);
    let mut count = 0_u32;
    world.lose(move |packet| {
        count += 1;
        count.is_multiple_of(8)
            && [packet.source, packet.destination].iter().any(|a| a.ip().to_string() == lossy)
    });
    world.exchange(0, 1, 120 * SECOND, 2 * TICK);
    assert_eq!((used(&world, 0), used(&world, 1)), (1, 1));
}

#[test]
fn idle_members_keep_the_second_relay_ready() {
    let mut world = relayed(2);
    world.run(600 * SECOND);
    let dead = used(&world, 0);
    world.set_relay_alive(dead, false);
    world.exchange(0, 1, HALF + 10 * TICK, TICK);
    let sent = world.exchange(0, 1, 5 * SECOND, TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
}

#[test]
fn a_full_relay_is_skipped_until_it_is_needed_and_has_room() {
    let mut world = relayed_past(1, 3);
    world.run(SOON);
    assert_eq!(world.allocations(), [0, 2, 2]);
    let sent = world.exchange(0, 1, SOON, TICK);
    world.run(SECOND);
    assert_eq!(world.missing(&sent), []);
    world.relays[0].set_full(false);
    world.set_relay_alive(1, false);
    world.exchange(0, 1, 60 * SECOND, TICK);
    assert_eq!(world.allocations()[0], 2, "it was asked again");
}

#[test]
fn no_third_allocation_is_requested_while_two_relays_work() {
    let mut world = relayed(3);
    world.run(SOON);
    assert_eq!(world.allocations(), [2, 2, 0]);
    world.set_relay_alive(0, false);
    world.exchange(0, 1, 3 * SOON, TICK);
    assert_eq!(world.allocations()[2], 2, "the next one stands by");
}

#[test]
fn a_relayed_member_recovers_from_a_change_of_network_in_half_a_second() {
    let mut world = relayed(1);
    world.roam(0, [10, 9, 9, 9], [198, 51, 100, 77]);
    world.gather(0);
    world.exchange(0, 1, HALF, TICK);
    let sent = world.exchange(0, 1, SECOND, TICK);
    world.run(SECOND);
    assert!(sent.len() > 150);
    assert_eq!(world.missing(&sent), []);
}

#[test]
fn a_new_public_address_after_an_outage_is_reported_once() {
    for away in [2, 5, 40] {
        let mut world = relayed(1);
        world.block_udp(0, true);
        world.exchange(0, 1, away * SECOND, TICK);
        world.roam(0, [192, 168, 1, 2], [198, 51, 100, 77]);
        world.block_udp(0, false);
        // The longest pause before the relay is asked again grows with the time that it was silent.
        let asked = if away < 10 { HALF } else { 5 * SECOND };
        world.exchange(0, 1, asked + HALF, TICK);
        let sent = world.exchange(0, 1, SECOND, TICK);
        world.run(SECOND);
        assert!(sent.len() > 150, "{away}: {}", sent.len());
        assert_eq!(world.missing(&sent), [], "{away}");
        assert_eq!(world.homes[0].public_address_changes, 1, "{away}");
    }
}

/// Returns the next request of a machine to its TURN server, and its bytes.
fn next_request(paths: &mut Paths) -> (StunMessage, Vec<u8>) {
    let bytes = paths.poll_transmit().unwrap().bytes;
    (stun::decode(&bytes).unwrap(), bytes)
}

#[test]
fn server_of_rfc_5389_with_md5_and_sha1_is_supported() {
    let mut world = World::new();
    let relay = world.relays[0].entry(RelayTransport::Udp);
    let (now, server) = (world.now(), relay.address);
    world.home(Nat::Open, Config::default());
    let paths = &mut world.homes[0].paths;
    paths.set_relays(now, vec![relay]);
    let (request, _) = next_request(paths);
    let challenge = stun::error_response(&request, 401)
        .with_attribute(Realm::new("test").unwrap())
        .with_attribute(Nonce::new("a nonce without security features").unwrap());
    let challenge = challenge.build();
    paths.handle_datagram(now, Local::Socket(SocketId::MAIN), server, &stun::encode(&challenge));

    let (request, bytes) = next_request(paths);
    let key = LongTermCredentials::from_challenge(&challenge, "test", "user", "secret").key();
    let proof = request.get::<MessageIntegrity>().unwrap().as_message_integrity().unwrap();
    assert!(proof.validate(&get_input_text::<MessageIntegrity>(&bytes).unwrap(), &key));
    assert!(request.get::<MessageIntegritySha256>().is_none());

    let relayed = SocketAddr::new(server.ip(), 50_000);
    let response = stun::response(&request, MessageClass::SuccessResponse)
        .with_attribute(XorRelayedAddress::from(relayed))
        .with_attribute(XorMappedAddress::from(SocketAddr::from(([198, 51, 100, 1], 9))))
        .with_attribute(LifeTime::from(600))
        .with_attribute(MessageIntegrity::new(key))
        .build();
    paths.handle_datagram(now, Local::Socket(SocketId::MAIN), server, &stun::encode(&response));
    world.drain(0);
    let candidates = &world.homes[0].candidates;
    assert!(
        candidates.iter().any(|c| (c.kind, c.address) == (CandidateKind::Relayed, relayed)),
        "{candidates:?}"
    );
}

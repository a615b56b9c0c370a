//! Forged, replayed and malformed input is dropped and counted, and changes nothing.

mod common;

use std::{net::SocketAddr, time::Duration};

use partyline_model::{Candidate, CandidateKind, PathKind};
use partyline_paths::{Config, Handled, Local, Path, Paths, PeerId, SocketId, StreamId, Via};
use partyline_tests_netsim::Datagram;
use partyline_wire::probe::{ProbeKey, Request, Response, Tag, TransactionId};
use proptest::prelude::*;

use self::common::{Nat, World, pair};

const MAIN: Local = Local::Socket(SocketId::MAIN);

fn stranger() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 200], 666))
}

fn connected() -> World {
    let mut world = pair(Nat::Open, Nat::Open, Config::default());
    world.record();
    world.run_to(Duration::from_secs(10), "a direct path", |w| {
        w.kind(0, 1) == Some(PathKind::Direct) && w.kind(1, 0) == Some(PathKind::Direct)
    });
    world.run(Duration::from_secs(5));
    world
}

fn checks_to(world: &World, home: usize) -> Vec<Datagram> {
    let to = world.homes[home].address;
    let is_check = |p: &Datagram| p.destination == to && p.bytes.starts_with(&[0, 1]);
    world.recorded().into_iter().filter(is_check).collect()
}

#[test]
fn forged_checks_are_counted_and_not_answered() {
    let mut world = connected();
    let forged = Request {
        id: TransactionId::new(9_999, 1),
        recipient: Tag([2; 8]),
        sender: Tag([1; 8]),
        priority: 1,
        nominate: true,
    };
    let bytes = forged.encode(&ProbeKey::new(&[99; 32])).unwrap();
    let now = world.now();
    let paths = &mut world.homes[1].paths;
    assert_eq!(paths.handle_datagram(now, MAIN, stranger(), &bytes), Handled::Consumed);
    assert_eq!(paths.counters().unauthenticated, 1);
    assert_eq!(paths.poll_transmit(), None);

    let elsewhere = Request { recipient: Tag([77; 8]), ..forged }.encode(&ProbeKey::new(&[99; 32])).unwrap();
    assert_eq!(paths.handle_datagram(now, MAIN, stranger(), &elsewhere), Handled::Foreign);
}

#[test]
fn replayed_checks_are_counted_and_not_answered() {
    let mut world = connected();
    let recorded = checks_to(&world, 1);
    assert!(!recorded.is_empty());
    let now = world.now();
    for check in &recorded {
        let paths = &mut world.homes[1].paths;
        paths.handle_datagram(now, MAIN, stranger(), &check.bytes);
        assert_eq!(paths.poll_transmit(), None);
    }
    assert_eq!(world.homes[1].paths.counters().replayed, recorded.len() as u64);
    assert_eq!(world.kind(1, 0), Some(PathKind::Direct));
}

#[test]
fn responses_count_only_from_the_address_that_was_asked() {
    let mut world = World::new();
    world.home(Nat::Open, Config::default());
    world.gather(0);
    world.record();
    let far = Candidate { kind: CandidateKind::Host, address: "198.51.100.9:9".parse().unwrap() };
    world.set_peer(0, 1, vec![far]);
    let check = world.recorded()[0].clone();
    let key = ProbeKey::new(&[11; 32]);
    let request = Request::open(&check.bytes, &key).unwrap();
    let answer = Response { id: request.id, mapped: world.homes[0].address }.encode(&key).unwrap();
    let now = world.now();
    let paths = &mut world.homes[0].paths;
    paths.handle_datagram(now, MAIN, stranger(), &answer);
    assert_eq!((paths.counters().unsolicited, paths.route(now, PeerId(1))), (1, None));
    let forged = Response { id: request.id, mapped: far.address }.encode(&ProbeKey::new(&[1; 32])).unwrap();
    paths.handle_datagram(now, MAIN, far.address, &forged);
    assert_eq!((paths.counters().unauthenticated, paths.route(now, PeerId(1))), (1, None));
    paths.handle_datagram(now, MAIN, far.address, &answer);
    assert!(paths.route(now, PeerId(1)).is_some());
    assert_eq!(paths.handle_datagram(now, MAIN, far.address, &answer), Handled::Foreign);
}

#[test]
fn addresses_learned_from_one_peer_are_bounded() {
    let mut world = connected();
    let now = world.now();
    let key = ProbeKey::new(&[11; 32]);
    for counter in 0..500u64 {
        let id = TransactionId::new(1_000_000 + counter, 0);
        let request =
            Request { id, recipient: Tag([2; 8]), sender: Tag([1; 8]), priority: 1, nominate: false };
        let src = SocketAddr::new(stranger().ip(), 1_000 + counter as u16);
        let bytes = request.encode(&key).unwrap();
        world.homes[1].paths.handle_datagram(now, MAIN, src, &bytes);
    }
    let mut transmits = 0;
    while world.homes[1].paths.poll_transmit().is_some() {
        transmits += 1;
    }
    assert!(transmits <= 500 + 8, "{transmits}");
}

#[test]
fn tunnel_messages_from_any_address_are_returned_to_the_caller() {
    let mut world = connected();
    let now = world.now();
    let expected = Handled::Tunnel {
        payload: 0..8,
        path: Path { via: Via::Socket(SocketId::MAIN), remote: stranger() },
    };
    let mapped = "[::ffff:198.51.100.200]:666".parse().unwrap();
    for src in [stranger(), mapped] {
        assert_eq!(world.homes[0].paths.handle_datagram(now, MAIN, src, &[1, 0, 0, 0, 9, 9, 9, 9]), expected);
    }
    assert_eq!(
        world.homes[0]
            .paths
            .hop(Path { via: Via::Socket(SocketId::MAIN), remote: stranger() })
            .map(|h| h.destination),
        Some(stranger())
    );
}

fn machine() -> (World, Vec<SocketAddr>) {
    let world = connected();
    let sources = vec![world.relays[0].address(), world.homes[0].address, stranger()];
    (world, sources)
}

fn feed(paths: &mut Paths, now: std::time::Instant, local: Local, src: SocketAddr, bytes: &[u8]) {
    paths.handle_datagram(now, local, src, bytes);
    while paths.poll_transmit().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_never_panics(datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), any::<prop::sample::Index>(), 0u8..3), 0..60)) {
        let (mut world, sources) = machine();
        for (mut bytes, source, shape) in datagrams {
            if shape > 0 && bytes.len() >= 20 {
                bytes[0] = if shape == 1 { 0 } else { 1 };
                bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                let len = (bytes.len() - 20) as u16 & !3;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
            let now = world.now();
            feed(&mut world.homes[1].paths, now, MAIN, *source.get(&sources), &bytes);
            feed(&mut world.homes[1].paths, now, Local::Stream(StreamId(1)), *source.get(&sources), &bytes);
        }
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.kind(1, 0), Some(PathKind::Direct));
    }

    #[test]
    fn mutated_messages_never_panic(mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..60)) {
        let (mut world, _) = machine();
        let record = world.recorded();
        for (packet, at, value, cut) in mutations {
            let mut packet = packet.get(&record).clone();
            let at = at.index(packet.bytes.len());
            packet.bytes[at] = value;
            if cut {
                packet.bytes.truncate(at);
            }
            let now = world.now();
            for home in 0..2 {
                feed(&mut world.homes[home].paths, now, MAIN, packet.source, &packet.bytes);
            }
        }
        world.run(Duration::from_secs(1));
        prop_assert!(world.kind(1, 0).is_some());
    }
}

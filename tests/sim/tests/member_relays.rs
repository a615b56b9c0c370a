//! Members that relay for others that cannot reach each other.
#![allow(missing_docs)]

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use partyline_model::{Command, Methods, PathKind, Settings};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(60);

/// A party of so many with a server but no relay; no datagram passes directly between the pairs.
fn world(seed: u64, size: usize, cut: &'static [(usize, usize)]) -> World {
    let mut world = World::new(seed);
    world.grants = false;
    world.start_server();
    (0..size).for_each(|_| _ = world.member());
    separate(&mut world, cut);
    let (_, link) = world.create(0, None);
    (1..size).for_each(|who| world.join(who, &link));
    world
}

fn separate(world: &mut World, cut: &[(usize, usize)]) {
    let ip = |who: usize| world.host_address(who);
    let cut: BTreeSet<(IpAddr, IpAddr)> =
        cut.iter().flat_map(|(a, b)| [(ip(*a), ip(*b)), (ip(*b), ip(*a))]).collect();
    world.interfere(move |datagram, _| {
        (!cut.contains(&(datagram.source.ip(), datagram.destination.ip()))).then_some(Duration::ZERO)
    });
}

fn configure(world: &mut World, who: usize, settings: Settings) {
    world.command(who, Command::Configure { settings: Box::new(settings) }).expect("settings within limits");
}

#[test]
fn member_in_the_middle_relays_packets() {
    let mut world = world(1, 3, &[(0, 1)]);
    let took = world.until("a path through the third", SOON, |world| {
        [(0, 1), (1, 0)].iter().all(|(a, b)| world.path(*a, *b) == Some(PathKind::MemberRelay))
    });
    assert!(took < Duration::from_secs(20), "{took:?}");
    world.until_mesh(SOON);
    world.assert_all_reach();
    let path = world.sees(0, 1).and_then(|view| view.path).expect("a path");
    let middle = world.members[2].node.as_ref().expect("a node").device();
    assert_eq!(path.via, Some(middle));
    // Packets of every size, not only those that fit into one message of the channel.
    let payload = vec![7; 1_300];
    let to = world.address(1);
    world.send_packet(0, to, &payload);
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(1, &payload).len(), 1);
    assert!(world.heard(2, &payload).is_empty());
}

#[test]
fn member_with_serving_off_relays_nothing() {
    let mut world = world(2, 3, &[(0, 1)]);
    configure(&mut world, 2, Settings { serve_friends: false, ..Settings::default() });
    world.run(SOON);
    assert_eq!(world.path(0, 1), None);
    configure(&mut world, 2, Settings::default());
    world.until("a path through the third", 10 * SOON, |world| {
        world.path(0, 1) == Some(PathKind::MemberRelay)
    });
    configure(&mut world, 2, Settings { serve_friends: false, ..Settings::default() });
    world.until("it to end", SOON, |world| world.path(0, 1).is_none());
}

#[test]
fn relayed_packets_are_never_relayed_again() {
    // A chain: the ends reach each other only through two others.
    let mut world = world(3, 4, &[(0, 2), (0, 3), (1, 3)]);
    world.until("the neighbours' neighbours", SOON, |world| {
        [(0, 2), (1, 3)].iter().all(|(a, b)| world.path(*a, *b) == Some(PathKind::MemberRelay))
    });
    // Looking for direct paths with many packets would hide what circles.
    let methods = Methods { predict: false, spray: false, ..Methods::default() };
    (0..4).for_each(|who| configure(&mut world, who, Settings { methods, ..Settings::default() }));
    world.run(SOON);
    assert_eq!((world.path(0, 3), world.path(3, 0)), (None, None));
    let before = datagrams(&world);
    world.run(SOON);
    let spent = datagrams(&world) - before;
    assert!(spent < 4_000, "{spent} datagrams in a minute of idling");
}

#[test]
fn another_member_takes_over_when_the_relaying_one_leaves() {
    let mut world = world(4, 4, &[(0, 1)]);
    world.until("a path through another", SOON, |world| {
        [(0, 1), (1, 0)].iter().all(|(a, b)| world.path(*a, *b) == Some(PathKind::MemberRelay))
    });
    world.until_mesh(SOON);
    let via = world.sees(0, 1).and_then(|view| view.path?.via).expect("somebody");
    let middle = (2..4)
        .find(|who| world.members[*who].node.as_ref().is_some_and(|node| node.device() == via))
        .expect("a member");
    world.kill(middle);
    world.until("the other to take over", SOON, |world| {
        let path = world.sees(0, 1).and_then(|view| view.path);
        path.is_some_and(|path| path.via.is_some_and(|now| now != via))
    });
    world.run(Duration::from_secs(5));
    assert!(world.reaches(0, 1) && world.reaches(1, 0));
}

#[test]
fn member_relay_is_preferred_to_a_relay_server() {
    let mut world = World::new(5);
    world.start_server();
    (0..3).for_each(|_| _ = world.member());
    separate(&mut world, &[(0, 1)]);
    let (_, link) = world.create(0, None);
    (1..3).for_each(|who| world.join(who, &link));
    world.until("the relay", SOON, |world| world.path(0, 1) == Some(PathKind::Relay));
    world.until("the member in the middle", SOON, |world| {
        [(0, 1), (1, 0)].iter().all(|(a, b)| world.path(*a, *b) == Some(PathKind::MemberRelay))
    });
    assert!(world.reaches(0, 1) && world.reaches(1, 0));
    // The way through the member is cut; the relay carries again.
    separate(&mut world, &[(0, 1), (0, 2), (1, 2)]);
    let to = world.address(1);
    for _ in 0..50 {
        world.send_packet(0, to, b"traffic");
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.path(0, 1), Some(PathKind::Relay));
    assert!(world.reaches(0, 1) && world.reaches(1, 0));
}

fn datagrams(world: &World) -> u64 {
    world.members.iter().map(|member| member.datagrams as u64).sum()
}

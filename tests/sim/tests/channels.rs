//! Parties without a server, and with one that comes and goes.
#![allow(missing_docs)]

use std::time::Duration;

use partyline_model::{Command, PathKind, Settings};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_lan_needs_no_server() {
    let mut world = World::new(1);
    (0..4).for_each(|_| _ = world.member_on(1));
    let (_, link) = world.create(0, None);
    (1..4).for_each(|who| world.join(who, &link));
    world.until_mesh(SOON);
    world.assert_all_reach();
}

#[test]
fn member_that_switched_the_beacon_off_is_silent_on_its_lan() {
    let mut world = World::new(1);
    (0..2).for_each(|_| _ = world.member_on(1));
    let (_, link) = world.create(0, None);
    set_beacon(&mut world, 1, false);
    world.join(1, &link);
    world.run(SOON);
    // The two have met all the same, by the addresses in the link.
    let beacons = |world: &mut World| world.with(0, |node, _| node.counters().signaling.beacon.received);
    assert_eq!(beacons(&mut world), 0, "nothing was received on the LAN from the other one");
    set_beacon(&mut world, 1, true);
    world.run(SOON);
    assert!(beacons(&mut world) > 0);
    world.until_mesh(SOON);
    world.assert_all_reach();
}

fn set_beacon(world: &mut World, who: usize, lan_beacon: bool) {
    let settings = Box::new(Settings { lan_beacon, ..world.snapshot(who).settings });
    world.command(who, Command::Configure { settings }).expect("settings within limits");
}

#[test]
fn clashes_settle_by_beacons_that_overtake_each_other() {
    for seed in 0..8 {
        let mut world = World::new(100 + seed);
        world.wires.beacon_jitter = Duration::from_millis(300);
        (0..8).for_each(|_| _ = world.member_on(1));
        let (_, link) = world.create(0, Some("10.77.7.16/28"));
        (1..8).for_each(|who| world.join(who, &link));
        world.until_mesh(SOON);
        world.run(Duration::from_secs(10));
        world.until_mesh(SOON);
        world.assert_all_reach();
    }
}

/// A party of two LANs: one member is on both, so to speak, since its server tells it of the other LAN.
#[test]
fn members_introduce_each_other_when_no_server_does() {
    let mut world = World::new(2);
    world.start_server();
    let party = world.party(3);
    let link = world.invite(0, party);
    world.kill_server();
    // The newcomer's only acquaintance is a neighbour on its LAN.
    let newcomer = world.member_on(world.lan(2));
    world.join(newcomer, &link);
    world.until_mesh(SOON);
    world.assert_all_reach();
}

#[test]
fn a_server_that_starts_again_costs_no_session() {
    let mut world = World::new(3);
    world.start_server();
    world.party(4);
    let sessions = handshakes(&world);
    world.kill_server();
    world.until("all to notice", SOON, |world| (0..4).all(|who| !world.view(who).servers[0].connected));
    world.assert_all_reach();
    world.run(Duration::from_secs(20));
    world.start_server();
    world.until("all to be back", Duration::from_secs(60), |world| {
        (0..4).all(|who| world.view(who).servers[0].connected)
    });
    world.run(Duration::from_secs(1));
    assert_eq!(world.missing(), []);
    let later = handshakes(&world);
    for (before, after) in sessions.iter().zip(&later) {
        assert!(after >= before, "a session was made anew: {sessions:?}, {later:?}");
    }
    // What was announced is on the new server: a newcomer who knows nobody finds them there.
    let party = world.view(0).id;
    let link = world.invite(0, party);
    let late = world.member();
    world.join(late, &link);
    world.until_mesh(SOON);
    world.assert_all_reach();
}

/// Seconds since each pair's last handshake.
fn handshakes(world: &World) -> Vec<u32> {
    let pairs = (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to);
    pairs.filter_map(|(from, to)| world.sees(from, to)?.path?.handshake_s).collect()
}

#[test]
fn another_network_moves_the_paths() {
    let mut world = World::new(4);
    world.start_server();
    world.party(3);
    let ip = std::net::Ipv4Addr::new(11, 0, 9, 9);
    world.move_to(1, ip);
    world.until("the paths to move", SOON, |world| {
        [0, 2].iter().all(|who| remote(world, *who, 1) == Some(ip.into()))
    });
    world.assert_all_reach();
}

#[test]
fn a_cable_that_is_pulled_and_put_back_in_elsewhere_moves_the_paths() {
    let mut world = World::new(5);
    world.start_server();
    world.party(2);
    let network = world.local_network(1);
    let none = partyline_node::LocalNetwork { addresses: Vec::new(), ..network.clone() };
    world.with(1, |node, now| node.handle_network(now, none));
    world.place(1, None, [[0, 0, 0, 0].into()]);
    world.run(Duration::from_secs(10));
    let ip = std::net::Ipv4Addr::new(11, 0, 9, 9);
    world.move_to(1, ip);
    world.until("the path to move", SOON, |world| remote(world, 0, 1) == Some(ip.into()));
    world.assert_all_reach();
}

/// The address at which one member has another.
fn remote(world: &World, who: usize, other: usize) -> Option<std::net::IpAddr> {
    Some(world.sees(who, other)?.path?.remote.ip())
}

#[test]
fn a_new_device_of_another_party_does_not_cost_the_public_address() {
    let mut world = World::new(6);
    world.start_server();
    world.party(2);
    world.run(Duration::from_secs(5));
    let badge = world.snapshot(0).network.badge;
    assert!(badge.is_some());
    let mut network = world.local_network(0);
    network.prefixes = vec!["10.9.9.0/24".parse().expect("a range")];
    world.with(0, |node, now| node.handle_network(now, network));
    assert_eq!(world.snapshot(0).network.badge, badge, "the address that servers see was forgotten");
}

#[test]
fn direct_blocked_goes_by_the_relay_and_a_restart_of_it_is_survived() {
    let mut world = World::new(7);
    world.start_server();
    let relay = |address: std::net::SocketAddr| address.ip() == std::net::Ipv4Addr::new(11, 0, 255, 1);
    world.interfere(move |datagram, _| {
        (relay(datagram.source) || relay(datagram.destination)).then_some(Duration::ZERO)
    });
    world.party(2);
    world.assert_all_reach();
    assert_eq!(world.path(0, 1), Some(PathKind::Relay));
    world.kill_server();
    world.run(Duration::from_secs(10));
    world.start_server();
    // Somebody talks, so that the loss is noticed.
    let mut waited = Duration::ZERO;
    while !(world.reaches(0, 1) && world.reaches(1, 0)) {
        waited += Duration::from_secs(4);
        assert!(waited < Duration::from_secs(60), "the relayed pair does not recover");
    }
    println!("recovered from a lost relay within {waited:?}");
}

#[test]
fn garbled_networks_are_survived() {
    for seed in 0..6 {
        let mut world = World::new(500 + seed);
        world.start_server();
        world.interfere(|_, chance| {
            let delay = Duration::from_millis(u64::from(chance >> 8) % 60);
            (chance % 100 >= 20).then_some(delay)
        });
        world.party(4);
        world.run(Duration::from_secs(30));
        world.interfere(|_, _| Some(Duration::ZERO));
        world.until_mesh(SOON);
        world.run(Duration::from_secs(2));
        world.assert_all_reach();
    }
}

#[test]
fn idle_members_sleep() {
    let mut world = World::new(8);
    world.start_server();
    let party = world.party(4);
    world.run(Duration::from_secs(60));
    let before: Vec<usize> = world.members.iter().map(|member| member.wakes).collect();
    world.run(Duration::from_secs(60));
    for (member, before) in world.members.iter().zip(before) {
        let wakes = member.wakes - before;
        assert!(wakes < 60 * 12, "{wakes} wakes in an idle minute");
    }
    // Nothing on: nothing to do.
    for who in 0..4 {
        world.command(who, Command::Down { party }).expect("a switch");
    }
    world.run(Duration::from_secs(60));
    let before: Vec<usize> = world.members.iter().map(|member| member.wakes).collect();
    world.run(Duration::from_secs(60));
    for (member, before) in world.members.iter().zip(before) {
        assert!(
            member.wakes - before < 60,
            "{} wakes in a minute with everything off",
            member.wakes - before
        );
    }
}

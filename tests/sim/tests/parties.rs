//! Parties with a server: meeting, addresses, broadcasts, coming and going.
#![allow(missing_docs)]

use std::{net::Ipv4Addr, time::Duration};

use partyline_model::{Command, ErrorCode, KickScope, PartyPhase, PathKind, Reply};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(30);

fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.start_server();
    world
}

#[test]
fn two_members_connect_by_a_link_and_exchange_packets() {
    let mut world = world(1);
    world.party(2);
    assert!(world.reaches(0, 1));
    assert!(world.reaches(1, 0));
    assert_eq!(world.path(0, 1), Some(PathKind::Direct));
}

#[test]
fn broadcast_reaches_each_of_eight_members_once() {
    let mut world = world(2);
    world.party(8);
    world.assert_all_reach();
    let subnet = world.view(0).range.expect("a range").broadcast();
    for (number, to) in [Ipv4Addr::BROADCAST, subnet].into_iter().enumerate() {
        for from in 0..8 {
            let shout = format!("{from} shouts {number}").into_bytes();
            world.send_packet(from, to, &shout);
            world.run(Duration::from_secs(1));
            for who in (0..8).filter(|who| *who != from) {
                assert_eq!(world.heard(who, &shout), [std::net::IpAddr::from(world.address(from))]);
            }
            assert!(world.heard(from, &shout).is_empty(), "nobody hears itself");
        }
    }
}

/// While the owner is away, nobody fixes the numbers that joiners choose.
#[test]
fn clashing_addresses_are_resolved_and_packets_flow() {
    let mut moved = 0;
    for seed in 0..12 {
        let mut world = world(100 + seed);
        (0..10).for_each(|_| _ = world.member());
        let (_, link) = world.create(0, Some("10.77.7.16/28"));
        world.join(1, &link);
        world.run(Duration::from_secs(2));
        world.kill(0);
        (2..10).for_each(|who| world.join(who, &link));
        world.run(Duration::from_secs(10));
        world.start(0);
        world.until_mesh(SOON);
        world.run(Duration::from_secs(5));
        world.assert_all_reach();
        let mut addresses: Vec<_> = (0..10).map(|who| world.address(who)).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 10, "seed {seed}: {addresses:?}");
        moved += world.members.iter().filter(|member| member.devices_made > 1).count();
    }
    assert!(moved > 0, "no member had to move, so nothing was tried");
}

#[test]
fn clashes_are_resolved_when_announcements_overtake_each_other() {
    for seed in 0..6 {
        let mut world = world(200 + seed);
        // All on one LAN besides: beacons and server race each other.
        (0..9).for_each(|_| _ = world.member_on(1));
        let (_, link) = world.create(0, Some("10.77.7.16/28"));
        for who in 1..9 {
            world.join(who, &link);
            world.run(Duration::from_millis(7 * who as u64));
        }
        world.until_mesh(SOON);
        world.run(Duration::from_secs(5));
        world.assert_all_reach();
    }
}

#[test]
fn restarted_member_keeps_its_address_and_reconnects_at_once() {
    let mut world = world(3);
    world.party(3);
    let before = world.address(1);
    world.kill(1);
    world.run(Duration::from_secs(1));
    world.start(1);
    let took = world.until_mesh(SOON);
    assert_eq!(world.address(1), before);
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.assert_all_reach();
}

#[test]
fn saved_state_suffices_after_a_crash_at_any_moment() {
    for cut in [5, 30, 60, 100, 150, 250, 400, 800] {
        let mut world = world(300 + cut);
        let (a, b) = (world.member(), world.member());
        let (_, link) = world.create(a, None);
        world.join(b, &link);
        world.run(Duration::from_millis(cut));
        for who in [a, b] {
            world.kill(who);
            world.start(who);
        }
        world.until_mesh(SOON);
        world.assert_all_reach();
    }
}

#[test]
fn kicked_member_is_disconnected_and_the_others_stay_connected() {
    let mut world = world(4);
    let party = world.party(4);
    let old_link = world.invite(0, party);
    let out = world.members[3].node.as_ref().expect("a node").device();
    world
        .command(0, Command::Kick { party, member: out, scope: KickScope::default() })
        .expect("the owner may");
    world.until("the kicked to know", SOON, |world| world.view(3).phase == PartyPhase::Down);
    assert_eq!(world.view(3).problem.map(|problem| problem.code), Some(ErrorCode::Removed));
    assert!(world.members[3].devices.is_empty());
    world.until("it to be gone", SOON, |world| (0..3).all(|who| world.view(who).members.len() == 3));
    world.until_mesh(SOON);
    world.assert_all_reach();

    // The secret has changed since that link was made, but the link still works.
    let late = world.member();
    world.join(late, &old_link);
    world.until_mesh(SOON);
    world.assert_all_reach();
    assert_eq!(world.view(late).members.len(), 4);
}

#[test]
fn member_that_left_is_gone_and_may_rejoin() {
    let mut world = world(5);
    let party = world.party(3);
    let link = world.invite(0, party);
    world.command(2, Command::Leave { party }).expect("anybody may");
    world.until("it to be gone", SOON, |world| (0..2).all(|who| world.view(who).members.len() == 2));
    assert!(world.snapshot(2).parties.is_empty());
    world.assert_all_reach();
    world.join(2, &link);
    world.until_mesh(SOON);
    world.assert_all_reach();
}

#[test]
fn switched_off_party_sends_nothing_and_comes_back() {
    let mut world = world(6);
    let party = world.party(3);
    world.command(1, Command::Down { party }).expect("a switch");
    assert!(world.members[1].devices.is_empty());
    world.run(Duration::from_secs(120));
    let quiet = world.members[1].datagrams;
    world.run(Duration::from_secs(60));
    assert_eq!(world.members[1].datagrams, quiet, "a party that is off talks");
    world.command(1, Command::Up { party }).expect("a switch");
    world.until_mesh(SOON);
    world.assert_all_reach();
}

#[test]
fn pings_are_answered_or_time_out() {
    let mut world = world(7);
    let party = world.party(2);
    let member = world.members[1].node.as_ref().expect("a node").device();
    let Ok(Reply::Pong(pong)) = world.command(0, Command::Ping { party, member }) else { panic!("no pong") };
    assert!((pong.rtt_ms - 40.0).abs() < 1.0, "{pong:?}");
    world.kill(1);
    let error = world.command(0, Command::Ping { party, member }).expect_err("nobody is there");
    assert_eq!(error.code, ErrorCode::Timeout);
}

#[test]
fn changed_range_moves_every_member() {
    let mut world = world(8);
    let party = world.party(4);
    let range = "192.168.77.0/28".parse().expect("a range");
    world.command(0, Command::SetRange { party, range: Some(range) }).expect("the owner may");
    world.until("all to move", SOON, |world| {
        world.members.iter().all(|member| member.devices[&party].v4.trunc() == range)
    });
    world.run(Duration::from_secs(5));
    world.until_mesh(SOON);
    world.assert_all_reach();
}

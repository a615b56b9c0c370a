//! Members as observers of each other's NATs, where no server answers from elsewhere.
#![allow(missing_docs)]

use std::{net::IpAddr, time::Duration};

use partyline_model::{Allocation, Command, Filtering, Mapping, Settings};
use partyline_nat::{Nat, Rules};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(60);

/// Two members with public addresses far from each other; the relay's second address is cut off, so that nobody learns
/// from it what is let in.
fn world(serve_friends: bool) -> World {
    let mut world = World::new(7);
    world.start_server();
    let second = IpAddr::from([11, 0, 255, 2]);
    world.interfere(move |datagram, _| {
        (datagram.source.ip() != second && datagram.destination.ip() != second).then_some(Duration::ZERO)
    });
    for number in 1..=2 {
        let who = world.add(u32::from(number));
        world.members[who].probe_sockets = 6;
        world.place(who, None, [IpAddr::from([12, 0, number, 1])]);
        world.start(who);
    }
    let settings = Settings { serve_friends, ..world.snapshot(1).settings };
    world.command(1, Command::Configure { settings: Box::new(settings) }).expect("settings within limits");
    world
}

fn filtering(world: &World, who: usize) -> Option<Filtering> {
    world.snapshot(who).network.nat.filtering
}

#[test]
fn a_friend_shows_what_no_server_can() {
    let mut world = world(true);
    let (_, link) = world.create(0, None);
    world.run(SOON);
    assert_eq!(filtering(&world, 0), None, "alone, nobody can tell");
    world.join(1, &link);
    world.until_mesh(SOON);
    world.until("filtering to be known", SOON, |world| filtering(world, 0).is_some());
    assert_eq!(filtering(&world, 0), Some(Filtering::EndpointIndependent));
}

#[test]
fn who_does_not_serve_friends_observes_nothing() {
    let mut world = world(false);
    let (_, link) = world.create(0, None);
    world.join(1, &link);
    world.until_mesh(SOON);
    world.run(SOON);
    assert_eq!(filtering(&world, 0), None);
}

/// Puts the measuring member behind a NAT. The relay's second ports are blocked, so that it can determine the mapping
/// but not the filtering behavior.
fn behind(filtering: Filtering, serve_friends: bool) -> World {
    let mut world = World::new(7);
    world.start_server();
    world.interfere(|datagram, _| {
        let second =
            |at: std::net::SocketAddr| at.ip().to_string().starts_with("11.0.255.") && at.port() == 3479;
        (!second(datagram.source) && !second(datagram.destination)).then_some(Duration::ZERO)
    });
    let rules = Rules::new(Mapping::EndpointIndependent, filtering, Allocation::Preserving);
    let home = world.network().add_router(None, Nat::new(1, [12, 0, 1, 1].into(), rules));
    for number in 1..=2 {
        let who = world.add(u32::from(number));
        world.members[who].probe_sockets = 7;
        match number {
            1 => world.place(who, Some(home), [IpAddr::from([192, 168, 1, 7])]),
            _ => world.place(who, None, [IpAddr::from([12, 0, number, 1])]),
        }
        world.start(who);
    }
    let settings = Settings { serve_friends, ..world.snapshot(1).settings };
    world.command(1, Command::Configure { settings: Box::new(settings) }).expect("settings within limits");
    world
}

#[test]
fn a_friend_lends_a_port_and_shows_whom_a_nat_lets_in() {
    for closed in [Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
        let mut world = behind(closed, true);
        let (_, link) = world.create(0, None);
        world.run(SOON);
        assert_eq!(filtering(&world, 0), None, "alone, nobody can tell");
        world.join(1, &link);
        world.until_mesh(SOON);
        world.until("filtering to be known", SOON, |world| filtering(world, 0).is_some());
        assert_eq!(filtering(&world, 0), Some(closed));
        world.run(SOON);
        assert!(world.members[1].opened_sockets() == 0, "the port is taken back");
    }
}

#[test]
fn who_does_not_serve_friends_lends_no_port() {
    let mut world = behind(Filtering::AddressDependent, false);
    let (_, link) = world.create(0, None);
    world.join(1, &link);
    world.until_mesh(SOON);
    world.run(SOON);
    assert_eq!(filtering(&world, 0), None);
}

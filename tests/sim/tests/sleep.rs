//! A computer sleeps: both its clocks jump, and meanwhile all that it had outside has lapsed.
#![allow(missing_docs)]

use std::{net::Ipv4Addr, time::Duration};

use partyline_model::{Allocation, Filtering, Mapping, PathKind};
use partyline_nat::{Nat, Rules};
use partyline_tests_sim::World;

const SOON: Duration = Duration::from_secs(30);

/// Two members behind routers of their own, with a direct path.
fn two_at_home(seed: u64) -> World {
    let mut world = World::new(seed);
    world.start_server();
    let rules = Rules {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        allocation: Allocation::Random,
        ..Rules::all_types(1).next().expect("a type")
    };
    for number in 0..2 {
        let who = world.add(number.into());
        let outside = Ipv4Addr::new(12, 2, 0, 1 + number);
        let nat = Nat::new(seed + u64::from(number), outside.into(), rules);
        let place = world.network().add_router(None, nat);
        world.place(who, Some(place), [Ipv4Addr::new(192, 168, 1, 2).into()]);
        world.members[who].probe_sockets = 6;
        world.start(who);
    }
    let (_, link) = world.create(0, None);
    world.join(1, &link);
    world.until_mesh(SOON);
    world.until("a direct path", SOON, is_direct);
    world
}

fn is_direct(world: &World) -> bool {
    [(0, 1), (1, 0)].iter().all(|(who, other)| world.path(*who, *other) == Some(PathKind::Direct))
}

/// What a computer finds after an hour: the server was restarted, and knows neither its connection nor its
/// allocation, its router has forgotten everything, and its friend has given it up.
fn an_hour_passes(world: &mut World, who: usize) {
    world.network().routers[who].nat.reset();
    world.kill_server();
    world.run(Duration::from_secs(600));
    world.start_server();
    world.start_relay();
    world.run(Duration::from_secs(3000));
}

#[test]
fn a_laptop_that_slept_for_an_hour_is_back_within_two_seconds() {
    for seed in 0..10 {
        let mut world = two_at_home(900 + seed);
        world.sleep(0, true);
        an_hour_passes(&mut world, 0);
        assert_eq!(world.path(1, 0), None, "the friend has given it up");
        world.sleep(0, false);
        world.run(Duration::from_secs(2));
        assert!(world.reaches(0, 1) && world.reaches(1, 0), "{seed}");
        let took = world.until("a direct path", SOON, is_direct);
        assert!(took <= Duration::from_secs(10), "{seed}: {took:?}");
    }
}

#[test]
fn a_laptop_that_slept_for_a_minute_is_back_at_once() {
    for seed in 0..10 {
        let mut world = two_at_home(950 + seed);
        world.sleep(0, true);
        world.run(Duration::from_secs(60));
        world.sleep(0, false);
        world.run(Duration::from_millis(700));
        assert!(world.reaches(0, 1) && world.reaches(1, 0), "{seed}");
    }
}

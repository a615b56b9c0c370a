//! Sprays behind routers with few places in their tables: they stop in time, and other programs keep working.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use common::{Nat, World};
use partyline_model::PathKind;
use partyline_nat::{Protocol, Rules, TableUnit};
use partyline_paths::{Config, RelayTransport};

const SECOND: Duration = Duration::from_secs(1);

/// Another program on the LAN of a member, which opens new flows all the time.
struct Neighbor {
    home: usize,
    every: Duration,
    next_at: Instant,
    opened: u16,
    refused: u16,
}

impl Neighbor {
    /// Starts with flows that it has opened before.
    fn new(world: &mut World, home: usize, before: u16, every: Duration) -> Self {
        let mut neighbor = Self { home, every, next_at: world.now() + every, opened: 0, refused: 0 };
        (0..before).for_each(|_| neighbor.open(world));
        assert_eq!(neighbor.refused, 0, "there is room before anybody sprays");
        neighbor
    }

    fn open(&mut self, world: &mut World) {
        let now = world.now();
        let router = world.homes[self.home].router.unwrap();
        let port = 10_000 + self.opened;
        self.opened += 1;
        let (inside, server): (SocketAddr, SocketAddr) =
            (([192, 168, 77, 3], port).into(), ([203, 0, 113, 7], 443).into());
        let nat = &mut world.net.network.routers[router].nat;
        self.refused += u16::from(nat.outbound(now, Protocol::Udp, inside, server).is_none());
    }

    /// Lets the members exchange messages for a while, as long as something does not hold.
    fn run(&mut self, world: &mut World, span: Duration, holds: impl Fn(&World) -> bool) -> bool {
        let end = world.now() + span;
        while world.now() < end {
            if world.exchange_until(Duration::from_millis(20), &holds) {
                return true;
            }
            while self.next_at <= world.now() {
                self.next_at += self.every;
                self.open(world);
            }
        }
        false
    }
}

fn port_restricted() -> Rules {
    let mut all = Rules::all_types(1);
    all.find(|rules| rules.short() == "EI/PD/PP").unwrap()
}

fn random_symmetric() -> Rules {
    let mut all = Rules::all_types(1);
    all.find(|rules| rules.short() == "PD/PD/RD").unwrap()
}

/// Two members who are about to meet; the first one sprays, the second one opens sockets.
fn pair(sprayer: Rules, opener: Rules, seed: u64) -> World {
    let mut world = World::with_seed(seed);
    for rules in [sprayer, opener] {
        let home = world.home(Nat::Other(rules), Config::default());
        world.measure_nat(home);
    }
    for home in 0..2 {
        world.gather(home);
        world.set_relays(home, &[RelayTransport::Udp]);
    }
    world
}

fn taken(world: &mut World, home: usize) -> usize {
    let now = world.now();
    let router = world.homes[home].router.unwrap();
    world.net.network.routers[router].nat.taken(now, Protocol::Udp)
}

#[test]
fn no_flow_of_another_program_fails_at_a_table_of_256() {
    for (seed, table_unit) in (0..10).map(|seed| (seed, TableUnit::Mapping)).chain([(10, TableUnit::Flow)]) {
        let opener = Rules { table: 256, table_unit, ..random_symmetric() };
        let mut world = pair(port_restricted(), opener, seed);
        let mut neighbor = Neighbor::new(&mut world, 1, 60, Duration::from_millis(500));
        assert!(neighbor.run(&mut world, SECOND * 20, World::is_direct), "not direct, seed {seed}");
        neighbor.run(&mut world, SECOND * 15, |_| false);
        assert_eq!((neighbor.refused, world.homes[1].spray_limit), (0, None), "seed {seed}");
        assert!(world.is_direct(), "still direct, seed {seed}");
        let open = world.homes[1].open_socket_count();
        assert!(open <= 2, "only the one that is used stays open, seed {seed}");
    }
}

#[test]
fn a_spray_stops_when_new_flows_fail_and_the_relay_carries() {
    let opener = Rules { table: 130, ..random_symmetric() };
    let sprayer = Rules { table: 140, table_unit: TableUnit::Flow, ..port_restricted() };
    // The router that is full is the opener's or the sprayer's.
    for (full, before, sprayer, opener) in
        [(1, 40, port_restricted(), opener), (0, 40, sprayer, Rules { table: 1024, ..random_symmetric() })]
    {
        let mut world = pair(sprayer, opener, 3);
        // Nothing is ever found.
        let (one, other) = (world.homes[0].host, world.homes[1].host);
        world.net.network.cut(one, other);
        let mut neighbor = Neighbor::new(&mut world, full, before, SECOND * 2);
        neighbor.run(&mut world, SECOND * 10, |world| world.homes[full].spray_limit.is_some());
        let limit = world.homes[full].spray_limit.expect("the router was found to be full");
        assert!((32..=70).contains(&limit), "{limit}");
        assert!(world.both(PathKind::Relay), "the relay carries");
        neighbor.run(&mut world, SECOND, |_| false);
        assert_eq!(world.homes[full].open_socket_count(), 1, "all others are closed");
        let before = taken(&mut world, full);
        neighbor.run(&mut world, SECOND * 60, |_| false);
        assert!(taken(&mut world, full) <= before + 2, "nothing more is opened while the router is full");
        // Half of what stood when it was full is left to others from then on.
        neighbor.refused = 0;
        neighbor.run(&mut world, SECOND * 70, |_| false);
        neighbor.refused = 0;
        neighbor.run(&mut world, SECOND * 130, |_| false);
        assert_eq!(neighbor.refused, 0);
    }
}

#[test]
fn sprays_towards_several_members_share_the_routers_table() {
    let mut world = World::with_seed(5);
    for rules in [random_symmetric(), port_restricted(), port_restricted(), port_restricted()] {
        let home = world.home(Nat::Other(rules), Config::default());
        world.measure_nat(home);
    }
    world.homes[0].paths.set_spray_limit(Some(100));
    for home in 0..4 {
        world.gather(home);
    }
    let mut most = 0;
    for _ in 0..300 {
        world.run(Duration::from_millis(100));
        most = most.max(taken(&mut world, 0));
    }
    assert!((65..=110).contains(&most), "{most} places taken");
}

//! The filtering test by a member with two ports, where no server can respond from another address.

mod common;

use std::time::Duration;

use common::{Friend, LINE, Line, OUTSIDE, Rules, Server, World, full_server, nat};
use partyline_model::{Filtering, Mapping};
use partyline_nat::PortCollision;
use partyline_netcheck::PortPair;
use proptest::prelude::*;

const PROBE_SOCKETS: u16 = 7;

/// Two servers of one address each, which show that mappings are the same for everybody, but not who is let in.
fn plain_servers() -> Vec<Server> {
    vec![Server::new([11, 0, 1, 1], 3478), Server::new([11, 0, 2, 1], 3478)]
}

/// A measurement in which a friend lends two ports. It sends to the socket first as any member does.
fn measured_with(seed: u64, rules: Rules, friend: Friend, line: Line) -> World {
    let mut world = World::new(seed, Some(nat(seed, rules)), plain_servers(), line, PROBE_SOCKETS);
    world.observer = Some(friend.sockets[0]).filter(|_| friend.nat.is_none());
    world.add_friend(friend);
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.measure();
    world
}

fn filtering_of(world: &World) -> Option<Filtering> {
    world.netcheck.profile().filtering
}

fn independent() -> impl Iterator<Item = Rules> {
    Rules::all_types(1).filter(|rules| rules.mapping == Mapping::EndpointIndependent)
}

#[test]
fn member_with_two_ports_finds_every_filter_of_an_endpoint_independent_nat() {
    for (seed, rules) in (0..).zip(independent()) {
        let world = measured_with(seed, rules, Friend::open(), LINE);
        assert_eq!(filtering_of(&world), Some(rules.filtering), "{rules:?}");
        let report = world.netcheck.report();
        assert!(report.duration.expect("over") < Duration::from_secs(3), "{:?}", report.duration);
        assert_eq!(report.gaps, Vec::<&str>::new());
    }
}

#[test]
fn nat_that_maps_by_destination_is_not_judged() {
    for (seed, rules) in
        (0..).zip(Rules::all_types(1)).filter(|(_, r)| r.mapping != Mapping::EndpointIndependent)
    {
        let open = rules.filtering == Filtering::EndpointIndependent;
        let world = measured_with(seed, rules, Friend::open(), LINE);
        assert_eq!(filtering_of(&world), open.then_some(Filtering::EndpointIndependent), "{rules:?}");
    }
}

#[test]
fn member_behind_a_nat_finds_the_filter_or_nothing() {
    for (seed, rules) in (0..).zip(independent()) {
        for own in Rules::all_types(1) {
            let world = measured_with(seed, rules, Friend::behind(seed, own), LINE);
            let closed = rules.filtering != Filtering::EndpointIndependent;
            // Without a packet to an untouched socket before, an open NAT is not shown by two ports.
            let expected =
                Some(rules.filtering).filter(|_| closed && own.mapping == Mapping::EndpointIndependent);
            if own.mapping == Mapping::EndpointIndependent {
                assert_eq!(filtering_of(&world), expected, "{rules:?} by a friend behind {own:?}");
            } else {
                assert!(
                    filtering_of(&world).is_none_or(|found| found == rules.filtering),
                    "{rules:?} by {own:?}"
                );
            }
        }
    }
}

#[test]
fn member_that_cannot_send_from_a_port_finds_nothing() {
    for works in [[false, true], [true, false], [false; 2]] {
        for (seed, rules) in (0..).zip(independent()) {
            let mut world = World::new(seed, Some(nat(seed, rules)), plain_servers(), LINE, PROBE_SOCKETS);
            world.add_friend(Friend { works, ..Friend::open() });
            let now = world.now();
            world.netcheck.set_observers_available(now, true);
            world.measure();
            assert_eq!(filtering_of(&world), None, "{works:?}: {rules:?}");
            assert!(world.netcheck.report().finished);
        }
    }
}

#[test]
fn useless_ports_are_not_used() {
    let rules = independent().last().expect("a type");
    let pair =
        |ip: [u8; 4], first, second| PortPair { first: (ip, first).into(), second: (ip, second).into() };
    let other = ([11, 0, 8, 1], 2).into();
    let useless = [
        pair([11, 0, 0, 9], 1, 2),
        pair([192, 168, 7, 7], 1, 2),
        pair([11, 0, 1, 1], 1, 2),
        pair([11, 0, 7, 1], 1, 1),
        PortPair { second: other, ..pair([11, 0, 7, 1], 1, 2) },
        PortPair { first: (OUTSIDE, 1).into(), second: (OUTSIDE, 2).into() },
    ];
    for pair in useless {
        let mut world = World::new(1, Some(nat(1, rules)), plain_servers(), LINE, PROBE_SOCKETS);
        let now = world.now();
        world.netcheck.set_observers_available(now, true);
        world.run(Duration::from_millis(600));
        assert!(!world.probe_requests.is_empty());
        let now = world.now();
        world.netcheck.set_port_pair(now, pair);
        world.measure();
        assert!(!world.sent.contains_key(&pair.first) && !world.sent.contains_key(&pair.second), "{pair:?}");
    }
}

#[test]
fn member_is_not_asked_if_a_server_can_tell() {
    let rules = independent().last().expect("a type");
    let mut world = World::new(1, Some(nat(1, rules)), vec![full_server()], LINE, PROBE_SOCKETS);
    world.add_friend(Friend::open());
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.measure();
    assert_eq!((filtering_of(&world), world.probe_requests.len()), (Some(rules.filtering), 0));
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let types: Vec<_> = Rules::all_types(1).chain(Rules::all_types(-3)).collect();
    let collision = prop_oneof![Just(PortCollision::Next), Just(PortCollision::Random)];
    let lifetime = prop_oneof![3 => Just(120_000_u64), 1 => 100..4000_u64];
    let table = prop_oneof![4 => Just(1000_usize), 1 => 1..12_usize];
    (prop::sample::select(types), collision, lifetime, table, any::<bool>(), any::<bool>()).prop_map(
        |(rules, collision, lifetime, table, hairpin, filters_by_socket)| Rules {
            collision,
            hairpin,
            table,
            filters_by_socket,
            lifetime: Duration::from_millis(lifetime),
            ..rules
        },
    )
}

fn any_friend() -> impl Strategy<Value = (Option<(u64, Rules)>, [bool; 2])> {
    let works = prop_oneof![8 => Just([true; 2]), 1 => Just([true, false]), 1 => Just([false, true])];
    (prop::option::of((any::<u64>(), any_rules())), works)
}

fn any_line() -> impl Strategy<Value = Line> {
    (0..40_u32, 1..150_u64, 0..120_u64).prop_map(|(loss, latency, jitter)| Line {
        loss: f64::from(loss) / 100.0,
        latency: Duration::from_millis(latency),
        jitter: Duration::from_millis(jitter),
        ..LINE
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever NATs there are at both ends, and whatever is lost, late or overtaken: the truth or nothing.
    #[test]
    fn member_never_makes_filtering_wrong(
        seed: u64,
        rules in any_rules(),
        (own, works) in any_friend(),
        line in any_line(),
    ) {
        let friend = own.map_or_else(Friend::open, |(seed, own)| Friend::behind(seed, own));
        let world = measured_with(seed, rules, Friend { works, ..friend }, line);
        prop_assert!(filtering_of(&world).is_none_or(|found| found == rules.filtering), "{:?} for {rules:?}", filtering_of(&world));
    }
}

/// The packet that shows an open NAT is sent once, so that it is lost as often as any packet.
#[test]
fn five_percent_loss_and_jitter_hide_at_most_five_percent_of_filters() {
    let line = Line { loss: 0.05, jitter: Duration::from_millis(30), ..LINE };
    let (mut known, mut hidden) = (0, 0);
    for (seed, rules) in (0..).zip((0..20).flat_map(|_| independent())) {
        let world = measured_with(seed, rules, Friend::open(), line);
        if world.netcheck.profile().mapping.is_none() {
            continue;
        }
        match filtering_of(&world) {
            Some(found) => assert_eq!(found, rules.filtering, "seed {seed}: {rules:?}"),
            None => hidden += 1,
        }
        known += 1;
    }
    assert!(known > 160 && hidden * 20 <= known, "{hidden} of {known} hidden");
}

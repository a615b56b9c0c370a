//! Every policy and every limit of the NAT model.

#![allow(clippy::disallowed_methods, reason = "some instant to count from")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::{Hairpinned, Nat, PortCollision, Protocol, Rules, TableUnit};
use proptest::prelude::*;

const UDP: Protocol = Protocol::Udp;
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(11, 0, 0, 1));

fn inside(host: u8, port: u16) -> SocketAddr {
    ([192, 168, 1, host], port).into()
}

fn server(host: u8, port: u16) -> SocketAddr {
    ([11, 0, 1, host], port).into()
}

fn cone() -> Rules {
    Rules::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, Allocation::Preserving)
}

#[test]
fn mapping_depends_on_the_destination_as_configured() {
    let now = Instant::now();
    for rules in Rules::all_types(2) {
        let mut nat = Nat::new(1, OUTSIDE, rules);
        let mut seen = |to| nat.outbound(now, UDP, inside(7, 5000), to).expect("room");
        let (first, again) = (seen(server(1, 1)), seen(server(1, 1)));
        let (port, address) = (seen(server(1, 2)), seen(server(2, 1)));
        assert_eq!(first, again, "{rules:?}");
        assert_eq!(first != address, rules.mapping != Mapping::EndpointIndependent, "{rules:?}");
        assert_eq!(first != port, rules.mapping == Mapping::AddressAndPortDependent, "{rules:?}");
    }
}

#[test]
fn filtering_depends_on_the_source_as_configured() {
    let now = Instant::now();
    for rules in Rules::all_types(-1) {
        let mut nat = Nat::new(1, OUTSIDE, rules);
        let external = nat.outbound(now, UDP, inside(7, 5000), server(1, 1)).expect("room");
        let mut passes = |from| nat.inbound(now, UDP, external, from) == Some(inside(7, 5000));
        assert!(passes(server(1, 1)));
        assert_eq!(passes(server(1, 2)), rules.filtering != Filtering::AddressAndPortDependent, "{rules:?}");
        assert_eq!(passes(server(2, 1)), rules.filtering == Filtering::EndpointIndependent, "{rules:?}");
    }
}

#[test]
fn mapping_goes_on_after_any_number_of_destinations() {
    let (begun, mut nat) = (Instant::now(), Nat::new(1, OUTSIDE, cone()));
    let mut used = |ms: u16| {
        let (now, to) = (begun + Duration::from_millis(ms.into()), server(1, ms));
        let external = nat.outbound(now, UDP, inside(7, 5000), to).expect("a flow is never refused");
        let first = nat.inbound(now, UDP, external, server(1, 1)).is_some();
        (first, nat.inbound(now, UDP, external, to).is_some())
    };
    assert!((1..20_000).all(|ms| used(ms).1));
    assert_eq!(used(20_000), (false, true), "what was used first is forgotten");
}

#[test]
fn contiguous_ports_wrap_within_their_range() {
    let now = Instant::now();
    let allocation = Allocation::Contiguous { delta: -3 };
    let rules = Rules { allocation, ports: (2000, 2009), ..cone() };
    let mut nat = Nat::new(9, OUTSIDE, rules);
    let ports: Vec<u16> = (0..10)
        .map(|host| nat.outbound(now, UDP, inside(host, 77), server(1, 1)).expect("room").port())
        .collect();
    assert!(ports.windows(2).all(|w| (w[1] + 13 - w[0]) % 10 == 0), "{ports:?}");
    assert_eq!(nat.outbound(now, UDP, inside(10, 77), server(1, 1)), None, "all ports are taken");
}

#[test]
fn background_mappings_advance_the_counter() {
    let now = Instant::now();
    let alone = Rules { allocation: Allocation::Contiguous { delta: 1 }, ..cone() };
    let gap = |rules| {
        let mut nat = Nat::new(9, OUTSIDE, rules);
        let first = nat.outbound(now, UDP, inside(1, 1), server(1, 1)).expect("room").port();
        let later = now + Duration::from_secs(10);
        let second = nat.outbound(later, UDP, inside(1, 2), server(1, 1)).expect("room").port();
        second.wrapping_sub(first)
    };
    assert_eq!(gap(alone), 1);
    assert!((50..150).contains(&gap(Rules { background_rate: 10, ..alone })), "about 100 in 10 s");
}

#[test]
fn colliding_internal_ports_get_separate_mappings() {
    let now = Instant::now();
    for collision in [PortCollision::Next, PortCollision::Random] {
        let mut nat = Nat::new(3, OUTSIDE, Rules { collision, ..cone() });
        let first = nat.outbound(now, UDP, inside(1, 5000), server(1, 1)).expect("room");
        let second = nat.outbound(now, UDP, inside(2, 5000), server(1, 1)).expect("room");
        assert_eq!(first.port(), 5000);
        assert_eq!(collision == PortCollision::Next, second.port() == 5001);
        assert_eq!(nat.inbound(now, UDP, first, server(1, 1)), Some(inside(1, 5000)));
        assert_eq!(nat.inbound(now, UDP, second, server(1, 1)), Some(inside(2, 5000)));
    }
}

#[test]
fn a_full_table_refuses_what_is_new_until_something_expires() {
    let now = Instant::now();
    let lifetime = Duration::from_secs(30);
    for table_unit in [TableUnit::Mapping, TableUnit::Flow] {
        let mut nat = Nat::new(3, OUTSIDE, Rules { table: 3, table_unit, lifetime, ..cone() });
        // One socket sends to three servers: one mapping, and three flows.
        for host in 1..=3 {
            assert!(nat.outbound(now, UDP, inside(1, 5000), server(host, 1)).is_some());
        }
        let counts_flows = table_unit == TableUnit::Flow;
        assert_eq!(nat.taken(now, UDP), if counts_flows { 3 } else { 1 });
        let later = now + lifetime / 2;
        let fourth = nat.outbound(later, UDP, inside(1, 5000), server(4, 1));
        assert_eq!(fourth.is_none(), counts_flows);
        assert_eq!(nat.outbound(later, UDP, inside(2, 5000), server(1, 1)).is_none(), counts_flows);
        assert!(nat.outbound(later, UDP, inside(1, 5000), server(1, 1)).is_some(), "an old flow goes on");
        let expired = now + lifetime;
        assert!(nat.outbound(expired, UDP, inside(1, 5000), server(4, 1)).is_some());
        assert!(nat.outbound(expired, UDP, inside(1, 5000), server(1, 1)).is_some(), "it was used meanwhile");
    }
}

#[test]
fn idle_mappings_expire_and_free_their_ports() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    for inbound_refreshes in [false, true] {
        let rules = Rules { lifetime: Duration::from_secs(30), table: 1, inbound_refreshes, ..cone() };
        let mut nat = Nat::new(3, OUTSIDE, rules);
        let external = nat.outbound(start, UDP, inside(1, 5000), server(1, 1)).expect("room");
        assert_eq!(nat.outbound(after(1), UDP, inside(2, 6000), server(1, 1)), None, "the table is full");
        assert!(nat.inbound(after(20), UDP, external, server(1, 1)).is_some());
        assert_eq!(nat.inbound(after(40), UDP, external, server(1, 1)).is_some(), inbound_refreshes);
        assert!(nat.outbound(after(90), UDP, inside(2, 5000), server(1, 1)).is_some());
        assert_eq!(nat.mappings(after(90), UDP), 1);
    }
}

#[test]
fn internal_hosts_reach_each_other_only_with_hairpinning() {
    let now = Instant::now();
    for hairpin in [false, true] {
        let rules = Rules { hairpin, filtering: Filtering::EndpointIndependent, ..cone() };
        let mut nat = Nat::new(1, OUTSIDE, rules);
        let one = nat.outbound(now, UDP, inside(1, 2000), server(1, 1)).expect("room");
        let met = nat.hairpin(now, UDP, inside(2, 2001), one);
        let expected = Hairpinned { source: (OUTSIDE, 2001).into(), inside: inside(1, 2000) };
        assert_eq!(met, hairpin.then_some(expected));
    }
}

#[test]
fn icmp_errors_are_translated_only_for_packets_that_were_sent() {
    let now = Instant::now();
    let mut nat = Nat::new(1, OUTSIDE, cone());
    let external = nat.outbound(now, UDP, inside(1, 1000), server(1, 1)).expect("room");
    assert_eq!(nat.lookup_inbound(now, UDP, external, server(1, 1)), Some(inside(1, 1000)));
    assert_eq!(nat.lookup_inbound(now, UDP, external, server(2, 1)), None);
    assert_eq!(nat.lookup_inbound(now, Protocol::Tcp, external, server(1, 1)), None);
    assert_eq!(nat.lookup_outbound(now, UDP, inside(1, 1000), server(1, 1)), Some(external));
    assert_eq!(nat.lookup_outbound(now, UDP, inside(1, 1001), server(1, 1)), None);
}

proptest! {
    #[test]
    fn live_mappings_never_share_a_port(
        seed: u64, number in 0usize..27, delta in prop_oneof![-9i16..=-1, 1i16..=9], next: bool,
        packets in proptest::collection::vec((0u8..4, 0u16..6, 0u8..3, 0u16..3, 0u64..40), 1..120),
    ) {
        let mut rules = Rules::all_types(delta).nth(number).expect("27");
        rules.collision = if next { PortCollision::Next } else { PortCollision::Random };
        rules.ports = (1000, 1031);
        rules.lifetime = Duration::from_secs(60);
        let mut nat = Nat::new(seed, OUTSIDE, rules);
        let mut now = Instant::now();
        let mut used_ports: Vec<(SocketAddr, SocketAddr, Instant)> = Vec::new();
        for (host, port, to, at, pause) in packets {
            now += Duration::from_secs(pause);
            used_ports.retain(|(.., used)| *used + rules.lifetime > now);
            let (from, to) = (inside(host, 1010 + port), server(to, at));
            let Some(external) = nat.outbound(now, UDP, from, to) else { continue };
            prop_assert!((1000..=1031).contains(&external.port()));
            prop_assert_eq!(nat.inbound(now, UDP, external, to), Some(from));
            prop_assert!(used_ports.iter().all(|(e, f, _)| e != &external || f == &from));
            used_ports.push((external, from, now));
        }
        let ports: BTreeSet<_> = used_ports.iter().map(|(external, ..)| external.port()).collect();
        prop_assert!(ports.len() <= nat.mappings(now, UDP));
    }
}

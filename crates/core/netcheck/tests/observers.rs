//! The filtering test by members, where no server can respond from another address.

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{ChangeRequests, LINE, OUTSIDE, Rules, Server, World, full_server, nat};
use partyline_model::{CheckTopic, Filtering, StepState};
use partyline_netcheck::{Config, FilteringProbeRequest};

const PROBE_SOCKETS: u16 = 7;

/// The address of another member.
fn friend() -> SocketAddr {
    ([11, 0, 7, 1], 41_641).into()
}

/// A measurement in which a member at this address answers filtering probe requests.
fn observed(seed: u64, rules: Rules, servers: Vec<Server>, from: SocketAddr) -> World {
    let mut world = World::new(seed, Some(nat(seed, rules)), servers, LINE, PROBE_SOCKETS);
    world.observer = Some(from);
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.measure();
    world
}

fn plain_servers() -> Vec<Server> {
    vec![Server::new([11, 0, 1, 1], 3478)]
}

#[test]
fn packet_of_a_member_shows_an_open_nat_and_its_absence_shows_nothing() {
    for (seed, rules) in (0..).zip(Rules::all_types(1)) {
        let world = observed(seed, rules, plain_servers(), friend());
        let open = rules.filtering == Filtering::EndpointIndependent;
        let found = world.netcheck.profile().filtering;
        assert_eq!(found, open.then_some(Filtering::EndpointIndependent), "{rules:?}");
        assert_eq!(world.netcheck.profile().allocation, Some(rules.allocation), "{rules:?}");
        let report = world.netcheck.report();
        assert!(report.duration.expect("over") < Duration::from_secs(3), "{:?}", report.duration);
        assert_eq!(world.probe_requests.len(), 1);
    }
}

#[test]
fn members_are_asked_if_the_server_is_unfit() {
    let unfit = vec![full_server().with_change_requests(ChangeRequests::Ignored)];
    for (seed, rules) in (0..).zip(Rules::all_types(1)) {
        let found = observed(seed, rules, unfit.clone(), friend()).netcheck.profile().filtering;
        let open = rules.filtering == Filtering::EndpointIndependent;
        assert_eq!(found, open.then_some(Filtering::EndpointIndependent), "{rules:?}");
    }
}

#[test]
fn members_that_connect_during_the_measurement_are_asked() {
    for (seed, rules) in (0..).zip(Rules::all_types(1)) {
        let mut world = World::new(seed, Some(nat(seed, rules)), plain_servers(), LINE, PROBE_SOCKETS);
        world.observer = Some(friend());
        world.run(Duration::from_millis(300));
        let now = world.now();
        world.netcheck.set_observers_available(now, true);
        assert!(!world.netcheck.report().finished);
        world.measure();
        let open = rules.filtering == Filtering::EndpointIndependent;
        let found = world.netcheck.profile().filtering;
        assert_eq!(found, open.then_some(Filtering::EndpointIndependent), "{rules:?}");
        assert_eq!((world.probe_requests.len(), world.netcheck.report().packets < 60), (1, true));
    }
}

/// A network whose filtering no server tells, but how long idle mappings live, and a host that lends sockets.
fn with_an_unfit_server(rules: Rules) -> World {
    let nat = nat(1, Rules { lifetime: Duration::from_secs(900), ..rules });
    let unfit = vec![full_server().with_change_requests(ChangeRequests::Ignored)];
    let config = Config { probe_sockets: 7, ..Config::default() };
    World::with_config(1, Some(nat), unfit, LINE, PROBE_SOCKETS, config)
}

fn lifetime(world: &World) -> Option<StepState> {
    let steps = world.netcheck.report().steps;
    steps.iter().find(|step| step.what == CheckTopic::Lifetime).map(|step| step.state)
}

#[test]
fn first_member_is_asked_at_once_and_the_lifetime_is_measured_afterwards() {
    let open = Rules::all_types(1).find(|rules| rules.filtering == Filtering::EndpointIndependent);
    let mut world = with_an_unfit_server(open.expect("a type"));
    world.measure();
    world.run(Duration::from_secs(60));
    assert_eq!((world.netcheck.profile().filtering, lifetime(&world)), (None, Some(StepState::Running)));
    world.observer = Some(friend());
    world.open_probe_sockets(PROBE_SOCKETS);
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.measure();
    assert_eq!(world.netcheck.profile().filtering, Some(Filtering::EndpointIndependent));
    world.run(Duration::from_secs(310));
    assert_eq!(world.netcheck.profile().lifetime, Some(Duration::from_secs(298)));
}

#[test]
fn members_that_could_not_help_do_not_disturb_the_lifetime_test() {
    let closed = Rules::all_types(1).last().expect("a type");
    let mut world = with_an_unfit_server(closed);
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.measure();
    for _ in 0..10 {
        world.run(Duration::from_secs(31));
        let now = world.now();
        world.netcheck.set_observers_available(now, false);
        let now = world.now();
        world.netcheck.set_observers_available(now, true);
    }
    assert_eq!(world.netcheck.profile().lifetime, Some(Duration::from_secs(298)));
}

#[test]
fn members_behind_the_same_carrier_are_not_believed() {
    let open = Rules::all_types(1).find(|rules| rules.filtering == Filtering::EndpointIndependent);
    let near = [SocketAddr::new(OUTSIDE, 9), ([11, 0, 0, 99], 9).into(), ([192, 168, 1, 9], 9).into()];
    // The server's own address, to which the socket has spoken.
    for from in near.into_iter().chain([([11, 0, 1, 1], 9).into()]) {
        let world = observed(1, open.expect("a type"), plain_servers(), from);
        assert_eq!(world.netcheck.profile().filtering, None, "{from}");
    }
}

#[test]
fn packet_with_another_token_or_too_late_shows_nothing() {
    let rules = Rules::all_types(1).next().expect("a type");
    let mut world = World::new(1, Some(nat(1, rules)), plain_servers(), LINE, PROBE_SOCKETS);
    let now = world.now();
    world.netcheck.set_observers_available(now, true);
    world.run(Duration::from_millis(200));
    let asked = world.probe_requests.first().copied().expect("a member is asked");
    for token in [[0; 12], asked.token.map(|byte| !byte)] {
        let wrong = FilteringProbeRequest { token, ..asked };
        world.inject(friend(), wrong.to, wrong.packet());
    }
    world.measure();
    assert_eq!(world.netcheck.profile().filtering, None);
    world.inject(friend(), asked.to, asked.packet());
    world.run(Duration::from_secs(1));
    assert_eq!(world.netcheck.profile().filtering, None, "too late");
}

#[test]
fn members_are_not_asked_if_a_server_can_tell() {
    for (seed, rules) in (0..).zip(Rules::all_types(1)) {
        let mut world = World::new(seed, Some(nat(seed, rules)), plain_servers(), LINE, PROBE_SOCKETS);
        world.measure();
        assert!(world.probe_requests.is_empty(), "nobody is there");
        let world = observed(seed, rules, vec![full_server()], friend());
        assert_eq!(world.netcheck.profile().filtering, Some(rules.filtering));
        assert!(world.probe_requests.is_empty(), "the server tells");
    }
}

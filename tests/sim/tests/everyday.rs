//! Everyday troubles, each alone and under the judge's eyes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a party that does not come about must fail")]

use std::time::Duration;

use partyline_model::{Allocation, Filtering, Mapping, PathKind};
use partyline_tests_sim::{
    World,
    cards::{OtherVpn, VirtualCard},
    judge::Route,
    outcome::Outcome,
    scenario::{Event, Gateway, Happening, Home, Person, Scenario},
    shrink::survive,
    watch::Trouble,
};

const VPN: OtherVpn = OtherVpn { up: true, multicast: false, latency_ms: 1, jitter_ms: 0, loss: 0 };
const HOME: Home = Home {
    nat: Some(Gateway {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        allocation: Allocation::Preserving,
        lifetime_s: 60,
        hairpin: false,
    }),
    carrier: None,
    opens_ports: false,
    v6: None,
    udp: true,
    latency_ms: 10,
    jitter_ms: 0,
    loss: 0,
    twice: 0,
};
const HOME_V6: Home = Home { v6: Some(Filtering::AddressAndPortDependent), ..HOME };

/// A party with one member in each home.
fn party(homes: &[Home]) -> Scenario {
    let person = |home| Person { home, joins_ms: 1_000 * home as u32, skew_s: 0, cards: Vec::new() };
    Scenario {
        seed: 1,
        carriers: Vec::new(),
        homes: homes.to_vec(),
        vpns: vec![VPN],
        members: (0..homes.len()).map(person).collect(),
        events: Vec::new(),
    }
}

fn play(scenario: &Scenario) -> Outcome {
    let outcome = survive(scenario);
    assert_eq!(outcome.wrong, [], "{scenario:#?}");
    outcome
}

/// Plays a party of three in which this happens once all are connected.
fn play_with(homes: &[Home], events: &[(u32, Happening)]) -> Outcome {
    let events = events.iter().map(|(at_ms, what)| Event { at_ms: *at_ms, what: *what });
    play(&Scenario { events: events.collect(), ..party(homes) })
}

/// Returns the longest outage after one kind of trouble, which must have been watched.
fn outage(outcome: &Outcome, trouble: Trouble) -> Duration {
    let outages = outcome.outages.iter().filter(|outage| outage.trouble == trouble);
    outages.map(|outage| outage.span).max().expect("the trouble was watched")
}

#[test]
fn members_do_not_stay_on_another_vpn_however_quick_it_is() {
    let random = Gateway {
        mapping: Mapping::AddressAndPortDependent,
        allocation: Allocation::Random,
        ..HOME.nat.unwrap()
    };
    let no_way = Home { nat: Some(random), ..HOME };
    for (homes, multicast) in [([HOME, HOME], false), ([no_way.clone(), no_way], true)] {
        let mut scenario = party(&homes);
        scenario.vpns[0].multicast = multicast;
        for person in &mut scenario.members {
            person.cards = vec![VirtualCard::Bridge(0), VirtualCard::Vpn(0)];
        }
        let [pair] = play(&scenario).pairs[..] else { panic!("one pair") };
        assert!(pair.has_vpn && pair.is_direct() == (pair.route == Route::Direct));
    }
}

#[test]
fn another_vpn_carries_the_party_while_nothing_else_does() {
    let mut world = World::new(1);
    world.network().overlays = vec![VPN.overlay()];
    world.start_server();
    for who in 0..2 {
        world.add(who as u32);
        let host = world.members[who].host;
        world.network().hosts[host].cards = vec![VirtualCard::Vpn(0).card(who)];
        world.start(who);
    }
    let (_, link) = world.create(0, None);
    world.join(1, &link);
    world.until_mesh(Duration::from_secs(10));
    world.cut(0, 1);
    world.kill_relay();
    let on_vpn = |world: &World| world.path(0, 1) == Some(PathKind::Overlay);
    world.until("the last resort", Duration::from_secs(60), on_vpn);
    assert!(world.reaches(0, 1) && world.reaches(1, 0));
    world.network().restore_cuts();
    world.until("a direct path", Duration::from_secs(60), |world| world.path(0, 1) == Some(PathKind::Direct));
}

#[test]
fn members_outlive_the_prefix_of_their_home() {
    for works_ms in [0, 10_000] {
        let renumber = |at_ms| (at_ms, Happening::Renumber { home: 0, works_ms });
        let outcome = play_with(&[HOME_V6, HOME_V6, HOME], &[renumber(15_000), renumber(40_000)]);
        let bar = Duration::from_secs(if works_ms == 0 { 6 } else { 2 });
        assert!(outage(&outcome, Trouble::Renumbered) < bar, "{:?}", outcome.outages);
    }
}

#[test]
fn members_come_back_wherever_in_a_join_the_power_was_cut() {
    for (who, after_join) in [(0, 100), (1, 0), (1, 30), (1, 60), (1, 90), (1, 150), (1, 400), (1, 1_200)] {
        let cut = (1_000 + after_join, Happening::PowerCut { who, after_ms: 700 });
        play_with(&[HOME, HOME, HOME], &[cut]);
    }
    let outcome = play_with(&[HOME, HOME], &[(15_000, Happening::PowerCut { who: 1, after_ms: 2_000 })]);
    assert!(outage(&outcome, Trouble::PowerCut) < Duration::from_secs(3), "{:?}", outcome.outages);
}

#[test]
fn removed_member_stays_removed_though_the_power_is_cut() {
    for (who, later) in [(0, 0), (0, 50), (1, 0), (1, 20), (1, 40), (1, 60), (1, 80), (1, 200)] {
        let cut = (15_000 + later, Happening::PowerCut { who, after_ms: 1_500 });
        let outcome = play_with(&[HOME, HOME, HOME], &[(15_000, Happening::Kick { who: 2 }), cut]);
        assert_eq!(outcome.pairs.len(), 1, "two are left");
    }
}

#[test]
fn members_follow_the_servers_to_another_address() {
    let random = Gateway {
        mapping: Mapping::AddressAndPortDependent,
        allocation: Allocation::Random,
        ..HOME.nat.unwrap()
    };
    let homes = [0, 1, 2].map(|_| Home { nat: Some(random), ..HOME });
    for silent in [false, true] {
        let moved = |at_ms| (at_ms, Happening::ServerMoves { after_ms: 3_000, silent });
        let outcome = play_with(&homes, &[moved(15_000), moved(90_000)]);
        assert_eq!(outcome.pairs.len(), 3);
        // Who joins or comes back needs the server, too.
        let restart = (16_000, Happening::Restart { who: 1, after_ms: 5_000 });
        play_with(&homes, &[moved(15_000), restart]);
    }
}

#[test]
fn exactly_one_of_two_copies_goes_on_and_the_others_reach_it() {
    let homes = [HOME, HOME, HOME, HOME_V6];
    for to in [1, 3] {
        let copy = Happening::Copy { who: 1, to };
        // Both run; the first is off, or sleeps, when the copy starts.
        let restart = Happening::Restart { who: 1, after_ms: 12_000 };
        let sleep = Happening::Sleep { who: 1, for_ms: 12_000 };
        for before in [None, Some(restart), Some(sleep)] {
            let before = before.map(|what| (15_000, what));
            let events: Vec<_> = before.into_iter().chain([(16_000, copy)]).collect();
            let outcome = play_with(&homes, &events);
            assert_eq!((outcome.pairs.len(), outcome.copies.len()), (6, 1), "{events:?}");
            if before.is_none() {
                assert!(
                    outage(&outcome, Trouble::Copied) < Duration::from_millis(500),
                    "the first is not disturbed"
                );
            }
        }
    }
}

//! Members without a server, behind NATs that let in only what was asked for, who find each other in the DHT.

use partyline_tests_netsim::dht::DhtMix;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HEALTHY: DhtMix = DhtMix { nodes: 2_000, ..DhtMix::HEALTHY };

/// A world with a DHT, in which Ana has made a party.
fn world(count: usize, seed: u64, mix: DhtMix) -> (World, PartyId, String) {
    let mut world = World::new(count);
    world.dht = Some(DhtNetwork::new(seed, mix));
    let now = world.now.instant;
    for device in 0..count {
        world.signaling(device).configure_dht(now, true, &["router.example:6881".to_owned()]);
    }
    let (party, link) = world.create(&[]);
    (world, party, link)
}

/// Lets time pass until all know each other; returns how long that took.
fn until_known(world: &mut World, devices: &[usize], limit: Duration) -> Option<Duration> {
    let start = world.now.instant;
    let all = |world: &World| {
        let knows = |one: &usize| devices.iter().all(|other| one == other || world.knows(*one, *other));
        devices.iter().all(knows)
    };
    while !all(world) {
        if world.now.instant.duration_since(start) > limit {
            return None;
        }
        world.advance(Duration::from_millis(50));
    }
    Some(world.now.instant.duration_since(start))
}

fn dht_datagrams(world: &World, device: usize) -> usize {
    world.devices[device]
        .count(|event| matches!(event, Event::Datagram { bytes, .. } if bytes.starts_with(b"d")))
}

#[test]
fn two_homes_find_each_other_by_link_and_dht_alone() {
    let mut took: Vec<Duration> = Vec::new();
    for seed in 0..20 {
        let (mut world, party, link) = world(2, seed, HEALTHY);
        world.advance(MINUTE);
        world.join(BEN, &link);
        took.push(until_known(&mut world, &[ANA, BEN], MINUTE).expect("they find each other"));
        assert_eq!(world.devices[BEN].signaling.party(party).map(LocalParty::phase), Some(PartyPhase::Up));
    }
    took.sort_unstable();
    assert!(took[10] < Duration::from_secs(5) && took[19] < Duration::from_secs(10), "{took:?}");
}

#[test]
fn half_a_dead_dht_still_leads_to_the_friend() {
    let mix = DhtMix { dead: 0.5, without_items: 0.3, loss: 0.05, ..HEALTHY };
    for seed in 0..8 {
        let (mut world, _, link) = world(2, seed, mix);
        world.advance(MINUTE);
        world.join(BEN, &link);
        let took = until_known(&mut world, &[ANA, BEN], MINUTE);
        assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "seed {seed}: {took:?}");
    }
}

#[test]
fn eight_joiners_at_once_all_find_the_inviter() {
    let (mut world, _, link) = world(9, 1, HEALTHY);
    world.advance(MINUTE);
    (BEN..9).for_each(|device| world.join(device, &link));
    for device in BEN..9 {
        assert!(until_known(&mut world, &[ANA, device], MINUTE).is_some(), "joiner {device}");
    }
}

#[test]
fn a_newcomer_joins_through_another_member_when_the_inviter_is_gone() {
    let (mut world, party, link) = world(4, 1, HEALTHY);
    world.advance(MINUTE);
    world.join(BEN, &link);
    world.join(CARL, &link);
    until_known(&mut world, &[ANA, BEN], MINUTE).expect("Ben");
    until_known(&mut world, &[ANA, CARL], MINUTE).expect("Carl");
    for (one, other) in [(ANA, BEN), (ANA, CARL), (BEN, CARL)] {
        world.connect(party, one, other);
    }
    world.advance(MINUTE);
    // Ana's computer loses its connection.
    let (now, ana) = (world.now.instant, world.id(ANA));
    world.internet.cut.insert(ANA);
    for device in [BEN, CARL] {
        world.signaling(device).on_session_down(now, party, ana);
    }
    world.advance(MINUTE);
    world.join(3, &link);
    assert!(until_known(&mut world, &[BEN, 3], MINUTE).is_some());
}

#[test]
fn members_that_were_away_for_two_days_find_the_others_under_another_key() {
    let (mut world, party, link) = world(2, 1, HEALTHY);
    world.advance(MINUTE);
    world.join(BEN, &link);
    until_known(&mut world, &[ANA, BEN], MINUTE).expect("Ben");
    let now = world.now;
    world.signaling(BEN).set_on(now, party, false).expect("a party");
    world.now = after(world.now, 48 * 60 * MINUTE);
    world.advance(MINUTE);
    let (now, received) = (world.now, world.devices[ANA].signaling.counters().direct.received);
    world.signaling(BEN).set_on(now, party, true).expect("a party");
    world.advance(Duration::from_secs(20));
    assert!(world.devices[ANA].signaling.counters().direct.received > received);
}

#[test]
fn two_members_of_a_connected_group_keep_the_lists_and_rest() {
    let (mut world, party, link) = world(4, 1, HEALTHY);
    world.advance(MINUTE);
    (BEN..4).for_each(|device| world.join(device, &link));
    for device in BEN..4 {
        until_known(&mut world, &[ANA, device], MINUTE).expect("a joiner");
    }
    for one in ANA..4 {
        (one + 1..4).for_each(|other| world.connect(party, one, other));
    }
    world.advance(90 * MINUTE);
    let before: Vec<usize> = (ANA..4).map(|device| dht_datagrams(&world, device)).collect();
    world.advance(60 * MINUTE);
    let sent: Vec<usize> = (ANA..4).map(|device| dht_datagrams(&world, device) - before[device]).collect();
    assert_eq!(sent.iter().filter(|count| **count == 0).count(), 2, "{sent:?}");
    assert!(sent.iter().all(|count| *count <= 12 * 60), "at most 12 a minute: {sent:?}");
}

#[test]
fn nothing_is_sent_while_the_dht_is_off_or_the_party_has_a_server() {
    let (mut world, _, _) = world(1, 1, HEALTHY);
    let now = world.now.instant;
    world.signaling(ANA).configure_dht(now, false, &[]);
    world.advance(10 * MINUTE);
    assert_eq!(dht_datagrams(&world, ANA), 0);
    let mut world = World::new(1);
    world.dht = Some(DhtNetwork::new(1, HEALTHY));
    let now = world.now.instant;
    world.signaling(ANA).configure_dht(now, true, &["router.example:6881".to_owned()]);
    world.create(&[URL]);
    world.advance(10 * MINUTE);
    assert_eq!(dht_datagrams(&world, ANA), 0);
}

#[test]
fn a_network_that_blocks_the_dht_is_named_and_so_is_its_end() {
    let (mut world, party, _) = world(1, 1, HEALTHY);
    world.internet.cut.insert(ANA);
    world.advance(Duration::from_secs(20));
    assert_eq!(world.devices[ANA].signaling.discovery(party), Some(Discovery::Blocked));
    world.internet.cut.clear();
    world.advance(MINUTE);
    assert_eq!(world.devices[ANA].signaling.discovery(party), Some(Discovery::Listed));
}

#[test]
fn the_lobby_s_list_is_kept_no_longer_than_somebody_is_invited() {
    let (mut world, party, link) = world(2, 1, HEALTHY);
    world.join(BEN, &link);
    until_known(&mut world, &[ANA, BEN], MINUTE).expect("Ben");
    world.connect(party, ANA, BEN);
    let awaited = |world: &World, device: usize| {
        let party = world.devices[device].signaling.party(party).expect("a party");
        party.membership.awaited_lobby(world.now.unix).is_some()
    };
    assert!(awaited(&world, ANA) && awaited(&world, BEN), "Ana has announced the invite to Ben");
    world.now = after(world.now, 25 * 60 * MINUTE);
    world.advance(MINUTE);
    assert!(!awaited(&world, ANA) && !awaited(&world, BEN));
}

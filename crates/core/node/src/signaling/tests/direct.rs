//! Members that find each other by datagrams to the addresses that they know of each other.

use super::*;

/// A party without a server, whose owner knows its public address, and a link to it.
fn party(count: usize, open: &[usize]) -> (World, PartyId, String) {
    let mut world = World::new(count);
    world.internet.open = open.iter().copied().collect();
    let now = world.now.instant;
    for device in 0..count {
        let address = public_address(device);
        let candidate = Candidate { kind: CandidateKind::ServerReflexive, address };
        world.signaling(device).set_candidates(now, vec![candidate]);
    }
    let (party, link) = world.create(&[]);
    (world, party, link)
}

fn direct(world: &World, device: usize) -> &ChannelCounters {
    &world.devices[device].signaling.counters().direct
}

#[test]
fn a_link_leads_to_an_inviter_that_lets_everything_in() {
    let (mut world, party, link) = party(2, &[ANA]);
    world.join(BEN, &link);
    world.advance(SECOND);
    assert!(world.knows(ANA, BEN) && world.knows(BEN, ANA));
    let ben = world.devices[BEN].signaling.party(party).expect("a party");
    assert_eq!(ben.phase(), PartyPhase::Up, "it was let in");
    // The join request and what answers it, announcements of both, and what answers those.
    let sent = [ANA, BEN].map(|device| direct(&world, device).sent);
    assert!(sent.iter().all(|sent| *sent <= 6), "{sent:?}");
}

#[test]
fn an_inviter_that_lets_nothing_in_is_not_reached_by_its_address_alone() {
    let (mut world, _, link) = party(2, &[]);
    world.join(BEN, &link);
    world.advance(60 * SECOND);
    assert!(!world.knows(ANA, BEN));
    let asked = world.devices[BEN].count(|event| matches!(event, Event::Datagram { .. }));
    assert!(
        (32..=70).contains(&asked),
        "{asked} requests: for 20 s, again after as long, and then more rarely"
    );
}

#[test]
fn any_one_datagram_may_be_lost() {
    for lost in 1..=16 {
        let (mut world, _, link) = party(2, &[ANA]);
        world.internet.lost.insert(lost);
        world.join(BEN, &link);
        world.advance(3 * SECOND);
        assert!(world.knows(ANA, BEN) && world.knows(BEN, ANA), "without datagram {lost}");
    }
}

#[test]
fn first_message_may_overtake_the_answer_that_lets_it_be_answered() {
    // Nothing is sent that could overtake the first four, which are requests and answers to them.
    let mut overtaken = 0;
    for late in 5..=16 {
        let (mut world, _, link) = party(2, &[ANA]);
        world.internet.late.insert(late);
        world.join(BEN, &link);
        world.advance(Duration::from_millis(200));
        // Where nothing followed it, it is still on its way.
        if world.internet.held.is_empty() {
            overtaken += 1;
            assert!(world.knows(ANA, BEN) && world.knows(BEN, ANA), "when datagram {late} is overtaken");
        }
    }
    assert!(overtaken >= 4);
}

#[test]
fn members_that_know_each_other_meet_again_after_a_restart_since_both_ask() {
    let (mut world, party, link) = party(2, &[ANA]);
    world.join(BEN, &link);
    world.advance(SECOND);
    world.internet.open.clear();
    world.internet.sent.clear();
    let (now, ana, ben) = (world.now, world.id(ANA), world.id(BEN));
    for device in [ANA, BEN] {
        world.signaling(device).network_changed(now.instant);
    }
    world.connect(party, ANA, BEN);
    world.signaling(ANA).on_session_down(now.instant, party, ben);
    world.signaling(BEN).on_session_down(now.instant, party, ana);
    let before = direct(&world, BEN).received;
    world.advance(SECOND);
    assert!(direct(&world, BEN).received > before);
}

#[test]
fn strangers_get_no_answer_and_members_of_the_past_get_nothing_that_is_said_now() {
    let (mut world, party, link) = party(3, &[ANA]);
    world.join(BEN, &link);
    world.join(CARL, &link);
    world.advance(SECOND);
    assert!(world.knows(ANA, BEN) && world.knows(ANA, CARL));
    let (now, carl) = (world.now, world.id(CARL));
    world.signaling(ANA).remove_member(now, party, carl, KickScope::default()).expect("a member");
    world.advance(SECOND);
    assert_eq!(world.problem(CARL, party), Some(ErrorCode::Removed));
    let sent = |world: &World| {
        let to_carl =
            |event: &Event| matches!(event, Event::Datagram { to, .. } if *to == public_address(CARL));
        world.devices[ANA].count(to_carl)
    };
    let before = sent(&world);
    let candidate = Candidate { kind: CandidateKind::ServerReflexive, address: ([5, 5, 5, 99], 7).into() };
    let now = world.now.instant;
    world.signaling(ANA).set_candidates(now, vec![candidate]);
    world.advance(SECOND);
    assert_eq!(sent(&world), before, "the new address is told to members only");
    let stranger = partyline_wire::direct::request(&[9; 32], partyline_wire::direct::Nonce([1; 8]));
    let before = world.devices[ANA].count(|event| matches!(event, Event::Datagram { .. }));
    let now = world.now;
    world.signaling(ANA).handle_direct(now, public_address(CARL), &stranger);
    world.run();
    assert_eq!(world.devices[ANA].count(|event| matches!(event, Event::Datagram { .. })), before);
}

#[test]
fn a_flood_of_requests_is_answered_at_a_bounded_rate_and_fills_no_memory() {
    let (mut world, _, link) = party(2, &[ANA]);
    let invite = Invite::find(&link).expect("an invite");
    world.join(BEN, &link);
    let membership = &world.devices[BEN].signaling.party(invite.party).expect("a party").membership;
    let (_, key) = membership.direct_keys().next().expect("the lobby's");
    let key = *key;
    let now = world.now;
    for number in 0..5000_u32 {
        let source = SocketAddr::from(([6, 6, (number >> 8) as u8, number as u8], 7));
        let nonce = partyline_wire::direct::Nonce(u64::from(number).to_be_bytes());
        world.signaling(ANA).handle_direct(now, source, &partyline_wire::direct::request(&key, nonce));
    }
    let mut answers = 0;
    while let Some(event) = world.signaling(ANA).poll_event() {
        answers += usize::from(matches!(event, Event::Datagram { .. }));
    }
    assert_eq!(answers, 128, "the burst");
}

#[test]
fn a_link_makes_nobody_send_into_private_networks() {
    let (mut world, _, link) = party(2, &[ANA]);
    let mut invite = Invite::find(&link).expect("an invite");
    let inside = ["192.168.1.1:53", "127.0.0.1:80", "[fd00::1]:1", "[::ffff:10.0.0.1]:9", "5.5.5.1:0"];
    invite.addresses = inside[1..].iter().map(|text| text.parse().expect("an address")).collect();
    invite.addresses[0] = inside[0].parse().expect("an address");
    world.join(BEN, &invite.app_link());
    world.advance(10 * SECOND);
    assert_eq!(world.devices[BEN].count(|event| matches!(event, Event::Datagram { .. })), 0);
}

#[test]
fn an_answer_without_the_topic_s_key_makes_no_link() {
    use partyline_wire::direct::{Direct, response};
    let (mut world, party, link) = party(2, &[]);
    world.join(BEN, &link);
    world.advance(Duration::from_millis(100));
    let sent = world.devices[BEN].events.iter().find_map(|event| match event {
        Event::Datagram { bytes, .. } => match Direct::decode(bytes) {
            Some(Direct::Request(request)) => Some(request.nonce),
            _ => None,
        },
        _ => None,
    });
    // On the path, the nonce can be read, but not what proves the key.
    let forged = response(&[9; 32], sent.expect("a request"));
    let now = world.now;
    world.signaling(BEN).handle_direct(now, public_address(ANA), &forged);
    world.advance(SECOND);
    assert_eq!(direct(&world, BEN).sent, 0, "no join request to somebody who proves nothing");
    let ben = &world.devices[BEN].signaling;
    assert!(ben.party(party).is_some_and(|party| party.membership.is_waiting()));
}

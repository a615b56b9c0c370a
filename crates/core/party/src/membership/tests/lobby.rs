//! What the holder of a link can do, and what it cannot.

use partyline_wire::sealed::{Body, CharterUpdate};

use super::*;
use crate::{inbound::open_message, lobby::Lobby};

/// What everybody who ever saw the link can derive from it.
fn lobby_of(invite: &Invite) -> Lobby {
    Lobby::new(&invite.party, invite.lobby)
}

/// A join request of a new joiner, and the joiner.
fn join_request(world: &mut World, invite: &Invite) -> (usize, Topic, Vec<u8>) {
    let joiner = world.join(invite);
    let (topic, sealed) = world.announcement(joiner);
    (joiner, topic, sealed)
}

#[test]
fn link_opens_nothing_that_members_say() {
    let mut world = World::of(3);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let lobby = lobby_of(&invite);
    let stranger = DeviceKey::generate(&mut world.rng).id();
    let (topic, sealed) = world.announcement(1);
    assert_ne!(*lobby.keys().topic(), topic);
    assert_eq!(open_message(lobby.keys(), &stranger, &sealed).unwrap_err(), Refusal::Unreadable);
    let joiner = world.join(&invite);
    assert!(world.friends[joiner].is_waiting());
    assert_eq!(world.friends[joiner].topics().len(), 1);
    assert_eq!(world.deliver_to(joiner, topic, &sealed), Err(Refusal::UnknownTopic));
}

#[test]
fn link_holder_learns_neither_names_nor_addresses_of_those_who_join() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let listener = world.join(&invite);
    let (joiner, topic, sealed) = join_request(&mut world, &invite);
    let message = open_message(lobby_of(&invite).keys(), &world.id(listener), &sealed).unwrap();
    let Body::JoinRequest(_) = &message.value().body else { panic!("{message:?}") };
    assert_eq!(world.deliver_to(listener, topic, &sealed), Err(Refusal::WrongTopic));
    // The answer is for the joiner alone.
    world.deliver_to(0, topic, &sealed).unwrap();
    let answer = world.in_flight.pop().unwrap();
    assert_eq!((answer.to, answer.topic), (joiner, topic));
    assert_eq!(world.deliver_to(listener, topic, &answer.sealed), Err(Refusal::NotForMe));
    world.deliver_to(joiner, topic, &answer.sealed).unwrap();
    assert!(!world.friends[joiner].is_waiting() && world.friends[listener].is_waiting());
}

#[test]
fn ended_link_gets_neither_the_secret_nor_a_place_in_the_roster() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let (joiner, topic, sealed) = join_request(&mut world, &invite);
    world.advance(HOUR + CLOCK_TOLERANCE * 2);
    let before = world.friends[0].state().roster;
    let World { friends, rng, now, .. } = &mut world;
    let received = friends[0].receive(*now, rng, &topic, &sealed).unwrap();
    assert_eq!(received.outcome, Outcome::default());
    assert_eq!(before.known_devices().count(), friends[0].state().roster.known_devices().count());
    assert!(world.friends[joiner].is_waiting());
}

#[test]
fn revoked_link_gets_the_reason_and_no_place_in_the_roster() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let id = world.friends[0].invites(world.now).last().unwrap().id;
    let outcome = world.friends[0].revoke_invite(world.now, &mut world.rng, id).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    let known = world.friends[1].state().roster.known_devices().count();
    let (joiner, topic, sealed) = join_request(&mut world, &invite);
    world.deliver_to(1, topic, &sealed).unwrap();
    world.run_until_quiet();
    assert_eq!(world.dismissed(joiner), Some(Dismissal::InviteRevoked));
    assert!(world.friends[joiner].is_waiting());
    assert_eq!(world.friends[1].state().roster.known_devices().count(), known);
}

#[test]
fn link_holder_writes_no_charters_and_no_announcements() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let stranger = world.join(&invite);
    let charter = world.friends[0].charter.in_force().unwrap().clone();
    let announcement = world.friends[stranger].announcement_with(None);
    let topic = world.friends[stranger].topic();
    for body in [
        Body::Charter(Box::new(CharterUpdate { charter, confirmation: None })),
        Body::Announce(Box::new(announcement)),
        Body::Signal(vec![1]),
    ] {
        let mut outcome = Outcome::default();
        world.friends[stranger].send(world.now, &mut world.rng, &topic, None, body, &mut outcome);
        assert_eq!(world.deliver_to(0, topic, &only(outcome).message), Err(Refusal::WrongTopic));
    }
}

#[test]
fn joiner_takes_no_charter_from_before_its_invite() {
    let mut world = World::of(3);
    // A member keeps the charter under which it still belongs, and is removed.
    let kept = world.friends[2].charter.in_force().unwrap().clone();
    let secret = world.friends[2].secrets.current().unwrap().secret().clone();
    let removed = world.id(2);
    let outcome =
        world.friends[0].remove_member(world.now, &mut world.rng, removed, KickScope::default()).unwrap();
    world.apply(0, outcome);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let joiner = world.join(&invite);
    let (party, to, tunnel) =
        (world.friends[0].id(), world.id(joiner), world.friends[joiner].tunnel_public());
    let update = CharterUpdate { charter: kept, confirmation: None };
    let body = crate::rekey::seal_rekey((&party, &removed), &mut world.rng, (&to, &tunnel), &secret, update)
        .unwrap();
    let keys = lobby_of(&invite).keys().clone();
    let sealed = world.friends[2].outbound.seal(world.now, &mut world.rng, &keys, Some(to), body).unwrap();
    assert_eq!(world.deliver_to(joiner, *keys.topic(), &sealed), Err(Refusal::OldCharter));
    assert!(world.friends[joiner].is_waiting());
}

#[test]
fn waiting_joiner_goes_on_waiting_after_a_restart() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let joiner = world.join(&invite);
    let (device, state) = (world.friends[joiner].outbound.device().clone(), world.friends[joiner].state());
    world.friends[joiner] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    assert!(world.friends[joiner].is_waiting());
    world.announce_all();
    assert!(world.knows(0, joiner) && world.knows(joiner, 1));
}

//! Invites for a number of devices, and joiners that the owner approves.

use std::num::NonZeroU8;

use partyline_model::JoinWait;

use super::*;

fn invite_for(world: &mut World, by: usize, uses: u8) -> Invite {
    world.invite_with(by, InviteTerms { uses: NonZeroU8::new(uses), ..InviteTerms::FRIENDS })
}

/// A party of three in which the owner approves every joiner.
fn party_with_approval() -> World {
    let mut world = World::of(3);
    let outcome = world.friends[0].set_approval(world.now, &mut world.rng, true).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world
}

fn approve(world: &mut World, joiner: usize) {
    let device = world.id(joiner);
    let outcome = world.friends[0].approve(world.now, &mut world.rng, device).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
}

fn declined(world: &World) -> Vec<bool> {
    world.friends[0].join_requests().map(|pending| pending.declined).collect()
}

#[test]
fn link_lets_as_many_devices_in_as_it_says() {
    let mut world = World::of(2);
    let invite = invite_for(&mut world, 0, 2);
    let joiners = [0; 3].map(|_| {
        let joiner = world.join(&invite);
        world.announce_all();
        joiner
    });
    assert!(world.knows(0, joiners[0]) && world.knows(1, joiners[1]));
    assert!(!world.knows(0, joiners[2]) && !world.knows(1, joiners[2]));
    assert_eq!(world.friends[joiners[2]].waits_for(), Some(JoinWait::OtherInvite));
    assert!(world.effects[joiners[2]].contains(&Effect::JoinRequestsChanged));
    assert!(world.friends[0].invites(world.now).all(|open| open.uses.is_none()), "it is used up");
}

#[test]
fn used_up_link_lets_nobody_in_while_the_owner_is_away() {
    let mut world = World::of(3);
    let invite = invite_for(&mut world, 0, 1);
    world.awake[0] = false;
    let [first, second] = [0; 2].map(|_| {
        let joiner = world.join(&invite);
        world.announce_all();
        joiner
    });
    assert!(world.knows(1, first) && world.knows(2, first));
    assert!(!world.knows(1, second) && world.friends[second].is_waiting());
}

#[test]
fn device_that_comes_back_does_not_use_its_link_a_second_time() {
    let mut world = World::of(2);
    let invite = invite_for(&mut world, 0, 1);
    let joiner = world.join(&invite);
    world.announce_all();
    let device = world.friends[joiner].outbound.device().clone();
    let outcome = world.friends[joiner].leave(world.now, &mut world.rng);
    world.apply(joiner, outcome);
    world.run_until_quiet();
    assert!(!world.knows(0, joiner));
    world.awake[joiner] = false;
    world.now = world.now.plus(HOUR);
    let back = world.join_as(&device, &invite);
    world.announce_all();
    assert!(world.knows(0, back) && world.knows(back, 1));
}

#[test]
fn device_too_many_that_two_members_let_in_at_once_loses_the_secret() {
    let mut world = World::of(3);
    let invite = invite_for(&mut world, 0, 1);
    // The two members do not hear of each other's joiner, and the owner of neither.
    world.awake = vec![false, true, false];
    let first = world.join(&invite);
    world.announce_all();
    (world.awake[first], world.awake[1], world.awake[2]) = (false, false, true);
    let second = world.join(&invite);
    world.announce_all();
    assert!(world.knows(1, first) && world.knows(2, second));
    assert!(!world.friends[first].is_waiting() && !world.friends[second].is_waiting());

    world.awake.fill(true);
    world.announce_all();
    world.announce_all();
    let stays: Vec<usize> = [first, second].into_iter().filter(|joiner| world.knows(0, *joiner)).collect();
    let [stays] = stays[..] else { panic!("{stays:?} of {first} and {second}") };
    let gone = first + second - stays;
    assert!((1..3).all(|member| world.knows(member, stays) && !world.knows(member, gone)));
    assert_eq!(world.friends[stays].topic(), world.friends[0].topic());
    assert_ne!(world.friends[gone].topic(), world.friends[0].topic());
    assert_eq!(world.dismissed(gone), Some(Dismissal::InviteRevoked));
}

#[test]
fn joiner_waits_for_the_owner_where_approval_is_needed() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let joiner = world.join(&invite);
    world.announce_all();
    assert!((0..3).all(|member| !world.knows(member, joiner)));
    assert_eq!(world.friends[joiner].waits_for(), Some(JoinWait::Approval));
    let pending: Vec<_> = world.friends[0].join_requests().collect();
    assert_eq!((pending[0].device, pending[0].name), (world.id(joiner), "Friend 3"));

    approve(&mut world, joiner);
    assert_eq!(world.friends[joiner].standing(), Standing::Confirmed);
    assert_eq!((world.friends[joiner].waits_for(), world.friends[0].join_requests().count()), (None, 0));
    world.announce_all();
    assert!((0..3).all(|member| world.knows(member, joiner) && world.knows(joiner, member)));
}

#[test]
fn member_lets_nobody_in_whom_the_owner_has_not_approved() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    world.awake[0] = false;
    let joiner = world.join(&invite);
    world.announce_all();
    assert!(!world.knows(1, joiner) && world.friends[joiner].is_waiting());
    assert_eq!(world.friends[joiner].waits_for(), Some(JoinWait::Approval));
}

#[test]
fn approved_joiner_that_was_offline_is_let_in_when_it_asks_again() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let joiner = world.join(&invite);
    world.announce_all();
    world.awake[joiner] = false;
    approve(&mut world, joiner);
    // The members learn of the confirmation from the joiner alone, so that the owner has to be there.
    world.awake[joiner] = true;
    world.announce_all();
    assert!(world.knows(0, joiner) && world.knows(joiner, 1));
}

#[test]
fn declined_joiner_stays_out_until_the_owner_thinks_better_of_it() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let joiner = world.join(&invite);
    world.announce_all();
    let device = world.id(joiner);
    let outcome = world.friends[0].decline(world.now, &mut world.rng, device).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world.announce_all();
    assert_eq!(world.friends[joiner].waits_for(), Some(JoinWait::Reconsideration));
    assert_eq!(declined(&world), [true]);
    approve(&mut world, joiner);
    world.announce_all();
    assert!(world.knows(0, joiner) && world.knows(joiner, 2));
}

#[test]
fn only_the_owner_decides_who_joins() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let joiner = world.join(&invite);
    world.announce_all();
    let (device, World { friends, now, rng, .. }) = (world.id(joiner), &mut world);
    assert_eq!(friends[1].set_approval(*now, rng, false), Err(PartyError::NotOwner));
    assert_eq!(friends[1].approve(*now, rng, device), Err(PartyError::NotOwner));
    assert_eq!(friends[1].decline(*now, rng, device), Err(PartyError::NotOwner));
    assert_eq!(friends[0].approve(*now, rng, DeviceId([9; 32])), Err(PartyError::UnknownJoiner));
}

#[test]
fn who_waits_is_let_in_once_no_approval_is_needed_and_forgotten_once_it_leaves() {
    let mut world = party_with_approval();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let [waiting, leaving] = [0; 2].map(|_| world.join(&invite));
    world.announce_all();
    assert_eq!(declined(&world), [false, false]);
    let outcome = world.friends[leaving].leave(world.now, &mut world.rng);
    world.apply(leaving, outcome);
    world.run_until_quiet();
    assert_eq!(declined(&world), [false]);
    world.awake[leaving] = false;
    let outcome = world.friends[0].set_approval(world.now, &mut world.rng, false).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world.announce_all();
    assert!(world.knows(1, waiting) && declined(&world).is_empty());
}

#[test]
fn members_stay_when_approval_becomes_needed() {
    let world = party_with_approval();
    assert!((0..3).all(|one| (0..3).all(|other| one == other || world.knows(one, other))));
    assert!(world.friends[2].is_approval_needed());
}

use partyline_wire::sealed::Body;

use super::*;

/// Three members; the third is removed by the owner.
fn party_that_removed_one() -> (World, Invite) {
    let mut world = World::new(10);
    let invite = world.invite(0, InviteLifetime::Never, Role::Member);
    world.join(&invite);
    world.join(&invite);
    world.announce_all();
    assert!(world.knows(0, 2) && world.knows(1, 2));
    remove(&mut world, 0, 2);
    (world, invite)
}

fn remove(world: &mut World, by: usize, whom: usize) {
    let id = world.id(whom);
    let outcome =
        world.friends[by].remove_member(world.now, &mut world.rng, id, KickScope::default()).unwrap();
    world.apply(by, outcome);
    world.run_until_quiet();
}

/// The number of topics on which a friend meets members.
fn met(world: &World, index: usize) -> usize {
    let topics = world.friends[index].topics();
    topics.iter().filter(|access| access.purpose != TopicPurpose::Lobby).count()
}

#[test]
fn removal_reaches_all_members_and_replaces_the_secret() {
    let (world, _) = party_that_removed_one();
    let gone = Effect::MemberGone(world.id(2), Departure::Dismissed(Dismissal::Removed));
    assert!(world.effects[0].contains(&gone) && world.effects[1].contains(&gone));
    assert!(world.effects[1].contains(&Effect::Rekeyed));
    assert_eq!(world.friends[0].topics()[0].topic, world.friends[1].topics()[0].topic);
    assert_eq!(world.dismissed(2), Some(Dismissal::Removed));
    assert!(
        !world.friends[2].secrets.epochs().any(|epoch| *epoch.topic() == world.friends[0].topics()[0].topic)
    );
}

#[test]
fn removed_device_cannot_rejoin_by_a_new_invite() {
    let (mut world, _) = party_that_removed_one();
    let device = world.friends[2].outbound.device().clone();
    world.advance(HOUR);
    let fresh = world.invite(0, InviteLifetime::Day, Role::Member);
    let index = world.friends.len();
    world.friends.remove(2);
    world.effects.remove(2);
    world.awake.remove(2);
    let back = world.join_as(&device, &fresh);
    assert_eq!(back, index - 1);
    world.announce_all();
    assert!(!world.knows(0, back) && !world.knows(1, back));
    assert_eq!(world.dismissed(back), Some(Dismissal::Removed));
}

#[test]
fn removed_member_cannot_rejoin_with_second_device_and_old_invite() {
    let (mut world, invite) = party_that_removed_one();
    let back = world.join(&invite);
    world.announce_all();
    assert!(!world.knows(0, back) && !world.knows(1, back));
    assert_eq!(world.dismissed(back), Some(Dismissal::InviteRevoked));
    // Those the same invite made before are confirmed, and stay.
    assert!(world.knows(0, 1) && world.knows(1, 0));
}

#[test]
fn old_topic_shows_certificates_but_no_presence() {
    let (mut world, _) = party_that_removed_one();
    let old = world.friends[1].topics()[1];
    assert_eq!(old.purpose, TopicPurpose::Former);
    // A removed member that goes on listening.
    world.friends[2].standing = Standing::Confirmed;
    let sealed = world.announcement_on(1, world.now, &old.topic, 2);
    let plaintext =
        crate::seal::open(world.friends[2].secrets.current_topic().keys().seal_key(), &old.topic.0, &sealed)
            .unwrap();
    let (message, _) = partyline_wire::sealed::decode_plaintext(&plaintext).unwrap();
    let Body::Announce(announcement) = &message.value().body else { panic!("{message:?}") };
    assert_eq!(announcement.presence, None);
    let new = world.announcement(1);
    assert_eq!(world.deliver_to(2, new.0, &new.1), Err(Refusal::UnknownTopic));

    // What it sends there changes nothing.
    world.advance(HOUR);
    let signal = world.signal(2, 1, vec![1]);
    assert_eq!(
        world.deliver_to(1, signal.topic, &signal.message),
        Err(Refusal::NotAMember(Dismissal::Removed))
    );
    let sealed = world.announcement_on(2, world.now, &old.topic, 1);
    world.deliver_to(1, old.topic, &sealed).unwrap();
    assert!(!world.knows(1, 2));
}

#[test]
fn member_that_was_offline_is_rekeyed_on_the_old_topic() {
    let mut world = World::of(4);
    world.awake[3] = false;
    remove(&mut world, 0, 2);
    world.advance(DAY * 20);
    world.awake[0] = false;
    world.awake[3] = true;
    world.announce(3);
    world.run_until_quiet();
    assert!(world.effects[3].contains(&Effect::Rekeyed), "reported by another member, the owner being away");
    assert_eq!(world.friends[3].topics()[0].topic, world.friends[1].topics()[0].topic);
    assert!(!world.knows(3, 2) && world.knows(1, 3));
}

#[test]
fn member_that_was_offline_catches_up_over_several_rekeys() {
    let mut world = World::of(8);
    world.awake[7] = false;
    (2..6).for_each(|whom| remove(&mut world, 0, whom));
    world.awake[7] = true;
    world.announce_all();
    assert_eq!(world.friends[7].topics()[0].topic, world.friends[0].topics()[0].topic);
    let roster: Vec<_> = world.friends[7].members().map(|member| member.device).collect();
    let mut expected = vec![world.id(0), world.id(1), world.id(6)];
    expected.sort();
    assert_eq!(roster, expected);
}

#[test]
fn removed_member_that_was_offline_is_informed() {
    let mut world = World::of(3);
    world.awake[2] = false;
    remove(&mut world, 0, 2);
    world.awake[2] = true;
    world.announce(2);
    world.run_until_quiet();
    assert_eq!(world.dismissed(2), Some(Dismissal::Removed));
    assert!(world.effects[2].contains(&Effect::Dismissed(Dismissal::Removed)));
}

#[test]
fn old_topics_are_dropped_after_a_month() {
    let (mut world, _) = party_that_removed_one();
    assert_eq!(met(&world, 1), 2);
    world.now = world.friends[1].next_deadline().unwrap();
    world.advance(Duration::ZERO);
    assert_eq!((met(&world, 1), world.friends[1].topics().len()), (1, 2), "and their lobbies with them");
}

#[test]
fn owner_cannot_be_removed_and_no_device_removes_itself() {
    let mut world = World::of(2);
    let (owner, member) = (world.id(0), world.id(1));
    let World { friends, rng, now, .. } = &mut world;
    assert_eq!(friends[0].remove_member(*now, rng, owner, KickScope::default()), Err(PartyError::Protected));
    assert_eq!(friends[1].remove_member(*now, rng, owner, KickScope::default()), Err(PartyError::NotCoOwner));
    assert_eq!(friends[1].remove_member(*now, rng, member, KickScope::default()), Err(PartyError::Protected));
    assert_eq!(
        friends[0].remove_member(*now, rng, DeviceId([9; 32]), KickScope::default()),
        Err(PartyError::UnknownMember)
    );
}

#[test]
fn endless_invite_into_an_old_secret_does_not_wake_the_device_again_and_again() {
    let mut world = World::of(2);
    world.invite(0, InviteLifetime::Never, Role::Member);
    let other = world.invite(0, InviteLifetime::Never, Role::Member);
    let revoked = world.friends[0].invites(world.now).last().unwrap().id;
    drop(other);
    let outcome = world.friends[0].revoke_invite(world.now, &mut world.rng, revoked).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world.advance(DAY * 40);
    assert_eq!(world.friends[0].topics().len(), 4, "the open invite leads to its lobby");
    assert_eq!(world.friends[0].next_deadline(), None);
}

/// Somebody joins with two devices by one link, and a friend by another one.
fn party_with_a_second_device() -> (World, Invite, Invite) {
    let mut world = World::new(12);
    let [first, other] = [0, 1].map(|_| world.invite(0, InviteLifetime::Never, Role::Member));
    world.join(&first);
    world.join(&first);
    world.join(&other);
    world.announce_all();
    assert!((1..4).all(|index| world.knows(0, index)));
    (world, first, other)
}

fn kick(world: &mut World, by: usize, whom: usize, scope: KickScope) -> Result<(), PartyError> {
    let id = world.id(whom);
    let outcome = world.friends[by].remove_member(world.now, &mut world.rng, id, scope)?;
    world.apply(by, outcome);
    world.run_until_quiet();
    Ok(())
}

#[test]
fn kick_takes_the_second_device_of_the_same_link_along_if_asked_to() {
    let (mut world, ..) = party_with_a_second_device();
    kick(&mut world, 0, 1, KickScope::default()).unwrap();
    assert!(!world.knows(3, 1) && world.knows(3, 2));
    let (mut world, ..) = party_with_a_second_device();
    kick(&mut world, 0, 1, KickScope { same_link: true, all_links: false }).unwrap();
    assert!(!world.knows(3, 1) && !world.knows(3, 2) && world.knows(0, 3));
    assert_eq!(world.dismissed(2), Some(Dismissal::Removed));
    assert_ne!(world.friends[2].topic(), world.friends[0].topic(), "it has not got the new secret");
}

#[test]
fn kick_ends_all_links_if_asked_to() {
    for all_links in [false, true] {
        let (mut world, _, other) = party_with_a_second_device();
        kick(&mut world, 0, 1, KickScope { same_link: false, all_links }).unwrap();
        assert_eq!(world.friends[0].invites(world.now).count() == 0, all_links);
        let late = world.join(&other);
        world.announce_all();
        assert_eq!(world.knows(0, late), !all_links);
        assert_eq!(world.knows(3, late), !all_links);
        assert_eq!(world.friends[late].is_waiting(), all_links);
        // A link that is made now works, and members that were there stay.
        let fresh = world.invite(0, InviteLifetime::Hour, Role::Member);
        let new = world.join(&fresh);
        world.announce_all();
        assert!(world.knows(3, new) && world.knows(new, 2));
    }
}

#[test]
fn links_stay_ended_after_a_restart() {
    let (mut world, _, other) = party_with_a_second_device();
    kick(&mut world, 0, 1, KickScope { same_link: false, all_links: true }).unwrap();
    for index in [0, 3] {
        let (device, state) = (world.friends[index].outbound.device().clone(), world.friends[index].state());
        world.friends[index] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    }
    let late = world.join(&other);
    world.announce_all();
    assert!(world.friends[late].is_waiting());
}

#[test]
fn only_the_owner_ends_all_links() {
    let (mut world, ..) = party_with_a_second_device();
    let id = world.id(3);
    let outcome = world.friends[0].set_co_owner(world.now, &mut world.rng, id, true).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    let scope = KickScope { same_link: true, all_links: true };
    assert_eq!(kick(&mut world, 3, 1, scope), Err(PartyError::NotOwner));
    assert_eq!(kick(&mut world, 3, 1, KickScope { all_links: false, ..scope }), Ok(()));
    assert!(!world.knows(0, 1) && !world.knows(0, 2));
}

#[test]
fn links_made_after_all_links_were_ended_outlive_the_secret_of_that_time() {
    let (mut world, ..) = party_with_a_second_device();
    kick(&mut world, 0, 1, KickScope { same_link: true, all_links: true }).unwrap();
    let replace_secret = |world: &mut World| {
        world.invite(0, InviteLifetime::Hour, Role::Member);
        let id = world.friends[0].invites(world.now).last().unwrap().id;
        let outcome = world.friends[0].revoke_invite(world.now, &mut world.rng, id).unwrap();
        world.apply(0, outcome);
        world.run_until_quiet();
        world.advance(DAY * 10);
    };
    replace_secret(&mut world);
    let later = world.invite(0, InviteLifetime::Never, Role::Member);
    (0..12).for_each(|_| replace_secret(&mut world));
    assert_eq!(world.friends[0].invites(world.now).count(), 1);
    let late = world.join(&later);
    world.announce_all();
    assert!(world.knows(3, late) && !world.friends[late].is_waiting());
}

#[test]
fn own_links_end_on_every_device_when_the_owner_ends_all() {
    let (mut world, ..) = party_with_a_second_device();
    let id = world.id(3);
    let outcome = world.friends[0].set_co_owner(world.now, &mut world.rng, id, true).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world.invite(3, InviteLifetime::Day, Role::Member);
    kick(&mut world, 0, 1, KickScope { same_link: false, all_links: true }).unwrap();
    assert_eq!(world.friends[3].invites(world.now).count(), 0);
}

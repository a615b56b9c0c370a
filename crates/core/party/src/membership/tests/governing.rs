use super::*;

/// Owner, co-owner, two members.
fn party_with_a_co_owner() -> World {
    let mut world = World::of(4);
    appoint(&mut world, 1, true);
    assert_eq!(world.friends[1].role(), Role::CoOwner);
    assert_eq!(world.friends[2].member(&world.id(1)).unwrap().role, Role::CoOwner);
    world
}

fn appoint(world: &mut World, whom: usize, co_owner: bool) {
    let id = world.id(whom);
    let outcome = world.friends[0].set_co_owner(world.now, &mut world.rng, id, co_owner).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
}

fn remove(world: &mut World, by: usize, whom: usize) -> Result<(), PartyError> {
    let id = world.id(whom);
    let outcome = world.friends[by].remove_member(world.now, &mut world.rng, id, KickScope::default())?;
    world.apply(by, outcome);
    Ok(())
}

#[test]
fn rename_reaches_every_member() {
    let mut world = World::of(3);
    let outcome = world.friends[0].rename(world.now, &mut world.rng, "Saturday games".into()).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    assert!(world.friends.iter().all(|friend| friend.name() == "Saturday games"));
    let denied = world.friends[1].rename(world.now, &mut world.rng, "Mine".into());
    assert_eq!(denied, Err(PartyError::NotOwner));
}

#[test]
fn members_get_distinct_addresses_in_another_range() {
    let mut world = World::of(5);
    let outcome =
        world.friends[0].set_range(world.now, &mut world.rng, "192.168.200.0/28".parse().unwrap()).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    world.announce_all();
    convergence::assert_agreement(&world, &[0, 1, 2, 3, 4]);
    let fixed = |friend: &Membership| friend.identity.confirmation().map(|confirmation| confirmation.host);
    assert!(
        world.friends.iter().all(|friend| friend.claim.host.is_some() && fixed(friend) == friend.claim.host)
    );
}

#[test]
fn co_owner_invites_plain_members_only() {
    let mut world = party_with_a_co_owner();
    world.awake[0] = false;
    let invite = world.invite(1, InviteLifetime::Day, Role::Member);
    let new = world.join(&Invite::find(&invite.app_link()).unwrap());
    world.announce_all();
    assert!(world.knows(2, new) && world.knows(new, 2));
    world.awake[0] = true;
    world.announce_all();
    assert_eq!(world.friends[new].standing(), Standing::Confirmed);

    let World { friends, rng, now, .. } = &mut world;
    let higher =
        friends[1].create_invite(*now, rng, InviteTerms { role: Role::CoOwner, ..InviteTerms::FRIENDS });
    assert_eq!(higher.unwrap_err(), PartyError::NotOwner);
    let by_member = friends[2].create_invite(*now, rng, InviteTerms::FRIENDS);
    assert_eq!(by_member.unwrap_err(), PartyError::NotCoOwner);
}

#[test]
fn invite_for_a_co_owner_makes_one() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Day, Role::CoOwner);
    let new = world.join(&invite);
    world.announce_all();
    assert_eq!(world.friends[new].role(), Role::CoOwner);
    assert_eq!(world.friends[1].member(&world.id(new)).unwrap().role, Role::CoOwner);
}

#[test]
fn co_owner_removes_members_while_the_owner_is_offline() {
    let mut world = party_with_a_co_owner();
    world.awake[0] = false;
    remove(&mut world, 1, 3).unwrap();
    world.run_until_quiet();
    assert!(!world.knows(2, 3));
    assert_eq!(world.dismissed(3), Some(Dismissal::Removed));
    assert_eq!(world.friends[2].topics()[0].topic, world.friends[1].topics()[0].topic);

    world.awake[0] = true;
    world.announce_all();
    assert!(!world.knows(0, 3));
    assert!(world.friends[0].charter.in_force().unwrap().amendment.is_none(), "taken over");
    assert!(world.friends[2].charter.in_force() == world.friends[0].charter.in_force());
}

#[test]
fn co_owner_cannot_remove_owner_or_co_owners() {
    let mut world = party_with_a_co_owner();
    appoint(&mut world, 2, true);
    assert_eq!(remove(&mut world, 1, 0), Err(PartyError::Protected));
    assert_eq!(remove(&mut world, 1, 2), Err(PartyError::Protected));
    assert_eq!(remove(&mut world, 1, 3), Ok(()));
}

#[test]
fn concurrent_removals_all_take_effect() {
    let mut world = World::of(7);
    appoint(&mut world, 1, true);
    appoint(&mut world, 2, true);
    remove(&mut world, 1, 3).unwrap();
    remove(&mut world, 2, 4).unwrap();
    remove(&mut world, 0, 5).unwrap();
    world.run_until_quiet();
    world.announce_all();
    for index in [0, 1, 2, 6] {
        assert!((3..6).all(|removed| !world.knows(index, removed)), "{index}");
    }
    convergence::assert_agreement(&world, &[0, 1, 2, 6]);
}

#[test]
fn former_co_owner_can_neither_remove_nor_invite() {
    let mut world = party_with_a_co_owner();
    let invite = world.invite(1, InviteLifetime::Day, Role::Member);
    appoint(&mut world, 1, false);
    assert_eq!(remove(&mut world, 1, 3), Err(PartyError::NotCoOwner));
    let late = world.join(&invite);
    world.announce_all();
    assert!(!world.knows(0, late) && !world.knows(2, late));
    assert_eq!(world.dismissed(late), Some(Dismissal::NotACoOwner));
}

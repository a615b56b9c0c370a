use super::*;

fn try_join(world: &mut World, invite: &Invite) -> Result<Membership, JoinError> {
    let device = DeviceKey::generate(&mut world.rng);
    Membership::join(world.now, &mut world.rng, &device, invite, "Ana".into())
}

#[test]
fn new_member_receives_the_charter_and_is_confirmed() {
    let mut world = World::new(1);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let ana = world.join(&Invite::find(&invite.app_link()).unwrap());
    assert_eq!(world.friends[ana].name(), "Friday games");
    assert_eq!(world.friends[ana].range(), None);
    world.announce_all();

    assert_eq!(world.friends[ana].standing(), Standing::Confirmed);
    assert_eq!(world.friends[ana].range(), world.friends[0].range());
    assert!(world.effects[ana].contains(&Effect::Confirmed));
    let seen = world.friends[0].member(&world.id(ana)).unwrap();
    assert!(seen.confirmed && seen.role == Role::Member);
    assert_eq!(seen.address_v4, world.friends[ana].address_v4());
    assert!(seen.address_v4.is_some());
    assert_eq!(seen.session, Some(world.friends[ana].session()));
    assert_eq!(seen.candidates.len(), 2);
    assert_eq!(seen.tunnel_key, world.friends[ana].tunnel_public());
    assert_eq!(world.friends[ana].member(&world.id(0)).unwrap().role, Role::Owner);
}

#[test]
fn two_members_share_a_probe_key_until_one_restarts() {
    let mut world = World::of(3);
    let key = |world: &World, a: usize, b: usize| world.friends[a].probe_key(&world.id(b)).unwrap();
    let before = key(&world, 0, 1);
    assert_eq!(before, key(&world, 1, 0));
    assert_ne!(before, key(&world, 0, 2));
    let World { friends, rng, .. } = &mut world;
    friends[1].start_session(rng);
    world.announce_all();
    assert_ne!(before, key(&world, 0, 1));
    assert_eq!(key(&world, 0, 1), key(&world, 1, 0));
}

#[test]
fn forged_invite_is_refused() {
    let mut world = World::new(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let longer = Invite { not_after: partyline_wire::membership::Expiry::NEVER, ..invite.clone() };
    let higher = Invite { role: Role::CoOwner, ..invite.clone() };
    let other_key = Invite { seed: [7; 32], ..invite.clone() };
    let other_party = Invite { party: World::new(3).friends[0].id(), ..invite };
    for forged in [longer, higher, other_key, other_party] {
        assert_eq!(try_join(&mut world, &forged).unwrap_err(), JoinError::Forged);
    }
}

#[test]
fn expired_invite_is_refused_with_both_times() {
    let mut world = World::new(3);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let ended = invite.not_after.time().unwrap();
    world.now = ended.plus(CLOCK_TOLERANCE);
    assert!(try_join(&mut world, &invite).is_ok());
    world.now = world.now.plus(Duration::from_secs(1));
    assert_eq!(try_join(&mut world, &invite).unwrap_err(), JoinError::Expired { ended, clock: world.now });
}

#[test]
fn invite_that_ends_too_late_is_refused_with_both_times() {
    let mut world = World::new(4);
    let invite = world.invite(0, InviteLifetime::Week, Role::Member);
    world.now = Timestamp(world.now.0 - HOUR.as_millis() as u64 * 24);
    let ends = invite.not_after.time().unwrap();
    assert_eq!(try_join(&mut world, &invite).unwrap_err(), JoinError::EndsTooLate { ends, clock: world.now });
}

#[test]
fn messages_from_the_future_and_servers_reveal_a_wrong_clock() {
    let mut world = World::of(2);
    let real = world.now.plus(HOUR * 5);
    let topic = world.friends[1].topics()[0].topic;
    let sealed = world.announcement_on(1, real, &topic, 1);
    world.deliver_to(0, topic, &sealed).unwrap();
    let skew = world.friends[0].clock_skew().unwrap();
    assert!(skew.behind && skew.by == HOUR * 5 && skew.wrong == WrongClock::OwnOrMember(world.id(1)));
    assert!(world.knows(0, 1));

    let now = world.now;
    world.friends[0].on_server_time(now, Timestamp(now.0 - 7_200_000));
    let skew = world.friends[0].clock_skew().unwrap();
    assert!(!skew.behind && skew.by == HOUR * 2 && skew.wrong == WrongClock::Own);
}

#[test]
fn revoked_invite_makes_no_member() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Week, Role::Member);
    let id = world.friends[0].invites(world.now).last().unwrap().id;
    let outcome = world.friends[0].revoke_invite(world.now, &mut world.rng, id).unwrap();
    world.apply(0, outcome);
    world.run_until_quiet();
    assert!(world.friends[0].invites(world.now).all(|open| open.id != id));

    let late = world.join(&invite);
    world.announce_all();
    assert!(!world.knows(0, late) && !world.knows(1, late));
    assert_eq!(world.dismissed(late), Some(Dismissal::InviteRevoked));
    assert!(world.friends[late].topics().is_empty());
}

#[test]
fn link_from_before_a_rekey_still_works() {
    let mut world = World::of(3);
    let invite = world.invite(0, InviteLifetime::Never, Role::Member);
    for _ in 0..12 {
        let spare = world.invite(0, InviteLifetime::Hour, Role::Member);
        drop(spare);
        let id = world.friends[0].invites(world.now).last().unwrap().id;
        let outcome = world.friends[0].revoke_invite(world.now, &mut world.rng, id).unwrap();
        world.apply(0, outcome);
        world.run_until_quiet();
        world.advance(DAY * 10);
    }
    let late = world.join(&invite);
    world.announce_all();
    assert_eq!(world.friends[late].standing(), Standing::Confirmed);
    assert!(world.knows(1, late) && world.knows(late, 1));
}

#[test]
fn unconfirmed_membership_lapses_with_its_invite() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    world.awake[0] = false;
    let ana = world.join(&invite);
    world.announce_all();
    assert!(world.knows(1, ana));
    assert!(matches!(world.friends[ana].standing(), Standing::Unconfirmed { until: Some(_) }));

    world.now = world.friends[1].next_deadline().unwrap();
    world.advance(Duration::ZERO);
    let gone = Effect::MemberGone(world.id(ana), Departure::Dismissed(Dismissal::InviteExpired));
    assert!(world.effects[1].contains(&gone) && !world.knows(1, ana));
    assert_eq!(world.dismissed(ana), Some(Dismissal::InviteExpired));

    world.awake[0] = true;
    world.announce_all();
    assert!(!world.knows(0, ana), "the owner confirms nobody whose invite has ended");
}

#[test]
fn confirmed_membership_outlives_its_invite() {
    let mut world = World::of(3);
    world.advance(DAY * 60);
    assert!(world.knows(0, 1) && world.knows(1, 2));
    assert_eq!(world.friends[2].standing(), Standing::Confirmed);
}

#[test]
fn names_that_deceive_or_are_too_long_are_refused() {
    let mut world = World::new(5);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let device = DeviceKey::generate(&mut world.rng);
    for name in ["", "a\u{202e}b", "a\nb", " a", "x".repeat(33).as_str()] {
        let joined = Membership::join(world.now, &mut world.rng, &device, &invite, name.into());
        assert!(matches!(joined, Err(JoinError::Name(_))), "{name:?}");
        let made = NewParty { name: name.repeat(9), ..new_party() };
        assert!(matches!(
            Membership::create(START, &mut world.rng, &device, made),
            Err(PartyError::Invalid(_))
        ));
    }
}

#[test]
fn member_that_left_can_join_again_by_an_invite() {
    let mut world = World::of(3);
    let leaver = world.friends[2].outbound.device().clone();
    let outcome = world.friends[2].leave(world.now, &mut world.rng);
    world.apply(2, outcome);
    world.awake[2] = false;
    world.run_until_quiet();
    let left = Effect::MemberGone(world.id(2), Departure::Left);
    assert!(world.effects[0].contains(&left) && world.effects[1].contains(&left));
    assert!(!world.knows(0, 2));

    world.friends.pop();
    world.effects.pop();
    world.awake.pop();
    world.advance(HOUR);
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let again = world.join_as(&leaver, &invite);
    world.announce_all();
    assert!(world.knows(0, again) && world.knows(1, again));
    assert_eq!(world.friends[again].standing(), Standing::Confirmed);
}

#[test]
fn leave_that_arrives_late_does_not_end_the_next_membership() {
    let mut world = World::of(3);
    let leaver = world.friends[2].outbound.device().clone();
    let leaves = world.friends[2].leave(world.now, &mut world.rng).messages;
    let (topic, leave) = (leaves[0].topic, leaves[0].message.clone());
    world.deliver_to(1, topic, &leave).unwrap();
    world.friends.pop();
    world.effects.pop();
    world.awake.pop();
    let invite = world.invite(0, InviteLifetime::Day, Role::Member);
    let again = world.join_as(&leaver, &invite);
    world.announce_all();
    // The owner receives the leave only now, from a member that repeats it.
    assert_eq!(world.deliver_to(0, topic, &leave), Err(Refusal::OldMembership));
    assert_eq!(world.deliver_to(1, topic, &leave), Err(Refusal::Replayed));
    assert!(world.knows(0, again) && world.knows(1, again));
}

#[test]
fn announcement_from_before_a_leave_does_not_bring_the_device_back() {
    let mut world = World::of(3);
    let (topic, late) = world.announcement(2);
    let outcome = world.friends[2].leave(world.now, &mut world.rng);
    world.apply(2, outcome);
    world.awake[2] = false;
    world.run_until_quiet();
    world.deliver_to(0, topic, &late).unwrap();
    assert!(!world.knows(0, 2));
}

/// A visit tells neither a server nor the others whose it is, and takes nobody's place.
#[test]
fn visit_is_under_a_handle_that_no_member_has() {
    let mut world = World::of(2);
    let topic = world.friends[0].topic();
    let World { friends, rng, .. } = &mut world;
    let visits: Vec<_> =
        (0..2).map(|_| friends[0].prove_visit(rng, &topic, &[1; 32]).unwrap().handle()).collect();
    assert_ne!(visits[0], visits[1]);
    for device in [world.id(0), world.id(1)] {
        let handle = world.friends[1].handle_of(&topic, &device).unwrap();
        assert!(!visits.contains(&handle));
    }
    let entered = world.friends[0].prove_entry(&topic, &[1; 32]).unwrap().handle();
    assert_eq!(world.friends[1].handle_of(&topic, &world.id(0)), Some(entered));
    assert_eq!(world.friends[0].prove_entry(&Topic([9; 32]), &[1; 32]), None);
}

#[test]
fn what_a_joiner_says_of_itself_is_for_members_alone() {
    let mut world = World::new(1);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let (ana, ben) = (try_join(&mut world, &invite).unwrap(), try_join(&mut world, &invite).unwrap());
    let (lobby, addresses) = (ana.topic(), vec!["192.0.2.7:4000".parse().unwrap()]);
    let place = ana.contact_place(&mut world.rng, &lobby, &addresses).unwrap();
    assert_eq!(world.friends[0].contact_addresses(&lobby, &place), addresses);
    assert!(ben.contact_addresses(&lobby, &place).is_empty(), "another holder of the link");
    let party = world.friends[0].topic();
    assert!(world.friends[0].contact_addresses(&party, &place).is_empty(), "on another topic");
    let open = world.friends[0].contact_place(&mut world.rng, &lobby, &addresses).unwrap();
    assert_eq!(ben.contact_addresses(&lobby, &open), addresses, "a joiner has to find a member");
    assert!(ana.contact_list_keys(&party, some_day()).is_none(), "a joiner knows the lobby alone");
}

fn some_day() -> crate::Day {
    crate::Day::around(crate::fixtures::NOW).next().unwrap()
}

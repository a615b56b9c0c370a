use super::*;

#[test]
fn restored_membership_has_all_members_and_a_new_session() {
    let mut world = World::of(3);
    let before: Vec<_> = world.friends[1]
        .members()
        .map(|member| (member.device, member.address_v4, member.confirmed))
        .collect();
    let json = serde_json::to_string(&world.friends[1].state()).unwrap();
    let state: MembershipState = serde_json::from_str(&json).unwrap();
    let device = world.friends[1].outbound.device().clone();
    let session = world.friends[1].session();
    world.friends[1] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();

    let friend = &mut world.friends[1];
    assert_eq!(
        friend
            .members()
            .map(|member| (member.device, member.address_v4, member.confirmed))
            .collect::<Vec<_>>(),
        before
    );
    assert_eq!(friend.standing(), Standing::Confirmed);
    assert_ne!(friend.session(), session);
    let again: MembershipState =
        serde_json::from_str(&serde_json::to_string(&friend.state()).unwrap()).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&friend.state()).unwrap());
    let binary = postcard::to_allocvec(&friend.state()).unwrap();
    assert_eq!(postcard::from_bytes::<MembershipState>(&binary).unwrap().party(), friend.id());
}

#[test]
fn display_name_reaches_every_member_and_survives_a_restart() {
    let mut world = World::of(3);
    let who = world.id(1);
    let called = |world: &World, by: usize| world.friends[by].member(&who).unwrap().name.to_owned();
    let outcome = world.friends[1].set_display_name("Zoë").unwrap();
    assert!(outcome.persist && outcome.effects == [Effect::Announce]);
    assert_eq!(world.friends[1].set_display_name("Zoë"), Ok(Outcome::default()), "no news");
    assert!(world.friends[1].set_display_name("a\u{202e}b").is_err());
    world.announce_all();
    assert_eq!([called(&world, 0), called(&world, 2)], ["Zoë", "Zoë"]);
    assert!(world.effects[0].contains(&Effect::MemberChanged(who)));

    let state: MembershipState =
        serde_json::from_str(&serde_json::to_string(&world.friends[1].state()).unwrap()).unwrap();
    let device = world.friends[1].outbound.device().clone();
    world.friends[1] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    assert_eq!(world.friends[1].display_name(), "Zoë");
    let outcome = world.friends[1].set_display_name("Friend 1").unwrap();
    assert!(outcome.persist, "as the certificate says");
    world.announce_all();
    assert_eq!([called(&world, 0), called(&world, 2)], ["Friend 1", "Friend 1"]);
}

#[test]
fn membership_restored_from_an_old_copy_uses_higher_sequence_numbers() {
    let mut world = World::of(2);
    let copy = world.friends[1].state();
    for _ in 0..40 {
        world.announce(1);
    }
    world.run_until_quiet();
    world.advance(Duration::from_secs(5));
    let device = world.friends[1].outbound.device().clone();
    world.friends[1] = Membership::restore(world.now, &mut world.rng, &device, copy).unwrap();
    world.announce_all();
    assert_eq!(
        world.friends[0].member(&world.id(1)).unwrap().session,
        Some(world.friends[1].session()),
        "accepted again"
    );
}

#[test]
fn clock_set_back_between_two_runs_does_not_silence_a_member() {
    let mut world = World::of(2);
    world.advance(HOUR * 2);
    let topic = world.friends[1].topic();
    let World { friends, rng, now, .. } = &mut world;
    let outcome = friends[1].announcement(*now, rng, &topic, &reach(2));
    assert!(outcome.persist, "the sequence ran far ahead of the stored one");
    world.apply(1, outcome);
    let stored = world.friends[1].state();
    world.advance(Duration::from_secs(50));
    let World { friends, rng, now, .. } = &mut world;
    let outcome = friends[1].announcement(*now, rng, &topic, &reach(2));
    assert!(!outcome.persist);
    world.apply(1, outcome);
    world.run_until_quiet();
    world.now = Timestamp(world.now.0 - 7_200_000);
    let device = world.friends[1].outbound.device().clone();
    world.friends[1] = Membership::restore(world.now, &mut world.rng, &device, stored).unwrap();
    world.announce_all();
    assert_eq!(world.friends[0].member(&world.id(1)).unwrap().session, Some(world.friends[1].session()));
}

#[test]
fn replays_stay_refused_after_a_restart() {
    let mut world = World::of(2);
    let (topic, sealed) = world.announcement(1);
    world.deliver_to(0, topic, &sealed).unwrap();
    let (device, state) = (world.friends[0].outbound.device().clone(), world.friends[0].state());
    world.friends[0] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    assert_eq!(world.deliver_to(0, topic, &sealed), Err(Refusal::Replayed));
}

#[test]
fn stored_state_holds_no_other_devices_secrets_and_no_device_key() {
    let world = World::of(3);
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stored: Vec<String> =
        world.friends.iter().map(|friend| serde_json::to_string(&friend.state()).unwrap()).collect();
    for (holder, text) in stored.iter().enumerate() {
        for (index, friend) in world.friends.iter().enumerate() {
            assert!(!text.contains(&hex(friend.outbound.device().seed().expose())));
            assert_eq!(text.contains(&hex(friend.identity.tunnel_secret().expose())), holder == index);
        }
        let authority = world.friends[0].admin.authority().unwrap();
        assert_eq!(text.contains(&hex(&authority.to_bytes())), holder == 0);
    }
}

#[test]
fn secrets_cannot_be_printed() {
    let world = World::of(2);
    let friend = &world.friends[0];
    let text = format!(
        "{friend:?} {:?} {:?} {:?}",
        friend.state(),
        friend.outbound.device(),
        friend.outbound.device().seed()
    );
    assert!(text.contains("Secret(..)"));
    let secret = friend.secrets.current().secret().expose();
    assert!(
        !text.contains(&format!("{secret:?}"))
            && !text.contains(&format!("{:02x}{:02x}", secret[0], secret[1]))
    );
}

#[test]
fn another_device_cannot_restore_the_state() {
    let mut world = World::of(2);
    let device = DeviceKey::generate(&mut world.rng);
    let state = world.friends[1].state();
    let restored = Membership::restore(world.now, &mut world.rng, &device, state);
    assert_eq!(restored.unwrap_err(), PartyError::WrongDevice);
}

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

/// Ends a member's run and begins another with a stored reservation of sequence numbers.
fn restart(world: &mut World, who: usize, state: MembershipState, reserved: u64) {
    let seed = world.friends[who].outbound.device().seed();
    let device = DeviceKey::restore(world.now, &seed, reserved);
    world.friends[who] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    world.announce_all();
    let session = world.friends[who].session();
    let shown = world.friends[1 - who].member(&world.id(who)).unwrap().session;
    assert_eq!(shown, Some(session), "accepted again");
}

#[test]
fn member_restored_from_an_old_copy_goes_on_with_the_clock() {
    let mut world = World::of(2);
    let (copy, reserved) = (world.friends[1].state(), world.friends[1].outbound.device().reserve());
    for _ in 0..40 {
        world.announce(1);
    }
    world.run_until_quiet();
    world.advance(HOUR);
    restart(&mut world, 1, copy, reserved);
}

/// A power cut may take a run's reservation with it; what a server still keeps of that run shows how far it was.
#[test]
fn run_passes_what_an_earlier_one_said_that_was_not_saved() {
    let mut world = World::of(2);
    let (state, reserved) = (world.friends[1].state(), world.friends[1].outbound.device().reserve());
    world.friends[1].outbound.device().numbers().pass(reserved + 100);
    let (topic, kept) = world.announcement(1);
    world.deliver_to(0, topic, &kept).unwrap();
    let device = DeviceKey::restore(world.now, &world.friends[1].outbound.device().seed(), reserved);
    world.friends[1] = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    world.friends[1].receive(world.now, &mut world.rng, &topic, &kept).unwrap();
    world.announce_all();
    let shown = world.friends[0].member(&world.id(1)).unwrap().session;
    assert_eq!(shown, Some(world.friends[1].session()));
}

#[test]
fn copy_that_was_made_of_a_joiner_meets_the_member_in_the_lobby() {
    let mut world = World::of(2);
    let invite = world.invite(0, InviteLifetime::Hour, Role::Member);
    let joiner = world.join(&invite);
    let (device, state) = (world.friends[joiner].outbound.device().clone(), world.friends[joiner].state());
    world.announce_all();
    let World { friends, rng, now, .. } = &mut world;
    friends[joiner].establish_run(*now);
    let mut copy = Membership::restore(*now, rng, &device, state).unwrap();
    assert!(copy.is_waiting() && !friends[joiner].is_waiting());

    let question = only(copy.ask_runs(*now, rng));
    let met = friends[joiner].receive(*now, rng, &question.topic, &question.message).unwrap();
    assert!(matches!(met.outcome.effects[..], [Effect::RunMet { .. }]));
    let answer = only(friends[joiner].answer_run(*now, rng, question.topic, copy.session()));
    let met = copy.receive(*now, rng, &answer.topic, &answer.message).unwrap();
    let goes_on = Effect::RunMet { run: friends[joiner].session(), standing: RunStanding::GoesOn };
    assert_eq!(met.outcome.effects, [goes_on]);
}

/// A copy that was taken for the member while that slept has used greater numbers.
#[test]
fn member_that_a_copy_gives_way_to_is_heard_again() {
    let mut world = World::of(2);
    world.friends[1].establish_run(world.now);
    let (state, reserved) = (world.friends[1].state(), world.friends[1].outbound.device().reserve());
    let device = DeviceKey::restore(world.now, &world.friends[1].outbound.device().seed(), reserved);
    let copy = Membership::restore(world.now, &mut world.rng, &device, state).unwrap();
    let taken = copy.session();
    let mut original = std::mem::replace(&mut world.friends[1], copy);
    world.announce_all();
    let shown = |world: &World| world.friends[0].member(&world.id(1)).unwrap().session;
    assert_eq!(shown(&world), Some(taken), "the copy is taken for it");

    let topic = world.friends[1].topic();
    let answer = only(world.friends[1].answer_run(world.now, &mut world.rng, topic, original.session()));
    let met = original.receive(world.now, &mut world.rng, &answer.topic, &answer.message).unwrap();
    let gives_way = Effect::RunMet { run: taken, standing: RunStanding::GivesWay };
    assert_eq!(met.outcome.effects, [gives_way]);
    let session = original.session();
    world.friends[1] = original;
    world.announce_all();
    assert_eq!(shown(&world), Some(session));
}

#[test]
fn restarts_in_quick_succession_and_with_a_wrong_clock_do_not_silence_a_member() {
    let mut world = World::of(2);
    for back in [0, 1, 400, 7_200_000, 0, 3] {
        let reserved = world.friends[1].outbound.device().reserve();
        let stored = world.friends[1].state();
        for _ in 0..40 {
            world.announce(1);
        }
        world.run_until_quiet();
        world.now = Timestamp(world.now.0 - back);
        restart(&mut world, 1, stored, reserved);
    }
}

#[test]
fn reservation_is_persisted_once_and_again_when_half_of_it_is_used() {
    let mut world = World::of(2);
    let topic = world.friends[1].topic();
    let persists = |world: &mut World| {
        let World { friends, rng, now, .. } = world;
        friends[1].announcement(*now, rng, &topic, &reach(2)).persist
    };
    assert!(persists(&mut world), "nothing is reserved yet");
    let reserved = world.friends[1].outbound.device().reserve();
    assert!(!persists(&mut world));
    let numbers = world.friends[1].outbound.device().numbers().clone();
    while numbers.next() < reserved - 32_768 {}
    assert!(persists(&mut world));
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
    let secret = friend.secrets.current().unwrap().secret().expose();
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

//! What members see of each other, of messages and of relays.

use std::collections::BTreeSet;

use super::*;

#[test]
fn members_see_each_other_enter_announce_and_leave() {
    let mut world = World::new(Limits::default());
    let (a, b) = (handle(1), handle(2));
    let first = world.member(1, 1);
    let second = world.connect();
    let seen = world.enter(second, 1, 2, b"b");
    let roster = vec![TopicMember { handle: a, record: vec![1] }];
    assert_eq!(seen, [ServerFrame::Roster { topic: topic(1), members: roster, more: false }]);
    assert_eq!(
        world.received(first),
        [ServerFrame::Present { topic: topic(1), handle: b, record: b"b".to_vec() }]
    );

    world.send(second, &ClientFrame::Announce { topic: topic(1), record: b"new".to_vec() });
    assert_eq!(
        world.received(first),
        [ServerFrame::Present { topic: topic(1), handle: b, record: b"new".to_vec() }]
    );
    assert_eq!(world.received(second), []);

    world.send(second, &ClientFrame::Leave { topic: topic(1) });
    assert_eq!(world.received(first), [ServerFrame::Gone { topic: topic(1), handle: b }]);
    world.server.handle_disconnect(world.now, first);
    assert_eq!(world.server.stats().topics, 0);
    assert_eq!(world.server.stats().held_bytes, 0);
}

#[test]
fn members_of_other_topics_stay_invisible() {
    let mut world = World::new(Limits::default());
    let first = world.member(1, 1);
    let second = world.member(2, 2);
    world.send(
        second,
        &ClientFrame::Send { topic: topic(1), to: handle(1), id: 1, kept: false, message: vec![1] },
    );
    assert_eq!(refusal(&world.received(second)), Some(RefusalCode::NotEntered));
    assert_eq!(world.received(first), []);
}

#[test]
fn one_connection_may_enter_two_topics() {
    let mut world = World::new(Limits::default());
    let both = world.member(1, 1);
    world.enter(both, 2, 9, b"x");
    let friend = world.member(2, 2);
    assert!(matches!(&world.received(both)[..], [ServerFrame::Present { topic: t, .. }] if *t == topic(2)));
    world.server.handle_disconnect(world.now, both);
    world.drain();
    assert_eq!(world.received(friend), [ServerFrame::Gone { topic: topic(2), handle: handle(9) }]);
}

#[test]
fn proof_is_bound_to_connection_topic_and_handle_key() {
    let mut world = World::new(Limits::default());
    let (first, second) = (world.connect(), world.connect());
    let frame = world.enter_frame(first, 1, 1, b"");
    world.send(second, &frame);
    assert_eq!(refusal(&world.received(second)), Some(RefusalCode::BadProof));

    let ClientFrame::Enter { proof, record, .. } = frame else { unreachable!() };
    for (topic, handle_key) in [(topic(2), public(1)), (topic(1), public(2)), (Topic([0; 32]), public(1))] {
        let proof = EntryProof { handle_key, ..proof.clone() };
        let frame = ClientFrame::Enter { topic, proof, record: record.clone() };
        world.send(first, &frame);
        assert_eq!(refusal(&world.received(first)), Some(RefusalCode::BadProof));
    }
    assert_eq!(world.server.stats().topics, 0);
}

/// Somebody who holds the topic's key, and so knows every handle, tries to enter in a device's place: with a key of its
/// own, with the topic's key, and with what the device has shown on another connection.
#[test]
fn entry_under_anothers_handle_is_refused() {
    let mut world = World::new(Limits::default());
    let victim = world.member(1, 1);
    let ClientFrame::Enter { proof: seen, .. } = world.enter_frame(victim, 1, 1, b"") else { unreachable!() };
    let refuse_all = |world: &mut World, attacker: ConnectionId| {
        let shown = EntryProof {
            handle_signature: seen.handle_signature,
            ..world.proof(attacker, 1, public(1), &device(9))
        };
        let forged = [&device(9), &key(1)].map(|signer| world.proof(attacker, 1, public(1), signer));
        for proof in forged.into_iter().chain([shown, seen.clone()]) {
            world.send(attacker, &ClientFrame::Enter { topic: topic(1), proof, record: vec![] });
            assert_eq!(refusal(&world.received(attacker)), Some(RefusalCode::BadProof));
        }
    };

    let attacker = world.connect();
    refuse_all(&mut world, attacker);
    assert_eq!(world.received(victim), [], "not thrown out");
    world.server.handle_disconnect(world.now, victim);
    let friend = world.member(1, 2);
    let message = ClientFrame::Send { topic: topic(1), to: handle(1), id: 1, kept: false, message: vec![7] };
    world.send(friend, &message);
    refuse_all(&mut world, attacker);
    assert_eq!(world.server.stats().mail, 1, "waits on");
    let again = world.connect();
    let received = world.enter(again, 1, 1, b"");
    assert!(matches!(received.last(), Some(ServerFrame::Message { message, .. }) if message[..] == [7]));
}

/// Anybody can sign for keys of low order where verification is not strict.
#[test]
fn entry_under_a_weak_handle_key_is_refused() {
    let mut world = World::new(Limits::default());
    let id = world.connect();
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for bytes in [neutral, [0; 32]] {
        let mut proof = world.proof(id, 1, HandleKey(bytes), &device(9));
        proof.handle_signature = [0; 64];
        proof.handle_signature[0] = 1;
        world.send(id, &ClientFrame::Enter { topic: topic(1), proof, record: vec![] });
        assert_eq!(refusal(&world.received(id)), Some(RefusalCode::BadProof));
    }
    assert_eq!(world.server.stats().topics, 0);
}

#[test]
fn member_that_enters_again_replaces_its_older_session() {
    let mut world = World::new(Limits::default());
    let friend = world.member(1, 9);
    let older = world.member(1, 1);
    world.received(friend);
    let newer = world.member(1, 1);
    assert_eq!(refusal(&world.received(older)), Some(RefusalCode::Replaced));
    assert_eq!(world.closed[&older], close::REPLACED);
    assert!(matches!(&world.received(friend)[..], [ServerFrame::Present { .. }]), "replaced, not gone");

    // The older connection's end is not the member's.
    world.server.handle_disconnect(world.now, older);
    world.drain();
    assert_eq!(world.received(friend), []);
    world.server.handle_disconnect(world.now, newer);
    world.drain();
    assert_eq!(world.received(friend), [ServerFrame::Gone { topic: topic(1), handle: handle(1) }]);
}

#[test]
fn replaced_connection_keeps_its_other_topics() {
    let mut world = World::new(Limits::default());
    let older = world.member(1, 1);
    world.enter(older, 2, 2, b"");
    world.member(1, 1);
    assert!(!world.closed.contains_key(&older));
    world.send(older, &ClientFrame::Announce { topic: topic(1), record: vec![] });
    world.send(older, &ClientFrame::Announce { topic: topic(2), record: vec![] });
    let refused: Vec<_> = world.received(older);
    assert_eq!(refused.len(), 2, "replaced, then not entered, then accepted: {refused:?}");
}

#[test]
fn entering_under_another_handle_leaves_the_first() {
    let mut world = World::new(Limits::default());
    let friend = world.member(1, 9);
    let id = world.member(1, 1);
    world.received(friend);
    world.enter(id, 1, 2, b"");
    let received = world.received(friend);
    assert_eq!(received[0], ServerFrame::Gone { topic: topic(1), handle: handle(1) });
    assert!(matches!(received[1], ServerFrame::Present { handle: h, .. } if h == handle(2)));
    assert_eq!(world.server.stats().members, 2);
}

#[test]
fn messages_are_forwarded_to_present_and_stored_for_absent_members() {
    let mut world = World::new(Limits::default());
    let first = world.member(1, 1);
    let second = world.member(1, 2);
    world.received(first);
    let message = |to, id, text: &[u8]| ClientFrame::Send {
        topic: topic(1),
        to,
        id,
        kept: false,
        message: text.to_vec(),
    };
    let delivered =
        |from, text: &[u8]| ServerFrame::Message { topic: topic(1), from, message: text.to_vec() };
    world.send(first, &message(handle(2), 1, b"now"));
    assert_eq!(world.received(second), [delivered(handle(1), b"now")]);

    world.send(first, &message(handle(3), 2, b"later"));
    world.send(first, &message(handle(3), 2, b"later"));
    world.send(second, &message(handle(3), 2, b"too"));
    assert_eq!(world.server.stats().mail, 2, "the same message waits once");
    let third = world.connect();
    let received = world.enter(third, 1, 3, b"");
    assert_eq!(received[1..], [delivered(handle(1), b"later"), delivered(handle(2), b"too")]);
    assert_eq!(world.server.stats().mail, 0);
}

#[test]
fn kept_message_reaches_a_member_again_at_every_entry_until_it_expires() {
    let mut world = World::new(Limits::default());
    let (first, second) = (world.member(1, 1), world.member(1, 2));
    world.received(second);
    let leave =
        ClientFrame::Send { topic: topic(1), to: handle(2), id: 1, kept: true, message: b"leave".to_vec() };
    world.send(first, &leave);
    let delivered = ServerFrame::Message { topic: topic(1), from: handle(1), message: b"leave".to_vec() };
    assert_eq!(world.received(second), std::slice::from_ref(&delivered), "it may be there");
    for _ in 0..2 {
        let again = world.connect();
        let received = world.enter(again, 1, 2, b"");
        assert_eq!(received.last(), Some(&delivered), "it was not, or it was somebody else");
    }
    assert_eq!(world.server.stats().mail, 1);
    world.advance(Limits::default().mail_lifetime);
    assert_eq!((world.server.stats().mail, world.server.stats().held_bytes > 0), (0, true));
}

#[test]
fn stored_message_expires_and_its_topic_is_removed() {
    let mut world = World::new(Limits::default());
    let id = world.member(1, 1);
    world.send(
        id,
        &ClientFrame::Send { topic: topic(1), to: handle(2), id: 1, kept: false, message: vec![1; 100] },
    );
    world.server.handle_disconnect(world.now, id);
    assert_eq!(world.server.stats().topics, 1);
    world.advance(Limits::default().mail_lifetime - Duration::from_millis(1));
    assert_eq!(world.server.stats().mail, 1);
    assert_eq!(world.server.poll_timeout(), world.now.instant + Duration::from_millis(1));
    world.advance(Duration::from_millis(1));
    let stats = world.server.stats();
    assert_eq!((stats.mail, stats.topics, stats.held_bytes, stats.counters.messages_expired), (0, 0, 0, 1));
}

#[test]
fn long_roster_is_split_into_several_frames() {
    let mut world = World::new(Limits::default());
    for n in 1..=40 {
        world.member(1, n);
    }
    let id = world.connect();
    let frames = world.enter(id, 1, 99, b"");
    let mut seen = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let ServerFrame::Roster { members, more, .. } = frame else { panic!("{frame:?}") };
        assert_eq!(*more, index + 1 < frames.len());
        seen.extend(members.iter().map(|member| member.handle));
    }
    let all: BTreeSet<_> = (1..=40).map(handle).collect();
    assert_eq!(seen, Vec::from_iter(all));
}

#[test]
fn time_reply_carries_the_servers_clock() {
    let mut world = World::new(Limits::default());
    let id = world.connect();
    world.advance(Duration::from_millis(1234));
    world.send(id, &ClientFrame::Time { echo: 5 });
    assert_eq!(world.received(id), [ServerFrame::TimeReply { echo: 5, time: world.now.unix }]);
}

#[test]
fn relay_credentials_are_for_members_and_expire() {
    let mut world = World::new(Limits::default());
    let id = world.connect();
    world.send(id, &ClientFrame::Relays { topic: topic(1) });
    assert_eq!(refusal(&world.received(id)), Some(RefusalCode::NotEntered));
    world.enter(id, 1, 1, b"");
    world.send(id, &ClientFrame::Relays { topic: topic(1) });
    let Some(ServerFrame::RelayGrant(grant)) = world.received(id).pop() else { panic!() };
    assert_eq!(grant.username, format!("1800003600:{}", handle(1)));
    assert_eq!(grant.expires, Timestamp(1_800_003_600_000));
    assert_eq!(grant.password, relay_password(b"north", &grant.username));
}

/// RFC 2202, test case 2.
#[test]
fn relay_password_is_base64_of_hmac_sha1() {
    assert_eq!(relay_password(b"Jefe", "what do ya want for nothing?"), "7/zfauXrL6LSdBbV8YTfnCWafHk=");
}

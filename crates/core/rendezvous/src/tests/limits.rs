//! Clients beyond a limit are refused, at no cost to others.

use std::net::Ipv6Addr;

use super::*;

fn limits() -> Limits {
    Limits { connections: 8, connections_per_address: 2, ..Limits::default() }
}

#[test]
fn connections_are_limited_in_all_and_per_address() {
    let mut world = World::new(limits());
    let host = |n: u8| IpAddr::from([10, 0, 0, n]);
    let first = world.connect_from(host(1)).unwrap();
    world.connect_from(host(1)).unwrap();
    assert_eq!(world.connect_from(host(1)), Err(AdmissionError::AddressFull));
    world.server.handle_disconnect(world.now, first);
    world.connect_from(host(1)).unwrap();
    (2..=4).for_each(|n| {
        world.connect_from(host(n)).unwrap();
        world.connect_from(host(n)).unwrap();
    });
    assert_eq!(world.connect_from(host(5)), Err(AdmissionError::ServerFull));
    assert_eq!(world.server.stats().counters.connections_rejected, 2);
}

#[test]
fn ipv6_prefix_counts_as_one_address_and_mapped_ipv4_as_ipv4() {
    let mut world = World::new(limits());
    let host = |n: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, n, n, n));
    world.connect_from(host(1)).unwrap();
    world.connect_from(host(2)).unwrap();
    assert_eq!(world.connect_from(host(3)), Err(AdmissionError::AddressFull));
    let v4 = Ipv4Addr::new(10, 0, 0, 1);
    world.connect_from(v4.into()).unwrap();
    world.connect_from(v4.to_ipv6_mapped().into()).unwrap();
    assert_eq!(world.connect_from(v4.into()), Err(AdmissionError::AddressFull));
}

#[test]
fn members_topics_and_topics_per_connection_are_limited() {
    let mut world =
        World::new(Limits { topics: 3, topics_per_connection: 2, members_per_topic: 2, ..Limits::default() });
    let first = world.member(1, 1);
    world.member(1, 2);
    let late = world.connect();
    assert_eq!(refusal(&world.enter(late, 1, 3, b"")), Some(RefusalCode::TopicFull));
    assert_eq!(refusal(&world.enter(late, 1, 2, b"")), None, "a member may come again");

    assert_eq!(refusal(&world.enter(first, 2, 1, b"")), None);
    assert_eq!(refusal(&world.enter(first, 3, 1, b"")), Some(RefusalCode::TooManyTopics));
    world.member(3, 1);
    let other = world.connect();
    assert_eq!(refusal(&world.enter(other, 4, 1, b"")), Some(RefusalCode::ServerFull));
}

#[test]
fn mail_is_limited_per_handle_per_topic_and_in_all() {
    let limits = Limits { mail_per_handle: 2, mail_bytes_per_topic: 5_000, ..Limits::default() };
    let mut world = World::new(limits);
    let id = world.member(1, 1);
    let mut send = |to: u8, number: u32, bytes: usize| {
        let message = vec![0; bytes];
        world.send(
            id,
            &ClientFrame::Send { topic: topic(1), to: handle(to), id: number, kept: false, message },
        );
        world.received(id).pop()
    };
    assert_eq!(send(2, 1, 10), None);
    assert_eq!(send(2, 2, 10), None);
    let full = |frame: Option<ServerFrame>, number: u32| match frame {
        Some(ServerFrame::Refused { id, code: RefusalCode::MailboxFull, .. }) => id == Some(number),
        _ => false,
    };
    assert!(full(send(2, 3, 10), 3));
    assert!(full(send(3, 4, 5_000), 4));
    assert_eq!(send(3, 5, 1_000), None);

    let mut world = World::new(Limits { held_bytes: 2_000, ..Limits::default() });
    let id = world.member(1, 1);
    world.send(
        id,
        &ClientFrame::Send { topic: topic(1), to: handle(2), id: 1, kept: false, message: vec![0; 2_000] },
    );
    assert_eq!(refusal(&world.received(id)), Some(RefusalCode::ServerFull));
    let record = vec![0; 2_000];
    world.send(id, &ClientFrame::Announce { topic: topic(1), record });
    assert_eq!(refusal(&world.received(id)), Some(RefusalCode::ServerFull));
}

#[test]
fn flooding_address_is_rate_limited_then_closed_without_effect_on_others() {
    let rate = Rate::per_second(1, 10);
    let mut world = World::new(Limits { address_rate: rate, strikes: 3, ..Limits::default() });
    let noisy = world.connect_from([10, 0, 0, 1].into()).unwrap();
    let quiet = world.connect_from([10, 0, 0, 2].into()).unwrap();
    (0..12).for_each(|echo| world.send(noisy, &ClientFrame::Time { echo }));
    let received = world.received(noisy);
    let replies = received.iter().filter(|frame| matches!(frame, ServerFrame::TimeReply { .. })).count();
    assert_eq!((replies, received.len()), (10, 12));
    assert!(!world.closed.contains_key(&noisy));
    world.send(quiet, &ClientFrame::Time { echo: 0 });
    assert_eq!(refusal(&world.received(quiet)), None);

    world.advance(Duration::from_secs(1));
    world.send(noisy, &ClientFrame::Time { echo: 0 });
    assert_eq!(refusal(&world.received(noisy)), None, "the bucket has refilled");
    (0..3).for_each(|echo| world.send(noisy, &ClientFrame::Time { echo }));
    assert_eq!(world.closed[&noisy], close::RATE);

    // A new connection does not help it.
    let again = world.connect_from([10, 0, 0, 1].into()).unwrap();
    world.send(again, &ClientFrame::Time { echo: 0 });
    assert_eq!(refusal(&world.received(again)), Some(RefusalCode::RateLimited));
}

#[test]
fn flooding_topic_is_rate_limited_without_effect_on_others() {
    let rate = Rate::per_second(1, 5);
    let mut world = World::new(Limits { topic_rate: rate, ..Limits::default() });
    let noisy = world.member(1, 1);
    let quiet = world.member(2, 1);
    let announce = |party| ClientFrame::Announce { topic: topic(party), record: vec![] };
    (0..6).for_each(|_| world.send(noisy, &announce(1)));
    assert_eq!(refusal(&world.received(noisy)), Some(RefusalCode::RateLimited));
    world.send(quiet, &announce(2));
    assert_eq!(refusal(&world.received(quiet)), None);
}

#[test]
fn malformed_frame_closes_only_its_connection() {
    let mut world = World::new(Limits::default());
    let friend = world.member(1, 2);
    let id = world.member(1, 1);
    world.received(friend);
    world.send_bytes(id, &[0xff; 40]);
    assert_eq!(refusal(&world.received(id)), Some(RefusalCode::Malformed));
    assert_eq!(world.closed[&id], close::MALFORMED);
    assert_eq!(world.received(friend), [ServerFrame::Gone { topic: topic(1), handle: handle(1) }]);
}

#[test]
fn idle_address_is_forgotten_once_its_bucket_is_full() {
    let mut world = World::new(Limits { addresses: 1, ..Limits::default() });
    let id = world.connect_from([10, 0, 0, 1].into()).unwrap();
    world.send(id, &ClientFrame::Time { echo: 0 });
    world.server.handle_disconnect(world.now, id);
    assert_eq!(world.connect_from([10, 0, 0, 2].into()), Err(AdmissionError::AddressFull));
    world.advance(Duration::from_secs(60));
    world.connect_from([10, 0, 0, 2].into()).unwrap();
}

#[test]
fn limits_and_refusals_are_counted_by_name() {
    let limits = Limits { topics_per_connection: 1, mail_per_handle: 0, ..Limits::default() };
    let mut world = World::new(limits);
    let id = world.member(1, 1);
    world.enter(id, 2, 1, b"");
    world
        .send(id, &ClientFrame::Send { topic: topic(1), to: handle(2), id: 1, kept: false, message: vec![] });
    world.send(id, &ClientFrame::Leave { topic: topic(3) });
    let stats = world.server.stats();
    let counted = |each: &mut dyn Iterator<Item = (&'static str, u64)>| {
        each.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(counted(&mut stats.limit_hits.each()), [("topics_per_connection", 1), ("mail_per_handle", 1)]);
    assert_eq!(
        counted(&mut stats.refusals.each()),
        [("not_entered", 1), ("too_many_topics", 1), ("mailbox_full", 1)]
    );
    assert_eq!(stats.counters.sessions, 1);
}

#[test]
fn frames_after_the_close_are_counted_and_dropped() {
    let mut world = World::new(Limits::default());
    let id = world.connect();
    world.server.handle_disconnect(world.now, id);
    world.send(id, &ClientFrame::Time { echo: 0 });
    assert_eq!(world.received(id), []);
    let counters = world.server.stats().counters;
    assert_eq!((counters.frames_received, counters.frames_after_close), (0, 1));
}

#[test]
fn ipv6_prefixes_have_limits_of_their_own() {
    let limits = Limits { connections_per_prefix56: 3, connections_per_prefix48: 5, ..limits() };
    let mut world = World::new(limits);
    let mut connect = |subnet: u16| {
        world.connect_from(Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, 1).into()).map(|_| ())
    };
    assert_eq!([connect(0), connect(1), connect(2)], [Ok(()); 3]);
    assert_eq!(connect(3), Err(AdmissionError::AddressFull), "a fourth /64 of the /56");
    assert_eq!([connect(0x100), connect(0x200)], [Ok(()); 2]);
    assert_eq!(connect(0x300), Err(AdmissionError::AddressFull), "a fourth /56 of the /48");
    let hits = world.server.stats().limit_hits;
    assert_eq!((hits.connections_per_prefix56, hits.connections_per_prefix48), (1, 1));
}

/// Few but long frames cost the server as much as many short ones.
#[test]
fn long_frames_are_limited_by_their_bytes_per_connection_and_network() {
    let bytes = |burst: u64| Rate::per_second(1, burst);
    let host = |n: u16, m: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, m));
    let unlimited = bytes(1 << 40);
    let all = Limits {
        connection_bytes: unlimited,
        address_bytes: unlimited,
        prefix56_bytes: unlimited,
        prefix48_bytes: unlimited,
        strikes: 255,
        ..Limits::default()
    };
    let cases = [
        (Limits { connection_bytes: bytes(20_000), ..all.clone() }, [host(1, 1), host(1, 1)], [10, 10]),
        (Limits { address_bytes: bytes(20_000), ..all.clone() }, [host(1, 1), host(1, 2)], [10, 0]),
        (Limits { prefix56_bytes: bytes(20_000), ..all.clone() }, [host(1, 1), host(2, 1)], [10, 0]),
        (Limits { prefix48_bytes: bytes(20_000), ..all.clone() }, [host(1, 1), host(0x1000, 1)], [10, 0]),
        (Limits { prefix48_bytes: bytes(20_000), ..all }, [host(1, 1), [10, 0, 0, 1].into()], [10, 30]),
    ];
    for (limits, hosts, expected) in cases {
        let mut world = World::new(limits);
        let passed = hosts.map(|host| {
            let id = world.connect_from(host).unwrap();
            // 1,900 bytes with the frame around them and what every frame counts.
            let message = vec![0; 1_900];
            for number in 0..30 {
                let (to, message) = (handle(2), message.clone());
                world.send(id, &ClientFrame::Send { topic: topic(1), to, id: number, kept: false, message });
            }
            let refused = world.received(id);
            let passed = |frame: &&ServerFrame| {
                matches!(frame, ServerFrame::Refused { code: RefusalCode::NotEntered, .. })
            };
            refused.iter().filter(passed).count()
        });
        assert!(passed.iter().zip(expected).all(|(passed, most)| passed.abs_diff(most) <= 1), "{passed:?}");
    }
}

/// One announcement in a large topic is as many frames as the topic has members.
#[test]
fn announcements_count_by_what_others_receive() {
    let limits = Limits { connection_bytes: Rate::per_second(1, 50_000), ..Limits::default() };
    let mut world = World::new(limits);
    let loud = world.member(1, 1);
    let others: Vec<_> = (2..12).map(|n| world.member(1, n)).collect();
    others.iter().for_each(|id| drop(world.received(*id)));
    let record = vec![0; 1_000];
    let announced = (0..20).filter(|_| {
        world.send(loud, &ClientFrame::Announce { topic: topic(1), record: record.clone() });
        refusal(&world.received(loud)).is_none()
    });
    assert_eq!(announced.count(), 4, "ten times a thousand bytes each");
    for id in others {
        assert_eq!(world.received(id).len(), 4);
    }
    assert!(world.server.stats().limit_hits.connection_bytes > 0);
}

/// A short question whose answer is the whole roster makes the server an amplifier towards its own line.
#[test]
fn roster_of_a_topic_is_not_sent_again_and_again() {
    let mut world = World::new(Limits::default());
    for n in 2..40 {
        world.member(1, n);
    }
    let id = world.connect();
    let mut rosters = 0;
    for n in 0..30 {
        let received = world.enter(id, 1, 100 + n % 2, b"");
        rosters +=
            received.iter().filter(|frame| matches!(frame, ServerFrame::Roster { more: false, .. })).count();
        assert_eq!(refusal(&received), (u64::from(n) >= ROSTERS_AT_ONCE).then_some(RefusalCode::RateLimited));
    }
    assert_eq!(rosters as u64, ROSTERS_AT_ONCE);
    assert_eq!(refusal(&world.enter(id, 2, 1, b"")), None, "another topic");
    world.advance(Duration::from_secs(10));
    assert_eq!(refusal(&world.enter(id, 1, 1, b"")), None, "later");
}

#[test]
fn connection_that_enters_no_topic_is_closed() {
    let limits = Limits { entry_timeout: Duration::from_secs(30), ..Limits::default() };
    let mut world = World::new(limits);
    let (idle, member, leaver) = (world.connect(), world.member(1, 1), world.member(2, 1));
    let visitor = world.connect();
    world.advance(Duration::from_secs(20));
    // Neither talking nor failing to enter counts.
    world.send(idle, &ClientFrame::Time { echo: 1 });
    world.send(visitor, &ClientFrame::Relays { topic: topic(1) });
    world.send(leaver, &ClientFrame::Leave { topic: topic(2) });
    world.advance(Duration::from_secs(10));
    assert_eq!(
        (world.closed.get(&idle), world.closed.get(&visitor)),
        (Some(&close::IDLE), Some(&close::IDLE))
    );
    assert!(!world.closed.contains_key(&leaver), "its time begins when it leaves");
    world.advance(Duration::from_secs(20));
    assert_eq!(world.closed.get(&leaver), Some(&close::IDLE));
    assert!(!world.closed.contains_key(&member));
    assert_eq!(world.server.stats().limit_hits.entry_timeout, 3);
    assert_eq!(world.server.stats().connections, 1);
}

/// Signature checks are the most expensive thing a stranger can ask for, so that they are rationed before they are made.
#[test]
fn flood_of_wrong_proofs_is_not_verified_beyond_the_rate() {
    let rate = Rate::per_second(1, 40);
    let mut world = World::new(Limits { address_rate: rate, strikes: 255, ..Limits::default() });
    let id = world.connect();
    let proof = EntryProof { handle_signature: [0; 64], ..world.proof(id, 1, public(1), &device(1)) };
    let frame = ClientFrame::Enter { topic: topic(1), proof, record: vec![] }.encode().unwrap();
    let to_verify = (0..100).filter(|_| world.server.handle_frame(world.now, id, &frame).is_some()).count();
    assert_eq!(to_verify, 10);
    assert_eq!(world.server.stats().topics, 0, "nothing is known of a topic before its proof is verified");
}

#[test]
fn entry_that_was_verified_after_its_connection_closed_is_dropped() {
    let mut world = World::new(Limits::default());
    let id = world.connect();
    let frame = world.enter_frame(id, 1, 1, b"").encode().unwrap();
    let entry = world.server.handle_frame(world.now, id, &frame).unwrap();
    world.server.handle_disconnect(world.now, id);
    world.server.handle_entry(world.now, entry.verify());
    let stats = world.server.stats();
    assert_eq!((stats.topics, stats.members, stats.counters.frames_after_close), (0, 0, 1));
}

/// A message that is kept is delivered at every entry, so that entering again and again is as dear as what that sends.
#[test]
fn kept_messages_count_at_every_entry() {
    let mut world = World::new(Limits { address_bytes: Rate::per_second(1, 100_000), ..Limits::default() });
    let sender = world.member(1, 1);
    let message = vec![0; 16_000];
    world.send(sender, &ClientFrame::Send { topic: topic(1), to: handle(2), id: 1, kept: true, message });
    let delivered = (0..20).filter(|_| {
        let id = world.connect();
        let received = world.enter(id, 1, 2, b"");
        received.iter().any(|frame| matches!(frame, ServerFrame::Message { .. }))
    });
    assert_eq!(delivered.count(), 5);
    assert_eq!(world.server.stats().limit_hits.address_bytes, 15);
}

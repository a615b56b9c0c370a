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
    let first = world.member(1, handle(1));
    world.member(1, handle(2));
    let late = world.connect();
    assert_eq!(refusal(&world.enter(late, 1, handle(3), b"")), Some(RefusalCode::TopicFull));
    assert_eq!(refusal(&world.enter(late, 1, handle(2), b"")), None, "a member may come again");

    assert_eq!(refusal(&world.enter(first, 2, handle(1), b"")), None);
    assert_eq!(refusal(&world.enter(first, 3, handle(1), b"")), Some(RefusalCode::TooManyTopics));
    world.member(3, handle(1));
    let other = world.connect();
    assert_eq!(refusal(&world.enter(other, 4, handle(1), b"")), Some(RefusalCode::ServerFull));
}

#[test]
fn mail_is_limited_per_handle_per_topic_and_in_all() {
    let limits = Limits { mail_per_handle: 2, mail_bytes_per_topic: 5_000, ..Limits::default() };
    let mut world = World::new(limits);
    let id = world.member(1, handle(1));
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
    let id = world.member(1, handle(1));
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
    let noisy = world.member(1, handle(1));
    let quiet = world.member(2, handle(1));
    let announce = |party| ClientFrame::Announce { topic: topic(party), record: vec![] };
    (0..6).for_each(|_| world.send(noisy, &announce(1)));
    assert_eq!(refusal(&world.received(noisy)), Some(RefusalCode::RateLimited));
    world.send(quiet, &announce(2));
    assert_eq!(refusal(&world.received(quiet)), None);
}

#[test]
fn malformed_frame_closes_only_its_connection() {
    let mut world = World::new(Limits::default());
    let friend = world.member(1, handle(2));
    let id = world.member(1, handle(1));
    world.received(friend);
    world.server.handle_frame(world.now, id, &[0xff; 40]);
    world.drain();
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
    let id = world.member(1, handle(1));
    world.enter(id, 2, handle(1), b"");
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

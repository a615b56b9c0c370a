//! Servers, neighbours and strangers that say whatever they like.
#![allow(missing_docs)]

use std::{net::SocketAddr, time::Duration};

use partyline_model::{Handle, PartyPhase, Timestamp, Topic};
use partyline_node::{Deliver, Egress, ServerInput, SocketId, StreamInput, Transmit};
use partyline_tests_sim::World;
use partyline_wire::{
    beacon,
    rendezvous::{RefusalCode, RelayGrant, RelayServer, ServerFrame, TopicMember},
};
use proptest::{collection::vec, prelude::*, strategy::ValueTree as _};

const SOON: Duration = Duration::from_secs(30);

/// A party of two, and the topic that its first member is on.
fn pair() -> (World, Topic) {
    let mut world = World::new(9);
    world.start_server();
    world.party(2);
    let topic = *world.wires.topics.last().expect("a topic");
    (world, topic)
}

fn frames(topic: Topic) -> impl Strategy<Value = ServerFrame> {
    let handle = any::<[u8; 16]>().prop_map(Handle);
    let topic = prop_oneof![4 => Just(topic), 1 => any::<[u8; 32]>().prop_map(Topic)];
    let bytes = || vec(any::<u8>(), 0..400);
    let code = prop_oneof![
        Just(RefusalCode::BadProof),
        Just(RefusalCode::NotEntered),
        Just(RefusalCode::Replaced),
        Just(RefusalCode::RateLimited),
        Just(RefusalCode::TopicFull),
    ];
    let member = (handle.clone(), bytes()).prop_map(|(handle, record)| TopicMember { handle, record });
    prop_oneof![
        (any::<u16>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(version, challenge, time)| {
            ServerFrame::Welcome { version, challenge, time: Timestamp(time) }
        }),
        (topic.clone(), vec(member, 0..20), any::<bool>())
            .prop_map(|(topic, members, more)| ServerFrame::Roster { topic, members, more }),
        (topic.clone(), handle.clone(), bytes()).prop_map(|(topic, handle, record)| ServerFrame::Present {
            topic,
            handle,
            record
        }),
        (topic.clone(), handle.clone()).prop_map(|(topic, handle)| ServerFrame::Gone { topic, handle }),
        (topic.clone(), handle, bytes()).prop_map(|(topic, from, message)| ServerFrame::Message {
            topic,
            from,
            message
        }),
        (proptest::option::of(topic), code).prop_map(|(topic, code)| ServerFrame::Refused {
            topic,
            id: None,
            code,
            detail: "no".into()
        }),
        (vec("(turns?:)?[a-z0-9.:\\[\\]?=]{0,30}", 0..4), any::<u64>()).prop_map(|(urls, expires)| {
            let server = |url| RelayServer { url, region: String::new() };
            ServerFrame::RelayGrant(RelayGrant {
                servers: urls.into_iter().map(server).collect(),
                username: "user".into(),
                password: "password".into(),
                realm: "realm".into(),
                expires: Timestamp(expires),
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_lying_server_breaks_no_session(said in vec(vec(any::<u8>(), 0..300), 0..10), seed in any::<u64>()) {
        let (mut world, topic) = pair();
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            ProptestConfig::default(),
            proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &expand(seed)),
        );
        let lies = vec(frames(topic), 40).new_tree(&mut runner).expect("frames").current();
        let link = world.link(0);
        for bytes in lies.iter().filter_map(|frame| frame.encode().ok()).chain(said) {
            world.with(0, |node, now| node.handle_server(now, link, ServerInput::Frame(bytes)));
        }
        world.run(Duration::from_secs(1));
        prop_assert!(world.reaches(0, 1));
        prop_assert!(world.reaches(1, 0));
    }

    #[test]
    fn noise_on_every_input_is_dropped(noise in vec((0..4_u8, vec(any::<u8>(), 0..600)), 0..60)) {
        let (mut world, topic) = pair();
        let from: SocketAddr = ([11, 7, 7, 7], 7).into();
        let party = world.view(0).id;
        for (input, mut bytes) in noise {
            world.with(0, |node, now| match input {
                0 => node.handle_beacon(now, from, &beacon::encode(&topic, &bytes).unwrap_or_default()),
                1 => node.handle_datagram(now, SocketId::MAIN, from, &bytes, &mut [0; 1024], &mut Nowhere),
                2 => node.handle_packet(now.instant, party, &mut bytes),
                _ => {
                    let (id, input) = (partyline_node::StreamId(0), StreamInput::Data(bytes));
                    node.handle_stream(now, id, input, &mut [0; 1024], &mut Nowhere);
                }
            });
        }
        world.run(Duration::from_secs(1));
        prop_assert!(world.reaches(0, 1));
    }
}

struct Nowhere;

impl Egress for Nowhere {
    fn transmit(&mut self, _: Transmit<'_>) {}

    fn deliver(&mut self, _: Deliver<'_>) {}
}

fn expand(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

#[test]
fn what_is_refused_is_counted_and_told() {
    let (mut world, topic) = pair();
    let link = world.link(0);
    for number in 0..2_000_u32 {
        let message = number.to_be_bytes().repeat(30);
        let frame = ServerFrame::Message { topic, from: Handle([9; 16]), message };
        let bytes = frame.encode().expect("a frame");
        world.with(0, |node, now| node.handle_server(now, link, ServerInput::Frame(bytes)));
    }
    let Ok(partyline_model::Reply::Doctor(findings)) = world.command(0, partyline_model::Command::Doctor)
    else {
        panic!("no findings")
    };
    let messages = findings.iter().find(|finding| finding.what == "Messages").expect("a finding");
    assert!(messages.note.contains("2000 x"), "{messages:?}");
    assert!(world.reaches(0, 1));
}

#[test]
fn a_server_that_falls_silent_is_left_and_found_again() {
    let (mut world, _) = pair();
    world.frozen = true;
    world.with(0, |node, now| node.handle_wake(now));
    world.until("the silence to be noticed", SOON, |world| !world.view(0).servers[0].connected);
    world.frozen = false;
    world.until("the server to be back", SOON, |world| world.view(0).servers[0].connected);
    world.until_mesh(SOON);
}

#[test]
fn a_clock_that_jumps_ends_no_party_for_good() {
    let (mut world, _) = pair();
    let party = world.view(0).id;
    let day = Duration::from_secs(86_400);
    // The owner sleeps, so that the newcomer is not confirmed.
    world.kill(0);
    let Ok(partyline_model::Reply::Invite { link }) = ({
        world.start(0);
        let lifetime = partyline_model::InviteLifetime::Hour;
        let terms = partyline_model::InviteTerms { lifetime, ..partyline_model::InviteTerms::FRIENDS };
        let command = partyline_model::Command::Invite { party, terms };
        world.command(0, command)
    }) else {
        panic!("no invite")
    };
    world.kill(0);
    let late = world.member();
    world.join(late, &link);
    world.until("the newcomer to be in", SOON, |world| !world.members[late].devices.is_empty());
    let right = world.now().unix;
    world.set_clock(right.plus(day));
    world.run(Duration::from_secs(700));
    assert!(world.members[late].devices.is_empty(), "an invite that ended a day ago still counts");
    assert_ne!(world.view(late).phase, PartyPhase::Down);
    world.set_clock(right);
    world.start(0);
    world.until("the newcomer to be back", SOON, |world| !world.members[late].devices.is_empty());
    assert_eq!(world.view(late).problem, None);
    world.until_mesh(SOON);
    world.assert_all_reach();
}

//! Random histories: the view of a topic that each client builds from frames alone matches the server's.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Connect,
    Enter { who: usize, party: u8, handle: u8 },
    Announce { who: usize, party: u8 },
    Send { who: usize, party: u8, to: u8 },
    Leave { who: usize, party: u8 },
    Drop { who: usize },
    Garbage { who: usize, bytes: Vec<u8> },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, party, to) = (0..8_usize, 1..3_u8, 1..6_u8);
    prop_oneof![
        2 => Just(Step::Connect),
        6 => (who.clone(), party.clone(), to.clone()).prop_map(|(who, party, handle)| Step::Enter { who, party, handle }),
        2 => (who.clone(), party.clone()).prop_map(|(who, party)| Step::Announce { who, party }),
        3 => (who.clone(), party.clone(), to).prop_map(|(who, party, to)| Step::Send { who, party, to }),
        2 => (who.clone(), party).prop_map(|(who, party)| Step::Leave { who, party }),
        2 => who.clone().prop_map(|who| Step::Drop { who }),
        1 => (who, vec(any::<u8>(), 0..20)).prop_map(|(who, bytes)| Step::Garbage { who, bytes }),
        1 => (0..120_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// One client's picture: topic to handles present beside its own.
#[derive(Default)]
struct Picture {
    topics: BTreeMap<Topic, (Handle, BTreeMap<Handle, Vec<u8>>)>,
}

impl Picture {
    fn apply(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Roster { topic, members, .. } => {
                if let Some((_, seen)) = self.topics.get_mut(&topic) {
                    *seen = members.into_iter().map(|member| (member.handle, member.record)).collect();
                }
            }
            ServerFrame::Present { topic, handle, record } => {
                self.topics.get_mut(&topic).unwrap().1.insert(handle, record);
            }
            ServerFrame::Gone { topic, handle } => {
                assert!(self.topics.get_mut(&topic).unwrap().1.remove(&handle).is_some());
            }
            ServerFrame::Refused { topic: Some(topic), code: RefusalCode::Replaced, .. } => {
                self.topics.remove(&topic);
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct History {
    clients: Vec<ConnectionId>,
    pictures: BTreeMap<ConnectionId, Picture>,
    records: u8,
}

impl History {
    fn step(&mut self, world: &mut World, step: Step) {
        match step {
            Step::Connect if self.clients.len() < 8 => self.clients.push(world.connect()),
            Step::Connect => {}
            Step::Pass { seconds } => world.advance(Duration::from_secs(seconds)),
            Step::Enter { who, .. }
            | Step::Announce { who, .. }
            | Step::Send { who, .. }
            | Step::Leave { who, .. }
            | Step::Drop { who }
            | Step::Garbage { who, .. } => {
                if let Some(id) = self.clients.get(who).copied() {
                    self.act(world, id, step);
                }
            }
        }
        self.clients.retain(|id| !world.closed.contains_key(id));
        for id in &self.clients {
            let picture = self.pictures.entry(*id).or_default();
            world.received(*id).into_iter().for_each(|frame| picture.apply(frame));
        }
    }

    fn act(&mut self, world: &mut World, id: ConnectionId, step: Step) {
        self.records = self.records.wrapping_add(1);
        let record = vec![self.records];
        let picture = self.pictures.entry(id).or_default();
        match step {
            Step::Enter { party, handle: n, .. } => {
                picture.topics.insert(topic(party), (handle(n), BTreeMap::new()));
                let frame = world.enter_frame(id, party, n, &record);
                world.send(id, &frame);
            }
            Step::Announce { party, .. } => {
                world.send(id, &ClientFrame::Announce { topic: topic(party), record })
            }
            Step::Send { party, to, .. } => {
                world.send(
                    id,
                    &ClientFrame::Send {
                        topic: topic(party),
                        to: handle(to),
                        id: 1,
                        kept: false,
                        message: record,
                    },
                );
            }
            Step::Leave { party, .. } => {
                picture.topics.remove(&topic(party));
                world.send(id, &ClientFrame::Leave { topic: topic(party) });
            }
            Step::Garbage { bytes, .. } => {
                if ClientFrame::decode(&bytes).is_err() {
                    world.send_bytes(id, &bytes);
                }
            }
            _ => {
                world.server.handle_disconnect(world.now, id);
                world.drain();
                self.clients.retain(|client| *client != id);
            }
        }
    }

    fn check(&self, world: &World) {
        let mut truth: BTreeMap<Topic, BTreeSet<Handle>> = BTreeMap::new();
        for id in &self.clients {
            for (topic, (me, _)) in &self.pictures[id].topics {
                assert!(truth.entry(*topic).or_default().insert(*me), "each handle has one session");
            }
        }
        assert_eq!(world.server.stats().members, truth.values().map(BTreeSet::len).sum::<usize>());
        for id in &self.clients {
            for (topic, (me, seen)) in &self.pictures[id].topics {
                let others: BTreeSet<_> =
                    truth[topic].iter().filter(|handle| *handle != me).copied().collect();
                assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), others);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn client_views_match_the_server_and_nothing_is_left_behind(steps in vec(step(), 1..120)) {
        // Clients that enter a topic again and again, and stay on none for as long as they like.
        let entry_timeout = Duration::from_secs(1_000_000);
        let roster_rate = Rate::per_second(1_000, 1_000);
        let mut world = World::new(Limits { entry_timeout, roster_rate, ..Limits::default() });
        let mut history = History::default();
        for step in steps {
            history.step(&mut world, step);
            history.check(&world);
        }
        for id in history.clients {
            world.server.handle_disconnect(world.now, id);
        }
        world.advance(Limits::default().mail_lifetime);
        world.advance(Duration::from_secs(60));
        let stats = world.server.stats();
        prop_assert_eq!((stats.topics, stats.members, stats.mail, stats.held_bytes), (0, 0, 0, 0));
        prop_assert_eq!((stats.connections, stats.addresses), (0, 0));
    }
}

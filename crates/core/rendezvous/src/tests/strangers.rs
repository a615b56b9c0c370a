//! A thousand strangers at once do not slow members, counted in frames rather than in time.

use super::*;

const STRANGERS: usize = 1_000;

/// Strangers of one attacker who has a few IPv4 addresses.
fn address(number: usize) -> IpAddr {
    [203, 0, 113, (number % 20) as u8].into()
}

/// A party of four, and how many frames each of them has received.
struct Party {
    members: Vec<ConnectionId>,
    sent: u32,
}

impl Party {
    fn new(world: &mut World) -> Self {
        let members: Vec<_> = (1..=4).map(|n| world.member(1, n)).collect();
        members.iter().for_each(|id| drop(world.received(*id)));
        Self { members, sent: 0 }
    }

    /// Has one member announce and send to another. Everybody gets exactly what is meant for it, at once.
    fn play(&mut self, world: &mut World) {
        self.sent += 1;
        let before = world.server.stats().counters.frames_sent;
        let record = self.sent.to_be_bytes().to_vec();
        world.send(self.members[0], &ClientFrame::Announce { topic: topic(1), record: record.clone() });
        let send = ClientFrame::Send {
            topic: topic(1),
            to: handle(2),
            id: self.sent,
            kept: false,
            message: record.clone(),
        };
        world.send(self.members[0], &send);
        let present = ServerFrame::Present { topic: topic(1), handle: handle(1), record: record.clone() };
        let message = ServerFrame::Message { topic: topic(1), from: handle(1), message: record };
        assert_eq!(world.received(self.members[0]), []);
        for id in &self.members[2..] {
            assert_eq!(world.received(*id), std::slice::from_ref(&present));
        }
        assert_eq!(world.received(self.members[1]), [present, message]);
        let frames = world.server.stats().counters.frames_sent - before;
        assert_eq!(frames, 4, "no frame more than without strangers");
    }
}

/// One stranger's turn: a third says nothing, a third enters topics of its own and talks there, a third sends rubbish.
fn act(world: &mut World, number: usize, id: ConnectionId) {
    match number % 3 {
        0 => {}
        1 => {
            let own = 10 + (number % 200) as u8;
            world.enter(id, own, number as u8, &[0; 4_000]);
            world.send(id, &ClientFrame::Announce { topic: topic(own), record: vec![1; 4_000] });
            let (to, message) = (Handle([0xEE; 16]), vec![0; 16_000]);
            world.send(id, &ClientFrame::Send { topic: topic(own), to, id: 1, kept: false, message });
        }
        _ => world.send_bytes(id, &vec![number as u8; number]),
    }
}

#[test]
fn thousand_strangers_do_not_slow_members() {
    let mut world = World::new(Limits::default());
    let mut party = Party::new(&mut world);
    party.play(&mut world);
    let strangers: Vec<_> = (0..STRANGERS).map(|n| world.connect_from(address(n)).unwrap()).collect();
    for (number, id) in strangers.iter().enumerate() {
        act(&mut world, number, *id);
        if number % 50 == 0 {
            party.play(&mut world);
        }
    }
    assert!(party.members.iter().all(|id| !world.closed.contains_key(id)));
    let limits = Limits::default();
    let stats = world.server.stats();
    // A few addresses have a few buckets: what a thousand connections send is what twenty may.
    let most = 20 * limits.mail_bytes_per_topic + STRANGERS * 5_000;
    assert!(stats.held_bytes <= most, "{} of {most} bytes held", stats.held_bytes);

    world.advance(limits.entry_timeout);
    let silent = strangers.iter().enumerate().filter(|(number, _)| number % 3 == 0);
    assert!(silent.into_iter().all(|(_, id)| world.closed.get(id) == Some(&close::IDLE)));
    party.play(&mut world);
}

/// The same strangers as a flood: all that a connection may send, from all of them.
#[test]
fn flood_of_a_thousand_strangers_is_cut_off_and_members_are_not() {
    let mut world = World::new(Limits::default());
    let mut party = Party::new(&mut world);
    let strangers: Vec<_> = (0..STRANGERS).map(|n| world.connect_from(address(n)).unwrap()).collect();
    for round in 0..150 {
        for id in &strangers {
            world.send(*id, &ClientFrame::Time { echo: round });
            world.inbox.remove(id);
        }
        party.play(&mut world);
    }
    let counters = world.server.stats().counters;
    // Each of the twenty addresses has a thousand frames at once; those beyond are refused, and a hundred refusals in a row
    // close a connection.
    assert!(strangers.iter().all(|id| world.closed.get(id) == Some(&close::RATE)));
    assert_eq!(counters.connections_closed, STRANGERS as u64);
    assert_eq!(world.server.stats().connections, party.members.len());
    assert_eq!(world.server.stats().limit_hits.address_rate, STRANGERS as u64 * 100);
}

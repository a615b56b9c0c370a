//! Goodbyes that arrive.
//!
//! Who leaves is rid of the party at once, but the others have to hear of it, and just then the connection to the
//! server may be down, or dead without anybody knowing. What is needed to say goodbye is kept until the server shows
//! that it has it, by answering a question that was asked after it. For those who are away the server keeps it; those
//! whose own connection was dead hear it from others, who repeat it for a while to whoever comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Handle, Now, PartyId, Topic};
use partyline_party::{Membership, Outgoing, Reachability};
use partyline_wire::rendezvous::ClientFrame;
use rand_core::RngCore as _;

use crate::{Node, io::ServerId, link::Room, servers::enter};

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long others repeat it, how many they remember, and how many of them speak up.
const REPEATED: Duration = Duration::from_secs(60);
const REMEMBERED: usize = 16;
const SPEAKERS: usize = 4;

/// Parties that were left, and whose servers have not all taken it.
#[derive(Default)]
pub(crate) struct Farewells(BTreeMap<PartyId, Farewell>);

struct Farewell {
    membership: Membership,
    until: Instant,
    /// Servers that have yet to take it, and the question that they were asked last.
    owed: BTreeMap<String, Option<u64>>,
}

/// Goodbyes of others, newest last.
#[derive(Debug, Default)]
pub(crate) struct Goodbyes(Vec<(Instant, Topic, Vec<u8>)>);

impl Farewells {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|farewell| farewell.until).min()
    }

    /// Servers that have to be reached.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|farewell| farewell.owed.keys())
    }

    /// Topics that must not be left before.
    pub(crate) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.0.values().flat_map(|farewell| farewell.membership.topics()).map(|access| access.topic)
    }

    /// The party is entered again.
    pub(crate) fn forget(&mut self, party: PartyId) {
        self.0.remove(&party);
    }
}

impl Goodbyes {
    pub(crate) fn note(&mut self, now: Instant, topic: Topic, sealed: &[u8]) {
        self.0.retain(|(at, ..)| now < *at + REPEATED);
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push((now, topic, sealed.to_vec()));
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = (Topic, Vec<u8>)> {
        let fresh = self.0.iter().filter(move |(at, ..)| now < *at + REPEATED);
        fresh.map(|(_, topic, sealed)| (*topic, sealed.clone()))
    }
}

impl Node {
    /// Sees to it that the servers of a party that was just left hear of it.
    pub(crate) fn begin_farewell(&mut self, now: Now, membership: Membership) {
        let owed = membership.servers().iter().map(|url| (url.clone(), None)).collect();
        let farewell = Farewell { membership, until: now.instant + PATIENCE, owed };
        self.farewells.0.insert(farewell.membership.id(), farewell);
        self.sync_links(now);
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.say_farewells(now, id);
        }
        self.end_farewells(now);
    }

    /// Says goodbye on a server where we are let in, and asks to be let in where we are not.
    pub(crate) fn say_farewells(&mut self, now: Now, id: ServerId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(challenge) = link.challenge() else { return };
        let mut frames = Vec::new();
        for farewell in self.farewells.0.values_mut() {
            let Some(asked) = farewell.owed.get_mut(&link.url) else { continue };
            let membership = &mut farewell.membership;
            let Some(access) = membership.topics().into_iter().find(|access| access.current) else {
                continue;
            };
            let Some(room) = link.rooms.get(&access.topic) else {
                link.rooms.insert(access.topic, Room::default());
                let nowhere = Reachability::default();
                let record =
                    membership.announcement(now.unix, &mut self.rng, &access.topic, &nowhere).messages.pop();
                frames.extend(
                    record.and_then(|record| enter(membership, (&challenge, &access), record.message)),
                );
                continue;
            };
            if room.entered {
                for goodbye in membership.leave(now.unix, &mut self.rng).messages {
                    let Some(room) = link.rooms.get(&goodbye.topic) else { continue };
                    frames.extend(letters(membership, room, &goodbye, &mut self.next_message));
                }
                self.next_message = self.next_message.wrapping_add(1);
                let echo = u64::from(self.next_message);
                *asked = Some(echo);
                frames.push(ClientFrame::Time { echo });
                link.doubt(now.instant);
            }
        }
        frames.iter().for_each(|frame| self.send_frame(id, frame));
    }

    /// A server has answered a question, and so has all that was sent before it.
    pub(crate) fn farewell_taken(&mut self, now: Now, id: ServerId, echo: u64) {
        let Some(link) = self.links.get(&id) else { return };
        for farewell in self.farewells.0.values_mut() {
            if farewell.owed.get(&link.url) == Some(&Some(echo)) {
                farewell.owed.remove(&link.url);
            }
        }
        self.end_farewells(now);
    }

    /// Ends what is done or was in vain.
    pub(crate) fn end_farewells(&mut self, now: Now) {
        let before = self.farewells.0.len();
        let goes_on = |farewell: &Farewell| farewell.until > now.instant && !farewell.owed.is_empty();
        self.farewells.0.retain(|_, farewell| goes_on(farewell));
        if self.farewells.0.len() < before {
            self.sync_links(now);
        }
    }

    /// A member is back, who may not have heard who left meanwhile. In a large party some speak for all.
    pub(crate) fn repeat_goodbyes(&mut self, now: Now, party: PartyId, to: DeviceId) {
        let Some(local) = self.parties.get(&party) else { return };
        let goodbyes: Vec<_> = local.goodbyes.fresh(now.instant).collect();
        if goodbyes.is_empty()
            || self.rng.next_u32() as usize % local.membership.devices().count().max(1) >= SPEAKERS
        {
            return;
        }
        for (topic, message) in goodbyes {
            let handle = self.parties.get(&party).and_then(|local| local.membership.handle_of(&topic, &to));
            self.deliver(now, party, &Outgoing { topic, to: Some(to), handle, message });
        }
    }
}

/// A goodbye to every member, and to whoever is there besides.
fn letters(membership: &Membership, room: &Room, goodbye: &Outgoing, number: &mut u32) -> Vec<ClientFrame> {
    let topic = goodbye.topic;
    let members = membership.devices().filter_map(|device| membership.handle_of(&topic, &device));
    let all: BTreeSet<Handle> = members.chain(room.present.iter().copied()).collect();
    let letter = |to| {
        *number = number.wrapping_add(1);
        ClientFrame::Send { topic, to, id: *number, message: goodbye.message.clone() }
    };
    all.into_iter().map(letter).collect()
}

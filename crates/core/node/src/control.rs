//! What members' engines say to each other through the tunnel: sealed messages passed on, and pings.
//!
//! Passing messages on is how a party without a server, or with a lost one, still learns of newcomers and moves:
//! whoever connects is told the newest announcement of everybody, and new ones go to those whom no server tells.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, Now, PartyId, Topic};
use partyline_netcheck::{FilteringProbeRequest, PortPair, ProbeRound};
use rand_core::RngCore as _;
use serde::{Deserialize, Serialize};

use crate::{Node, local::Contact, passage::Mark, signalling::Channel};

/// A message on the control channel, in postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ControlMessage {
    /// A sealed message, the sender's own or another member's.
    Sealed { topic: Topic, sealed: Vec<u8> },
    /// Asks for a `Pong`.
    Ping(u32),
    /// Answers a `Ping`.
    Pong(u32),
    /// Asks whether the receiver would pass messages on to a member.
    AskPassage { to: DeviceId },
    /// It would; it takes so long from there to the member and back.
    OfferPassage { to: DeviceId, rtt_ms: u16 },
    /// To be passed on to a member.
    Pass { to: Mark, message: Vec<u8> },
    /// Passed on for a member. Taken where packets are, since it may hold one.
    Passed { from: Mark, message: Vec<u8> },
    /// Asks the receiver to send a packet with this token to where a server sees one of the sender's sockets.
    Observe { to: SocketAddr, token: [u8; 12] },
    /// Asks the receiver to lend a second port of its for a while.
    AskPort,
    /// It does: where a server sees its first and the second.
    LendPort { first: SocketAddr, second: SocketAddr },
    /// Asks for a packet with this token from both ports to where a server sees two of the sender's sockets.
    SendFromBoth { to: [SocketAddr; 2], token: [u8; 12] },
}

impl ControlMessage {
    /// Reads only what was passed on, the one message that packets are waited for in.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Node {
    /// Takes a control message of a member.
    pub(crate) fn handle_control(&mut self, now: Now, party: PartyId, peer: DeviceId, bytes: &[u8]) {
        if let Some(local) = self.parties.get_mut(&party) {
            local.hear(now.instant, peer);
        }
        match postcard::from_bytes(bytes) {
            Ok(ControlMessage::Sealed { topic, sealed }) => {
                self.receive_sealed(now, party, &topic, Channel::Member(peer), &sealed);
            }
            Ok(ControlMessage::Ping(id)) => {
                self.send_control(now.instant, party, peer, &ControlMessage::Pong(id));
            }
            Ok(ControlMessage::Pong(id)) => self.pong(now.instant, party, peer, id),
            Ok(ControlMessage::AskPassage { to }) => self.asked_for_passage(now, party, peer, to),
            Ok(ControlMessage::OfferPassage { to, rtt_ms }) => {
                self.offered_passage(now, party, peer, to, rtt_ms);
            }
            Ok(ControlMessage::Pass { to, message }) => self.pass_on(now, party, peer, to, message),
            Ok(ControlMessage::Passed { .. }) => {}
            Ok(ControlMessage::Observe { to, token }) => {
                self.asked_to_observe(now, party, peer, FilteringProbeRequest { to, token });
            }
            Ok(ControlMessage::AskPort) => self.asked_for_port(now, party, peer),
            Ok(ControlMessage::LendPort { first, second }) => {
                self.lent_port(now, peer, PortPair { first, second });
            }
            Ok(ControlMessage::SendFromBoth { to, token }) => {
                self.asked_to_send_from_both(now, party, peer, &ProbeRound { to, token });
            }
            Err(_) => self.refusals.count(&partyline_party::Refusal::Malformed),
        }
    }

    pub(crate) fn send_control(
        &mut self,
        now: Instant,
        party: PartyId,
        to: DeviceId,
        message: &ControlMessage,
    ) {
        if let Ok(bytes) = postcard::to_allocvec(message) {
            // Sealed messages are shorter than the channel's limit, and nothing else comes near it.
            let _ = self.tunnel.send_control(now, party, to, &bytes, &mut self.outbox);
        }
    }

    /// Keeps a member's announcement, and passes it on to those whom no server tells.
    pub(crate) fn note_letter(
        &mut self,
        now: Now,
        party: PartyId,
        from: DeviceId,
        (topic, sealed): (&Topic, &[u8]),
        channel: Channel,
    ) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        let current = local.membership.topics().iter().any(|access| access.current && access.topic == *topic);
        if !current {
            return;
        }
        let contact = match channel {
            Channel::Server => local.contacts.entry(from).or_default(),
            Channel::Lan | Channel::Member(_) => local.hear(now.instant, from),
        };
        contact.letter = Some((*topic, sealed.to_vec()));
        let message = ControlMessage::Sealed { topic: *topic, sealed: sealed.to_vec() };
        let mut others = self.connected(party);
        others.retain(|member| *member != from && channel != Channel::Member(*member));
        others.retain(|member| !self.share_a_server(party, topic, &[from, *member]));
        for member in self.choose(others) {
            self.send_control(now.instant, party, member, &message);
        }
    }

    /// Some of many, at random: when everybody passes a message on to a few, it reaches everybody, and what it costs
    /// grows with their number and not with its square.
    fn choose(&mut self, mut members: Vec<DeviceId>) -> Vec<DeviceId> {
        let mut chosen = Vec::new();
        while chosen.len() < GOSSIP && !members.is_empty() {
            let index = self.rng.next_u32() as usize % members.len();
            chosen.push(members.swap_remove(index));
        }
        chosen
    }

    /// A session with a member stands: exchange what both know.
    pub(crate) fn introduce(&mut self, now: Now, party: PartyId, device: DeviceId) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        local.hear(now.instant, device);
        let Some(topic) = local.membership.topics().into_iter().find(|access| access.current) else { return };
        let topic = topic.topic;
        let letters: BTreeMap<DeviceId, Vec<u8>> = local
            .contacts
            .iter()
            .filter(|(from, _)| **from != device)
            .filter_map(|(from, Contact { letter, .. })| {
                Some((*from, letter.as_ref().filter(|(on, _)| *on == topic)?.1.clone()))
            })
            .collect();
        if !self.share_a_server(party, &topic, &[device]) {
            self.tell(now, party, device, &topic);
        }
        self.repeat_goodbyes(now, party, device);
        for (from, sealed) in letters {
            if !self.share_a_server(party, &topic, &[from, device]) {
                self.send_control(now.instant, party, device, &ControlMessage::Sealed { topic, sealed });
            }
        }
    }

    /// Tells those connected members our announcement whom no server tells.
    pub(crate) fn tell_connected(&mut self, now: Now, party: PartyId) {
        let Some(local) = self.parties.get(&party) else { return };
        let Some(access) = local.membership.topics().into_iter().find(|access| access.current) else {
            return;
        };
        for member in self.connected(party) {
            if !self.share_a_server(party, &access.topic, &[member]) {
                self.tell(now, party, member, &access.topic);
            }
        }
    }

    fn tell(&mut self, now: Now, party: PartyId, to: DeviceId, topic: &Topic) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        let outcome = local.membership.announcement(now.unix, &mut self.rng, topic, &self.reach);
        for announcement in outcome.messages {
            let message = ControlMessage::Sealed { topic: *topic, sealed: announcement.message };
            self.send_control(now.instant, party, to, &message);
        }
        self.save_if(outcome.persist);
    }

    /// Whether one server that we are at lists all these members on a topic.
    pub(crate) fn share_a_server(&self, party: PartyId, topic: &Topic, members: &[DeviceId]) -> bool {
        let Some(local) = self.parties.get(&party) else { return false };
        self.links.values().filter_map(|link| link.rooms.get(topic)).any(|room| {
            members.iter().all(|member| {
                local.handle_of(topic, member).is_some_and(|handle| room.present.contains(&handle))
            })
        })
    }
}

/// To how many each member passes an announcement on that it hears for the first time.
const GOSSIP: usize = 8;

/// How long a member has to answer a ping.
pub(crate) const PING_PATIENCE: Duration = Duration::from_secs(3);

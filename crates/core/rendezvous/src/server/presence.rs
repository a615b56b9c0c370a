//! Who is present: entering, announcing, leaving.

use ed25519_dalek::{Signature, VerifyingKey};
use partyline_model::{Handle, Now, Topic};
use partyline_wire::rendezvous::{
    MAX_ROSTER_CHUNK, RefusalCode, ServerFrame, TopicMember, close, proof_message,
};

use super::{ConnectionId, Rendezvous};
use crate::topic::{Member, TopicState};

/// What a member costs beside its record's bytes.
const MEMBER_OVERHEAD: usize = 256;

impl Rendezvous {
    pub(super) fn enter(
        &mut self,
        now: Now,
        id: ConnectionId,
        (topic, handle): (Topic, Handle),
        proof: &[u8; 64],
        record: Vec<u8>,
    ) {
        if let Err(code) = self.may_enter(now, id, (topic, handle), proof, record.len()) {
            return self.refuse(id, Some(topic), None, code);
        }
        if self.handle_on(id, &topic).is_some_and(|before| before != handle) {
            self.leave(id, topic);
        }
        let state = self.topics.entry(topic).or_insert_with(|| TopicState::new(now.instant));
        let before = state.members.insert(handle, Member { connection: id, record: record.clone().into() });
        self.stats.held_bytes += record.len() + MEMBER_OVERHEAD;
        self.stats.members += 1;
        if let Some(before) = before {
            self.stats.members -= 1;
            self.stats.held_bytes -= before.record.len() + MEMBER_OVERHEAD;
            self.replace(now, before.connection, id, topic);
        }
        self.note_entered(id, topic, handle);
        self.tell_others(topic, handle, &ServerFrame::Present { topic, handle, record });
        self.send_roster(id, topic, handle);
        self.deliver_mailbox(id, topic, handle);
    }

    fn may_enter(
        &mut self,
        now: Now,
        id: ConnectionId,
        (topic, handle): (Topic, Handle),
        proof: &[u8; 64],
        record: usize,
    ) -> Result<(), RefusalCode> {
        let connection = self.connections.get(&id).ok_or(RefusalCode::NotEntered)?;
        if !is_proof(&connection.challenge, &topic, &handle, proof) {
            return Err(RefusalCode::BadProof);
        }
        let entered = connection.handle_on(&topic).is_some();
        if !entered && connection.entered.len() >= self.limits.topics_per_connection {
            return Err(RefusalCode::TooManyTopics);
        }
        if self.stats.held_bytes + record + MEMBER_OVERHEAD > self.limits.held_bytes {
            return Err(RefusalCode::ServerFull);
        }
        let room = self.topics.len() < self.limits.topics;
        let Some(state) = self.topics.get_mut(&topic) else {
            return if room { Ok(()) } else { Err(RefusalCode::ServerFull) };
        };
        if state.members.len() >= self.limits.members_per_topic && !state.members.contains_key(&handle) {
            return Err(RefusalCode::TopicFull);
        }
        let paced = state.bucket.take(now.instant, self.limits.topic_rate, 1);
        if paced { Ok(()) } else { Err(RefusalCode::RateLimited) }
    }

    /// An older connection loses its place; without any other topic it is of no more use.
    fn replace(&mut self, now: Now, older: ConnectionId, newer: ConnectionId, topic: Topic) {
        if older == newer {
            return;
        }
        self.refuse(older, Some(topic), None, RefusalCode::Replaced);
        let Some(connection) = self.connections.get_mut(&older) else { return };
        connection.entered.retain(|(entered, _)| *entered != topic);
        if connection.entered.is_empty() {
            self.close(now, older, close::REPLACED, "the same member connected again");
        }
    }

    fn note_entered(&mut self, id: ConnectionId, topic: Topic, handle: Handle) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.handle_on(&topic).is_none() {
            connection.entered.push((topic, handle));
        }
    }

    fn send_roster(&mut self, id: ConnectionId, topic: Topic, me: Handle) {
        let Some(state) = self.topics.get(&topic) else { return };
        let others = state.members.iter().filter(|(handle, _)| **handle != me);
        let members: Vec<_> = others
            .map(|(handle, member)| TopicMember { handle: *handle, record: member.record.to_vec() })
            .collect();
        let frames = members.len().div_ceil(MAX_ROSTER_CHUNK).max(1);
        for frame in 0..frames {
            let chunk = members.iter().skip(frame * MAX_ROSTER_CHUNK).take(MAX_ROSTER_CHUNK);
            let members = chunk.cloned().collect();
            self.send(id, &ServerFrame::Roster { topic, members, more: frame + 1 < frames });
        }
    }

    pub(super) fn announce(&mut self, now: Now, id: ConnectionId, topic: Topic, record: Vec<u8>) {
        let Some(handle) = self.handle_on(id, &topic) else {
            return self.refuse(id, Some(topic), None, RefusalCode::NotEntered);
        };
        match self.store_record(now, topic, handle, &record) {
            Ok(()) => self.tell_others(topic, handle, &ServerFrame::Present { topic, handle, record }),
            Err(code) => self.refuse(id, Some(topic), None, code),
        }
    }

    fn store_record(
        &mut self,
        now: Now,
        topic: Topic,
        handle: Handle,
        record: &[u8],
    ) -> Result<(), RefusalCode> {
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        let member = state.members.get_mut(&handle).ok_or(RefusalCode::NotEntered)?;
        let held = self.stats.held_bytes - member.record.len() + record.len();
        if held > self.limits.held_bytes {
            return Err(RefusalCode::ServerFull);
        }
        if !state.bucket.take(now.instant, self.limits.topic_rate, 1) {
            return Err(RefusalCode::RateLimited);
        }
        member.record = record.into();
        self.stats.held_bytes = held;
        Ok(())
    }

    pub(super) fn leave(&mut self, id: ConnectionId, topic: Topic) {
        let Some(handle) = self.handle_on(id, &topic) else {
            return self.refuse(id, Some(topic), None, RefusalCode::NotEntered);
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.entered.retain(|(entered, _)| *entered != topic);
        }
        self.depart(topic, handle);
    }

    /// Takes a member off a topic and tells the others.
    pub(super) fn depart(&mut self, topic: Topic, handle: Handle) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let Some(member) = state.members.remove(&handle) else { return };
        self.stats.members -= 1;
        self.stats.held_bytes -= member.record.len() + MEMBER_OVERHEAD;
        self.drop_if_idle(topic);
        self.tell_others(topic, handle, &ServerFrame::Gone { topic, handle });
    }

    pub(super) fn drop_if_idle(&mut self, topic: Topic) {
        if self.topics.get(&topic).is_some_and(TopicState::is_idle) {
            self.topics.remove(&topic);
        }
    }

    fn tell_others(&mut self, topic: Topic, but: Handle, frame: &ServerFrame) {
        let Some(state) = self.topics.get(&topic) else { return };
        let others: Vec<_> = state.others(but).collect();
        self.send_all(others, frame);
    }
}

fn is_proof(challenge: &[u8; 32], topic: &Topic, handle: &Handle, proof: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(topic.as_bytes()).is_ok_and(|key| {
        let message = proof_message(challenge, topic, handle);
        key.verify_strict(&message, &Signature::from_bytes(proof)).is_ok()
    })
}

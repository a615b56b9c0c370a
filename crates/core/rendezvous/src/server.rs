//! The state machine: connections open and close, frames come in, events go out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use partyline_model::{Handle, Now, Topic};
use partyline_timing::Deadlines;
use partyline_wire::{
    rendezvous::{ClientFrame, MAX_ROSTER_CHUNK, RefusalCode, ServerFrame, VERSION, close},
    trace_id,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use tracing::{debug, debug_span, trace};

use crate::{
    addresses::Addresses,
    connections::Connections,
    counters::{Counters, LimitHits, Refusals, Stats},
    entry::{Entry, UnverifiedEntry, VerifiedEntry},
    event::{AdmissionError, ConnectionId, Event},
    grant::RelayOffer,
    limits::{Limit, Limits},
    mailbox::{self, Mail, MailExpiry},
    memory::MemoryQuota,
    outbox::Outbox,
    refusal::{Refusal, Subject, explanation},
    topic::{FRAME_OVERHEAD, Member, TopicState, member_cost},
};

/// How often addresses without connections are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Tokens that entering a topic takes from an address's bucket, since its proof costs two signature checks. All
/// other frames take one.
const ENTER_COST: u64 = 4;

/// The state of a rendezvous server.
#[derive(Debug)]
pub struct Rendezvous {
    limits: Limits,
    relays: Option<RelayOffer>,
    rng: ChaCha20Rng,
    connections: Connections,
    addresses: Addresses,
    /// When connections that are on no topic are closed.
    entry_deadlines: Deadlines<ConnectionId>,
    topics: BTreeMap<Topic, TopicState>,
    /// Members present, over all topics.
    members: usize,
    mail_expiry: MailExpiry,
    memory: MemoryQuota,
    next_sweep: Instant,
    outbox: Outbox,
    counters: Counters,
    refusals: Refusals,
    limit_hits: LimitHits,
}

impl Rendezvous {
    /// Returns a server without connections. The seed makes its challenges unpredictable; it must be secret and fresh.
    #[must_use]
    pub fn new(now: Now, limits: Limits, relays: Option<RelayOffer>, seed: [u8; 32]) -> Self {
        Self {
            memory: MemoryQuota::new(limits.held_bytes),
            limits,
            relays,
            rng: ChaCha20Rng::from_seed(seed),
            connections: Connections::default(),
            addresses: Addresses::default(),
            entry_deadlines: Deadlines::new(),
            topics: BTreeMap::new(),
            members: 0,
            mail_expiry: MailExpiry::default(),
            next_sweep: now.instant + SWEEP_INTERVAL,
            outbox: Outbox::default(),
            counters: Counters::default(),
            refusals: Refusals::default(),
            limit_hits: LimitHits::default(),
        }
    }

    /// Admits a connection and welcomes it.
    ///
    /// # Errors
    /// There are too many, in all or from this address.
    pub fn handle_connect(&mut self, now: Now, address: IpAddr) -> Result<ConnectionId, AdmissionError> {
        if let Err(limit) = self.admit(address) {
            self.limit_hits.count(limit);
            self.counters.connections_rejected += 1;
            debug!(%address, reason = limit.name(), "connection rejected");
            return Err(match limit {
                Limit::Connections => AdmissionError::ServerFull,
                _ => AdmissionError::AddressFull,
            });
        }
        let mut challenge = [0; 32];
        self.rng.fill_bytes(&mut challenge);
        let id = self.connections.open(address, challenge);
        self.entry_deadlines.set(id, Some(now.instant + self.limits.entry_timeout));
        self.counters.connections_admitted += 1;
        debug!(connection = id.0, %address, count = self.connections.len(), "connection admitted");
        self.outbox.send(id, &ServerFrame::Welcome { version: VERSION, challenge, time: now.unix });
        Ok(id)
    }

    fn admit(&mut self, address: IpAddr) -> Result<(), Limit> {
        if self.connections.len() >= self.limits.connections {
            return Err(Limit::Connections);
        }
        self.addresses.connect(address, &self.limits)
    }

    /// Forgets a connection that ended. Unknown ones are ignored, so that it does no harm after [`Event::Close`].
    pub fn handle_disconnect(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.close(id) else { return };
        let _span = debug_span!("connection", connection = id.0).entered();
        debug!(topics = connection.entered().len(), "connection closed");
        self.addresses.disconnect(now.instant, connection.address);
        self.entry_deadlines.set(id, None);
        for (topic, handle) in connection.entered() {
            self.depart(*topic, *handle, "connection closed");
        }
    }

    /// Handles a binary message of a connection. If it is a request to enter a topic, returns that request, which has no
    /// effect until [`handle_entry`](Self::handle_entry).
    pub fn handle_frame(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) -> Option<UnverifiedEntry> {
        let _span = debug_span!("connection", connection = id.0).entered();
        if self.connections.get(id).is_none() {
            self.drop_late(bytes.len());
            return None;
        }
        self.counters.frames_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        let frame = match ClientFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                debug!(%error, bytes = bytes.len(), "frame cannot be decoded");
                self.refuse(id, Subject::default(), RefusalCode::Malformed.into());
                self.close(now, id, close::MALFORMED, "a frame could not be decoded");
                return None;
            }
        };
        match self.charge_frame(now.instant, id, &frame, bytes.len()) {
            Ok(()) => self.dispatch(now, id, frame),
            Err(limit) => {
                self.strike(now, id, Subject::of(&frame), limit);
                None
            }
        }
    }

    /// Handles a request to enter a topic whose proof has been verified.
    pub fn handle_entry(&mut self, now: Now, entry: VerifiedEntry) {
        let VerifiedEntry { connection: id, entry, is_genuine } = entry;
        let _span = debug_span!("connection", connection = id.0).entered();
        if self.connections.get(id).is_none() {
            return self.drop_late(entry.record.len());
        }
        let subject = Subject { topic: Some(entry.topic), message: None };
        let result = if is_genuine { self.enter(now, id, entry) } else { Err(RefusalCode::BadProof.into()) };
        if let Err(refusal) = result {
            self.refuse(id, subject, refusal);
        }
    }

    fn drop_late(&mut self, bytes: usize) {
        self.counters.frames_after_close += 1;
        trace!(bytes, reason = "connection closed", "frame dropped");
    }

    /// Takes a frame out of the limits of its connection and of the networks that it is from.
    fn charge_frame(
        &mut self,
        now: Instant,
        id: ConnectionId,
        frame: &ClientFrame,
        bytes: usize,
    ) -> Result<(), Limit> {
        let cost = if matches!(frame, ClientFrame::Enter { .. }) { ENTER_COST } else { 1 };
        if let Some(connection) = self.connections.get(id) {
            self.addresses.take_frames(now, connection.address, cost, &self.limits)?;
        }
        self.charge_bytes(now, id, (bytes + FRAME_OVERHEAD) as u64)
    }

    /// Takes bytes that a connection sent, or that are sent because of it, out of its limits and of those of its networks.
    fn charge_bytes(&mut self, now: Instant, id: ConnectionId, bytes: u64) -> Result<(), Limit> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.take_bytes(now, bytes, &self.limits)?;
        self.addresses.take_bytes(now, connection.address, bytes, &self.limits)
    }

    fn dispatch(&mut self, now: Now, id: ConnectionId, frame: ClientFrame) -> Option<UnverifiedEntry> {
        let connection = self.connections.get_mut(id)?;
        connection.clear_strikes();
        let challenge = connection.challenge;
        let subject = Subject::of(&frame);
        let result = match frame {
            ClientFrame::Enter { topic, proof, record } => {
                let entry = Entry { topic, proof, record };
                return Some(UnverifiedEntry { connection: id, challenge, entry });
            }
            ClientFrame::Announce { topic, record } => self.announce(now, id, topic, record),
            ClientFrame::Send { topic, to, id: number, kept, message } => {
                self.send_message(now, id, (topic, to), number, (kept, message))
            }
            ClientFrame::Leave { topic } => self.leave(now.instant, id, topic, "left"),
            ClientFrame::Time { echo } => {
                self.outbox.send(id, &ServerFrame::TimeReply { echo, time: now.unix });
                Ok(())
            }
            ClientFrame::Relays { topic } => self.grant_relays(now, id, topic),
        };
        if let Err(refusal) = result {
            self.refuse(id, subject, refusal);
        }
        None
    }

    /// Expires what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire_mail(now.instant);
        while let Some(id) = self.entry_deadlines.pop_due(now.instant) {
            self.limit_hits.count(Limit::EntryTimeout);
            self.close(now, id, close::IDLE, "no topic was entered");
        }
        if now.instant >= self.next_sweep {
            let forgotten = self.addresses.sweep(now.instant);
            trace!(forgotten, count = self.addresses.len(), "addresses swept");
            self.next_sweep = now.instant + SWEEP_INTERVAL;
        }
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let mail = self.mail_expiry.next().into_iter();
        mail.chain(self.entry_deadlines.next()).fold(self.next_sweep, Instant::min)
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outbox.pop()
    }

    /// Returns figures for the operator.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            addresses: self.addresses.len(),
            topics: self.topics.len(),
            members: self.members,
            mail: self.mail_expiry.len(),
            held_bytes: self.memory.used(),
            counters: Counters {
                frames_sent: self.outbox.frames_sent(),
                bytes_sent: self.outbox.bytes_sent(),
                ..self.counters
            },
            refusals: self.refusals,
            limit_hits: self.limit_hits,
        }
    }

    // Presence.

    fn enter(&mut self, now: Now, id: ConnectionId, entry: Entry) -> Result<(), Refusal> {
        let handle = entry.proof.handle();
        self.check_entry(now, id, &entry, &handle)?;
        let Entry { topic, record, .. } = entry;
        if self.connections.handle_on(id, &topic).is_some_and(|before| before != handle) {
            self.leave(now.instant, id, topic, "entered under another handle")?;
        }
        let created = !self.topics.contains_key(&topic);
        let state = self.topics.entry(topic).or_default();
        let replaced = state.insert(handle, Member::new(id, &record));
        self.counters.topics_created += u64::from(created);
        self.counters.sessions += 1;
        self.members += 1;
        self.memory.add(member_cost(record.len()));
        let (count, again) = (state.members(), replaced.is_some());
        debug!(topic = %topic.short(), handle = %handle.short(), count, created, again, "member entered topic");
        if let Some(replaced) = replaced {
            self.members -= 1;
            self.memory.release(replaced.cost());
            self.replace(now, replaced.connection, id, topic);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.enter(topic, handle);
            self.entry_deadlines.set(id, None);
        }
        self.notify_others(&topic, &handle, &ServerFrame::Present { topic, handle, record });
        self.send_roster(id, topic, &handle);
        self.deliver_mail(id, topic, handle);
        Ok(())
    }

    /// Checks whether a connection may enter a topic, and takes from the limits what that costs. The proof comes before, so
    /// that nobody without the topic's key learns whether the topic exists or is full.
    fn check_entry(
        &mut self,
        now: Now,
        id: ConnectionId,
        entry: &Entry,
        handle: &Handle,
    ) -> Result<(), Refusal> {
        let connection = self.connections.get_mut(id).ok_or(RefusalCode::NotEntered)?;
        let entered = connection.handle_on(&entry.topic).is_some();
        if !entered && connection.entered().len() >= self.limits.topics_per_connection {
            return Err(Limit::TopicsPerConnection.into());
        }
        self.memory.check(member_cost(entry.record.len()), 0)?;
        let topics_full = self.topics.len() >= self.limits.topics;
        let state = self.topics.get_mut(&entry.topic);
        match &state {
            Some(state) => state.check_room(handle, &self.limits)?,
            None if topics_full => return Err(Limit::Topics.into()),
            None => {}
        }
        connection.take_roster(now.instant, entry.topic, &self.limits.roster_rate)?;
        let Some(state) = state else { return Ok(()) };
        state.take_token(now.instant, &self.limits)?;
        let bytes = state.fan_out(handle, entry.record.len())
            + state.roster_bytes(handle)
            + state.waiting_bytes(handle);
        Ok(self.charge_bytes(now.instant, id, bytes)?)
    }

    /// Takes an older connection of a member off a topic. Without any other topic it is of no more use and is closed.
    fn replace(&mut self, now: Now, older: ConnectionId, newer: ConnectionId, topic: Topic) {
        if older == newer {
            return;
        }
        self.counters.sessions_replaced += 1;
        debug!(topic = %topic.short(), older = older.0, "older session of the member replaced");
        self.refuse(older, Subject { topic: Some(topic), message: None }, RefusalCode::Replaced.into());
        let Some(connection) = self.connections.get_mut(older) else { return };
        connection.leave(&topic);
        if connection.entered().is_empty() {
            self.close(now, older, close::REPLACED, "the same member connected again");
        }
    }

    fn send_roster(&mut self, id: ConnectionId, topic: Topic, me: &Handle) {
        let Some(state) = self.topics.get(&topic) else { return };
        let mut rest = state.roster(me);
        loop {
            let more = rest.split_off(rest.len().min(MAX_ROSTER_CHUNK));
            self.outbox.send(id, &ServerFrame::Roster { topic, members: rest, more: !more.is_empty() });
            if more.is_empty() {
                return;
            }
            rest = more;
        }
    }

    fn announce(&mut self, now: Now, id: ConnectionId, topic: Topic, record: Vec<u8>) -> Result<(), Refusal> {
        let handle = self.connections.handle_on(id, &topic).ok_or(RefusalCode::NotEntered)?;
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        let before = state.record_len(&handle).ok_or(RefusalCode::NotEntered)?;
        self.memory.check(record.len(), before)?;
        state.take_token(now.instant, &self.limits)?;
        let bytes = state.fan_out(&handle, record.len());
        self.charge_bytes(now.instant, id, bytes)?;
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        state.set_record(&handle, &record);
        self.memory.release(before);
        self.memory.add(record.len());
        self.counters.records_announced += 1;
        trace!(topic = %topic.short(), handle = %handle.short(), bytes = record.len(), "record announced");
        self.notify_others(&topic, &handle, &ServerFrame::Present { topic, handle, record });
        Ok(())
    }

    fn leave(
        &mut self,
        now: Instant,
        id: ConnectionId,
        topic: Topic,
        reason: &'static str,
    ) -> Result<(), Refusal> {
        let handle = self.connections.handle_on(id, &topic).ok_or(RefusalCode::NotEntered)?;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.leave(&topic);
            let deadline = connection.entered().is_empty().then(|| now + self.limits.entry_timeout);
            self.entry_deadlines.set(id, deadline);
        }
        self.depart(topic, handle, reason);
        Ok(())
    }

    /// Takes a member off a topic and notifies the others.
    fn depart(&mut self, topic: Topic, handle: Handle, reason: &'static str) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let Some(member) = state.remove(&handle) else { return };
        let count = state.members();
        debug!(topic = %topic.short(), handle = %handle.short(), count, reason, "member left topic");
        self.members -= 1;
        self.memory.release(member.cost());
        self.remove_if_idle(&topic);
        self.notify_others(&topic, &handle, &ServerFrame::Gone { topic, handle });
    }

    fn remove_if_idle(&mut self, topic: &Topic) {
        if self.topics.get(topic).is_some_and(TopicState::is_idle) {
            self.topics.remove(topic);
            debug!(topic = %topic.short(), count = self.topics.len(), "topic removed: no member, no message");
        }
    }

    fn notify_others(&mut self, topic: &Topic, except: &Handle, frame: &ServerFrame) {
        if let Some(state) = self.topics.get(topic) {
            self.outbox.send_all(state.others(except), frame);
        }
    }

    // Messages.

    fn send_message(
        &mut self,
        now: Now,
        id: ConnectionId,
        (topic, to): (Topic, Handle),
        number: u32,
        (kept, message): (bool, Vec<u8>),
    ) -> Result<(), Refusal> {
        let from = self.connections.handle_on(id, &topic).ok_or(RefusalCode::NotEntered)?;
        // Both members compute the same id, so that one trace follows an attempt to connect across all three.
        let _span = debug_span!(
            "forward",
            trace_id = %format_args!("{:032x}", u128::from_be_bytes(trace_id(&topic, from, to))),
            topic = %topic.short(),
        )
        .entered();
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        state.take_token(now.instant, &self.limits)?;
        let mail = Mail { number: 0, from, id: number, kept, message };
        let Some(recipient) = state.connection_of(&to) else {
            return self.store_message(now.instant, topic, to, mail);
        };
        if kept {
            // It is forwarded as well, so that a full mailbox is no reason for the sender to repeat it.
            let _ = self.store_message(now.instant, topic, to, mail.clone());
        }
        self.counters.messages_forwarded += 1;
        let bytes = mail.message.len();
        trace!(from = %from.short(), to = %to.short(), id = number, bytes, "message forwarded");
        self.outbox.send(recipient, &ServerFrame::Message { topic, from, message: mail.message });
        Ok(())
    }

    fn store_message(&mut self, now: Instant, topic: Topic, to: Handle, mail: Mail) -> Result<(), Refusal> {
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        if state.has_mail(&to, mail.from, mail.id, &mail.message) {
            self.counters.messages_duplicate += 1;
            trace!(to = %to.short(), id = mail.id, reason = "the same one waits already", "message dropped");
            return Ok(());
        }
        state.check_mail(&to, &mail.message, &self.limits)?;
        let cost = mailbox::cost(mail.message.len());
        self.memory.check(cost, 0)?;
        self.memory.add(cost);
        self.counters.messages_stored += 1;
        let lifetime = self.limits.mail_lifetime;
        let number = self.mail_expiry.add(now + lifetime, topic, to);
        let after_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        debug!(to = %to.short(), id = mail.id, kept = mail.kept, after_ms, "message stored");
        state.store_mail(to, Mail { number, ..mail });
        Ok(())
    }

    fn deliver_mail(&mut self, id: ConnectionId, topic: Topic, handle: Handle) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let waiting = state.take_mail(&handle);
        if !waiting.is_empty() {
            let count = waiting.len();
            debug!(topic = %topic.short(), handle = %handle.short(), count, "stored messages delivered");
        }
        for mail in waiting {
            if !mail.kept {
                self.memory.release(mail.cost());
                self.mail_expiry.remove(mail.number);
            }
            self.counters.messages_delivered += 1;
            self.outbox.send(id, &ServerFrame::Message { topic, from: mail.from, message: mail.message });
        }
    }

    fn expire_mail(&mut self, now: Instant) {
        while let Some((number, waiting)) = self.mail_expiry.pop_due(now) {
            let topic = waiting.topic;
            let state = self.topics.get_mut(&topic);
            if let Some(mail) = state.and_then(|state| state.expire_mail(&waiting.handle, number)) {
                self.counters.messages_expired += u64::from(!mail.kept);
                self.memory.release(mail.cost());
                let (to, reason) = (waiting.handle, "lifetime over");
                debug!(topic = %topic.short(), to = %to.short(), id = mail.id, reason, "message dropped");
            }
            self.remove_if_idle(&topic);
        }
    }

    // Relays.

    fn grant_relays(&mut self, now: Now, id: ConnectionId, topic: Topic) -> Result<(), Refusal> {
        let handle = self.connections.handle_on(id, &topic).ok_or(RefusalCode::NotEntered)?;
        let relays = self.relays.as_ref().ok_or(RefusalCode::NoRelay)?;
        let grant = relays.grant(now.unix, handle);
        self.counters.relay_grants += 1;
        let count = grant.servers.len();
        debug!(topic = %topic.short(), handle = %handle.short(), count, "relay credentials granted");
        self.outbox.send(id, &ServerFrame::RelayGrant(grant));
        Ok(())
    }

    // Refusals.

    /// Refuses a frame for its rate, and closes the connection of a client that goes on regardless.
    fn strike(&mut self, now: Now, id: ConnectionId, subject: Subject, limit: Limit) {
        self.refuse(id, subject, limit.into());
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.strike() >= self.limits.strikes {
            self.limit_hits.count(Limit::Strikes);
            self.close(now, id, close::RATE, "too many frames in too short a time");
        }
    }

    fn refuse(&mut self, id: ConnectionId, subject: Subject, refusal: Refusal) {
        let code = refusal.code();
        self.refusals.count(code);
        if let Refusal::Limit(limit) = refusal {
            self.limit_hits.count(limit);
        }
        let reason = refusal.reason();
        // A client that floods the server must not flood its log too.
        if code == RefusalCode::RateLimited {
            trace!(connection = id.0, topic = ?subject.topic, id = subject.message, reason, "frame refused");
        } else {
            debug!(connection = id.0, topic = ?subject.topic, id = subject.message, reason, "frame refused");
        }
        let detail = explanation(code).to_owned();
        self.outbox
            .send(id, &ServerFrame::Refused { topic: subject.topic, id: subject.message, code, detail });
    }

    fn close(&mut self, now: Now, id: ConnectionId, code: u16, reason: &'static str) {
        debug!(connection = id.0, code, reason, "closing the connection");
        self.counters.connections_closed += 1;
        self.handle_disconnect(now, id);
        self.outbox.close(id, code, reason);
    }
}

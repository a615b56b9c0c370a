//! The machine: connections come and go, frames come in, events go out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use partyline_model::{Handle, Now, Topic};
use partyline_wire::rendezvous::{ClientFrame, RefusalCode, ServerFrame, VERSION, close};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{Limits, RelayOffer, Stats, address::Addresses, topic::TopicState};

mod mail;
mod presence;

/// How often addresses that rest are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What entering costs of an address's pace; all other frames cost one.
const ENTER_COST: u32 = 4;

/// One connection, for as long as the server runs; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Send a frame.
    Send {
        /// To whom.
        to: ConnectionId,
        /// The encoded frame, shared by all who get it.
        frame: Arc<[u8]>,
    },
    /// Close a connection once what was sent before is out. The server has forgotten it already.
    Close {
        /// Which.
        connection: ConnectionId,
        /// One of [`close`]'s codes.
        code: u16,
        /// The same for people.
        reason: &'static str,
    },
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The server has as many as it may.
    Server,
    /// The address has as many as it may.
    Address,
}

/// The state of a rendezvous server.
#[derive(Debug)]
pub struct Rendezvous {
    limits: Limits,
    relays: Option<RelayOffer>,
    rng: ChaCha20Rng,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    addresses: Addresses,
    topics: BTreeMap<Topic, TopicState>,
    /// All mail by its number, which is the order in which it expires.
    expiry: BTreeMap<u64, Expiry>,
    last_mail: u64,
    next_sweep: Instant,
    events: VecDeque<Event>,
    stats: Stats,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    challenge: [u8; 32],
    /// Topics entered, few enough to look through.
    entered: Vec<(Topic, Handle)>,
    /// Frames refused for their rate in a row.
    strikes: u8,
}

impl Connection {
    fn handle_on(&self, topic: &Topic) -> Option<Handle> {
        self.entered.iter().find(|(entered, _)| entered == topic).map(|(_, handle)| *handle)
    }
}

#[derive(Debug)]
struct Expiry {
    at: Instant,
    topic: Topic,
    handle: Handle,
}

impl Rendezvous {
    /// A server without connections. The seed makes its challenges unpredictable.
    #[must_use]
    pub fn new(now: Now, limits: Limits, relays: Option<RelayOffer>, seed: [u8; 32]) -> Self {
        Self {
            limits,
            relays,
            rng: ChaCha20Rng::from_seed(seed),
            connections: BTreeMap::new(),
            last_connection: 0,
            addresses: Addresses::default(),
            topics: BTreeMap::new(),
            expiry: BTreeMap::new(),
            last_mail: 0,
            next_sweep: now.instant + SWEEP,
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A connection was made. It is welcomed.
    ///
    /// # Errors
    /// There are too many, in all or from this address.
    pub fn handle_connect(&mut self, now: Now, address: IpAddr) -> Result<ConnectionId, Full> {
        self.admit(now, address).inspect_err(|_| self.stats.turned_away += 1)?;
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let mut challenge = [0; 32];
        self.rng.fill_bytes(&mut challenge);
        self.connections.insert(id, Connection { address, challenge, entered: Vec::new(), strikes: 0 });
        self.send(id, &ServerFrame::Welcome { version: VERSION, challenge, time: now.unix });
        Ok(id)
    }

    fn admit(&mut self, now: Now, address: IpAddr) -> Result<(), Full> {
        if self.connections.len() >= self.limits.connections {
            return Err(Full::Server);
        }
        match self.addresses.connect(now.instant, address, &self.limits) {
            true => Ok(()),
            false => Err(Full::Address),
        }
    }

    /// A connection ended. Unknown ones are ignored, so it does no harm after [`Event::Close`].
    pub fn handle_disconnect(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.addresses.disconnect(now.instant, connection.address);
        for (topic, handle) in connection.entered {
            self.depart(topic, handle);
        }
    }

    /// A binary message came.
    pub fn handle_frame(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get(&id) else { return };
        self.stats.frames_received += 1;
        let address = connection.address;
        let Ok(frame) = ClientFrame::decode(bytes) else {
            self.refuse(id, None, None, RefusalCode::Malformed);
            return self.close(now, id, close::MALFORMED, "a frame could not be decoded");
        };
        let cost = if matches!(frame, ClientFrame::Enter { .. }) { ENTER_COST } else { 1 };
        if self.addresses.take(now.instant, address, cost, &self.limits) {
            self.forgive(id);
            self.dispatch(now, id, frame);
        } else {
            self.strike(now, id, &frame);
        }
    }

    fn dispatch(&mut self, now: Now, id: ConnectionId, frame: ClientFrame) {
        match frame {
            ClientFrame::Enter { topic, handle, proof, record } => {
                self.enter(now, id, (topic, handle), &proof, record);
            }
            ClientFrame::Announce { topic, record } => self.announce(now, id, topic, record),
            ClientFrame::Send { topic, to, id: number, message } => {
                self.mail(now, id, topic, mail::Letter { to, number, message });
            }
            ClientFrame::Leave { topic } => self.leave(id, topic),
            ClientFrame::Time { echo } => self.send(id, &ServerFrame::TimeReply { echo, time: now.unix }),
            ClientFrame::Relays { topic } => self.grant(now, id, topic),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire_mail(now.instant);
        if now.instant >= self.next_sweep {
            self.addresses.sweep(now.instant);
            self.next_sweep = now.instant + SWEEP;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let expiry = self.expiry.first_key_value().map(|(_, expiry)| expiry.at);
        expiry.map_or(self.next_sweep, |at| at.min(self.next_sweep))
    }

    /// The next thing to do, until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Figures for the operator.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            addresses: self.addresses.len(),
            topics: self.topics.len(),
            mail: self.expiry.len(),
            ..self.stats.clone()
        }
    }

    fn grant(&mut self, now: Now, id: ConnectionId, topic: Topic) {
        let Some(handle) = self.handle_on(id, &topic) else {
            return self.refuse(id, Some(topic), None, RefusalCode::NotEntered);
        };
        let Some(grant) = self.relays.as_ref().map(|relays| relays.grant(now.unix, handle)) else {
            return self.refuse(id, Some(topic), None, RefusalCode::NoRelay);
        };
        self.stats.grants += 1;
        self.send(id, &ServerFrame::RelayGrant(grant));
    }

    fn handle_on(&self, id: ConnectionId, topic: &Topic) -> Option<Handle> {
        self.connections.get(&id)?.handle_on(topic)
    }

    fn forgive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.strikes = 0;
        }
    }

    fn strike(&mut self, now: Now, id: ConnectionId, frame: &ClientFrame) {
        let (topic, number) = match frame {
            ClientFrame::Send { topic, id, .. } => (Some(*topic), Some(*id)),
            ClientFrame::Enter { topic, .. }
            | ClientFrame::Announce { topic, .. }
            | ClientFrame::Leave { topic }
            | ClientFrame::Relays { topic } => (Some(*topic), None),
            ClientFrame::Time { .. } => (None, None),
        };
        self.refuse(id, topic, number, RefusalCode::RateLimited);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.strikes = connection.strikes.saturating_add(1);
        if connection.strikes >= self.limits.strikes {
            self.close(now, id, close::RATE, "too many frames in too short a time");
        }
    }

    fn close(&mut self, now: Now, id: ConnectionId, code: u16, reason: &'static str) {
        self.handle_disconnect(now, id);
        self.events.push_back(Event::Close { connection: id, code, reason });
    }

    fn refuse(&mut self, id: ConnectionId, topic: Option<Topic>, number: Option<u32>, code: RefusalCode) {
        *self.stats.refused.entry(code).or_default() += 1;
        let detail = explain(code).to_owned();
        self.send(id, &ServerFrame::Refused { topic, id: number, code, detail });
    }

    fn send(&mut self, to: ConnectionId, frame: &ServerFrame) {
        self.send_all([to], frame);
    }

    /// Encodes once for all. What is sent was within its limits when it came in.
    fn send_all(&mut self, to: impl IntoIterator<Item = ConnectionId>, frame: &ServerFrame) {
        let Ok(bytes) = frame.encode() else { return };
        let frame = Arc::<[u8]>::from(bytes);
        for to in to {
            self.stats.frames_sent += 1;
            self.events.push_back(Event::Send { to, frame: Arc::clone(&frame) });
        }
    }
}

const fn explain(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Malformed => {
            "The frame could not be decoded; the two programs may be of different versions."
        }
        RefusalCode::BadProof => "The proof does not fit the topic and this connection's challenge.",
        RefusalCode::NotEntered => "Enter the topic on this connection first.",
        RefusalCode::Replaced => "The same member entered from another connection.",
        RefusalCode::RateLimited => {
            "Too many frames from this address or on this topic; try again in a moment."
        }
        RefusalCode::TopicFull => "The topic has as many members as this server allows.",
        RefusalCode::TooManyTopics => "This connection has entered as many topics as this server allows.",
        RefusalCode::ServerFull => "The server is full; try another one or try again later.",
        RefusalCode::MailboxFull => "Too many messages wait for the recipient; try again later.",
        RefusalCode::NoRelay => "This server offers no relay.",
    }
}

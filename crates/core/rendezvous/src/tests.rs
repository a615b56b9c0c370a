//! The server driven through its public interface, with time moved by hand.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use partyline_model::{Handle, HandleKey, Now, Timestamp, Topic};
use partyline_wire::rendezvous::{
    ClientFrame, EntryProof, RefusalCode, RelayServer, ServerFrame, TopicMember, close, handle_of,
};

use crate::{
    AdmissionError, ConnectionId, Event, Limits, ROSTERS_AT_ONCE, Rate, RelayOffer, Rendezvous,
    relay_password,
};

mod invariants;
mod limits;
mod protocol;
mod strangers;

#[expect(clippy::disallowed_methods, reason = "an arbitrary start; the tests move time by hand")]
pub(crate) fn start() -> Now {
    Now { instant: Instant::now(), unix: Timestamp(1_800_000_000_000) }
}

/// A server and everything it sent, by connection.
struct World {
    server: Rendezvous,
    now: Now,
    inbox: BTreeMap<ConnectionId, VecDeque<ServerFrame>>,
    closed: BTreeMap<ConnectionId, u16>,
    challenges: BTreeMap<ConnectionId, [u8; 32]>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let now = start();
        let relays = RelayOffer {
            servers: vec![RelayServer { url: "turn:relay.example:3478".into(), region: "eu".into() }],
            secret: b"north".to_vec(),
            realm: "partyline".into(),
            lifetime: Duration::from_secs(3600),
        };
        Self {
            server: Rendezvous::new(now, limits, Some(relays), [7; 32]),
            now,
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
            challenges: BTreeMap::new(),
        }
    }

    fn connect_from(&mut self, address: IpAddr) -> Result<ConnectionId, AdmissionError> {
        let id = self.server.handle_connect(self.now, address)?;
        self.drain();
        match self.inbox.get_mut(&id).and_then(VecDeque::pop_front) {
            Some(ServerFrame::Welcome { challenge, .. }) => self.challenges.insert(id, challenge),
            other => panic!("expected Welcome, got {other:?}"),
        };
        Ok(id)
    }

    fn connect(&mut self) -> ConnectionId {
        self.connect_from(Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    fn send(&mut self, id: ConnectionId, frame: &ClientFrame) {
        self.send_bytes(id, &frame.encode().unwrap());
    }

    fn send_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(entry) = self.server.handle_frame(self.now, id, bytes) {
            self.server.handle_entry(self.now, entry.verify());
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Send { to, frame } => {
                    self.inbox.entry(to).or_default().push_back(ServerFrame::decode(&frame).unwrap());
                }
                Event::Close { connection, code, .. } => {
                    self.closed.insert(connection, code);
                }
            }
        }
    }

    /// Returns everything sent on a connection since the last call.
    fn received(&mut self, id: ConnectionId) -> Vec<ServerFrame> {
        self.inbox.remove(&id).unwrap_or_default().into()
    }

    fn enter(&mut self, id: ConnectionId, party: u8, who: u8, record: &[u8]) -> Vec<ServerFrame> {
        let frame = self.enter_frame(id, party, who, record);
        self.send(id, &frame);
        self.received(id)
    }

    fn enter_frame(&self, id: ConnectionId, party: u8, who: u8, record: &[u8]) -> ClientFrame {
        let proof = self.proof(id, party, public(who), &device(who));
        ClientFrame::Enter { topic: topic(party), proof, record: record.to_vec() }
    }

    /// Returns the proof of somebody who has a topic's key, and some key that signs for a handle key.
    fn proof(&self, id: ConnectionId, party: u8, handle_key: HandleKey, signer: &SigningKey) -> EntryProof {
        EntryProof::sign(
            (&self.challenges[&id], &topic(party), handle_key),
            |message| key(party).sign(message).to_bytes(),
            |message| signer.sign(message).to_bytes(),
        )
    }

    /// Opens a connection that enters a topic as one of the devices.
    fn member(&mut self, party: u8, who: u8) -> ConnectionId {
        let id = self.connect();
        let received = self.enter(id, party, who, &[who]);
        assert!(matches!(received.first(), Some(ServerFrame::Roster { .. })), "{received:?}");
        id
    }

    fn advance(&mut self, span: Duration) {
        self.now = Now { instant: self.now.instant + span, unix: self.now.unix.plus(span) };
        self.server.handle_timeout(self.now);
        self.drain();
    }
}

fn key(party: u8) -> SigningKey {
    SigningKey::from_bytes(&[party; 32])
}

fn topic(party: u8) -> Topic {
    Topic(key(party).verifying_key().to_bytes())
}

/// Returns the key of a device, which is the same on all topics here.
fn device(n: u8) -> SigningKey {
    let mut seed = [n; 32];
    seed[0] = !n;
    SigningKey::from_bytes(&seed)
}

fn public(n: u8) -> HandleKey {
    HandleKey(device(n).verifying_key().to_bytes())
}

fn handle(n: u8) -> Handle {
    handle_of(&public(n))
}

fn refusal(frames: &[ServerFrame]) -> Option<RefusalCode> {
    frames.iter().find_map(|frame| match frame {
        ServerFrame::Refused { code, .. } => Some(*code),
        _ => None,
    })
}

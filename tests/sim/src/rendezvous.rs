//! The rendezvous server at the other end of the members' connections.

use std::{collections::BTreeMap, net::IpAddr};

use partyline_model::Now;
use partyline_node::ServerId;
use partyline_rendezvous::{ConnectionId, Event, Limits, RelayOffer, Rendezvous};

/// Its address, as members are told of it.
pub const SERVER: &str = "wss://party.test";

/// The server, while it runs.
pub(crate) struct Server {
    core: Rendezvous,
    clients: BTreeMap<ConnectionId, (usize, ServerId)>,
}

/// What the server sends to a member, by the member's number, the member's name of the connection, and the server's.
pub(crate) enum Message {
    Frame(usize, ServerId, ConnectionId, Vec<u8>),
    Closed(usize, ServerId, ConnectionId),
}

impl Server {
    pub fn new(now: Now, limits: Limits, relays: Option<RelayOffer>, seed: [u8; 32]) -> Self {
        Self { core: Rendezvous::new(now, limits, relays, seed), clients: BTreeMap::new() }
    }

    pub fn connect(&mut self, now: Now, who: usize, link: ServerId, ip: IpAddr) -> Option<ConnectionId> {
        let connection = self.core.handle_connect(now, ip).ok()?;
        self.clients.insert(connection, (who, link));
        Some(connection)
    }

    pub fn disconnect(&mut self, now: Now, connection: ConnectionId) {
        self.clients.remove(&connection);
        self.core.handle_disconnect(now, connection);
    }

    pub fn handle_frame(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]) {
        self.core.handle_frame(now, connection, bytes);
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.core.poll_timeout() <= now.instant {
            self.core.handle_timeout(now);
        }
    }

    /// Returns what it has to send.
    pub fn messages(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Send { to, frame } => {
                    let Some((who, link)) = self.clients.get(&to) else { continue };
                    messages.push(Message::Frame(*who, *link, to, frame.to_vec()));
                }
                Event::Close { connection, .. } => {
                    let Some((who, link)) = self.clients.remove(&connection) else { continue };
                    messages.push(Message::Closed(who, link, connection));
                }
            }
        }
        messages
    }
}

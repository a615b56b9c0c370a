//! The rendezvous server at the other end of the members' connections.

use std::{collections::BTreeMap, net::IpAddr};

use partyline_model::Now;
use partyline_node::ServerId;
use partyline_rendezvous::{ConnectionId, Event, Limits, RelayOffer, Rendezvous};

/// Its address, as members are told of it.
pub const SERVER: &str = "wss://party.test";
/// The name in that address.
pub(crate) const HOST: &str = "party.test";

/// A connection, told from those to earlier runs of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The number of the server's run.
    run: u32,
    id: ConnectionId,
}

/// The server, while it runs.
pub(crate) struct Server {
    run: u32,
    core: Rendezvous,
    clients: BTreeMap<ConnectionId, (usize, ServerId)>,
}

/// What the server sends to a member, by the member's number, the member's name of the connection, and the server's.
pub(crate) enum Message {
    Frame(usize, ServerId, Connection, Vec<u8>),
    Closed(usize, ServerId, Connection),
}

impl Server {
    pub fn new(now: Now, run: u32, limits: Limits, relays: Option<RelayOffer>, seed: [u8; 32]) -> Self {
        Self { run, core: Rendezvous::new(now, limits, relays, seed), clients: BTreeMap::new() }
    }

    pub fn connect(&mut self, now: Now, who: usize, link: ServerId, ip: IpAddr) -> Option<Connection> {
        let id = self.core.handle_connect(now, ip).ok()?;
        self.clients.insert(id, (who, link));
        Some(Connection { run: self.run, id })
    }

    pub fn disconnect(&mut self, now: Now, connection: Connection) {
        if connection.run == self.run {
            self.clients.remove(&connection.id);
            self.core.handle_disconnect(now, connection.id);
        }
    }

    pub fn handle_frame(&mut self, now: Now, connection: Connection, bytes: &[u8]) {
        if connection.run == self.run {
            let entry = self.core.handle_frame(now, connection.id, bytes);
            if let Some(entry) = entry {
                self.core.handle_entry(now, entry.verify());
            }
        }
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
                    let connection = Connection { run: self.run, id: to };
                    messages.push(Message::Frame(*who, *link, connection, frame.to_vec()));
                }
                Event::Close { connection: id, .. } => {
                    let Some((who, link)) = self.clients.remove(&id) else { continue };
                    let connection = Connection { run: self.run, id };
                    messages.push(Message::Closed(who, link, connection));
                }
            }
        }
        messages
    }
}

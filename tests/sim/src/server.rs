//! The rendezvous server at the other end of everybody's connections.

use std::collections::BTreeMap;

use partyline_model::Now;
use partyline_node::ServerId;
use partyline_rendezvous::{ConnectionId, Event, Limits, RelayOffer, Rendezvous};

/// The server, while it runs.
pub(crate) struct Server {
    pub core: Rendezvous,
    clients: BTreeMap<ConnectionId, (usize, ServerId)>,
}

/// What it says to whom.
pub(crate) enum Said {
    Frame(usize, ServerId, ConnectionId, Vec<u8>),
    Closed(usize, ServerId, ConnectionId),
}

impl Server {
    pub fn new(now: Now, limits: Limits, relays: Option<RelayOffer>, seed: [u8; 32]) -> Self {
        Self { core: Rendezvous::new(now, limits, relays, seed), clients: BTreeMap::new() }
    }

    pub fn connect(
        &mut self,
        now: Now,
        who: usize,
        link: ServerId,
        ip: std::net::IpAddr,
    ) -> Option<ConnectionId> {
        let connection = self.core.handle_connect(now, ip).ok()?;
        self.clients.insert(connection, (who, link));
        Some(connection)
    }

    pub fn disconnect(&mut self, now: Now, connection: ConnectionId) {
        self.clients.remove(&connection);
        self.core.handle_disconnect(now, connection);
    }

    pub fn say(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Send { to, frame } => {
                    let Some((who, link)) = self.clients.get(&to) else { continue };
                    said.push(Said::Frame(*who, *link, to, frame.to_vec()));
                }
                Event::Close { connection, .. } => {
                    let Some((who, link)) = self.clients.remove(&connection) else { continue };
                    said.push(Said::Closed(who, link, connection));
                }
            }
        }
        said
    }
}

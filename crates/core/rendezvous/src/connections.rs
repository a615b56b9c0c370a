//! Open connections and the topics they have entered.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use partyline_model::{Handle, Topic};
use partyline_timing::{Level, Rate};

use crate::{
    event::ConnectionId,
    limits::{Limit, Limits},
};

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) address: IpAddr,
    /// What the client signs to enter a topic.
    pub(crate) challenge: [u8; 32],
    /// Topics entered, few enough to search linearly.
    entered: Vec<(Topic, Handle)>,
    /// Frames refused for their rate in a row.
    strikes: u8,
    /// Bytes received, and sent because of them.
    bytes: Level,
    /// Rosters received, by topic; full buckets are left out.
    rosters: BTreeMap<Topic, Level>,
}

impl Connection {
    /// Returns the handle under which the connection is present on a topic.
    pub(crate) fn handle_on(&self, topic: &Topic) -> Option<Handle> {
        self.entered.iter().find(|(entered, _)| entered == topic).map(|(_, handle)| *handle)
    }

    /// Returns the topics that the connection has entered, with its handle on each.
    pub(crate) fn entered(&self) -> &[(Topic, Handle)] {
        &self.entered
    }

    /// Notes that the connection is present on a topic.
    pub(crate) fn enter(&mut self, topic: Topic, handle: Handle) {
        if self.handle_on(&topic).is_none() {
            self.entered.push((topic, handle));
        }
    }

    /// Notes that the connection is no longer present on a topic.
    pub(crate) fn leave(&mut self, topic: &Topic) {
        self.entered.retain(|(entered, _)| entered != topic);
    }

    /// Takes bytes out of the connection's bucket.
    pub(crate) fn take_bytes(&mut self, now: Instant, count: u64, limits: &Limits) -> Result<(), Limit> {
        let granted = self.bytes.take(now, &limits.connection_bytes, count);
        if granted { Ok(()) } else { Err(Limit::ConnectionBytes) }
    }

    /// Takes a full roster of a topic.
    pub(crate) fn take_roster(&mut self, now: Instant, topic: Topic, rate: &Rate) -> Result<(), Limit> {
        self.rosters.retain(|_, level| !level.is_full(now));
        let granted = self.rosters.entry(topic).or_default().take(now, rate, 1);
        if granted { Ok(()) } else { Err(Limit::RosterRate) }
    }

    /// Counts a frame that was refused for its rate. Returns how many there were in a row.
    pub(crate) const fn strike(&mut self) -> u8 {
        self.strikes = self.strikes.saturating_add(1);
        self.strikes
    }

    /// Resets the count of strikes, since a frame arrived within the rate.
    pub(crate) const fn clear_strikes(&mut self) {
        self.strikes = 0;
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    last: u64,
}

impl Connections {
    /// Opens a connection under an id that was never used before.
    pub(crate) fn open(&mut self, address: IpAddr, challenge: [u8; 32]) -> ConnectionId {
        self.last += 1;
        let id = ConnectionId(self.last);
        let connection = Connection {
            address,
            challenge,
            entered: Vec::new(),
            strikes: 0,
            bytes: Level::default(),
            rosters: BTreeMap::new(),
        };
        self.open.insert(id, connection);
        id
    }

    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        self.open.remove(&id)
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.open.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.open.get_mut(&id)
    }

    /// Returns the handle under which a connection is present on a topic.
    pub(crate) fn handle_on(&self, id: ConnectionId, topic: &Topic) -> Option<Handle> {
        self.get(id)?.handle_on(topic)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

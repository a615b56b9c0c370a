//! Streams (TCP or TLS connections) between hosts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{dice::Dice, line::Line, network::HostId};

/// The additional delay of a segment that TCP has to send again.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);

/// The direction of data on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Data that arrived on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The stream's number.
    pub stream: u32,
    /// The host that opened the stream.
    pub client: HostId,
    /// The direction.
    pub direction: Direction,
    /// The data, which is empty when the stream has just been opened, or `None` if the other end has closed it.
    pub bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Stream {
    client: HostId,
    server: HostId,
    /// True if the client has left the network on which the stream was opened.
    broken: bool,
    /// The moments at which the last data arrives, by direction.
    last: [Instant; 2],
}

/// All open streams.
#[derive(Debug, Default)]
pub struct Streams {
    open: BTreeMap<u32, Stream>,
    opened: u32,
}

impl Streams {
    /// Opens a stream and returns its number.
    pub fn open(&mut self, now: Instant, client: HostId, server: HostId) -> u32 {
        self.opened += 1;
        self.open.insert(self.opened, Stream { client, server, broken: false, last: [now; 2] });
        self.opened
    }

    /// Returns the stream's client and server, unless it is closed or broken.
    #[must_use]
    pub fn ends(&self, stream: u32) -> Option<(HostId, HostId)> {
        let stream = self.open.get(&stream).filter(|stream| !stream.broken)?;
        Some((stream.client, stream.server))
    }

    /// Returns the moment at which data arrives: nothing is lost, and nothing overtakes.
    pub(crate) fn arrival(
        &mut self,
        now: Instant,
        stream: u32,
        direction: Direction,
        [near, far]: [Line; 2],
        dice: &mut Dice,
    ) -> Option<Instant> {
        let stream = self.open.get_mut(&stream).filter(|stream| !stream.broken)?;
        let late = near.latency + RETRANSMISSION_TIMEOUT;
        let at = now + near.carry(dice).unwrap_or(late) + far.latency;
        let last = &mut stream.last[direction as usize];
        *last = at.max(*last);
        Some(*last)
    }

    /// Breaks all streams of a client that has moved to another network: neither end notices at first.
    pub fn break_all_of(&mut self, client: HostId) {
        self.open
            .values_mut()
            .filter(|stream| stream.client == client)
            .for_each(|stream| stream.broken = true);
    }

    /// Forgets a stream.
    pub fn remove(&mut self, stream: u32) {
        self.open.remove(&stream);
    }

    /// Forgets all streams to a server. Returns those that were not broken, with their clients.
    pub fn remove_all_to(&mut self, server: HostId) -> Vec<(u32, HostId)> {
        let gone = self.open.iter().filter(|(_, stream)| stream.server == server);
        let whole: Vec<_> =
            gone.filter(|(_, stream)| !stream.broken).map(|(number, s)| (*number, s.client)).collect();
        self.open.retain(|_, stream| stream.server != server);
        whole
    }
}

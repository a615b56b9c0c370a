//! How datagrams and streams get from one end to the other: what is lost, late, doubled or translated on the way.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_node::{SocketId, StreamId};

use crate::{
    internet::{Place, Turned},
    member::Line,
    relay::{self, Sent},
    world::{Datagram, Item, World},
};

/// One way within a home.
const AT_HOME: Duration = Duration::from_millis(1);
/// What it costs TCP to send a lost segment again.
const AGAIN: Duration = Duration::from_millis(200);

/// Which member was found at an address last; to be looked at again, since members move.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By public addresses.
    outside: BTreeMap<IpAddr, usize>,
    /// By addresses within a place.
    pub(crate) inside: BTreeMap<(Place, IpAddr), usize>,
}

/// A stream to the relay.
pub(crate) struct Pipe {
    who: usize,
    id: StreamId,
    /// Whether the member is still on the network that it was made on.
    whole: bool,
    /// When the last bytes arrive, up and down.
    last: [Instant; 2],
}

impl World {
    /// Sends from a member's socket.
    pub(crate) fn send(&mut self, who: usize, socket: SocketId, to: SocketAddr, bytes: Vec<u8>) {
        self.members[who].datagrams += 1;
        let member = &self.members[who];
        let Some(from) = member.source(socket, to) else { return };
        self.trace.datagram(self.now.instant, from, to, bytes.len());
        let Some(home) = member.home else {
            return self.cast(Some(who), Turned { below: None, from, to }, bytes);
        };
        if self.hears(Some(home), to).is_some() {
            let turned = Turned { below: Some(home), from, to };
            return self.put(AT_HOME, Item::Datagram(turned, bytes));
        }
        if let Some(turned) = self.internet.up(self.now.instant, home, from, to) {
            self.cast(Some(who), turned, bytes);
        }
    }

    pub(crate) fn send_from_relay(&mut self, sent: Sent) {
        match sent {
            Sent::Datagram(from, to, bytes) => {
                self.trace.datagram(self.now.instant, from, to, bytes.len());
                self.cast(None, Turned { below: None, from, to }, bytes);
            }
            Sent::Stream(number, bytes) => self.pour(number, 1, bytes),
        }
    }

    /// Puts a datagram on its way over the lines at both ends.
    fn cast(&mut self, who: Option<usize>, turned: Turned, bytes: Vec<u8>) {
        let chance = rand_core::RngCore::next_u32(&mut self.rng);
        let datagram = Datagram { from: turned.from, to: turned.to, bytes };
        let Some(extra) = (self.network)(&datagram, chance).filter(|_| !self.is_cut(turned.from, turned.to))
        else {
            return;
        };
        let near = who.map_or(Line::GOOD, |who| self.members[who].line);
        let far = self.far_line(turned);
        let Some(delay) = self.ride(near).zip(self.ride(far)).map(|(a, b)| a + b + extra) else { return };
        if self.strikes(near.twice + far.twice) {
            let later = delay + near.jitter.max(Duration::from_millis(1));
            self.put(later, Item::Datagram(turned, datagram.bytes.clone()));
        }
        self.put(delay, Item::Datagram(turned, datagram.bytes));
    }

    /// The line of whom a datagram goes to, as far as can be seen from outside.
    fn far_line(&mut self, turned: Turned) -> Line {
        let ip = turned.to.ip();
        if relay::owns(ip) {
            return Line::GOOD;
        }
        let at =
            |who: usize| self.public_ip(who) == ip || self.members[who].v6.is_some_and(|v6| v6.ip() == ip);
        let known = self.found.outside.get(&ip).copied().filter(|who| at(*who));
        let Some(who) = known.or_else(|| (0..self.members.len()).find(|who| at(*who))) else {
            return Line::GOOD;
        };
        self.found.outside.insert(ip, who);
        self.members[who].line
    }

    /// How long a packet takes on a line; `None` if it is lost.
    fn ride(&mut self, line: Line) -> Option<Duration> {
        if self.strikes(line.loss) {
            return None;
        }
        let late = if line.jitter.is_zero() { Duration::ZERO } else { line.jitter.mul_f64(self.chance()) };
        Some(line.latency + late)
    }

    /// Whether something of this likelihood happens.
    fn strikes(&mut self, likelihood: f64) -> bool {
        likelihood > 0.0 && self.chance() < likelihood
    }

    /// A member's stream has reached the relay.
    pub(crate) fn open_stream(&mut self, who: usize, id: StreamId) {
        let number = self.pipes.last_key_value().map_or(1, |(number, _)| number + 1);
        let from = SocketAddr::new(self.public_ip(who), 30_000 + (number % 30_000) as u16);
        self.members[who].streams.insert(id, number);
        let Some(relay) = &mut self.relay else {
            let delay = self.members[who].line.latency + Line::GOOD.latency;
            return self.put(delay, Item::StreamDown(who, id, number, None));
        };
        relay.connect(number, from);
        let last = [self.now.instant; 2];
        self.pipes.insert(number, Pipe { who, id, whole: true, last });
        self.pour(number, 1, Vec::new());
    }

    /// Sends a member's bytes on a stream.
    pub(crate) fn send_stream(&mut self, who: usize, id: StreamId, bytes: Vec<u8>) {
        if let Some(number) = self.members[who].streams.get(&id).copied() {
            self.trace.message(self.now.instant, who, bytes.len());
            self.pour(number, 0, bytes);
        }
    }

    /// Bytes in one direction arrive in their order: 0 is up, 1 down.
    fn pour(&mut self, number: u32, direction: usize, bytes: Vec<u8>) {
        let Some(pipe) = self.pipes.get(&number).filter(|pipe| pipe.whole) else { return };
        let (who, id, last) = (pipe.who, pipe.id, pipe.last[direction]);
        let line = self.members[who].line;
        let delay = self.ride(line).unwrap_or(line.latency + AGAIN) + Line::GOOD.latency;
        let at = (self.now.instant + delay).max(last);
        if let Some(pipe) = self.pipes.get_mut(&number) {
            pipe.last[direction] = at;
        }
        let item = if direction == 0 {
            Item::StreamUp(number, bytes)
        } else {
            Item::StreamDown(who, id, number, Some(bytes))
        };
        self.put(at - self.now.instant, item);
    }

    pub(crate) fn stream_up(&mut self, number: u32, bytes: &[u8]) {
        let now = self.now;
        let sent = self.relay.as_mut().map(|relay| relay.read(now, number, bytes));
        sent.into_iter().flatten().for_each(|sent| self.send_from_relay(sent));
    }

    pub(crate) fn stream_hangup(&mut self, number: u32) {
        self.pipes.remove(&number);
        if let Some(relay) = &mut self.relay {
            relay.disconnect(number);
        }
    }

    /// Kills the relay alone.
    pub fn kill_relay(&mut self) {
        self.relay = None;
        for (number, pipe) in std::mem::take(&mut self.pipes) {
            if pipe.whole {
                self.put(Line::GOOD.latency, Item::StreamDown(pipe.who, pipe.id, number, None));
            }
        }
    }

    /// A member's streams lead nowhere any more.
    pub(crate) fn break_pipes(&mut self, who: usize) {
        self.pipes.values_mut().filter(|pipe| pipe.who == who).for_each(|pipe| pipe.whole = false);
    }
}

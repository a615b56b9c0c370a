//! The clock and the queue around the network.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Now, Timestamp};

use crate::{
    dice::Dice,
    network::{Datagram, Delivery, HostId, InFlight, Network, Progress},
    queue::Queue,
    streams::{Direction, Segment, Streams},
};

/// The wall clock at the start.
const START: Timestamp = Timestamp(1_790_000_000_000);

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// A datagram arrived at a host.
    Datagram(Delivery),
    /// Data arrived on a stream.
    Segment(Segment),
    /// An event of the harness is due.
    Other(T),
}

enum Item<T> {
    InFlight(InFlight),
    Segment(Segment),
    Other(T),
}

/// A network with a clock. `T` is what else the harness puts on the queue, such as signaling messages.
pub struct Simulation<T> {
    /// Hosts and routers.
    pub network: Network,
    /// The streams between hosts.
    pub streams: Streams,
    /// The source of randomness.
    pub dice: Dice,
    now: Now,
    start: Instant,
    queue: Queue<Item<T>>,
}

impl<T> Simulation<T> {
    /// Returns a network without hosts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let now = Now { instant: Instant::now(), unix: START };
        Self {
            network: Network::default(),
            streams: Streams::default(),
            dice: Dice::new(seed),
            now,
            start: now.instant,
            queue: Queue::default(),
        }
    }

    /// Returns the time.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Returns the time that has passed since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.instant - self.start
    }

    /// Sets the wall clock alone.
    pub fn set_wall_clock(&mut self, unix: Timestamp) {
        self.now.unix = unix;
    }

    /// Moves both clocks forward, if `to` is later than now.
    pub fn advance_to(&mut self, to: Instant) {
        let span = to.saturating_duration_since(self.now.instant);
        self.now = Now { instant: self.now.instant + span, unix: self.now.unix.plus(span) };
    }

    /// Adds an event of the harness.
    pub fn schedule(&mut self, after: Duration, event: T) {
        self.queue.push(self.now.instant + after, Item::Other(event));
    }

    /// Sends a datagram from a host.
    pub fn send(&mut self, host: HostId, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.launch(Datagram { source, destination, bytes, sender: Some(host) });
    }

    /// Puts a datagram into the public Internet, with whatever source address.
    pub fn inject(&mut self, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.launch(Datagram { source, destination, bytes, sender: None });
    }

    fn launch(&mut self, datagram: Datagram) {
        let flights = self.network.send(self.now.instant, &mut self.dice, datagram);
        self.enqueue(flights);
    }

    fn enqueue(&mut self, flights: Vec<(Duration, InFlight)>) {
        for (delay, flight) in flights {
            self.queue.push(self.now.instant + delay, Item::InFlight(flight));
        }
    }

    /// Sends data on a stream. It is discarded if the stream is closed or broken.
    pub fn write(&mut self, stream: u32, direction: Direction, bytes: Vec<u8>) {
        let Some((client, server)) = self.streams.ends(stream) else { return };
        let lines = [client, server].map(|host| self.network.hosts[host].line);
        let at = self.streams.arrival(self.now.instant, stream, direction, lines, &mut self.dice);
        let segment = Segment { stream, client, direction, bytes: Some(bytes) };
        at.into_iter().for_each(|at| self.queue.push(at, Item::Segment(segment.clone())));
    }

    /// Delivers a segment after a delay, such as the notice that a stream was closed.
    pub fn schedule_segment(&mut self, after: Duration, segment: Segment) {
        self.queue.push(self.now.instant + after, Item::Segment(segment));
    }

    /// Returns the moment of the next event, which may be one inside the network.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// Returns the next event that is due by `until`, and moves the clocks to it.
    pub fn next(&mut self, until: Instant) -> Option<Event<T>> {
        while let Some((at, item)) = self.queue.pop_due(until) {
            self.advance_to(at);
            match item {
                Item::Segment(segment) => return Some(Event::Segment(segment)),
                Item::Other(event) => return Some(Event::Other(event)),
                Item::InFlight(flight) => {
                    match self.network.advance(self.now.instant, &mut self.dice, flight) {
                        Progress::Arrived(delivery) => return Some(Event::Datagram(delivery)),
                        Progress::InFlight(flights) => self.enqueue(flights),
                    }
                }
            }
        }
        None
    }
}

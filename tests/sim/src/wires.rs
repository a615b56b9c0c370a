//! What members and servers share: the network, the clock, and the record of all that was sent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Now, Topic};
use partyline_tests_netsim::{Direction, HostId, Line, Output, Segment, Simulation};

use crate::{item::Item, relay, rendezvous, trace::Trace};

/// The one-way delay between a member with a good line and a server.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
/// The relay's computer; those of the members follow it.
pub(crate) const RELAY: HostId = 0;

/// The network with its clock.
pub struct Wires {
    /// The network.
    pub(crate) net: Simulation<Item>,
    /// Everything sent so far.
    pub trace: Trace,
    /// The topics that members have entered, in the order they did.
    pub topics: Vec<Topic>,
    /// The longest delay of beacons, which lets them overtake each other.
    pub beacon_jitter: Duration,
    /// True if the relay has IPv6 addresses too.
    pub relay_v6: bool,
    /// How often the servers have moved to other addresses, to which their names lead now.
    pub(crate) moves: u8,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Self {
        let mut net = Simulation::new(seed);
        let relay = net.network.add_host(None, relay::addresses(false, 0), Line::GOOD);
        assert_eq!(relay, RELAY);
        Self {
            trace: Trace::new(net.now().instant),
            net,
            topics: Vec::new(),
            beacon_jitter: Duration::from_millis(1),
            relay_v6: false,
            moves: 0,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.net.now()
    }

    pub(crate) fn instant(&self) -> Instant {
        self.net.now().instant
    }

    pub(crate) fn schedule(&mut self, after: Duration, item: Item) {
        self.net.schedule(after, item);
    }

    /// Returns the addresses of the servers' names, without those that lead nowhere.
    pub(crate) fn resolve(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let families: &[bool] = if self.relay_v6 { &[false, true] } else { &[false] };
        let known = [relay::HOST, rendezvous::HOST].contains(&host);
        let addresses = families.iter().filter(|_| known).map(|v6| relay::addresses(*v6, self.moves)[0]);
        addresses.map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Returns true if a host's computer sleeps.
    pub(crate) fn is_asleep(&self, host: HostId) -> bool {
        !self.net.network.is_awake(host)
    }

    /// Sends a datagram.
    pub(crate) fn send(&mut self, host: HostId, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.trace.datagram(self.net.now().instant, source, destination, bytes.len());
        self.net.send(host, source, destination, bytes);
    }

    /// Sends what the relay has to send.
    pub(crate) fn send_from_relay(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Datagram { source, destination, bytes } => {
                    self.send(RELAY, source, destination, bytes)
                }
                Output::Stream { stream, bytes } => self.net.write(stream, Direction::ToClient, bytes),
            }
        }
    }

    /// Tells one end of a stream, after a delay, that the other end has closed it.
    pub(crate) fn close_stream(
        &mut self,
        after: Duration,
        stream: u32,
        client: HostId,
        direction: Direction,
    ) {
        self.net.schedule_segment(after, Segment { stream, client, direction, bytes: None });
    }
}

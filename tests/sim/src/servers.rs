//! The rendezvous server and the relay, while they run.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_model::Now;
use partyline_node::ServerId;
use partyline_rendezvous::Limits;
use partyline_tests_netsim::{Delivery, Direction, HostId, Line, TurnServer};

use crate::{
    item::Item,
    relay,
    rendezvous::{Connection, Message, Server},
    wires::{LATENCY, RELAY, Wires},
};

/// The first port of streams to the relay, as it sees them.
const FIRST_STREAM_PORT: u32 = 30_000;
/// How long a program waits for an answer to its attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Both servers; each may be down.
#[derive(Default)]
pub(crate) struct Servers {
    rendezvous: Option<Server>,
    relay: Option<TurnServer>,
    /// How often the rendezvous server was started.
    runs: u32,
    /// True if attempts to connect to where a server was are not even refused.
    silent: bool,
}

impl Servers {
    pub fn has_rendezvous(&self) -> bool {
        self.rendezvous.is_some()
    }

    pub fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Starts the rendezvous server, which grants the relay if `grants` says so.
    pub fn start_rendezvous(&mut self, limits: Limits, grants: bool, wires: &mut Wires) {
        let (offer, seed) = (grants.then(relay::offer), wires.net.dice.seed());
        self.runs += 1;
        self.rendezvous = Some(Server::new(wires.now(), self.runs, limits, offer, seed));
    }

    pub fn start_relay(&mut self, wires: &mut Wires) {
        let families: &[bool] = if wires.relay_v6 { &[false, true] } else { &[false] };
        let addresses: Vec<_> = families.iter().flat_map(|v6| relay::addresses(*v6, wires.moves)).collect();
        wires.net.network.move_host(RELAY, None, addresses);
        self.relay = Some(relay::start(wires.moves, wires.net.dice.seed()));
    }

    /// Stops the rendezvous server, which forgets everything.
    pub fn stop_rendezvous(&mut self) {
        (self.rendezvous, self.silent) = (None, false);
    }

    /// Takes both servers off the network: they forget everything, and from where they were nothing comes any more.
    pub fn unplug(&mut self, wires: &mut Wires) {
        (self.rendezvous, self.relay, self.silent) = (None, None, true);
        wires.net.streams.remove_all_to(RELAY);
    }

    /// Returns how long an attempt to connect to where a server was takes to fail.
    pub fn failure_delay(&self) -> Duration {
        if self.silent { CONNECT_TIMEOUT } else { LATENCY }
    }

    /// Stops the relay, which forgets everything. The clients learn that their streams are closed.
    pub fn stop_relay(&mut self, wires: &mut Wires) {
        self.relay = None;
        for (stream, client) in wires.net.streams.remove_all_to(RELAY) {
            wires.close_stream(Line::GOOD.latency, stream, client, Direction::ToClient);
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(server) = &mut self.rendezvous {
            server.handle_timeout(now);
        }
        if let Some(relay) = &mut self.relay {
            relay.handle_timeout(now);
        }
    }

    /// Accepts a member's connection to the rendezvous server, if that runs and has room.
    pub fn connect(&mut self, who: usize, host: HostId, link: ServerId, wires: &Wires) -> Option<Connection> {
        let ip = wires.net.network.public_address(host)?;
        self.rendezvous.as_mut()?.connect(wires.now(), who, link, ip)
    }

    pub fn hang_up(&mut self, connection: Connection, wires: &mut Wires) {
        if let Some(server) = &mut self.rendezvous {
            server.disconnect(wires.now(), connection);
        }
        self.serve(wires);
    }

    pub fn on_frame(&mut self, connection: Connection, bytes: &[u8], wires: &mut Wires) {
        if let Some(server) = &mut self.rendezvous {
            server.handle_frame(wires.now(), connection, bytes);
        }
        self.serve(wires);
    }

    /// Sends what the rendezvous server has to say.
    pub fn serve(&mut self, wires: &mut Wires) {
        let messages = self.rendezvous.as_mut().map(Server::messages);
        for message in messages.into_iter().flatten() {
            let item = match message {
                Message::Frame(who, link, connection, bytes) => Item::ToMember(who, link, connection, bytes),
                Message::Closed(who, link, connection) => Item::Closed(who, link, Some(connection)),
            };
            wires.schedule(LATENCY, item);
        }
    }

    pub fn on_datagram(&mut self, datagram: &Delivery, wires: &mut Wires) {
        if let Some(relay) = &mut self.relay {
            let outputs = relay.receive(wires.now(), datagram);
            wires.send_from_relay(outputs);
        }
    }

    /// Accepts a member's stream to the relay, if that is at this address. Returns its number.
    pub fn open_stream(&mut self, client: HostId, at: IpAddr, wires: &mut Wires) -> u32 {
        let stream = wires.net.streams.open(wires.instant(), client, RELAY);
        let is_there = relay::owns(at, wires.moves);
        if let Some(relay) = self.relay.as_mut().filter(|_| is_there) {
            let port = FIRST_STREAM_PORT + stream % FIRST_STREAM_PORT;
            let ip = wires.net.network.public_address(client).expect("a host with an address");
            relay.connect(stream, SocketAddr::new(ip, port as u16));
            // Empty data tells the client that it is connected.
            wires.net.write(stream, Direction::ToClient, Vec::new());
        } else {
            wires.net.streams.remove(stream);
            let refused = wires.net.network.hosts[client].line.latency + Line::GOOD.latency;
            let delay = if self.silent { CONNECT_TIMEOUT } else { refused };
            wires.close_stream(delay, stream, client, Direction::ToClient);
        }
        stream
    }

    /// Takes stream data, or the end of the stream.
    pub fn on_stream(&mut self, stream: u32, bytes: Option<&[u8]>, wires: &mut Wires) {
        let Some(bytes) = bytes else {
            wires.net.streams.remove(stream);
            return self.relay.iter_mut().for_each(|relay| relay.disconnect(stream));
        };
        if let Some(relay) = &mut self.relay {
            let outputs = relay.read(wires.now(), stream, bytes);
            wires.send_from_relay(outputs);
        }
    }
}

//! One NAT, one STUN server with two addresses, and this computer's sockets, for the tests of single machines. A packet
//! takes 20 ms each way.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::SocketId;
use partyline_nat::{Hairpinned, Nat, Protocol, Rules};
use stun_rs::{
    MessageClass, MessageDecoder, MessageEncoderBuilder, StunMessageBuilder,
    attributes::{
        discovery::{ChangeRequest, ResponsePort},
        stun::XorMappedAddress,
    },
    methods::BINDING,
};

use crate::{
    api::Transmit,
    client::{Client, Handled, Response},
    context::{Context, DiscoveryConfig, Observation, Reference, SocketRoles},
    purpose::Purpose,
};

/// The NAT's outside address.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
const FIRST_PORT: u16 = 41_641;
const PORT_DISTANCE: u16 = 7;
const PROBES: u16 = 7;
const ONE_WAY: Duration = Duration::from_millis(20);

/// Returns the instant at which virtual time begins.
pub(crate) fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "some instant to count virtual time from")]
    *START.get_or_init(Instant::now)
}

/// The server's addresses.
pub(crate) fn reference() -> Reference {
    Reference {
        server: ([11, 0, 1, 1], 3478).into(),
        other: ([11, 0, 1, 2], 3479).into(),
        rtt: 2 * ONE_WAY,
        untouched: true,
    }
}

/// How the server takes CHANGE-REQUEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    Honors,
    /// Responds from the address that received the request.
    Ignores,
    /// Does not respond.
    Swallows,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Response(Response),
    /// A response arrived at another socket than the request's.
    AtOtherSocket(SocketId, Purpose),
    TimedOut(Purpose),
}

impl Outcome {
    pub(crate) const fn is_answered(&self) -> bool {
        matches!(self, Self::Response(_))
    }

    pub(crate) const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

struct Packet {
    arrives: Instant,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
}

/// Everything around a machine under test.
pub(crate) struct TestNat {
    pub(crate) now: Instant,
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) manners: Manners,
    pub(crate) server_is_dead: bool,
    pub(crate) ignores_response_port: bool,
    /// Loses every second packet of the server.
    pub(crate) drop_every_second: bool,
    /// True once a packet came back in at another socket of this computer.
    pub(crate) hairpinned: bool,
    nat: Nat,
    reset_at: Option<Instant>,
    packets: VecDeque<Packet>,
    sent: u32,
}

impl TestNat {
    /// Seven probe sockets, of which the first tests mapping and the second filtering.
    pub(crate) fn new(rules: Rules) -> Self {
        let response_timeout = Duration::from_millis(2500);
        let config = DiscoveryConfig { response_timeout, local: vec![INSIDE], ..DiscoveryConfig::default() };
        let mut context = Context::new(config);
        let probes: Vec<_> = (0..PROBES).map(SocketId::probe).map(|id| (id, port_of(id))).collect();
        context.roles = SocketRoles::new(&probes);
        Self {
            now: start(),
            client: Client::new([7; 32]),
            context,
            manners: Manners::Honors,
            server_is_dead: false,
            ignores_response_port: false,
            drop_every_second: false,
            hairpinned: false,
            nat: Nat::new(3, OUTSIDE, rules),
            reset_at: None,
            packets: VecDeque::new(),
            sent: 0,
        }
    }

    pub(crate) const fn reset_nat_at(&mut self, at: Instant) {
        self.reset_at = Some(at);
    }

    /// Has a server see a socket, as an earlier test would have.
    pub(crate) fn observe(&mut self, socket: SocketId, server: SocketAddr) {
        let reflexive = self.outbound(socket, server).expect("the NAT has room");
        let (sent_at, received_at) = (self.now, self.now + 2 * ONE_WAY);
        let observation = Observation { destination: server, reflexive, sent_at, received_at };
        assert!(self.context.observations.insert(socket, observation));
        self.now = received_at;
    }

    /// Drives a machine until it has a finding.
    pub(crate) fn run<M, F>(
        &mut self,
        machine: &mut M,
        step: impl Fn(&mut M, Instant, &Context, &mut Client) -> Option<F>,
        on_outcome: impl Fn(&mut M, Instant, &Context, &Outcome),
    ) -> F {
        self.run_with(machine, step, on_outcome, |_, _| {})
    }

    /// Drives a machine until it has a finding; `after` sees it after each step.
    pub(crate) fn run_with<M, F>(
        &mut self,
        machine: &mut M,
        step: impl Fn(&mut M, Instant, &Context, &mut Client) -> Option<F>,
        on_outcome: impl Fn(&mut M, Instant, &Context, &Outcome),
        after: impl Fn(&mut M, &mut Self),
    ) -> F {
        // Not every machine has a poll_timeout: time moves in steps that are small to all of their intervals.
        for _ in 0..60_000 {
            if let Some(finding) = step(machine, self.now, &self.context, &mut self.client) {
                return finding;
            }
            after(machine, self);
            self.flush();
            self.now += Duration::from_millis(10);
            if self.reset_at.take_if(|at| *at <= self.now).is_some() {
                self.nat.reset();
            }
            for outcome in self.outcomes() {
                on_outcome(machine, self.now, &self.context, &outcome);
            }
        }
        panic!("the machine comes to no finding");
    }

    /// Sends what the client has to send.
    pub(crate) fn flush(&mut self) {
        while let Some(Transmit { socket, destination, bytes }) = self.client.poll_transmit() {
            if destination.ip() == OUTSIDE {
                self.turn_around(socket, destination, &bytes);
            } else if let Some(seen) = self.outbound(socket, destination) {
                self.respond(seen, destination, &bytes);
            }
        }
    }

    /// Returns the socket that a packet from outside reaches.
    pub(crate) fn inbound(&mut self, source: SocketAddr, destination: SocketAddr) -> Option<SocketId> {
        let inside = self.nat.inbound(self.now, Protocol::Udp, destination, source)?;
        Some(SocketId::probe((inside.port() - FIRST_PORT) / PORT_DISTANCE))
    }

    fn outbound(&mut self, socket: SocketId, destination: SocketAddr) -> Option<SocketAddr> {
        let inside = SocketAddr::new(INSIDE, port_of(socket));
        self.nat.outbound(self.now, Protocol::Udp, inside, destination)
    }

    fn turn_around(&mut self, socket: SocketId, destination: SocketAddr, bytes: &[u8]) {
        let inside = SocketAddr::new(INSIDE, port_of(socket));
        if let Some(Hairpinned { inside, .. }) =
            self.nat.hairpin(self.now, Protocol::Udp, inside, destination)
        {
            let socket = SocketId::probe((inside.port() - FIRST_PORT) / PORT_DISTANCE);
            self.hairpinned |= self.client.hairpinned(socket, bytes) == Some(Purpose::Hairpin);
        }
    }

    fn respond(&mut self, seen: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Reference { server, other, .. } = reference();
        let ours = [server.ip(), other.ip()].contains(&to.ip())
            && [server.port(), other.port()].contains(&to.port());
        let Some((request, _)) = MessageDecoder::default().decode(bytes).ok().filter(|_| ours) else {
            return;
        };
        if request.class() != MessageClass::Request || self.server_is_dead {
            return;
        }
        let flags = request
            .get::<ChangeRequest>()
            .and_then(|change| change.as_change_request().ok())
            .map_or(0, |change| change.flags().bits());
        if flags != 0 && self.manners == Manners::Swallows {
            return;
        }
        let honored = self.manners == Manners::Honors;
        let ip = if honored && flags & 4 != 0 { other.ip() } else { to.ip() };
        let port = if honored && flags & 2 != 0 { other.port() } else { to.port() };
        let response_port = request
            .get::<ResponsePort>()
            .and_then(|port| port.as_response_port().ok())
            .filter(|_| !self.ignores_response_port)
            .map(ResponsePort::as_u16);
        let response = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(*request.transaction_id())
            .with_attribute(XorMappedAddress::from(seen))
            .build();
        let mut buffer = [0; 128];
        let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &response).expect("room");
        self.sent += 1;
        if self.drop_every_second && self.sent.is_multiple_of(2) {
            return;
        }
        self.packets.push_back(Packet {
            arrives: self.now + 2 * ONE_WAY,
            source: SocketAddr::new(ip, port),
            destination: SocketAddr::new(seen.ip(), response_port.unwrap_or(seen.port())),
            bytes: buffer[..length].to_vec(),
        });
    }

    /// What became of requests by now. Plain responses are observed, as the schedule does.
    fn outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(packet) = self.packets.pop_front_if(|packet| packet.arrives <= self.now) {
            let Some(socket) = self.inbound(packet.source, packet.destination) else { continue };
            if let Some(purpose) = self.client.redirected_response(socket, packet.source, &packet.bytes) {
                outcomes.push(Outcome::AtOtherSocket(socket, purpose));
                continue;
            }
            let handled = self.client.handle_datagram(self.now, socket, packet.source, &packet.bytes);
            let Handled::Response(response) = handled else { continue };
            let plain = response.binding.filter(|_| packet.source == response.destination);
            if let Some(binding) = plain {
                let Response { destination, sent_at, received_at, .. } = response;
                let reflexive = binding.reflexive;
                let observation = Observation { destination, reflexive, sent_at, received_at };
                let consistent = self.context.observations.insert(socket, observation);
                self.context.inconsistent |= !consistent && socket == self.context.roles.mapping;
            }
            outcomes.push(Outcome::Response(response));
        }
        let timed_out = self.client.handle_timeout(self.now);
        outcomes.extend(timed_out.into_iter().map(|(_, purpose)| Outcome::TimedOut(purpose)));
        outcomes
    }
}

fn port_of(socket: SocketId) -> u16 {
    FIRST_PORT + (socket.0 - SocketId::probe(0).0) * PORT_DISTANCE
}

//! A computer in a home behind a NAT, with STUN servers and perhaps another member outside.

#![allow(dead_code, unused_imports, missing_docs, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

mod friend;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Filtering, SocketId};
use partyline_nat::Protocol;
use partyline_netcheck::{Config, Event, FilteringProbeRequest, Netcheck, PortPair, ProbeRound, StunServer};
use partyline_tests_netsim as netsim;
use partyline_tests_netsim::{Delivery, HostId, RouterId, Simulation, stun};
use stun_rs::attributes::stun::Fingerprint;

pub use friend::Friend;
pub use partyline_nat::{Nat, Rules};
pub use partyline_tests_netsim::{ChangeRequests, Line, StunServer as Server};

use friend::FriendHost;

/// The address of the computer under test. The main socket is at the first port, and probe sockets follow.
pub const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
pub const TUNNEL_PORT: u16 = 41641;
/// Its IPv6 address, if it has one. The firewall lets in responses from everywhere.
pub const INSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7));
/// The NAT's external address.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));

pub const UDP: Protocol = Protocol::Udp;

/// A line of 20 ms without loss.
pub const LINE: Line = Line { latency: Duration::from_millis(20), ..Line::IDEAL };

/// Returns the home's NAT.
pub fn nat(seed: u64, rules: Rules) -> Nat {
    Nat::new(seed, OUTSIDE, rules)
}

/// The machine under test with everything around it.
pub struct World {
    pub netcheck: Netcheck,
    pub servers: Vec<Server>,
    pub events: Vec<(Duration, Event)>,
    /// Datagrams sent by the computer under test, by destination.
    pub sent: BTreeMap<SocketAddr, u32>,
    /// The address from which a member answers filtering probe requests, if there is one.
    pub observer: Option<SocketAddr>,
    /// The filtering probe requests so far.
    pub probe_requests: Vec<FilteringProbeRequest>,
    net: Simulation<()>,
    host: HostId,
    router: Option<RouterId>,
    /// The host of all servers.
    server_host: HostId,
    friend: Option<FriendHost>,
    /// The fraction of packets that are lost on the whole way.
    loss: f64,
}

impl World {
    pub fn new(seed: u64, nat: Option<Nat>, servers: Vec<Server>, line: Line, probe_sockets: u16) -> Self {
        Self::with_config(seed, nat, servers, line, probe_sockets, Config::default())
    }

    pub fn with_config(
        seed: u64,
        nat: Option<Nat>,
        servers: Vec<Server>,
        line: Line,
        probe_sockets: u16,
        config: Config,
    ) -> Self {
        let mut net = Simulation::new(seed);
        let own = if nat.is_some() { INSIDE } else { OUTSIDE };
        let router = nat.map(|nat| net.network.add_router(None, nat));
        if let Some(router) = router {
            let router = &mut net.network.routers[router];
            let lifetime = Duration::from_secs(1_000_000);
            let open = Filtering::EndpointIndependent;
            router.set_rules_v6(Rules { filtering: open, lifetime, ..*router.nat.rules() });
        }
        let host = net.network.add_host(router, [own, INSIDE_V6], access(line));
        // What is lost or reordered before the NAT is so on the wireless link.
        net.network.hosts[host].wireless = Some(wireless(line));
        let ips: Vec<IpAddr> = servers.iter().flat_map(Server::ips).collect();
        let server_host = net.network.add_host(None, ips, Line::IDEAL);
        let now = net.now().instant;
        let mut netcheck = Netcheck::new(now, net.dice.seed(), config);
        netcheck.probe_sockets_opened(now, &opened(probe_sockets));
        netcheck.set_local_addresses(now, vec![SocketAddr::new(own, TUNNEL_PORT)]);
        let list = servers.iter().enumerate().map(|(i, s)| StunServer::new(format!("stun{i}"), s.address));
        netcheck.set_servers(now, list.collect());
        let (events, sent, probe_requests) = Default::default();
        Self {
            netcheck,
            servers,
            events,
            sent,
            observer: None,
            probe_requests,
            net,
            host,
            router,
            server_host,
            friend: None,
            loss: line.loss,
        }
    }

    pub fn now(&self) -> Instant {
        self.net.now().instant
    }

    /// Returns the home's NAT.
    pub fn nat(&mut self) -> &mut Nat {
        &mut self.net.network.routers[self.router.expect("a NAT")].nat
    }

    /// Replaces the home's NAT.
    pub fn replace_nat(&mut self, nat: Nat) {
        self.net.network.replace_nat(self.router.expect("a NAT"), nat);
    }

    /// Adds another member.
    pub fn add_friend(&mut self, friend: Friend) {
        self.friend = Some(FriendHost::new(&mut self.net.network, friend));
    }

    /// Opens so many sockets for the next measurement.
    pub fn open_probe_sockets(&mut self, count: u16) {
        let now = self.now();
        self.netcheck.probe_sockets_opened(now, &opened(count));
    }

    /// Lets time pass without any event.
    pub fn skip(&mut self, span: Duration) {
        self.net.advance_to(self.now() + span);
    }

    /// Runs for a span of time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now() + span;
        loop {
            self.drain();
            let timer = self.netcheck.poll_timeout();
            let Some(next) = timer.into_iter().chain(self.net.next_at()).min().filter(|at| *at <= end) else {
                break;
            };
            if self.net.next_at().is_some_and(|at| at <= next) {
                if let Some(netsim::Event::Datagram(delivery)) = self.net.next(next) {
                    self.deliver(&delivery);
                }
            } else {
                self.net.advance_to(next);
                let now = self.now();
                self.netcheck.handle_timeout(now);
            }
        }
        self.net.advance_to(end);
    }

    /// Runs until the measurement is over, at most for two minutes.
    pub fn measure(&mut self) {
        for _ in 0..1200 {
            self.run(Duration::from_millis(100));
            if self.netcheck.report().finished {
                break;
            }
        }
    }

    /// Sends a datagram from outside to the home.
    pub fn inject(&mut self, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.net.inject(source, destination, bytes);
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.netcheck.poll_transmit() {
            *self.sent.entry(transmit.destination).or_default() += 1;
            let v6 = transmit.destination.is_ipv6();
            let own = self.net.network.hosts[self.host].addresses().iter().find(|ip| ip.is_ipv6() == v6);
            let source = SocketAddr::new(*own.expect("an address"), port_of(transmit.socket));
            self.net.send(self.host, source, transmit.destination, transmit.bytes);
        }
        while let Some(event) = self.netcheck.poll_event() {
            if let Event::RequestFilteringProbe(request) = event {
                self.probe_requests.push(request);
                self.observer.into_iter().for_each(|from| self.inject(from, request.to, request.packet()));
                self.offer_ports();
            }
            if let Event::RequestProbeRound(round) = event {
                self.send_round(round);
            }
            self.events.push((self.net.elapsed(), event));
        }
    }

    /// The friend learns the reflexive addresses of its sockets and offers them.
    fn offer_ports(&mut self) {
        let (now, server) = (self.now(), self.servers[0].address);
        let Some(friend) = &self.friend else { return };
        if let [Some(first), Some(second)] = friend.reflexive(now, server, &mut self.net.network) {
            self.netcheck.set_port_pair(now, PortPair { first, second });
        }
    }

    /// The friend sends from both ports to both sockets, unless the request is lost.
    fn send_round(&mut self, round: ProbeRound) {
        let Some(friend) = &self.friend else { return };
        if self.net.dice.happens(self.loss) {
            return;
        }
        for to in round.to {
            for source in friend.working_sockets() {
                self.net.send(friend.host, source, to, round.packet());
            }
        }
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let Delivery { host, source, destination, bytes } = delivery;
        if *host == self.host {
            let now = self.now();
            self.netcheck.handle_datagram(now, socket_at(destination.port()), *source, bytes);
        }
        if *host != self.server_host {
            return;
        }
        let request = stun::decode(bytes).expect("requests are well-formed");
        request.get::<Fingerprint>().expect("requests carry a fingerprint");
        let respond = |server: &Server| server.respond(*destination, *source, bytes);
        for response in self.servers.iter().filter_map(respond).collect::<Vec<_>>() {
            self.net.send(self.server_host, response.source, response.destination, response.bytes);
        }
    }
}

/// Returns the part of a line's faults that is on the wireless link: all jitter, and half of the loss.
fn wireless(line: Line) -> Line {
    Line { loss: line.loss / 2.0, jitter: line.jitter, ..Line::IDEAL }
}

/// Returns the rest.
fn access(line: Line) -> Line {
    let half = line.loss / 2.0;
    Line { loss: half / (1.0 - half), jitter: Duration::ZERO, ..line }
}

fn opened(count: u16) -> Vec<(SocketId, Option<u16>)> {
    (0..count).map(SocketId::probe).map(|id| (id, Some(port_of(id)))).collect()
}

fn port_of(socket: SocketId) -> u16 {
    if socket == SocketId::MAIN {
        TUNNEL_PORT
    } else {
        TUNNEL_PORT + (socket.0 - SocketId::probe(0).0 + 1) * 7
    }
}

fn socket_at(port: u16) -> SocketId {
    if port == TUNNEL_PORT { SocketId::MAIN } else { SocketId::probe((port - TUNNEL_PORT) / 7 - 1) }
}

/// Returns a server with two addresses and two ports.
pub fn full_server() -> Server {
    Server::new([11, 0, 1, 1], 3478).with_other([11, 0, 1, 2], 3479)
}

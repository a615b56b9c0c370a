//! A TURN server and how members reach it.

use std::net::{IpAddr, SocketAddr};

use partyline_paths::{RelayServer, RelayTransport};
use partyline_relay::{PeerPolicy, Quotas, Secret, Settings};
use partyline_tests_netsim::{HostId, Simulation, TurnServer};

use super::LINE;

const PORT: u16 = 3478;

/// A TURN server on a computer of its own.
pub struct Relay {
    pub server: TurnServer,
    pub host: HostId,
    number: usize,
    ip: IpAddr,
    /// True if it refuses allocations.
    full: bool,
}

impl Relay {
    pub fn new<T>(net: &mut Simulation<T>, number: usize) -> Self {
        let ip = IpAddr::from([203, 0, 113, 1 + number as u8]);
        let host = net.network.add_host(None, [ip], LINE);
        Self { server: server(ip, false, net.dice.seed()), host, number, ip, full: false }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }

    /// Returns the server as a member's machine is told of it.
    pub fn entry(&self, transport: RelayTransport) -> RelayServer {
        RelayServer {
            name: format!("relay {}", self.number),
            transport,
            address: self.address(),
            host: "relay.test".into(),
            username: "user".into(),
            password: "secret".into(),
        }
    }

    /// Makes the server refuse allocations or accept them again. It must have none.
    pub fn set_full(&mut self, full: bool) {
        assert_eq!(self.server.allocations(), 0);
        self.full = full;
        self.restart([self.number as u8; 32]);
    }

    /// Replaces the server by one without allocations.
    pub fn restart(&mut self, seed: [u8; 32]) {
        self.server = server(self.ip, self.full, seed);
    }
}

fn server(ip: IpAddr, full: bool, seed: [u8; 32]) -> TurnServer {
    let defaults = Quotas::default();
    let settings = Settings {
        users: [("user".to_owned(), Secret::new("secret"))].into(),
        peers: PeerPolicy { allow_private: true, denied: Vec::new() },
        quotas: Quotas { allocations: if full { 0 } else { defaults.allocations }, ..defaults },
        // The tests' packets carry numbers rather than WireGuard messages.
        foreign_payloads: true,
        ..Settings::default()
    };
    TurnServer::new(settings, vec![SocketAddr::new(ip, PORT)], &[ip], seed)
}

//! Where the relay listens, and on which addresses it relays.

use std::net::{IpAddr, SocketAddr};

pub use partyline_relay::{PeerPolicy, Quotas, RelayAddress, Secret, Settings};

/// Configuration of the relay.
#[derive(Debug, Clone, Default)]
pub struct RelayConfig {
    /// UDP addresses to listen on, each with the address that clients see.
    pub listen: Vec<ListenAddress>,
    /// UDP port on all of them; 0 lets the system choose.
    pub port: u16,
    /// Second UDP port on all of them, for NAT behaviour discovery (RFC 5780), which is complete with two addresses of one
    /// family and two ports.
    pub alternate_port: Option<u16>,
    /// Addresses on which relayed ports are opened, at most one for IPv4 and one for IPv6.
    pub relay: Vec<RelayAddress>,
    /// Maximum number of TCP and TLS clients at a time.
    pub max_streams: usize,
    /// Credentials, permitted peers and quotas.
    pub settings: Settings,
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address sockets are bound to.
    pub bind: IpAddr,
    /// The address clients see, if the server is behind a one-to-one NAT.
    pub external: Option<IpAddr>,
}

impl ListenAddress {
    /// Returns the public address of a socket bound to this address.
    #[must_use]
    pub fn public(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.external.unwrap_or(self.bind), port)
    }
}

//! What the operator configures: who may use the relay, which peers it relays to, and how much.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use crate::peer_policy::PeerPolicy;

/// A password or key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for computing with it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything that the server needs to know besides its addresses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Realm of the long-term credentials, at most 127 characters.
    pub realm: String,
    /// Key of time-limited credentials: user name `<unix seconds>:<name>`, password base64(HMAC-SHA1(secret, user name)).
    pub shared_secret: Option<Secret>,
    /// Users with a fixed password.
    pub users: BTreeMap<String, Secret>,
    /// Ports of relayed addresses.
    pub ports: RangeInclusive<u16>,
    /// The longest lifetime of an allocation without a Refresh request; at least 600 s.
    pub max_lifetime: Duration,
    /// How long a nonce is valid.
    pub nonce_lifetime: Duration,
    /// Limits per user, client address, allocation and server.
    pub quotas: Quotas,
    /// The peers that packets may be relayed to.
    pub peers: PeerPolicy,
    /// Relays whatever clients and peers send. By default only datagrams pass that have the form of what members send to
    /// each other ([`partyline_wire::datagram::is_between_members`]), so that the server is no proxy for other programs.
    pub foreign_payloads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            realm: "partyline".into(),
            shared_secret: None,
            users: BTreeMap::new(),
            ports: 49_152..=65_535,
            max_lifetime: Duration::from_secs(3600),
            nonce_lifetime: Duration::from_secs(3600),
            quotas: Quotas::default(),
            peers: PeerPolicy::default(),
            foreign_payloads: false,
        }
    }
}

/// Limits that keep one client from starving the others. Rates are in bytes of payload per second; `None` is no limit.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Allocations on the whole server.
    pub allocations: usize,
    /// Allocations per user (the name behind the colon for time-limited credentials).
    pub allocations_per_user: usize,
    /// Allocations per client address (IPv6: per /64).
    pub allocations_per_address: usize,
    /// Permissions, and channels, that one allocation may hold at a time.
    pub peers_per_allocation: usize,
    /// Payload rate of one allocation, both directions together.
    pub bandwidth_per_allocation: Option<u64>,
    /// Payload rate of all clients in one network (an IPv4 address, an IPv6 /64), both directions together.
    pub bandwidth_per_network: Option<u64>,
    /// Payload rate of the whole server.
    pub bandwidth: Option<u64>,
    /// Answers per second to clients without an allocation, per client address (IPv6: per /64).
    pub unauthenticated_per_second: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            allocations: 10_000,
            allocations_per_user: 16,
            allocations_per_address: 256,
            peers_per_allocation: 128,
            bandwidth_per_allocation: Some(4_000_000),
            bandwidth_per_network: Some(16_000_000),
            bandwidth: Some(100_000_000),
            unauthenticated_per_second: 50,
        }
    }
}

/// A socket on which clients reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The address the socket is bound to.
    pub local: SocketAddr,
    /// The address clients see; differs behind a one-to-one NAT.
    pub public: SocketAddr,
}

/// An address on which relayed ports are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// The address sockets are bound to.
    pub local: IpAddr,
    /// The address peers see; differs behind a one-to-one NAT.
    pub public: IpAddr,
}

//! Who reaches the server, and by which socket.

use std::net::SocketAddr;

/// The transport between a client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTransport {
    /// UDP, at the listener with this index.
    Udp(u8),
    /// A TCP or TLS connection, numbered by its owner. A number must not be reused while its allocation exists.
    Stream(u32),
}

/// A client, identified by the 5-tuple of RFC 8656, section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// The transport, which implies the server's address.
    pub transport: ClientTransport,
    /// The client's server-reflexive address.
    pub address: SocketAddr,
}

/// A UDP socket bound to a relayed transport address. Numbers are small and reused after [`crate::Event::CloseSocket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelaySocket(u32);

impl RelaySocket {
    pub(crate) const fn new(allocation: usize, v6: bool) -> Self {
        Self((allocation as u32) << 1 | v6 as u32)
    }

    /// Returns the number, for use as an index. Even numbers are IPv4, odd ones IPv6.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the socket with that number.
    #[must_use]
    pub const fn from_index(index: usize) -> Self {
        Self(index as u32)
    }

    pub(crate) const fn allocation(self) -> usize {
        (self.0 >> 1) as usize
    }

    pub(crate) const fn is_v6(self) -> bool {
        self.0 & 1 == 1
    }
}

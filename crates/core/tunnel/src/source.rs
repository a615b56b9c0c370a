//! The source of a datagram, as far as limits and proofs of address go.

use std::net::{IpAddr, SocketAddr};

use partyline_model::host_network;

/// Where a datagram came from: its address proves itself by a cookie, and its handshakes share one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    address: IpAddr,
    key: SourceKey,
}

/// Those that share one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceKey {
    /// The network of one host.
    Host(IpAddr),
    /// The relayed address of the sender's allocation.
    Allocation(SocketAddr),
    /// The relaying member and the sender.
    MemberRelay(u64, u64),
}

impl Source {
    /// Returns the source of a datagram that came directly: all ports of an address are one source, and so are all
    /// addresses of an IPv6 /64.
    #[must_use]
    pub fn direct(address: IpAddr) -> Self {
        Self { address: address.to_canonical(), key: SourceKey::Host(host_network(address)) }
    }

    /// Returns the source of a datagram that a relay server delivered, from the relayed address of its sender's
    /// allocation. All senders have the server's address, so that the port tells them apart.
    #[must_use]
    pub const fn allocation(relayed: SocketAddr) -> Self {
        Self { address: relayed.ip(), key: SourceKey::Allocation(relayed) }
    }

    /// Returns the source of a datagram that another member relayed, who is at `address`. The numbers of that member and
    /// of the sender are the caller's own.
    #[must_use]
    pub const fn member_relay(address: IpAddr, through: u64, from: u64) -> Self {
        Self { address, key: SourceKey::MemberRelay(through, from) }
    }

    /// Returns the address that a cookie proves.
    pub(crate) const fn address(self) -> IpAddr {
        self.address
    }

    pub(crate) const fn key(self) -> SourceKey {
        self.key
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self::direct(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_at_one_server_are_told_apart() {
        let at = |port| Source::allocation(SocketAddr::from(([192, 0, 2, 1], port)));
        assert_ne!(at(50_000).key(), at(50_001).key());
        assert_eq!(at(50_000).address(), at(50_001).address());
        let address = at(1).address();
        assert_ne!(Source::member_relay(address, 1, 2).key(), Source::member_relay(address, 1, 3).key());
    }
}

//! What the caller tells the tunnel about parties, members and paths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use partyline_model::TunnelPublicKey;

use crate::ip::link_local;

/// This member's own addresses in a party's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartyConfig {
    /// Our IPv4 address with the party's prefix.
    pub v4: Ipv4Net,
    /// Our IPv6 address with the party's prefix. The link-local address with the same interface identifier is ours too.
    pub v6: Ipv6Net,
    /// The MTU of the network device, in bytes.
    pub mtu: u16,
}

impl PartyConfig {
    /// Returns true if the address is this member's own.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.v4.addr(),
            IpAddr::V6(address) => address == self.v6.addr() || address == link_local(self.v6.addr()),
        }
    }
}

/// Another member: its key and the addresses that cryptokey routing accepts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its WireGuard static public key in this party.
    pub key: TunnelPublicKey,
    /// Its IPv4 address, once it has claimed one.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address. The link-local address with the same interface identifier belongs to it too.
    pub v6: Ipv6Addr,
}

impl PeerConfig {
    /// Returns every address that the member may send from.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(self.v6.into()), Some(link_local(self.v6).into()), self.v4.map(IpAddr::from)]
            .into_iter()
            .flatten()
    }

    /// Returns true if the member may send from the address.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => address == self.v6 || address == link_local(self.v6),
        }
    }
}

/// What the path to a member can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathConfig {
    /// Bytes to leave free in front of each datagram: 0, or [`crate::RELAY_HEADROOM`] where it goes through a relay.
    pub headroom: usize,
    /// The path MTU inside the tunnel, in bytes: the path's datagram size less [`crate::WIREGUARD_OVERHEAD`]. `None` if
    /// it is no smaller than the device's MTU.
    pub mtu: Option<u16>,
}

//! Node ids, and the compact form of addresses and of nodes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The length of a node id in bytes.
pub const NODE_ID_LEN: usize = 20;

/// The id of a DHT node, or a target: a point in the same space of 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub [u8; NODE_ID_LEN]);

impl NodeId {
    /// Returns the distance between two ids, their exclusive or. Compare distances as numbers.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] ^ other.0[index]))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// A node's id and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Contact {
    pub id: NodeId,
    pub address: SocketAddr,
}

/// Nodes in their compact forms, `nodes` (26 bytes each) and `nodes6` (38 bytes each, BEP 32). A cut last entry is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of the keys")]
pub struct Contacts<'a> {
    pub nodes: Option<&'a [u8]>,
    pub nodes6: Option<&'a [u8]>,
}

impl Contacts<'_> {
    /// Returns the IPv4 nodes, then the IPv6 nodes.
    pub fn iter(&self) -> impl Iterator<Item = Contact> {
        let v4 = self.nodes.unwrap_or_default().chunks_exact(NODE_ID_LEN + 6);
        let v6 = self.nodes6.unwrap_or_default().chunks_exact(NODE_ID_LEN + 18);
        v4.chain(v6).filter_map(|entry| {
            let (id, address) = entry.split_first_chunk()?;
            Some(Contact { id: NodeId(*id), address: parse_address(address)? })
        })
    }
}

/// Returns the compact form of an address: 6 bytes for IPv4, 18 for IPv6.
#[must_use]
pub fn compact_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}

/// Returns the compact form of those of the nodes that have the given family.
#[must_use]
pub fn compact_contacts(contacts: &[Contact], ipv6: bool) -> Vec<u8> {
    let of_family = contacts.iter().filter(|contact| contact.address.is_ipv6() == ipv6);
    of_family.flat_map(|contact| [&contact.id.0[..], &compact_address(contact.address)].concat()).collect()
}

/// Reads a compact address of either family.
pub(super) fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

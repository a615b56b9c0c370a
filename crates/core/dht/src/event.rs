//! Inputs and outputs of [`crate::Dht`].

use std::{fmt, net::SocketAddr, time::Duration};

use crate::item::Item;

/// Names a lookup of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub(crate) u64);

impl fmt::Display for LookupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A datagram to send from the tunnel's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Transmit {
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Something that was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A valid item arrived. Each distinct item is reported once per lookup, as nodes may hold different ones.
    Item {
        /// The lookup.
        lookup: LookupId,
        /// The item.
        item: Item,
    },
    /// A lookup ended.
    Done {
        /// The lookup, which is forgotten.
        lookup: LookupId,
        /// What came of it.
        outcome: Outcome,
    },
    /// What [`crate::Dht::reflexive`] returns has changed.
    ReflexiveChanged,
    /// The DHT was found to answer (true), or not to (false): queries to several nodes went unanswered for five seconds.
    Answering(bool),
}

/// What came of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Queries sent.
    pub asked: u32,
    /// Queries that were answered, errors included.
    pub answered: u32,
    /// Distinct valid items found.
    pub items: u32,
    /// Nodes that stored the item.
    pub stored: u32,
    /// Nodes that hold another item than was expected: error 301 (another sequence number than `cas`) or 302 (a higher one
    /// than the item's).
    pub conflicts: u32,
    /// Nodes that refused to store the item for another reason.
    pub refused: u32,
    /// The time from the request to the end.
    pub took: Duration,
}

/// An address at which nodes see this computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reflexive {
    /// The address that most nodes report.
    pub address: SocketAddr,
    /// The number of nodes in different networks that report this very address.
    pub votes: usize,
    /// True if nodes report the same IP address with many ports: the mapping depends on the destination.
    pub port_varies: bool,
}

//! Where a member might be reached (RFC 8445's candidates, with the kinds that games' networks add).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a candidate was learned. The order is that of preference, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An address of one of the computer's own interfaces.
    Host,
    /// Heard by the LAN beacon: a neighbour on the same network.
    Lan,
    /// A port that the router opened on request (UPnP, NAT-PMP, PCP, IPv6 pinhole).
    Mapped,
    /// The address a STUN server saw.
    ServerReflexive,
    /// The address a peer saw.
    PeerReflexive,
    /// A port a contiguous NAT is expected to choose next.
    Predicted,
    /// One of many ports opened against a random NAT.
    Sprayed,
    /// An address at a relay.
    Relayed,
}

/// An address at which a member says it may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was learned.
    pub kind: CandidateKind,
    /// The transport address; UDP always.
    pub address: SocketAddr,
}

//! Addresses at which a member may be reached: the candidates of RFC 8445, with kinds added for LANs, port mappings and
//! hole punching.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a candidate was learned. The order is that of preference, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An address of one of the computer's own interfaces.
    Host,
    /// The source address of a LAN beacon: a member on the same network.
    Lan,
    /// A port that the router opened on request (UPnP, NAT-PMP, PCP, or an IPv6 pinhole).
    Mapped,
    /// The address that a STUN server saw.
    ServerReflexive,
    /// The address that a peer saw.
    PeerReflexive,
    /// The port that a NAT with contiguous allocation is expected to choose next.
    Predicted,
    /// One of many ports opened at once against a NAT with random allocation.
    Sprayed,
    /// An address at a TURN server.
    Relayed,
    /// An address that another VPN or tunnel carries packets to: the last resort, since that VPN may ride on the party.
    Overlay,
}

/// An address at which a member may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was learned.
    pub kind: CandidateKind,
    /// The transport address. The protocol is always UDP.
    pub address: SocketAddr,
}

//! How two members are connected, and what was tried.

use serde::{Deserialize, Serialize};

/// What carries packets to a member right now. Ordered best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Both members are on one local network.
    Lan,
    /// Direct, between global IPv6 addresses.
    DirectV6,
    /// Direct, through a port that the router opened on request.
    Mapped,
    /// Direct, through a punched hole or without a NAT in between.
    Direct,
    /// Forwarded by another member.
    MemberRelay,
    /// Forwarded by a TURN server.
    Relay,
    /// Carried by another VPN or tunnel of both computers.
    Overlay,
}

impl PathKind {
    /// Returns the kind's name in reports, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::DirectV6 => "direct_v6",
            Self::Mapped => "mapped",
            Self::Direct => "direct",
            Self::MemberRelay => "member_relay",
            Self::Relay => "relay",
            Self::Overlay => "overlay",
        }
    }
}

/// A way of reaching a member that can succeed or fail independently of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Addresses on a shared local network.
    Lan,
    /// Global IPv6 addresses.
    Ipv6,
    /// A port that the router opened on request.
    Mapped,
    /// Simultaneous connectivity checks between reflexive addresses.
    Punch,
    /// Connectivity checks to a predicted port.
    Predict,
    /// Connectivity checks from many sockets to many ports.
    Spray,
    /// Forwarding by another member.
    MemberRelay,
    /// A TURN server over UDP.
    RelayUdp,
    /// A TURN server over TCP.
    RelayTcp,
    /// A TURN server over TLS.
    RelayTls,
    /// Addresses of another VPN or tunnel.
    Overlay,
}

impl Method {
    /// Returns the method's name in reports, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Ipv6 => "ipv6",
            Self::Mapped => "mapped",
            Self::Punch => "punch",
            Self::Predict => "predict",
            Self::Spray => "spray",
            Self::MemberRelay => "member_relay",
            Self::RelayUdp => "relay_udp",
            Self::RelayTcp => "relay_tcp",
            Self::RelayTls => "relay_tls",
            Self::Overlay => "overlay",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It is still under way.
    Trying,
    /// It succeeded.
    Worked,
    /// No answer came in time.
    NoAnswer,
    /// It could not be made; the attempt's note says why.
    Impossible,
}

/// One line of the answer to "why this path?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Attempt {
    /// The method that was tried.
    pub method: Method,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Milliseconds from the start of the attempt to its outcome.
    pub took_ms: u32,
    /// One sentence of explanation for people; may be empty.
    pub note: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_serialized_form() {
        for kind in
            [PathKind::Lan, PathKind::DirectV6, PathKind::MemberRelay, PathKind::Relay, PathKind::Overlay]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for method in [Method::Lan, Method::Ipv6, Method::MemberRelay, Method::RelayTls] {
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
        }
    }
}

//! Words for how two members are connected, and for what was tried.

use serde::{Deserialize, Serialize};

/// What carries packets to a member right now. Ordered best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Both on one local network.
    Lan,
    /// Over IPv6 without help.
    DirectV6,
    /// Through a port the router opened on request.
    Mapped,
    /// Through a punched hole, or with no NAT in the way.
    Direct,
    /// Through another member.
    MemberRelay,
    /// Through a relay server.
    Relay,
}

/// A way of reaching a member that can succeed or fail on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Addresses on a shared local network.
    Lan,
    /// Global IPv6 addresses.
    Ipv6,
    /// A port opened by the router.
    Mapped,
    /// Simultaneous checks between reflexive addresses.
    Punch,
    /// A predicted port.
    Predict,
    /// Many ports at once.
    Spray,
    /// Through another member.
    MemberRelay,
    /// A relay over UDP.
    RelayUdp,
    /// A relay over TCP.
    RelayTcp,
    /// A relay over TLS.
    RelayTls,
}

impl Method {
    /// As it is written in reports and metrics.
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
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Still being tried.
    Trying,
    /// It works.
    Worked,
    /// No answer came.
    NoAnswer,
    /// It could not be tried; the attempt's note says why.
    Impossible,
}

/// One line of the answer to "why this path?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Attempt {
    /// What was tried.
    pub method: Method,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Milliseconds from its start to its outcome.
    pub took_ms: u32,
    /// What a person should know about it, one sentence; may be empty.
    pub note: String,
}

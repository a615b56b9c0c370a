//! What a check of the network asked, found and could not find, for people to read.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a check of the network goes, and what it found besides the profile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NetworkReport {
    /// Whether policies are measured at all (`nat_detection`).
    pub enabled: bool,
    /// Whether a measurement is under way.
    pub running: bool,
    /// Its steps, in order.
    pub steps: Vec<CheckStep>,
    /// The STUN servers asked.
    pub servers: Vec<ServerCheck>,
    /// What the router was asked to open, and how it answered.
    pub router: Vec<RouterCheck>,
    /// What could not be measured and why, a sentence each.
    pub gaps: Vec<String>,
    /// How much of the profile is measured.
    pub confidence: Confidence,
    /// When the last measurement ended; seconds since 1970.
    pub measured_at: Option<u32>,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
    /// Datagrams that it sent.
    pub packets: u32,
}

/// How much of a profile is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Nothing.
    #[default]
    None,
    /// The public address only.
    Low,
    /// The mapping policy too.
    Medium,
    /// All three policies.
    High,
}

/// One step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct CheckStep {
    /// What is looked at.
    pub what: CheckTopic,
    /// How far it is.
    pub state: StepState,
}

/// What a step looks at, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum CheckTopic {
    /// Public addresses.
    Address,
    /// What passes the filter.
    Filtering,
    /// Which destinations share a port.
    Mapping,
    /// How ports are chosen.
    Allocation,
    /// Whether inside computers meet at the outside address.
    Hairpin,
    /// IPv6 and its firewall.
    Ipv6,
    /// How long an idle mapping lives; goes on long after the others.
    Lifetime,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Answered.
    Known,
    /// Over, without an answer.
    Unknown,
}

/// One STUN server's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct ServerCheck {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<u32>,
    /// Where it saw this computer.
    pub reflexive: Option<SocketAddr>,
    /// Whether it has a second address (RFC 5780).
    pub two_addresses: bool,
    /// Whether it failed to answer.
    pub silent: bool,
}

/// One way of asking the router for a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct RouterCheck {
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: String,
    /// Whether it opened a port.
    pub works: bool,
    /// Why it did not.
    pub problem: Option<String>,
}

//! The report of a network check for users: its progress, what it found, and what could not be measured.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The progress of a network check, and what it found besides the [`crate::NatProfile`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NetworkReport {
    /// True if NAT behavior is measured at all (the setting `nat_detection`).
    pub enabled: bool,
    /// True while a measurement is under way.
    pub running: bool,
    /// The steps of the measurement, in order.
    pub steps: Vec<CheckStep>,
    /// The STUN servers that were asked.
    pub servers: Vec<ServerCheck>,
    /// How the router answered requests to open a port, by protocol.
    pub router: Vec<RouterCheck>,
    /// What could not be measured and why, one sentence each.
    pub gaps: Vec<String>,
    /// How much of the profile was measured.
    pub confidence: Confidence,
    /// When the last measurement ended, in seconds since 1970.
    pub measured_at: Option<u32>,
    /// The duration of the last measurement in milliseconds.
    pub took_ms: u32,
    /// The number of datagrams that it sent.
    pub packets: u32,
}

/// How much of a NAT profile was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Nothing was measured.
    #[default]
    None,
    /// Only the public address.
    Low,
    /// The mapping behavior too.
    Medium,
    /// Mapping, filtering and port assignment.
    High,
}

/// One step of a network check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct CheckStep {
    /// What the step measures.
    pub what: CheckTopic,
    /// The state of the step.
    pub state: StepState,
}

/// What a step measures, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum CheckTopic {
    /// Public addresses.
    Address,
    /// The filtering behavior.
    Filtering,
    /// The mapping behavior.
    Mapping,
    /// The port assignment.
    Allocation,
    /// Hairpinning.
    Hairpin,
    /// IPv6 and its firewall.
    Ipv6,
    /// The lifetime of idle mappings, which takes minutes longer than the other steps.
    Lifetime,
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not started.
    Waiting,
    /// Under way.
    Running,
    /// Finished with a result.
    Known,
    /// Finished without a result.
    Unknown,
}

/// How one STUN server answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct ServerCheck {
    /// The server's host name.
    pub name: String,
    /// The server's address.
    pub address: SocketAddr,
    /// The round-trip time in milliseconds.
    pub rtt_ms: Option<u32>,
    /// The reflexive address, at which the server saw this computer.
    pub reflexive: Option<SocketAddr>,
    /// True if the server has a second address (RFC 5780).
    pub two_addresses: bool,
    /// True if the server did not answer.
    pub silent: bool,
}

/// How the router answered requests to open a port by one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct RouterCheck {
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: String,
    /// True if the router opened a port.
    pub works: bool,
    /// Why it did not, one sentence.
    pub problem: Option<String>,
}

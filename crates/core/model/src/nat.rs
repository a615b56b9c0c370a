//! What a NAT does, in the words of RFC 4787. Three policies, each measured or unknown, make the 27 types.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Which destinations share one external port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// All destinations (EI).
    EndpointIndependent,
    /// Those at one address (HD).
    AddressDependent,
    /// Those at one address and port (PD).
    AddressAndPortDependent,
}

/// Whose packets a mapping lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Filtering {
    /// Anybody's (EI).
    EndpointIndependent,
    /// Those from addresses it has sent to (HD).
    AddressDependent,
    /// Those from addresses and ports it has sent to (PD).
    AddressAndPortDependent,
}

/// How a new mapping's external port is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// The inside port, where free (PP).
    Preserving,
    /// The last one plus a step (PC).
    Contiguous {
        /// Measured step; negative counts down.
        delta: i16,
    },
    /// Unpredictable (RD).
    Random,
}

/// What is known about the network this computer is in. `None` means not measured or not measurable, never a guess.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NatProfile {
    /// Mapping policy.
    pub mapping: Option<Mapping>,
    /// Filtering policy.
    pub filtering: Option<Filtering>,
    /// Allocation policy.
    pub allocation: Option<Allocation>,
    /// Public addresses as servers saw them.
    pub public: Vec<IpAddr>,
    /// No STUN server answered over UDP while one was reachable otherwise.
    pub udp_blocked: Option<bool>,
    /// A second NAT lies above the router (private or shared external address).
    pub double_nat: Option<bool>,
    /// The router lets inside hosts meet at its outside address.
    pub hairpin: Option<bool>,
    /// How long an idle mapping lives.
    #[cfg_attr(feature = "specta", specta(type = Option<Seconds>))]
    pub lifetime: Option<Duration>,
    /// The router's own outside address is one of a carrier's NAT (100.64.0.0/10, RFC 6598).
    pub carrier_nat: Option<bool>,
    /// Whether IPv6 reaches the internet.
    pub ipv6: Option<bool>,
    /// Whose packets the IPv6 firewall lets in.
    pub firewall_v6: Option<Filtering>,
}

/// The shape in which serde writes a [`Duration`].
#[cfg(feature = "specta")]
#[derive(specta::Type)]
#[expect(dead_code, reason = "only its shape matters")]
struct Seconds {
    secs: crate::Number,
    nanos: u32,
}

/// The word for a network that players know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Badge {
    /// No NAT in the way (level 0).
    Open,
    /// EI mapping, EI filtering (level 1).
    FullCone,
    /// EI mapping, HD filtering (level 2).
    Restricted,
    /// EI mapping, PD filtering (level 3).
    PortRestricted,
    /// Mapping depends on the destination (level 4).
    Symmetric,
    /// UDP does not get out at all.
    UdpBlocked,
}

impl Badge {
    /// From 0, reachable by anybody, to 4; `None` where UDP does not get out at all.
    #[must_use]
    pub const fn level(self) -> Option<u8> {
        match self {
            Self::Open => Some(0),
            Self::FullCone => Some(1),
            Self::Restricted => Some(2),
            Self::PortRestricted => Some(3),
            Self::Symmetric => Some(4),
            Self::UdpBlocked => None,
        }
    }
}

impl NatProfile {
    /// The badge, or `None` while too little is known. `open` says that a local address equals the public one.
    #[must_use]
    pub fn badge(&self, open: bool) -> Option<Badge> {
        if self.udp_blocked == Some(true) {
            return Some(Badge::UdpBlocked);
        }
        if open {
            return Some(Badge::Open);
        }
        match (self.mapping?, self.filtering) {
            (Mapping::EndpointIndependent, Some(Filtering::EndpointIndependent)) => Some(Badge::FullCone),
            (Mapping::EndpointIndependent, Some(Filtering::AddressDependent)) => Some(Badge::Restricted),
            (Mapping::EndpointIndependent, Some(Filtering::AddressAndPortDependent)) => {
                Some(Badge::PortRestricted)
            }
            (Mapping::EndpointIndependent, None) => None,
            _ => Some(Badge::Symmetric),
        }
    }
}

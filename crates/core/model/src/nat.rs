//! NAT behavior in the terms of RFC 4787: three policies, each measured or unknown, which make 27 types.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// The mapping behavior of a NAT (RFC 4787, section 4.1): which destinations share one external port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// All destinations share it (EI).
    EndpointIndependent,
    /// Destinations at one address share it (HD).
    AddressDependent,
    /// Each destination address and port has one of its own (PD).
    AddressAndPortDependent,
}

/// The filtering behavior of a NAT (RFC 4787, section 5): which sources a mapping lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Filtering {
    /// All sources (EI).
    EndpointIndependent,
    /// Addresses that it has sent to (HD).
    AddressDependent,
    /// Addresses and ports that it has sent to (PD).
    AddressAndPortDependent,
}

/// The port assignment of a NAT (RFC 4787, section 4.2): how the external port of a new mapping is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// The internal port, where it is free (PP).
    Preserving,
    /// The last port plus a step (PC).
    Contiguous {
        /// The step; negative if the NAT counts down.
        delta: i16,
    },
    /// An unpredictable port (RD).
    Random,
}

/// What is known about the network of a computer. `None` means that a property was not or could not be measured;
/// nothing is guessed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct NatProfile {
    /// The mapping behavior.
    pub mapping: Option<Mapping>,
    /// The filtering behavior.
    pub filtering: Option<Filtering>,
    /// The port assignment.
    pub allocation: Option<Allocation>,
    /// The public addresses that STUN servers saw.
    pub public: Vec<IpAddr>,
    /// True if no STUN server answered over UDP while one was reachable by other means.
    pub udp_blocked: Option<bool>,
    /// True if a second NAT lies between the router and the internet: the router's external address is private or
    /// shared.
    pub double_nat: Option<bool>,
    /// True if internal hosts can reach each other at the external address (RFC 4787, section 6).
    pub hairpin: Option<bool>,
    /// How long an idle UDP mapping lives.
    #[cfg_attr(feature = "specta", specta(type = Option<Seconds>))]
    pub lifetime: Option<Duration>,
    /// True if the router's external address is in the shared space of carrier-grade NATs (100.64.0.0/10, RFC 6598).
    pub carrier_nat: Option<bool>,
    /// True if the internet is reachable over IPv6.
    pub ipv6: Option<bool>,
    /// The filtering behavior of the IPv6 firewall.
    pub firewall_v6: Option<Filtering>,
}

/// A NAT that two members share and that does not route packets between them back inside (RFC 4787, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum SharedNat {
    /// A router of theirs, unless it is a carrier's NAT that nothing has shown yet.
    Router,
    /// A carrier-grade NAT (RFC 6598).
    Carrier,
}

/// The shape in which serde serializes a [`Duration`].
#[cfg(feature = "specta")]
#[derive(specta::Type)]
#[expect(dead_code, reason = "only its shape matters")]
struct Seconds {
    secs: crate::Number,
    nanos: u32,
}

/// A network's NAT type in the words that players know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Badge {
    /// No NAT (level 0).
    Open,
    /// Endpoint-independent mapping and filtering (level 1).
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering (level 2).
    Restricted,
    /// Endpoint-independent mapping, address and port-dependent filtering (level 3).
    PortRestricted,
    /// The mapping depends on the destination (level 4).
    Symmetric,
    /// UDP is blocked.
    UdpBlocked,
}

impl Badge {
    /// Returns the level from 0, reachable by everybody, to 4; `None` where UDP is blocked.
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
    /// Returns the badge, or `None` while too little is known. `open` is true if a local address equals the public one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn badge_follows_mapping_and_filtering() {
        let badge =
            |mapping, filtering| NatProfile { mapping, filtering, ..NatProfile::default() }.badge(false);
        let (ei, hd, pd) = (
            Some(Filtering::EndpointIndependent),
            Some(Filtering::AddressDependent),
            Some(Filtering::AddressAndPortDependent),
        );
        let cone = Some(Mapping::EndpointIndependent);
        assert_eq!(
            [ei, hd, pd, None].map(|filtering| badge(cone, filtering)),
            [Some(Badge::FullCone), Some(Badge::Restricted), Some(Badge::PortRestricted), None]
        );
        assert_eq!(badge(Some(Mapping::AddressDependent), None), Some(Badge::Symmetric));
        assert_eq!(badge(None, pd), None);
    }

    #[test]
    fn blocked_udp_comes_before_an_open_network() {
        let blocked = NatProfile { udp_blocked: Some(true), ..NatProfile::default() };
        assert_eq!(blocked.badge(true), Some(Badge::UdpBlocked));
        assert_eq!(NatProfile::default().badge(true).and_then(Badge::level), Some(0));
    }
}

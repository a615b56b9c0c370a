//! The protocols by which a router is asked for a port.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A protocol for asking a router for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887), for an IPv4 mapping.
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device, version 1 or 2.
    Upnp,
    /// Port Control Protocol over IPv6, for a pinhole in the router's IPv6 firewall.
    PcpV6,
    /// UPnP `WANIPv6FirewallControl:1`, for a pinhole in the router's IPv6 firewall.
    Pinhole,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 5] = [Self::Pcp, Self::NatPmp, Self::Upnp, Self::PcpV6, Self::Pinhole];

    /// Returns true if the protocol opens the IPv6 firewall instead of mapping an IPv4 port.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::PcpV6 | Self::Pinhole)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
            Self::PcpV6 => "PCP for IPv6",
            Self::Pinhole => "UPnP pinhole",
        })
    }
}

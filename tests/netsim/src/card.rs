//! Cards that a host has beside its real one: bridges inside it, and other VPNs.

use ipnet::IpNet;

use crate::line::Line;

/// The number of another VPN.
pub type OverlayId = usize;

/// Another VPN: a network between hosts that does not depend on the routers above them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlay {
    /// The way between two of its hosts, in one direction.
    pub line: Line,
    /// False if it carries nothing, though its cards are there.
    pub up: bool,
    /// True if it carries multicast as a LAN does.
    pub multicast: bool,
}

/// A card besides the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Its address, with the length of its network's prefix.
    pub network: IpNet,
    /// The VPN that it is of; `None` if nothing outside the host is behind it.
    pub overlay: Option<OverlayId>,
}

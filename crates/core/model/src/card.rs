//! What this computer's network interfaces are, as far as paths care.

/// What stands behind a network interface. The order is that of preference, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum CardKind {
    /// A network outside this computer: real hardware, whatever stands on it, and the only card of a container.
    #[default]
    Physical,
    /// A network inside this computer: the bridge of a container engine, a virtual machine's host-only network.
    Internal,
    /// Another network that carries its packets: a VPN, a tunnel, or what stands on one.
    Overlay,
}

/// What the system sends packets for a network to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// An interface that is not of a party.
    Card(CardKind),
    /// A party's own device.
    Party,
}

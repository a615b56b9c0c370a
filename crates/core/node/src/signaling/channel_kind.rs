//! The kinds of channel.

/// A kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    /// A rendezvous server.
    Server,
    /// The tunnel to a member, who gossips on behalf of others.
    Tunnel,
    /// A beacon on the local network.
    Beacon,
    /// Datagrams to an address at which a member answers.
    Direct,
}

impl ChannelKind {
    /// Returns the label in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Tunnel => "tunnel",
            Self::Beacon => "beacon",
            Self::Direct => "direct",
        }
    }
}

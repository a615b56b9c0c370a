//! Counters of sealed messages, by channel and by the reason why they were dropped.

use partyline_party::RefusalCounters;

use super::channel_kind::ChannelKind;

/// Counters of all channels.
#[derive(Debug, Clone, Default)]
pub struct SignalingCounters {
    /// Messages by way of rendezvous servers.
    pub server: ChannelCounters,
    /// Messages through tunnels.
    pub tunnel: ChannelCounters,
    /// Messages in LAN beacons.
    pub beacon: ChannelCounters,
    /// Messages in datagrams to addresses at which members answer.
    pub direct: ChannelCounters,
}

/// Counters of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelCounters {
    /// Sealed messages sent, one for each receiver that the channel addresses.
    pub sent: u64,
    /// Sealed messages that arrived and were accepted.
    pub received: u64,
    /// Sealed messages that arrived and were dropped.
    pub dropped: RefusalCounters,
}

impl ChannelCounters {
    /// Returns the totals with their labels; [`RefusalCounters::each`] has the dropped ones by reason.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("sent", self.sent), ("received", self.received), ("dropped", self.dropped.total())].into_iter()
    }
}

impl SignalingCounters {
    /// Returns the counters of each channel with the channel's label.
    #[must_use]
    pub const fn channels(&self) -> [(&'static str, &ChannelCounters); 4] {
        [
            (ChannelKind::Server.name(), &self.server),
            (ChannelKind::Tunnel.name(), &self.tunnel),
            (ChannelKind::Beacon.name(), &self.beacon),
            (ChannelKind::Direct.name(), &self.direct),
        ]
    }

    pub(super) const fn of(&mut self, kind: ChannelKind) -> &mut ChannelCounters {
        match kind {
            ChannelKind::Server => &mut self.server,
            ChannelKind::Tunnel => &mut self.tunnel,
            ChannelKind::Beacon => &mut self.beacon,
            ChannelKind::Direct => &mut self.direct,
        }
    }
}

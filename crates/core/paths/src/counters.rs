//! Counters of what was received and dropped, for metrics.

/// Datagrams and signals that were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// From an address inside a party, by a way that leads through the tunnel itself.
    pub inside_party: u64,
    /// Neither STUN, ChannelData nor WireGuard.
    pub unrecognized: u64,
    /// Checks with known tags or transaction ids that fail authentication.
    pub unauthenticated: u64,
    /// Authentic checks that were received before.
    pub replayed: u64,
    /// Responses that match no pending request or come from another host than was asked, and checks that a member
    /// forwarded although they are from another peer.
    pub unsolicited: u64,
    /// ChannelData from no relay server of ours or on no channel in use.
    pub unknown_channel: u64,
    /// Signals that do not decode.
    pub malformed_signal: u64,
}

impl Counters {
    /// Returns every counter with its label, for export.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("inside_party", self.inside_party),
            ("unrecognized", self.unrecognized),
            ("unauthenticated", self.unauthenticated),
            ("replayed", self.replayed),
            ("unsolicited", self.unsolicited),
            ("unknown_channel", self.unknown_channel),
            ("malformed_signal", self.malformed_signal),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_exported_under_its_own_label() {
        let counters = Counters {
            unrecognized: 1,
            unauthenticated: 2,
            replayed: 3,
            unsolicited: 4,
            unknown_channel: 5,
            malformed_signal: 6,
            inside_party: 7,
        };
        assert_eq!(counters.each().map(|(_, count)| count).collect::<Vec<_>>(), [7, 1, 2, 3, 4, 5, 6]);
        let labels: std::collections::BTreeSet<&str> = counters.each().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), 7);
    }
}

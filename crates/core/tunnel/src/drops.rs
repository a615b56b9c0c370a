//! Why packets were dropped, counted: nothing vanishes without a trace.

/// Why a packet or datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Not an IP packet, not a WireGuard datagram, or lengths that do not add up.
    Malformed,
    /// Longer than any device or socket here can carry, or than the buffer given.
    TooLong,
    /// The party is not, or no longer, on this tunnel.
    UnknownParty,
    /// No member owns the destination address.
    NoRoute,
    /// A local program sent from an address that is not this member's.
    WrongSource,
    /// A member sent from an address that is not its own.
    Spoofed,
    /// A member sent to an address that is neither this member's nor everyone's.
    NotForUs,
    /// There is no path to the member.
    NoPath,
    /// Too many packets waited for a handshake, or one waited too long.
    Waiting,
    /// The outbox was not emptied in time.
    OutboxFull,
    /// Larger than the path's packet size; the sender was told, or the fragments went instead.
    TooBig,
    /// A broadcast above the budget of its source.
    Storm,
    /// Multicast housekeeping (IGMP, MLD, router solicitation), of no use on a tunnel.
    Housekeeping,
    /// A local program used the engine's control port.
    ControlPort,
    /// A control message whose chunks do not fit together, or never became complete.
    Control,
    /// No session has this receiver index.
    UnknownIndex,
    /// A handshake by nobody who is a member, or meant for a key that is not ours.
    UnknownPeer,
    /// Too many handshakes at once: the sender has to prove its address first.
    Flood,
    /// Seen before, or too old to tell.
    Replay,
    /// The authentication tag is wrong.
    Unauthentic,
    /// For keys that were already discarded.
    Expired,
}

impl DropReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 21] = [
        Self::Malformed,
        Self::TooLong,
        Self::UnknownParty,
        Self::NoRoute,
        Self::WrongSource,
        Self::Spoofed,
        Self::NotForUs,
        Self::NoPath,
        Self::Waiting,
        Self::OutboxFull,
        Self::TooBig,
        Self::Storm,
        Self::Housekeeping,
        Self::ControlPort,
        Self::Control,
        Self::UnknownIndex,
        Self::UnknownPeer,
        Self::Flood,
        Self::Replay,
        Self::Unauthentic,
        Self::Expired,
    ];
}

/// Packets dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// How many for this reason.
    #[must_use]
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many altogether.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }
}

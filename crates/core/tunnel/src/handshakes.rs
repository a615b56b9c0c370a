//! Counters of WireGuard handshakes.

/// Handshakes by outcome. The label values of [`Self::each`] belong to a label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandshakeCounters {
    /// Initiations sent, repeated ones included.
    pub initiated: u64,
    /// Initiations that had to be repeated because no response arrived.
    pub unanswered: u64,
    /// Initiations of other members that were answered.
    pub answered: u64,
    /// Handshakes that led to new keys, on either side.
    pub completed: u64,
    /// Handshake messages that were rejected.
    pub failed: u64,
    /// Initiations to which a cookie was sent instead of a response.
    pub rate_limited: u64,
    /// Handshake messages of a member that arrived from another address than the last one of the same family.
    pub roamed: u64,
    /// Sessions whose keys expired before new ones were agreed on.
    pub sessions_lost: u64,
}

impl HandshakeCounters {
    /// Returns every counter with its label value.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("initiated", self.initiated),
            ("unanswered", self.unanswered),
            ("answered", self.answered),
            ("completed", self.completed),
            ("failed", self.failed),
            ("rate_limited", self.rate_limited),
            ("roamed", self.roamed),
            ("sessions_lost", self.sessions_lost),
        ]
        .into_iter()
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.initiated += other.initiated;
        self.unanswered += other.unanswered;
        self.answered += other.answered;
        self.completed += other.completed;
        self.failed += other.failed;
        self.rate_limited += other.rate_limited;
        self.roamed += other.roamed;
        self.sessions_lost += other.sessions_lost;
    }
}

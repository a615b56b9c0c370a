//! Broadcast storms: what one source sends above its limit.

use std::time::Instant;

/// The broadcasts of one source that were dropped because it sent more than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Storm {
    /// How many were dropped.
    pub dropped: u64,
    /// When the last one was.
    pub last: Option<Instant>,
}

impl Storm {
    pub(crate) const fn on_drop(&mut self, now: Instant) {
        self.dropped += 1;
        self.last = Some(now);
    }
}

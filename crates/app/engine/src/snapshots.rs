//! When clients get another snapshot: soon after a change, and once a second in any case, because figures and ages move.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use partyline_model::Snapshot;
use tokio::sync::watch;

/// The shortest time between two snapshots.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest time between two snapshots.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// The watched snapshot, with the revision of the node's state that it shows.
pub(crate) struct SnapshotFeed {
    sender: watch::Sender<Arc<Snapshot>>,
    revision: u32,
    published_at: Instant,
}

impl SnapshotFeed {
    /// Publishes the first snapshot.
    pub(crate) fn new(
        now: Instant,
        revision: u32,
        first: Snapshot,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let (sender, watched) = watch::channel(Arc::new(first));
        (Self { sender, revision, published_at: now }, watched)
    }

    /// Returns when the next snapshot is due, now that the state has this revision; never before `now`.
    pub(crate) fn due(&self, now: Instant, revision: u32) -> Instant {
        let interval = if revision == self.revision { MAX_INTERVAL } else { MIN_INTERVAL };
        (self.published_at + interval).max(now)
    }

    /// Replaces the snapshot.
    pub(crate) fn publish(&mut self, now: Instant, snapshot: Snapshot) {
        (self.revision, self.published_at) = (snapshot.revision, now);
        self.sender.send_replace(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{DeviceId, DeviceView, NetworkView, Phase, Settings};

    use super::*;

    fn snapshot(revision: u32) -> Snapshot {
        Snapshot {
            revision,
            phase: Phase::Ready,
            device: DeviceView { id: DeviceId([7; 32]), version: "0".into() },
            parties: Vec::new(),
            former_parties: Vec::new(),
            network: NetworkView::default(),
            settings: Settings::default(),
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn changes_are_published_soon_and_an_unchanged_state_once_a_second() {
        let start = Instant::now();
        let (mut feed, watched) = SnapshotFeed::new(start, 1, snapshot(1));
        assert_eq!(feed.due(start, 1), start + MAX_INTERVAL);
        assert_eq!(feed.due(start, 2), start + MIN_INTERVAL);
        let late = start + 5 * MAX_INTERVAL;
        assert_eq!(feed.due(late, 2), late);
        feed.publish(late, snapshot(2));
        assert_eq!((watched.borrow().revision, feed.due(late, 2)), (2, late + MAX_INTERVAL));
    }
}

//! Anti-replay window over the sequence numbers of one sender, in the manner of RFC 4302, section 3.4.3.

use serde::{Deserialize, Serialize};

/// Number of a sender's newest messages that may overtake each other.
const WINDOW: usize = 32;

/// The newest sequence numbers of one sender, in ascending order.
///
/// Channels differ in speed, so that a message may be overtaken. One that is older than the whole window counts as
/// seen. The numbers are kept rather than a bitmap, since they follow the sender's clock and lie far apart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ReplayWindow(Vec<u64>);

impl ReplayWindow {
    pub(crate) fn is_fresh(&self, sequence: u64) -> bool {
        let inside = self.0.len() < WINDOW || self.0.first().is_some_and(|oldest| sequence > *oldest);
        inside && self.0.binary_search(&sequence).is_err()
    }

    pub(crate) fn record(&mut self, sequence: u64) {
        if let Err(place) = self.0.binary_search(&sequence) {
            self.0.insert(place, sequence);
        }
        if self.0.len() > WINDOW {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_may_overtake_each_other_but_are_accepted_once() {
        let mut window = ReplayWindow::default();
        for sequence in [100, 90, 95, 110] {
            assert!(window.is_fresh(sequence));
            window.record(sequence);
            assert!(!window.is_fresh(sequence));
        }
    }

    #[test]
    fn numbers_below_a_full_window_count_as_seen() {
        let mut window = ReplayWindow::default();
        (200..=200 + WINDOW as u64).for_each(|sequence| window.record(sequence));
        assert!(
            !window.is_fresh(96) && !window.is_fresh(200) && !window.is_fresh(201) && window.is_fresh(1000)
        );
        assert_eq!(window.0.len(), WINDOW);
    }
}

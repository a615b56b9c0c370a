//! The events to come.

use std::{collections::BTreeMap, time::Instant};

/// Items ordered by the moment at which they are due; items of one moment by when they were added.
#[derive(Debug, Clone)]
pub struct Queue<T> {
    items: BTreeMap<(Instant, u64), T>,
    added: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), added: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds an item that is due at `at`.
    pub fn push(&mut self, at: Instant, item: T) {
        self.added += 1;
        self.items.insert((at, self.added), item);
    }

    /// Returns the moment at which the next item is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.items.keys().next().map(|(at, _)| *at)
    }

    /// Removes the next item if it is due by `now`, and returns it with the moment at which it was due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        let first = self.items.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), item) = first.remove_entry();
        Some((at, item))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn items_come_in_order_of_time_and_then_of_addition() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut queue = Queue::default();
        for (ms, item) in [(20, "c"), (10, "a"), (10, "b"), (30, "d")] {
            queue.push(at(ms), item);
        }
        assert_eq!(queue.next_at(), Some(at(10)));
        assert_eq!(queue.pop_due(at(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| queue.pop_due(at(20))).collect();
        assert_eq!(due, [(at(10), "a"), (at(10), "b"), (at(20), "c")]);
        assert_eq!((queue.pop_due(at(29)), queue.next_at()), (None, Some(at(30))));
    }
}

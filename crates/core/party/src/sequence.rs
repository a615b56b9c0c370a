//! The numbers of a device's messages, which grow across parties, memberships and restarts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use partyline_model::Timestamp;

/// How many numbers are reserved at a time. Half a block is left when the next one is asked for, so that it is on disk
/// long before it is needed even when the whole party is told something at once.
const BLOCK: u64 = 65_536;
/// How many blocks a run skips that takes the place of another with the same keys.
const PASSED_BLOCKS: u64 = 16;

/// Numbers the messages of one device. Clones draw from the same sequence, so that a membership that follows another
/// in the same party goes on where that one ended.
///
/// Receivers refuse a number that they have seen. Numbers are therefore reserved in blocks: the end of the block is
/// stored before its numbers are used, and a restart begins with that end, however the last run ended. It begins with
/// the clock if that is further, so that messages of a device that was restored from an old copy of its state are
/// accepted, too.
#[derive(Debug, Clone)]
pub(crate) struct SequenceNumbers(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    /// The last number used.
    last: AtomicU64,
    /// The end of the last block that was handed out to be stored.
    reserved: AtomicU64,
}

impl SequenceNumbers {
    /// Returns the sequence that begins after what was reserved before, 0 for a new device.
    pub(crate) fn new(now: Timestamp, reserved: u64) -> Self {
        Self(Arc::new(Counters {
            last: AtomicU64::new(reserved.max(now.0)),
            reserved: AtomicU64::new(reserved),
        }))
    }

    /// Returns the next number.
    pub(crate) fn next(&self) -> u64 {
        self.0.last.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Passes what another run with the same keys may have used since the two were one. Each of its starts began at the
    /// end of a block, so that it may be some blocks ahead of the clock.
    pub(crate) fn pass_other_run(&self, now: Timestamp) {
        self.0.last.fetch_max(now.0, Ordering::Relaxed);
        self.0.last.fetch_add(PASSED_BLOCKS * BLOCK, Ordering::Relaxed);
    }

    /// Passes a number that another run with the same keys has used.
    pub(crate) fn pass(&self, number: u64) {
        self.0.last.fetch_max(number, Ordering::Relaxed);
    }

    /// Returns true if another block has to be stored.
    pub(crate) fn is_reservation_due(&self) -> bool {
        let last = self.0.last.load(Ordering::Relaxed);
        self.0.reserved.load(Ordering::Relaxed) < last.saturating_add(BLOCK / 2)
    }

    /// Reserves a whole block from here on, and returns its end, to be stored.
    pub(crate) fn reserve(&self) -> u64 {
        let end = self.0.last.load(Ordering::Relaxed).saturating_add(BLOCK);
        self.0.reserved.store(end, Ordering::Relaxed);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NOW;

    #[test]
    fn numbers_grow_from_the_clock_and_are_shared_by_clones() {
        let numbers = SequenceNumbers::new(NOW, 0);
        let clone = numbers.clone();
        assert_eq!([numbers.next(), clone.next(), numbers.next()], [NOW.0 + 1, NOW.0 + 2, NOW.0 + 3]);
    }

    #[test]
    fn restart_repeats_no_number_whatever_the_clock_says() {
        for clock in [Timestamp(0), NOW, Timestamp(NOW.0 + 400), Timestamp(NOW.0 + 3_600_000)] {
            let numbers = SequenceNumbers::new(NOW, 0);
            let stored = numbers.reserve();
            let last = (0..BLOCK / 2).map(|_| numbers.next()).max().expect("some");
            assert!(last <= stored);
            assert!(SequenceNumbers::new(clock, stored).next() > last, "{clock:?}");
        }
    }

    #[test]
    fn next_block_is_due_while_half_of_the_last_is_left() {
        let numbers = SequenceNumbers::new(NOW, 0);
        assert!(numbers.is_reservation_due(), "nothing is stored yet");
        numbers.reserve();
        (0..BLOCK / 2).for_each(|_| _ = numbers.next());
        assert!(!numbers.is_reservation_due());
        numbers.next();
        assert!(numbers.is_reservation_due());
        let end = numbers.reserve();
        assert!(!numbers.is_reservation_due() && end > NOW.0 + BLOCK);
    }

    #[test]
    fn run_that_takes_the_place_of_another_is_ahead_of_it_whatever_it_restarted() {
        let copied = SequenceNumbers::new(NOW, 0);
        let mut stored = copied.reserve();
        let other = (0..10).map(|_| {
            let restarted = SequenceNumbers::new(NOW, stored);
            stored = restarted.reserve();
            restarted.next()
        });
        let last = other.max().expect("some");
        copied.pass_other_run(NOW);
        assert!(copied.next() > last);
        assert!(copied.is_reservation_due());
    }

    #[test]
    fn number_of_another_run_is_passed_and_the_block_after_it_is_stored() {
        let numbers = SequenceNumbers::new(NOW, 0);
        let end = numbers.reserve();
        numbers.pass(NOW.0);
        assert_eq!(numbers.next(), NOW.0 + 1, "it is behind");
        numbers.pass(end);
        assert!(numbers.next() == end + 1 && numbers.is_reservation_due());
    }

    #[test]
    fn device_restored_from_an_old_copy_goes_on_with_the_clock() {
        let old = SequenceNumbers::new(NOW, 0).reserve();
        let later = Timestamp(NOW.0 + 86_400_000);
        assert!(SequenceNumbers::new(later, old).next() > later.0);
    }
}

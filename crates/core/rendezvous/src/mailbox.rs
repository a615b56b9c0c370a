//! Messages for absent members.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use partyline_model::{Handle, Topic};

/// What a waiting message costs besides its bytes.
const OVERHEAD: usize = 128;

/// A message that waits.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Its place in the order in which all mail expires.
    pub(crate) number: u64,
    pub(crate) from: Handle,
    /// The sender's number for it.
    pub(crate) id: u32,
    /// True if it is delivered at every entry until it expires.
    pub(crate) kept: bool,
    pub(crate) message: Vec<u8>,
}

impl Mail {
    /// Returns what the message counts against limits, in bytes.
    pub(crate) const fn cost(&self) -> usize {
        cost(self.message.len())
    }
}

/// Returns what a message of `len` bytes counts against limits.
pub(crate) const fn cost(len: usize) -> usize {
    len + OVERHEAD
}

/// The messages that wait for one handle, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(VecDeque<Mail>);

impl Mailbox {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what all messages count against limits, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.0.iter().map(Mail::cost).sum()
    }

    /// Returns true if the same message waits already; clients repeat themselves when they reconnect.
    pub(crate) fn contains(&self, from: Handle, id: u32, message: &[u8]) -> bool {
        self.0.iter().any(|mail| mail.from == from && mail.id == id && mail.message == message)
    }

    pub(crate) fn push(&mut self, mail: Mail) {
        self.0.push_back(mail);
    }

    /// Removes the oldest message if it is the one with this number.
    pub(crate) fn expire(&mut self, number: u64) -> Option<Mail> {
        self.0.pop_front_if(|mail| mail.number == number)
    }

    /// Returns everything that waits, and removes what is not to be delivered again.
    pub(crate) fn take(&mut self) -> Vec<Mail> {
        let all: Vec<Mail> = self.0.drain(..).collect();
        self.0.extend(all.iter().filter(|mail| mail.kept).cloned());
        all
    }
}

/// When each message expires. All wait equally long, so that their numbers are in the order of expiry.
#[derive(Debug, Default)]
pub(crate) struct MailExpiry {
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
}

/// Where a message waits, and until when.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) at: Instant,
    pub(crate) topic: Topic,
    pub(crate) handle: Handle,
}

impl MailExpiry {
    /// Adds a message and returns its number. `at` must not be earlier than that of any message before.
    pub(crate) fn add(&mut self, at: Instant, topic: Topic, handle: Handle) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, Waiting { at, topic, handle });
        self.last
    }

    /// Forgets a message that was delivered.
    pub(crate) fn remove(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Removes and returns the oldest message if its time is over.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(u64, Waiting)> {
        let oldest = self.waiting.first_entry().filter(|entry| entry.get().at <= now)?;
        Some(oldest.remove_entry())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.at)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::start;

    #[test]
    fn messages_expire_in_order() {
        let (now, mut expiry) = (start().instant, MailExpiry::default());
        let later = now + Duration::from_secs(1);
        let first = expiry.add(now, Topic([1; 32]), Handle([1; 16]));
        let second = expiry.add(later, Topic([1; 32]), Handle([2; 16]));
        assert_eq!(expiry.next(), Some(now));
        assert_eq!(expiry.pop_due(now).map(|(number, _)| number), Some(first));
        assert!(expiry.pop_due(now).is_none());
        expiry.remove(second);
        assert_eq!((expiry.next(), expiry.len()), (None, 0));
    }

    #[test]
    fn only_the_oldest_message_expires() {
        let mut mailbox = Mailbox::default();
        for number in [4, 9] {
            mailbox.push(Mail {
                number,
                from: Handle([1; 16]),
                id: 1,
                kept: false,
                message: vec![number as u8],
            });
        }
        assert!(mailbox.expire(9).is_none());
        assert_eq!(mailbox.expire(4).map(|mail| mail.message), Some(vec![4]));
        assert!(mailbox.contains(Handle([1; 16]), 1, &[9]) && !mailbox.contains(Handle([1; 16]), 1, &[4]));
    }
}

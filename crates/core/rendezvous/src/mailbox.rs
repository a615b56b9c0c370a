//! Messages for those who are not present.

use std::collections::VecDeque;

use partyline_model::Handle;

/// What one more message costs beside its bytes.
const OVERHEAD: usize = 128;

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Mail {
    /// Its place in the order of expiry of all mail.
    pub(crate) number: u64,
    pub(crate) from: Handle,
    /// The sender's number for it.
    pub(crate) id: u32,
    pub(crate) message: Vec<u8>,
}

impl Mail {
    /// What it counts against limits.
    pub(crate) fn cost(&self) -> usize {
        self.message.len() + OVERHEAD
    }
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

    /// Whether a message waits already; senders repeat themselves when they reconnect.
    pub(crate) fn holds(&self, from: Handle, id: u32, message: &[u8]) -> bool {
        self.0.iter().any(|mail| mail.from == from && mail.id == id && mail.message == message)
    }

    pub(crate) fn push(&mut self, mail: Mail) {
        self.0.push_back(mail);
    }

    /// Takes the oldest message if it is the one with this number.
    pub(crate) fn expire(&mut self, number: u64) -> Option<Mail> {
        self.0.pop_front_if(|mail| mail.number == number)
    }

    pub(crate) fn into_mail(self) -> impl Iterator<Item = Mail> {
        self.0.into_iter()
    }
}

//! One topic: who is present, and what waits for those who are not.

use std::{collections::BTreeMap, time::Instant};

use partyline_model::Handle;

use crate::{ConnectionId, bucket::Bucket, mailbox::Mailbox};

/// Somebody present.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) connection: ConnectionId,
    pub(crate) record: Box<[u8]>,
}

/// A topic exists while somebody is present or something waits.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) members: BTreeMap<Handle, Member>,
    pub(crate) mailboxes: BTreeMap<Handle, Mailbox>,
    /// What all its mail costs.
    pub(crate) mail_bytes: usize,
    pub(crate) bucket: Bucket,
}

impl TopicState {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            mail_bytes: 0,
            bucket: Bucket::full(now),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.mailboxes.is_empty()
    }

    /// The connections of all members but one.
    pub(crate) fn others(&self, but: Handle) -> impl Iterator<Item = ConnectionId> {
        self.members.iter().filter(move |(handle, _)| **handle != but).map(|(_, member)| member.connection)
    }
}

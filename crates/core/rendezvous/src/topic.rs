//! One topic: the members that are present, and the messages that wait for absent ones.

use std::{collections::BTreeMap, time::Instant};

use partyline_model::Handle;
use partyline_timing::Level;
use partyline_wire::rendezvous::TopicMember;

use crate::{
    event::ConnectionId,
    limits::{Limit, Limits},
    mailbox::{self, Mail, Mailbox},
};

/// What a member costs besides its record's bytes.
const MEMBER_OVERHEAD: usize = 256;

/// What a frame, or a member in a roster, costs besides the bytes of its record.
pub(crate) const FRAME_OVERHEAD: usize = 64;

/// A member that is present.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) connection: ConnectionId,
    record: Box<[u8]>,
}

impl Member {
    pub(crate) fn new(connection: ConnectionId, record: &[u8]) -> Self {
        Self { connection, record: record.into() }
    }

    /// Returns what the member counts against limits, in bytes.
    pub(crate) const fn cost(&self) -> usize {
        member_cost(self.record.len())
    }
}

/// Returns what a member with a record of `len` bytes counts against limits.
pub(crate) const fn member_cost(len: usize) -> usize {
    len + MEMBER_OVERHEAD
}

/// A topic. It exists while a member is present or a message waits.
#[derive(Debug, Default)]
pub(crate) struct TopicState {
    members: BTreeMap<Handle, Member>,
    mailboxes: BTreeMap<Handle, Mailbox>,
    /// The cost of all its waiting messages.
    mail_bytes: usize,
    bucket: Level,
}

impl TopicState {
    /// Returns true if nothing keeps the topic in existence.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.mailboxes.is_empty()
    }

    /// Counts a frame that is forwarded to others.
    pub(crate) fn take_token(&mut self, now: Instant, limits: &Limits) -> Result<(), Limit> {
        if self.bucket.take(now, &limits.topic_rate, 1) { Ok(()) } else { Err(Limit::TopicRate) }
    }

    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Fails if the topic has no room for another member. One that is present may enter again.
    pub(crate) fn check_room(&self, handle: &Handle, limits: &Limits) -> Result<(), Limit> {
        let full = self.members.len() >= limits.members_per_topic && !self.members.contains_key(handle);
        if full { Err(Limit::MembersPerTopic) } else { Ok(()) }
    }

    /// Returns the connection of a member that is present.
    pub(crate) fn connection_of(&self, handle: &Handle) -> Option<ConnectionId> {
        self.members.get(handle).map(|member| member.connection)
    }

    /// Returns the connections of all members except one.
    pub(crate) fn others(&self, except: &Handle) -> impl Iterator<Item = ConnectionId> {
        self.members.iter().filter(move |(handle, _)| *handle != except).map(|(_, member)| member.connection)
    }

    /// Returns the bytes that a frame with a record costs when it goes to all members except one.
    pub(crate) fn fan_out(&self, except: &Handle, record: usize) -> u64 {
        (self.others(except).count() * (record + FRAME_OVERHEAD)) as u64
    }

    /// Returns the bytes that a roster of all members except one costs.
    pub(crate) fn roster_bytes(&self, except: &Handle) -> u64 {
        let others = self.members.iter().filter(|(handle, _)| *handle != except);
        others.map(|(_, member)| (member.record.len() + FRAME_OVERHEAD) as u64).sum()
    }

    /// Returns the bytes of the messages that wait for a member.
    pub(crate) fn waiting_bytes(&self, handle: &Handle) -> u64 {
        self.mailboxes.get(handle).map_or(0, Mailbox::cost) as u64
    }

    /// Returns all members except one with their records.
    pub(crate) fn roster(&self, except: &Handle) -> Vec<TopicMember> {
        let others = self.members.iter().filter(|(handle, _)| *handle != except);
        others
            .map(|(handle, member)| TopicMember { handle: *handle, record: member.record.to_vec() })
            .collect()
    }

    /// Adds a member and returns the one that it replaces.
    pub(crate) fn insert(&mut self, handle: Handle, member: Member) -> Option<Member> {
        self.members.insert(handle, member)
    }

    pub(crate) fn remove(&mut self, handle: &Handle) -> Option<Member> {
        self.members.remove(handle)
    }

    /// Returns the length of a member's record.
    pub(crate) fn record_len(&self, handle: &Handle) -> Option<usize> {
        self.members.get(handle).map(|member| member.record.len())
    }

    pub(crate) fn set_record(&mut self, handle: &Handle, record: &[u8]) {
        if let Some(member) = self.members.get_mut(handle) {
            member.record = record.into();
        }
    }

    /// Returns true if the same message waits already.
    pub(crate) fn has_mail(&self, to: &Handle, from: Handle, id: u32, message: &[u8]) -> bool {
        self.mailboxes.get(to).is_some_and(|mailbox| mailbox.contains(from, id, message))
    }

    /// Fails if there is no room for another message to `to`.
    pub(crate) fn check_mail(&self, to: &Handle, message: &[u8], limits: &Limits) -> Result<(), Limit> {
        if self.mailboxes.get(to).map_or(0, Mailbox::len) >= limits.mail_per_handle {
            return Err(Limit::MailPerHandle);
        }
        let bytes = self.mail_bytes + mailbox::cost(message.len());
        if bytes > limits.mail_bytes_per_topic { Err(Limit::MailBytesPerTopic) } else { Ok(()) }
    }

    pub(crate) fn store_mail(&mut self, to: Handle, mail: Mail) {
        self.mail_bytes += mail.cost();
        self.mailboxes.entry(to).or_default().push(mail);
    }

    /// Returns everything that waits for a member, oldest first, and removes what is not kept.
    pub(crate) fn take_mail(&mut self, handle: &Handle) -> Vec<Mail> {
        let Some(mailbox) = self.mailboxes.get_mut(handle) else { return Vec::new() };
        let mail = mailbox.take();
        if mailbox.is_empty() {
            self.mailboxes.remove(handle);
        }
        let removed = mail.iter().filter(|mail| !mail.kept);
        self.mail_bytes -= removed.map(Mail::cost).sum::<usize>();
        mail
    }

    /// Removes the oldest message to a member if it is the one with this number.
    pub(crate) fn expire_mail(&mut self, handle: &Handle, number: u64) -> Option<Mail> {
        let mailbox = self.mailboxes.get_mut(handle)?;
        let mail = mailbox.expire(number);
        if mailbox.is_empty() {
            self.mailboxes.remove(handle);
        }
        self.mail_bytes -= mail.as_ref().map_or(0, Mail::cost);
        mail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Handle = Handle([1; 16]);
    const B: Handle = Handle([2; 16]);

    fn mail(number: u64, len: usize) -> Mail {
        Mail { number, from: A, id: 1, kept: false, message: vec![0; len] }
    }

    #[test]
    fn topic_is_idle_once_members_and_mail_are_gone() {
        let mut topic = TopicState::default();
        topic.insert(A, Member::new(ConnectionId(1), b"a"));
        topic.store_mail(B, mail(1, 10));
        topic.remove(&A);
        assert!(!topic.is_idle());
        assert_eq!(topic.take_mail(&B).len(), 1);
        assert!(topic.is_idle());
    }

    #[test]
    fn mail_bytes_follow_what_waits() {
        let limits = Limits { mail_bytes_per_topic: mailbox::cost(100), ..Limits::default() };
        let mut topic = TopicState::default();
        topic.store_mail(B, mail(1, 100));
        assert_eq!(topic.check_mail(&A, &[0], &limits), Err(Limit::MailBytesPerTopic));
        assert!(topic.expire_mail(&B, 2).is_none());
        assert!(topic.expire_mail(&B, 1).is_some());
        assert_eq!(topic.check_mail(&A, &[0; 100], &limits), Ok(()));
    }

    #[test]
    fn full_topic_lets_a_present_member_enter_again() {
        let limits = Limits { members_per_topic: 1, ..Limits::default() };
        let mut topic = TopicState::default();
        topic.insert(A, Member::new(ConnectionId(1), b"a"));
        assert_eq!(topic.check_room(&A, &limits), Ok(()));
        assert_eq!(topic.check_room(&B, &limits), Err(Limit::MembersPerTopic));
    }
}

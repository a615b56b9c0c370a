//! Messages: passed on at once where the recipient is present, kept for a while where not.

use std::time::Instant;

use partyline_model::{Handle, Now, Topic};
use partyline_wire::rendezvous::{RefusalCode, ServerFrame};

use super::{ConnectionId, Expiry, Rendezvous};
use crate::mailbox::{Mail, Mailbox};

/// A message and where it is to go.
pub(super) struct Letter {
    pub(super) to: Handle,
    /// The sender's number for it.
    pub(super) number: u32,
    pub(super) message: Vec<u8>,
}

impl Rendezvous {
    pub(super) fn mail(&mut self, now: Now, id: ConnectionId, topic: Topic, letter: Letter) {
        let number = letter.number;
        if let Err(code) = self.try_mail(now, id, topic, letter) {
            self.refuse(id, Some(topic), Some(number), code);
        }
    }

    fn try_mail(
        &mut self,
        now: Now,
        id: ConnectionId,
        topic: Topic,
        letter: Letter,
    ) -> Result<(), RefusalCode> {
        let from = self.handle_on(id, &topic).ok_or(RefusalCode::NotEntered)?;
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        if !state.bucket.take(now.instant, self.limits.topic_rate, 1) {
            return Err(RefusalCode::RateLimited);
        }
        match state.members.get(&letter.to).map(|member| member.connection) {
            Some(to) => {
                self.send(to, &ServerFrame::Message { topic, from, message: letter.message });
                Ok(())
            }
            None => self.keep(now.instant, topic, from, letter),
        }
    }

    fn keep(&mut self, now: Instant, topic: Topic, from: Handle, letter: Letter) -> Result<(), RefusalCode> {
        let state = self.topics.get_mut(&topic).ok_or(RefusalCode::NotEntered)?;
        let Letter { to, number: id, message } = letter;
        let mailbox = state.mailboxes.get(&to);
        if mailbox.is_some_and(|mailbox| mailbox.holds(from, id, &message)) {
            return Ok(());
        }
        let mail = Mail { number: self.last_mail + 1, from, id, message };
        if mailbox.map_or(0, Mailbox::len) >= self.limits.mail_per_handle
            || state.mail_bytes + mail.cost() > self.limits.mail_bytes_per_topic
        {
            return Err(RefusalCode::MailboxFull);
        }
        if self.stats.held_bytes + mail.cost() > self.limits.held_bytes {
            return Err(RefusalCode::ServerFull);
        }
        self.last_mail = mail.number;
        self.stats.held_bytes += mail.cost();
        state.mail_bytes += mail.cost();
        let at = now + self.limits.mail_lifetime;
        self.expiry.insert(mail.number, Expiry { at, topic, handle: to });
        state.mailboxes.entry(to).or_default().push(mail);
        Ok(())
    }

    pub(super) fn deliver_mailbox(&mut self, id: ConnectionId, topic: Topic, handle: Handle) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let Some(mailbox) = state.mailboxes.remove(&handle) else { return };
        for mail in mailbox.into_mail() {
            self.forget(topic, &mail);
            self.expiry.remove(&mail.number);
            self.send(id, &ServerFrame::Message { topic, from: mail.from, message: mail.message });
        }
    }

    pub(super) fn expire_mail(&mut self, now: Instant) {
        while let Some(entry) = self.expiry.first_entry().filter(|entry| entry.get().at <= now) {
            let (number, Expiry { topic, handle, .. }) = entry.remove_entry();
            if let Some(mail) = self.take_expired(topic, handle, number) {
                self.stats.mail_expired += 1;
                self.forget(topic, &mail);
            }
            self.drop_if_idle(topic);
        }
    }

    fn take_expired(&mut self, topic: Topic, handle: Handle, number: u64) -> Option<Mail> {
        let state = self.topics.get_mut(&topic)?;
        let mailbox = state.mailboxes.get_mut(&handle)?;
        let mail = mailbox.expire(number);
        if mailbox.is_empty() {
            state.mailboxes.remove(&handle);
        }
        mail
    }

    fn forget(&mut self, topic: Topic, mail: &Mail) {
        self.stats.held_bytes -= mail.cost();
        if let Some(state) = self.topics.get_mut(&topic) {
            state.mail_bytes -= mail.cost();
        }
    }
}

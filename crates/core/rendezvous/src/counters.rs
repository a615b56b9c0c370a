//! Figures for the operator.

use partyline_wire::rendezvous::RefusalCode;

use crate::{limits::Limit, refusal};

/// What the server holds now and what it has counted since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections now.
    pub connections: usize,
    /// Addresses remembered now.
    pub addresses: usize,
    /// Topics now.
    pub topics: usize,
    /// Members present now, over all topics.
    pub members: usize,
    /// Messages waiting now.
    pub mail: usize,
    /// Bytes of records and messages held now.
    pub held_bytes: usize,
    /// What has happened since the start.
    pub counters: Counters,
    /// Frames refused since the start, by the code that the client received.
    pub refusals: Refusals,
    /// Limits reached since the start, by limit.
    pub limit_hits: LimitHits,
}

/// Declares a struct of counters with one public field per label value, and `each` to export them.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)*
        }

        impl $name {
            /// Returns each counter with its name, which stays the same between versions.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Events since the start.
    Counters {
        /// Connections admitted.
        connections_admitted,
        /// Connections that were not admitted because something was full.
        connections_rejected,
        /// Connections that the server closed.
        connections_closed,
        /// Frames received on open connections.
        frames_received,
        /// Bytes of the frames received on open connections.
        bytes_received,
        /// Frames dropped since their connection was closed before.
        frames_after_close,
        /// Frames sent; one forwarded to seven members counts seven.
        frames_sent,
        /// Bytes of the frames sent.
        bytes_sent,
        /// Topics that came into existence.
        topics_created,
        /// Sessions: members that entered a topic, returning ones included.
        sessions,
        /// Sessions that ended an older one of the same handle.
        sessions_replaced,
        /// Records announced after entering.
        records_announced,
        /// Messages forwarded to a member that was present.
        messages_forwarded,
        /// Messages stored for a member that was absent.
        messages_stored,
        /// Stored messages delivered.
        messages_delivered,
        /// Messages dropped since the same one waits already.
        messages_duplicate,
        /// Stored messages dropped since their recipient stayed absent.
        messages_expired,
        /// Relay credentials granted.
        relay_grants,
    }
}

counters! {
    /// Frames refused, by [`RefusalCode`].
    #[expect(missing_docs, reason = "the names are those of the codes")]
    Refusals {
        malformed,
        bad_proof,
        not_entered,
        replaced,
        rate_limited,
        topic_full,
        too_many_topics,
        server_full,
        mailbox_full,
        no_relay,
    }
}

counters! {
    /// Limits reached, by [`Limit`].
    #[expect(missing_docs, reason = "the names are those of the limits")]
    LimitHits {
        connections,
        connections_per_address,
        connections_per_prefix56,
        connections_per_prefix48,
        address_rate,
        connection_bytes,
        address_bytes,
        prefix56_bytes,
        prefix48_bytes,
        entry_timeout,
        roster_rate,
        addresses,
        topics,
        topics_per_connection,
        members_per_topic,
        topic_rate,
        held_bytes,
        mail_per_handle,
        mail_bytes_per_topic,
        strikes,
    }
}

impl Refusals {
    pub(crate) const fn count(&mut self, code: RefusalCode) {
        let counter = match code {
            RefusalCode::Malformed => &mut self.malformed,
            RefusalCode::BadProof => &mut self.bad_proof,
            RefusalCode::NotEntered => &mut self.not_entered,
            RefusalCode::Replaced => &mut self.replaced,
            RefusalCode::RateLimited => &mut self.rate_limited,
            RefusalCode::TopicFull => &mut self.topic_full,
            RefusalCode::TooManyTopics => &mut self.too_many_topics,
            RefusalCode::ServerFull => &mut self.server_full,
            RefusalCode::MailboxFull => &mut self.mailbox_full,
            RefusalCode::NoRelay => &mut self.no_relay,
        };
        *counter += 1;
    }

    /// Returns the name under which [`Self::each`] has a code.
    #[must_use]
    pub const fn name(code: RefusalCode) -> &'static str {
        refusal::name(code)
    }
}

impl LimitHits {
    pub(crate) const fn count(&mut self, limit: Limit) {
        let counter = match limit {
            Limit::Connections => &mut self.connections,
            Limit::ConnectionsPerAddress => &mut self.connections_per_address,
            Limit::ConnectionsPerPrefix56 => &mut self.connections_per_prefix56,
            Limit::ConnectionsPerPrefix48 => &mut self.connections_per_prefix48,
            Limit::AddressRate => &mut self.address_rate,
            Limit::ConnectionBytes => &mut self.connection_bytes,
            Limit::AddressBytes => &mut self.address_bytes,
            Limit::Prefix56Bytes => &mut self.prefix56_bytes,
            Limit::Prefix48Bytes => &mut self.prefix48_bytes,
            Limit::EntryTimeout => &mut self.entry_timeout,
            Limit::RosterRate => &mut self.roster_rate,
            Limit::Addresses => &mut self.addresses,
            Limit::Topics => &mut self.topics,
            Limit::TopicsPerConnection => &mut self.topics_per_connection,
            Limit::MembersPerTopic => &mut self.members_per_topic,
            Limit::TopicRate => &mut self.topic_rate,
            Limit::HeldBytes => &mut self.held_bytes,
            Limit::MailPerHandle => &mut self.mail_per_handle,
            Limit::MailBytesPerTopic => &mut self.mail_bytes_per_topic,
            Limit::Strikes => &mut self.strikes,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_counters_are_those_of_limits_and_codes() {
        let mut hits = LimitHits::default();
        hits.count(Limit::TopicRate);
        assert_eq!(
            hits.each().filter(|(_, count)| *count > 0).collect::<Vec<_>>(),
            [(Limit::TopicRate.name(), 1)]
        );
        let mut refusals = Refusals::default();
        refusals.count(RefusalCode::NoRelay);
        let counted: Vec<_> = refusals.each().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Refusals::name(RefusalCode::NoRelay), 1)]);
    }
}

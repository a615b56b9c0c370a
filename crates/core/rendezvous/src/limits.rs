//! How much the server holds, and how fast its clients may send.

use std::time::Duration;

use partyline_timing::Rate;
use partyline_wire::rendezvous::RefusalCode;

/// All limits. The defaults suit one small machine on the open Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Frames from one address; entering a topic counts as four.
    pub address_rate: Rate,
    /// Addresses remembered for their rate. Beyond it the server is full for new addresses.
    pub addresses: usize,
    /// Topics in all.
    pub topics: usize,
    /// Topics that one connection may enter.
    pub topics_per_connection: usize,
    /// Members present on one topic.
    pub members_per_topic: usize,
    /// Frames on one topic that are forwarded to others.
    pub topic_rate: Rate,
    /// Bytes of records and messages held in all.
    pub held_bytes: usize,
    /// Messages waiting for one handle.
    pub mail_per_handle: usize,
    /// Bytes of messages waiting on one topic.
    pub mail_bytes_per_topic: usize,
    /// How long a message waits for an absent member.
    pub mail_lifetime: Duration,
    /// Frames in a row that may be refused for their rate before the connection is closed.
    pub strikes: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 256,
            address_rate: Rate::per_second(100, 1_000),
            addresses: 200_000,
            topics: 100_000,
            topics_per_connection: 64,
            members_per_topic: 254,
            topic_rate: Rate::per_second(200, 2_000),
            held_bytes: 512 << 20,
            mail_per_handle: 64,
            mail_bytes_per_topic: 512 << 10,
            mail_lifetime: Duration::from_secs(180),
            strikes: 100,
        }
    }
}

/// Names one of the [`Limits`], as the reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the limits")]
pub enum Limit {
    Connections,
    ConnectionsPerAddress,
    AddressRate,
    Addresses,
    Topics,
    TopicsPerConnection,
    MembersPerTopic,
    TopicRate,
    HeldBytes,
    MailPerHandle,
    MailBytesPerTopic,
    Strikes,
}

impl Limit {
    /// Returns the limit's name as it is written in the configuration, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::AddressRate => "address_rate",
            Self::Addresses => "addresses",
            Self::Topics => "topics",
            Self::TopicsPerConnection => "topics_per_connection",
            Self::MembersPerTopic => "members_per_topic",
            Self::TopicRate => "topic_rate",
            Self::HeldBytes => "held_bytes",
            Self::MailPerHandle => "mail_per_handle",
            Self::MailBytesPerTopic => "mail_bytes_per_topic",
            Self::Strikes => "strikes",
        }
    }

    /// Returns the code with which a frame beyond this limit is refused.
    pub(crate) const fn refusal_code(self) -> RefusalCode {
        match self {
            Self::AddressRate | Self::TopicRate | Self::Strikes => RefusalCode::RateLimited,
            Self::TopicsPerConnection => RefusalCode::TooManyTopics,
            Self::MembersPerTopic => RefusalCode::TopicFull,
            Self::MailPerHandle | Self::MailBytesPerTopic => RefusalCode::MailboxFull,
            Self::Connections
            | Self::ConnectionsPerAddress
            | Self::Addresses
            | Self::Topics
            | Self::HeldBytes => RefusalCode::ServerFull,
        }
    }
}

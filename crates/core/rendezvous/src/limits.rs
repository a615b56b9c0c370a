//! How much the server holds, and how fast its clients may send.

use std::time::Duration;

use partyline_timing::Rate;
use partyline_wire::rendezvous::RefusalCode;

/// Full rosters of one topic that a connection may receive in a row. A member that first looks for another run of its own
/// needs two, and one more whenever it switches the party off and on, or leaves and comes back.
pub const ROSTERS_AT_ONCE: u64 = 16;

/// All limits. The defaults suit one small machine on the open Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Connections from one IPv6 /56, which many providers give to a household.
    pub connections_per_prefix56: usize,
    /// Connections from one IPv6 /48, the most that one site gets.
    pub connections_per_prefix48: usize,
    /// Frames from one address; entering a topic counts as four.
    pub address_rate: Rate,
    /// Bytes from one connection: those of its frames, 64 more for each, what others receive when it enters a topic or
    /// announces a record, and the rosters and stored messages that it receives when it enters.
    pub connection_bytes: Rate,
    /// The same from all connections of one address.
    pub address_bytes: Rate,
    /// The same from one IPv6 /56.
    pub prefix56_bytes: Rate,
    /// The same from one IPv6 /48.
    pub prefix48_bytes: Rate,
    /// How long a connection may be on no topic before it is closed.
    pub entry_timeout: Duration,
    /// Full rosters of one topic that one connection receives.
    pub roster_rate: Rate,
    /// Addresses remembered for their rates. Beyond it the server is full for new addresses.
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
            connections_per_prefix56: 1_024,
            connections_per_prefix48: 4_096,
            address_rate: Rate::per_second(100, 1_000),
            connection_bytes: Rate::per_second(1 << 20, 32 << 20),
            address_bytes: Rate::per_second(8 << 20, 256 << 20),
            prefix56_bytes: Rate::per_second(16 << 20, 512 << 20),
            prefix48_bytes: Rate::per_second(32 << 20, 1 << 30),
            entry_timeout: Duration::from_secs(60),
            roster_rate: Rate::every(Duration::from_secs(10), ROSTERS_AT_ONCE),
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
    ConnectionsPerPrefix56,
    ConnectionsPerPrefix48,
    AddressRate,
    ConnectionBytes,
    AddressBytes,
    Prefix56Bytes,
    Prefix48Bytes,
    EntryTimeout,
    RosterRate,
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
            Self::ConnectionsPerPrefix56 => "connections_per_prefix56",
            Self::ConnectionsPerPrefix48 => "connections_per_prefix48",
            Self::AddressRate => "address_rate",
            Self::ConnectionBytes => "connection_bytes",
            Self::AddressBytes => "address_bytes",
            Self::Prefix56Bytes => "prefix56_bytes",
            Self::Prefix48Bytes => "prefix48_bytes",
            Self::EntryTimeout => "entry_timeout",
            Self::RosterRate => "roster_rate",
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
            Self::AddressRate
            | Self::ConnectionBytes
            | Self::AddressBytes
            | Self::Prefix56Bytes
            | Self::Prefix48Bytes
            | Self::EntryTimeout
            | Self::RosterRate
            | Self::TopicRate
            | Self::Strikes => RefusalCode::RateLimited,
            Self::TopicsPerConnection => RefusalCode::TooManyTopics,
            Self::MembersPerTopic => RefusalCode::TopicFull,
            Self::MailPerHandle | Self::MailBytesPerTopic => RefusalCode::MailboxFull,
            Self::Connections
            | Self::ConnectionsPerAddress
            | Self::ConnectionsPerPrefix56
            | Self::ConnectionsPerPrefix48
            | Self::Addresses
            | Self::Topics
            | Self::HeldBytes => RefusalCode::ServerFull,
        }
    }
}

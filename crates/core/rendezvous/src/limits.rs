//! How much the server holds, and how fast it may be talked to.

use std::time::Duration;

/// A pace: so many at once, and then one per interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once after a rest.
    pub burst: u32,
    /// How many per second in the long run; at least one.
    pub per_second: u32,
}

impl Rate {
    /// The time one unit takes to come back.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// All limits. The defaults suit one small machine on the open Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Frames from one address.
    pub address_rate: Rate,
    /// Addresses remembered for their rate; the server is full beyond.
    pub addresses: usize,
    /// Topics in all.
    pub topics: usize,
    /// Topics one connection may enter.
    pub topics_per_connection: usize,
    /// Members present on one topic.
    pub members_per_topic: usize,
    /// Frames on one topic that others are told of.
    pub topic_rate: Rate,
    /// Bytes of records and messages held in all.
    pub held_bytes: usize,
    /// Messages waiting for one handle.
    pub mail_per_handle: usize,
    /// Bytes of messages waiting on one topic.
    pub mail_bytes_per_topic: usize,
    /// How long a message waits.
    pub mail_lifetime: Duration,
    /// How many frames in a row may be refused for their rate before the connection is closed.
    pub strikes: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 256,
            address_rate: Rate { burst: 1_000, per_second: 100 },
            addresses: 200_000,
            topics: 100_000,
            topics_per_connection: 16,
            members_per_topic: 254,
            topic_rate: Rate { burst: 2_000, per_second: 200 },
            held_bytes: 512 << 20,
            mail_per_handle: 64,
            mail_bytes_per_topic: 512 << 10,
            mail_lifetime: Duration::from_secs(180),
            strikes: 100,
        }
    }
}

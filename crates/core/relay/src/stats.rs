//! What the relay counts.

/// Counters since the start, and how many allocations live now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Allocations alive.
    pub allocations: u64,
    /// Allocations made so far.
    pub allocations_made: u64,
    /// Allocations refused for a quota (486, 508).
    pub allocations_refused: u64,
    /// STUN requests received.
    pub requests: u64,
    /// Binding requests answered.
    pub bindings: u64,
    /// Requests with wrong credentials.
    pub unauthorized: u64,
    /// Packets relayed from clients.
    pub packets_from_clients: u64,
    /// Payload bytes relayed from clients.
    pub bytes_from_clients: u64,
    /// Packets relayed to clients.
    pub packets_to_clients: u64,
    /// Payload bytes relayed to clients.
    pub bytes_to_clients: u64,
    /// Datagrams that were no STUN message and no ChannelData, or broken.
    pub dropped_malformed: u64,
    /// Packets without an allocation, permission or channel.
    pub dropped_denied: u64,
    /// Packets over a bandwidth quota.
    pub dropped_bandwidth: u64,
    /// Requests over the limit for clients without credentials.
    pub dropped_unauthenticated: u64,
    /// Packets the sockets or queues of the data plane did not take.
    pub dropped_queue: u64,
}

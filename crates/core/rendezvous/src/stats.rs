//! Figures for the operator.

use std::collections::BTreeMap;

use partyline_wire::rendezvous::RefusalCode;

/// What is held now, and what has happened since the start.
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
    /// Frames received.
    pub frames_received: u64,
    /// Frames sent; one passed on to seven members counts seven.
    pub frames_sent: u64,
    /// Relay credentials granted.
    pub grants: u64,
    /// Messages that expired unread.
    pub mail_expired: u64,
    /// Connections turned away because something was full.
    pub turned_away: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<RefusalCode, u64>,
}

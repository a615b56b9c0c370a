//! What the server asks of its caller.

use std::{fmt, sync::Arc};

/// A client's connection. Ids are never used again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Send a frame.
    Send {
        /// The connection to send it on.
        to: ConnectionId,
        /// The encoded frame, shared by all its recipients.
        frame: Arc<[u8]>,
    },
    /// Close a connection once everything sent before is out. The server has forgotten it already.
    Close {
        /// The connection to close.
        connection: ConnectionId,
        /// A WebSocket close code, one of [`partyline_wire::rendezvous::close`].
        code: u16,
        /// The same as a sentence for people.
        reason: &'static str,
    },
}

/// Why a new connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The server has as many connections as it may.
    #[error("the server is full")]
    ServerFull,
    /// The address has as many connections as it may, or is new to a server that remembers as many as it may.
    #[error("too many connections from this address")]
    AddressFull,
}

//! Frames between member and rendezvous server: binary WebSocket messages, each one frame in postcard.
//!
//! The server speaks first: `Welcome` carries a challenge. A member enters a topic with a signature by the topic's
//! key over that challenge, and with the record the others shall see. It gets a `Roster` (in several frames if
//! it is long), then `Present` and `Gone` as things change. `Send` leaves a message for a handle; if that handle is
//! not there, the server keeps it for a few minutes. `Relays` asks for credentials for the relay.
//!
//! ```text
//! server                                   member
//!    | Welcome {challenge}                   |
//!    |-------------------------------------->|
//!    |      Enter {topic, handle, proof, ..} |
//!    |<--------------------------------------|
//!    | Roster, then Present, Gone, Message   |
//!    |-------------------------------------->|
//! ```
//!
//! One connection may enter several topics, with a handle in each. Nothing here is secret or trusted: records and
//! messages are sealed by their senders, and the server's word counts for presence only.

mod bytes;
mod client;
mod server;
#[cfg(test)]
mod tests;

use partyline_model::{Handle, Topic};

pub use client::ClientFrame;
pub use server::{RefusalCode, RelayGrant, RelayServer, ServerFrame, TopicMember};

/// Version of this protocol. It is also the path of the WebSocket, `/v1`.
pub const VERSION: u16 = 1;

/// Path of the WebSocket on a rendezvous server.
pub const PATH: &str = "/v1";

/// Longest frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// Longest record in bytes.
pub const MAX_RECORD: usize = 4 * 1024;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Most members in one `Roster` frame; longer rosters come in several.
pub const MAX_ROSTER_CHUNK: usize = 15;

/// Most relays in one grant.
pub const MAX_RELAYS: usize = 16;

/// Longest URL, name, password or explanation in bytes.
pub const MAX_TEXT: usize = 256;

/// Codes with which the server closes a WebSocket; the reason beside them is a sentence for people.
pub mod close {
    /// The server is stopping or restarting (RFC 6455's own code): connect again, after a moment.
    pub const GOING_AWAY: u16 = 1001;
    /// The same handle entered from another connection.
    pub const REPLACED: u16 = 4000;
    /// A frame could not be decoded.
    pub const MALFORMED: u16 = 4001;
    /// Too many frames in too short a time.
    pub const RATE: u16 = 4002;
    /// The member does not read what is sent to it.
    pub const SLOW: u16 = 4003;
    /// The member did not answer pings.
    pub const SILENT: u16 = 4004;
    /// The server, or what it grants one address, is full.
    pub const FULL: u16 = 4005;
}

/// Why bytes are not a frame, or a frame cannot be bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than a frame may be.
    #[error("the frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    /// Cut short, of an unknown kind, or followed by something else.
    #[error("the frame is malformed")]
    Malformed,
    /// One of its fields is outside its limits.
    #[error("the frame's {0} is longer than allowed")]
    Limit(&'static str),
}

/// What the topic's key signs to enter: a fixed prefix, the server's challenge, the topic and the handle.
#[must_use]
pub fn proof_message(challenge: &[u8; 32], topic: &Topic, handle: &Handle) -> Vec<u8> {
    [b"partyline enter v1".as_slice(), challenge, topic.as_bytes(), handle.as_bytes()].concat()
}

fn encode(frame: &impl serde::Serialize) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_allocvec(frame).map_err(|_| FrameError::Malformed)?;
    if bytes.len() > MAX_FRAME { Err(FrameError::TooLong) } else { Ok(bytes) }
}

fn decode<'de, F: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Result<F, FrameError> {
    if bytes.len() > MAX_FRAME {
        return Err(FrameError::TooLong);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((frame, [])) => Ok(frame),
        _ => Err(FrameError::Malformed),
    }
}

fn within(what: &'static str, length: usize, limit: usize) -> Result<(), FrameError> {
    if length > limit { Err(FrameError::Limit(what)) } else { Ok(()) }
}

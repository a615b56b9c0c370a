//! Frames between members and rendezvous servers. Each is one binary WebSocket message in postcard.
//!
//! The server sends the first frame, `Welcome`, with a challenge. A member enters a topic with signatures of the topic's
//! key and of its own handle key over that challenge, and with its record for the others. It receives a `Roster`, in
//! several frames if it is long, and then `Present` and `Gone` as members enter and leave. `Send` forwards a message to a
//! handle; if that handle is not present, the server stores it for a few minutes. `Relays` asks for relay credentials.
//!
//! ```text
//! server                                   member
//!    | Welcome {challenge}                   |
//!    |-------------------------------------->|
//!    |      Enter {topic, proof, record}      |
//!    |<--------------------------------------|
//!    | Roster, then Present, Gone, Message   |
//!    |-------------------------------------->|
//! ```
//!
//! One connection may enter several topics, with a handle on each. Nothing in the frames is secret or trusted:
//! records and messages are sealed by their senders, and the server is believed about presence only.

mod bytes;
mod client;
mod entry;
mod server;
#[cfg(test)]
mod tests;

pub use client::ClientFrame;
pub use entry::{EntryProof, handle_of};
pub use server::{RefusalCode, RelayGrant, RelayServer, ServerFrame, TopicMember};

/// The version of the protocol. It is part of the WebSocket's path, `/v1`.
pub const VERSION: u16 = 1;

/// The path of the WebSocket on a rendezvous server.
pub const PATH: &str = "/v1";

/// The maximum length of a frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// The maximum length of a record in bytes.
pub const MAX_RECORD: usize = 4 * 1024;

/// The maximum length of a message in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// The maximum number of members in one `Roster` frame. Longer rosters come in several.
pub const MAX_ROSTER_CHUNK: usize = 15;

/// The maximum number of relays in one grant.
pub const MAX_RELAYS: usize = 16;

/// The maximum length of a URL, name, password or explanation in bytes.
pub const MAX_TEXT: usize = 256;

/// Codes with which the server closes a WebSocket. The reason beside them is a sentence for people.
pub mod close {
    /// The server stops or restarts (RFC 6455, section 7.4.1). Clients connect again after a moment.
    pub const GOING_AWAY: u16 = 1001;
    /// The same handle entered from another connection.
    pub const REPLACED: u16 = 4000;
    /// A frame could not be decoded.
    pub const MALFORMED: u16 = 4001;
    /// The client sent too many frames in too short a time.
    pub const RATE: u16 = 4002;
    /// The client does not read fast enough.
    pub const SLOW: u16 = 4003;
    /// The client did not answer pings.
    pub const SILENT: u16 = 4004;
    /// The server is full, or the client's address has too many connections.
    pub const FULL: u16 = 4005;
    /// The client was on no topic for too long.
    pub const IDLE: u16 = 4006;
}

/// Why bytes are not a frame, or a frame cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is too long.
    #[error("the frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    /// The bytes are truncated, of an unknown kind, or followed by more.
    #[error("the frame is malformed")]
    Malformed,
    /// A field is longer than allowed.
    #[error("the frame's {0} is longer than allowed")]
    Limit(&'static str),
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

//! Frames of the local socket between the service and its clients (`docs/protocol.md`, "Local socket").
//!
//! A frame is a big-endian `u32` length and that many bytes of JSON: one object whose keys say what it is.
//!
//! ```text
//! client: { "hello": { "version": 2, "software": "partyline 0.1.0" } }
//!         { "id": 7, "command": { "command": "up", "party": "…" } }
//!         { "subscribe": true }
//! server: { "hello": { … } }
//!         { "id": 7, "ok": { "reply": "done" } }     or  { "id": 7, "error": { "code": …, … } }
//!         { "snapshot": { … } }
//!         { "refused": { "code": …, … } }            the connection closes after it
//! ```
//!
//! Each side sends its hello first. Different versions end the connection, so that nothing after the hello has to be
//! understood by another version: unknown keys are errors. Responses carry the id of their request and come in any
//! order.

use std::{fmt, marker::PhantomData, sync::Arc};

use partyline_model::{AppError, ClientCommand, Reply, Snapshot};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap};

#[cfg(test)]
mod tests;

/// The version of the protocol. Frames other than hello have the same meaning only between equal versions.
pub const VERSION: u16 = 2;

/// The length of the length prefix in bytes.
pub const HEADER: usize = 4;

/// The maximum length of the JSON in a frame from the server, in bytes.
pub const MAX_RESPONSE: usize = 1 << 20;

/// The maximum length of the JSON in a frame from a client, in bytes. Clients send links and names, never documents,
/// and the parsed form of hostile JSON can be tens of times its size.
pub const MAX_REQUEST: usize = 64 << 10;

/// The maximum length of [`Hello::software`] in bytes.
pub const MAX_SOFTWARE: usize = 100;

/// Why bytes are not a frame, or a frame cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is zero.
    #[error("a frame is empty")]
    Empty,
    /// The length is above the limit of the direction.
    #[error("a frame has {length} bytes, {limit} are allowed")]
    TooLong {
        /// The length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes are not JSON, or not a known frame.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
}

/// A program and the version of the protocol that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u16,
    /// The program's name and version, for logs and messages; at most [`MAX_SOFTWARE`] bytes.
    pub software: String,
}

impl Hello {
    /// Returns a hello in this version of the protocol.
    #[must_use]
    pub fn from_software(software: impl Into<String>) -> Self {
        Self { version: VERSION, software: software.into() }
    }
}

/// A frame from a client to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// The first frame.
    Hello(Hello),
    /// A command. Its response carries the same id.
    Request {
        /// A number that the client chooses, unique among its open requests.
        id: u32,
        /// The command.
        command: ClientCommand,
    },
    /// Subscribes to snapshots: the present one now, and every later one.
    Subscribe,
}

/// A frame from the server to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// The first frame.
    Hello(Hello),
    /// The response to a request.
    Response {
        /// The id of the request.
        id: u32,
        /// The reply, or an error for users.
        result: Result<Reply, AppError>,
    },
    /// The state of the engine.
    Snapshot(Arc<Snapshot>),
    /// The last frame: why the server ends the connection.
    Refused(AppError),
}

/// The frames of one direction and their limit.
pub trait Frame: Serialize + Sized {
    /// The maximum length of the JSON in bytes.
    const LIMIT: usize;

    /// Decodes the JSON of one frame.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] for anything that is not exactly one known frame.
    fn from_json(json: &[u8]) -> Result<Self, FrameError>;
}

/// Encodes a frame with its length prefix.
///
/// # Errors
/// [`FrameError::TooLong`] if its JSON is above the direction's limit.
pub fn encode<F: Frame>(frame: &F) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, frame).map_err(malformed)?;
    let length = bytes.len() - HEADER;
    let too_long = FrameError::TooLong { length, limit: F::LIMIT };
    let prefix = u32::try_from(length).map_err(|_| too_long.clone())?;
    if length > F::LIMIT {
        return Err(too_long);
    }
    bytes[..HEADER].copy_from_slice(&prefix.to_be_bytes());
    Ok(bytes)
}

/// Splits a stream of bytes into frames.
#[derive(Debug)]
pub struct Decoder<F> {
    buffer: Vec<u8>,
    frames: PhantomData<fn() -> F>,
}

impl<F> Default for Decoder<F> {
    fn default() -> Self {
        Self { buffer: Vec::new(), frames: PhantomData }
    }
}

impl<F: Frame> Decoder<F> {
    /// Returns the buffer to which received bytes are appended. Call [`Self::next_frame`] until it returns `None`
    /// before appending more; then at most one frame and one append are held.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Returns the next complete frame, or `None` until more bytes are appended.
    ///
    /// # Errors
    /// The stream is not a sequence of frames. It cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<F>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        match length {
            0 => return Err(FrameError::Empty),
            length if length > F::LIMIT => return Err(FrameError::TooLong { length, limit: F::LIMIT }),
            _ => {}
        }
        let Some(json) = self.buffer.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = F::from_json(json);
        self.buffer.drain(..HEADER + length);
        frame.map(Some)
    }
}

impl Serialize for ClientFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Hello(hello) => map.serialize_entry("hello", hello)?,
            Self::Request { id, command } => {
                map.serialize_entry("id", id)?;
                map.serialize_entry("command", command)?;
            }
            Self::Subscribe => map.serialize_entry("subscribe", &true)?,
        }
        map.end()
    }
}

impl Frame for ClientFrame {
    const LIMIT: usize = MAX_REQUEST;

    fn from_json(json: &[u8]) -> Result<Self, FrameError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            hello: Option<Hello>,
            id: Option<u32>,
            command: Option<ClientCommand>,
            subscribe: Option<bool>,
        }
        match parse(json)? {
            Keys { hello: Some(hello), id: None, command: None, subscribe: None } => {
                bounded(hello).map(Self::Hello)
            }
            Keys { hello: None, id: Some(id), command: Some(command), subscribe: None } => {
                Ok(Self::Request { id, command })
            }
            Keys { hello: None, id: None, command: None, subscribe: Some(true) } => Ok(Self::Subscribe),
            _ => Err(no_known_shape()),
        }
    }
}

impl Serialize for ServerFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Hello(hello) => map.serialize_entry("hello", hello)?,
            Self::Response { id, result } => {
                map.serialize_entry("id", id)?;
                match result {
                    Ok(reply) => map.serialize_entry("ok", reply)?,
                    Err(error) => map.serialize_entry("error", error)?,
                }
            }
            Self::Snapshot(snapshot) => map.serialize_entry("snapshot", snapshot.as_ref())?,
            Self::Refused(error) => map.serialize_entry("refused", error)?,
        }
        map.end()
    }
}

impl Frame for ServerFrame {
    const LIMIT: usize = MAX_RESPONSE;

    fn from_json(json: &[u8]) -> Result<Self, FrameError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            hello: Option<Hello>,
            id: Option<u32>,
            ok: Option<Reply>,
            error: Option<AppError>,
            snapshot: Option<Box<Snapshot>>,
            refused: Option<AppError>,
        }
        let Keys { hello, id, ok, error, snapshot, refused } = parse(json)?;
        match (hello, id, ok, error, snapshot, refused) {
            (Some(hello), None, None, None, None, None) => bounded(hello).map(Self::Hello),
            (None, Some(id), Some(reply), None, None, None) => Ok(Self::Response { id, result: Ok(reply) }),
            (None, Some(id), None, Some(error), None, None) => Ok(Self::Response { id, result: Err(error) }),
            (None, None, None, None, Some(snapshot), None) => Ok(Self::Snapshot(Arc::from(snapshot))),
            (None, None, None, None, None, Some(error)) => Ok(Self::Refused(error)),
            _ => Err(no_known_shape()),
        }
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(json).map_err(malformed)
}

fn bounded(hello: Hello) -> Result<Hello, FrameError> {
    if hello.software.len() > MAX_SOFTWARE {
        return Err(FrameError::Malformed("the program's name is too long".into()));
    }
    Ok(hello)
}

fn malformed(error: impl fmt::Display) -> FrameError {
    FrameError::Malformed(error.to_string())
}

fn no_known_shape() -> FrameError {
    FrameError::Malformed("its keys do not make up a known frame".into())
}

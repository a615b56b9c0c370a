//! Frames from the server to members.

use std::fmt;

use partyline_model::{Handle, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use super::{
    FrameError, MAX_MESSAGE, MAX_RECORD, MAX_RELAYS, MAX_ROSTER_CHUNK, MAX_TEXT, bytes, decode, encode,
    within,
};

/// A frame from the server to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The first frame of every connection.
    Welcome {
        /// The protocol's [`VERSION`](super::VERSION).
        version: u16,
        /// A random challenge of this connection, which the member signs to enter a topic.
        challenge: [u8; 32],
        /// The server's clock.
        time: Timestamp,
    },
    /// All other members that are present on a topic that was just entered, in one or more frames.
    Roster {
        /// The topic.
        topic: Topic,
        /// At most [`MAX_ROSTER_CHUNK`] of them.
        members: Vec<TopicMember>,
        /// True if another `Roster` frame of this topic follows.
        more: bool,
    },
    /// A member entered a topic or has a new record.
    Present {
        /// The topic.
        topic: Topic,
        /// The member.
        handle: Handle,
        /// The member's newest record.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// A member left a topic or lost its connection.
    Gone {
        /// The topic.
        topic: Topic,
        /// The member.
        handle: Handle,
    },
    /// A message of another member.
    Message {
        /// The topic.
        topic: Topic,
        /// The sender.
        from: Handle,
        /// The message.
        #[serde(with = "bytes")]
        message: Vec<u8>,
    },
    /// The answer to `Time`.
    TimeReply {
        /// The number from the request.
        echo: u64,
        /// The server's clock.
        time: Timestamp,
    },
    /// The answer to `Relays`.
    RelayGrant(RelayGrant),
    /// A frame had no effect.
    Refused {
        /// The topic of the frame.
        topic: Option<Topic>,
        /// The sender's number of the message, if the frame was one.
        id: Option<u32>,
        /// The reason.
        code: RefusalCode,
        /// The reason for people: what happened and what to do, at most [`MAX_TEXT`] bytes.
        detail: String,
    },
}

/// A member that is present on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMember {
    /// The member's handle.
    pub handle: Handle,
    /// The member's newest record.
    #[serde(with = "bytes")]
    pub record: Vec<u8>,
}

/// Relays with credentials for all of them, which expire together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayGrant {
    /// The relays, best first, at most [`MAX_RELAYS`].
    pub servers: Vec<RelayServer>,
    /// `<seconds since 1970 at which it expires>:<handle in hex>`.
    pub username: String,
    /// Base64 of HMAC-SHA1 over the username, under the relays' secret (coturn's `use-auth-secret`).
    pub password: String,
    /// The TURN realm.
    pub realm: String,
    /// When the credentials expire.
    pub expires: Timestamp,
}

impl fmt::Debug for RelayGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayGrant")
            .field("servers", &self.servers)
            .field("username", &self.username)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// One way of reaching a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayServer {
    /// The relay's URL (RFC 7065): `turn:host:port?transport=udp`, `turns:host:port?transport=tcp`.
    pub url: String,
    /// The relay's location in the operator's words; may be empty.
    pub region: String,
}

/// Why a frame had no effect. The variants are numbered on the wire, so that new ones must be added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The frame could not be decoded. The connection is closed.
    Malformed,
    /// The proof is not made by the topic's key and the handle key over this connection's challenge.
    BadProof,
    /// The topic was not entered on this connection.
    NotEntered,
    /// The same handle entered from another connection, which replaces this one on the topic.
    Replaced,
    /// Too many frames in too short a time. Trying again later helps.
    RateLimited,
    /// The topic has as many members as allowed.
    TopicFull,
    /// The connection has entered as many topics as allowed.
    TooManyTopics,
    /// The server holds as much as allowed.
    ServerFull,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// This server offers no relay.
    NoRelay,
}

impl ServerFrame {
    /// Encodes the frame.
    ///
    /// # Errors
    /// A field is longer than allowed.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check()?;
        encode(self)
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// The bytes are not exactly one frame, or a field is longer than allowed.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let frame: Self = decode(bytes)?;
        frame.check()?;
        Ok(frame)
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Welcome { .. } | Self::Gone { .. } | Self::TimeReply { .. } => Ok(()),
            Self::Roster { members, .. } => {
                within("roster", members.len(), MAX_ROSTER_CHUNK)?;
                members.iter().try_for_each(|member| within("record", member.record.len(), MAX_RECORD))
            }
            Self::Present { record, .. } => within("record", record.len(), MAX_RECORD),
            Self::Message { message, .. } => within("message", message.len(), MAX_MESSAGE),
            Self::RelayGrant(grant) => grant.check(),
            Self::Refused { detail, .. } => within("detail", detail.len(), MAX_TEXT),
        }
    }
}

impl RelayGrant {
    fn check(&self) -> Result<(), FrameError> {
        within("relay list", self.servers.len(), MAX_RELAYS)?;
        within("username", self.username.len(), MAX_TEXT)?;
        within("password", self.password.len(), MAX_TEXT)?;
        within("realm", self.realm.len(), MAX_TEXT)?;
        self.servers.iter().try_for_each(|server| {
            within("relay URL", server.url.len(), MAX_TEXT)?;
            within("relay region", server.region.len(), MAX_TEXT)
        })
    }
}

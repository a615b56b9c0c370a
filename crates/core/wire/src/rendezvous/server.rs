//! What the server says.

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
    /// The first frame on every connection.
    Welcome {
        /// The protocol's [`VERSION`](super::VERSION).
        version: u16,
        /// To be signed when entering a topic; drawn anew for every connection.
        challenge: [u8; 32],
        /// The server's clock.
        time: Timestamp,
    },
    /// Who is present on a topic just entered, oneself not included. Tells all, in one or more frames.
    Roster {
        /// Which topic.
        topic: Topic,
        /// At most [`MAX_ROSTER_CHUNK`] of them.
        members: Vec<TopicMember>,
        /// Whether another `Roster` frame of this topic follows.
        more: bool,
    },
    /// A member came, or has a new record.
    Present {
        /// Where.
        topic: Topic,
        /// Who.
        handle: Handle,
        /// Its newest record.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// A member left or lost its connection.
    Gone {
        /// Where.
        topic: Topic,
        /// Who.
        handle: Handle,
    },
    /// Another member's message.
    Message {
        /// Where.
        topic: Topic,
        /// From whom.
        from: Handle,
        /// The message.
        #[serde(with = "bytes")]
        message: Vec<u8>,
    },
    /// The answer to `Time`.
    TimeReply {
        /// As it came.
        echo: u64,
        /// The server's clock.
        time: Timestamp,
    },
    /// The answer to `Relays`.
    RelayGrant(RelayGrant),
    /// A frame had no effect.
    Refused {
        /// The topic it was about.
        topic: Option<Topic>,
        /// The message it was about.
        id: Option<u32>,
        /// Why.
        code: RefusalCode,
        /// The same for people: what happened and what to do, at most [`MAX_TEXT`] bytes.
        detail: String,
    },
}

/// Somebody present on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMember {
    /// Who.
    pub handle: Handle,
    /// Its newest record.
    #[serde(with = "bytes")]
    pub record: Vec<u8>,
}

/// Relays that may be used until a date, with the credentials to use with all of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayGrant {
    /// Best first, at most [`MAX_RELAYS`].
    pub servers: Vec<RelayServer>,
    /// `<seconds since 1970 at which it expires>:<handle in hex>`.
    pub username: String,
    /// Base64 of HMAC-SHA1 over the username, under the relays' secret (coturn's `use-auth-secret`).
    pub password: String,
    /// TURN realm.
    pub realm: String,
    /// When the credentials end.
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

/// One way to a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayServer {
    /// As in RFC 7065: `turn:host:port?transport=udp`, `turns:host:port?transport=tcp`.
    pub url: String,
    /// Where it stands, in the operator's words; may be empty.
    pub region: String,
}

/// Why a frame had no effect. Numbers on the wire: new ones only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The frame could not be decoded. The connection is closed.
    Malformed,
    /// The proof is not the topic key's signature over this connection's challenge.
    BadProof,
    /// The topic was not entered on this connection.
    NotEntered,
    /// The same handle entered from another connection, which takes this one's place on the topic.
    Replaced,
    /// Too much in too short a time; try again later.
    RateLimited,
    /// The topic has as many members as it may.
    TopicFull,
    /// The connection has entered as many topics as it may.
    TooManyTopics,
    /// The server holds as much as it may.
    ServerFull,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// This server offers no relay.
    NoRelay,
}

impl ServerFrame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// A field is longer than allowed.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check()?;
        encode(self)
    }

    /// The frame in these bytes.
    ///
    /// # Errors
    /// They are no frame, more than a frame, or a field is longer than allowed.
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

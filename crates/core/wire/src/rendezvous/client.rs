//! What members say.

use partyline_model::{Handle, Topic};
use serde::{Deserialize, Serialize};

use super::{FrameError, MAX_MESSAGE, MAX_RECORD, bytes, decode, encode, within};

/// A frame from a member to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Be present on a topic. Answered by `Roster` and then whatever waits in the mailbox, or by `Refused`.
    Enter {
        /// Where.
        topic: Topic,
        /// Under which name.
        handle: Handle,
        /// The topic key's Ed25519 signature over [`proof_message`](super::proof_message).
        #[serde(with = "bytes::signature")]
        proof: [u8; 64],
        /// What the others shall see: a sealed message, at most [`MAX_RECORD`] bytes.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// Replace one's record.
    Announce {
        /// Where.
        topic: Topic,
        /// The new record.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// Leave a message for another member, present or not.
    Send {
        /// Where.
        topic: Topic,
        /// For whom.
        to: Handle,
        /// The sender's number for it: a refusal names it, and sent again it does not wait twice in a mailbox.
        id: u32,
        /// A sealed message, at most [`MAX_MESSAGE`] bytes.
        #[serde(with = "bytes")]
        message: Vec<u8>,
    },
    /// Be no longer present on a topic.
    Leave {
        /// Which.
        topic: Topic,
    },
    /// Ask for the server's time. Answered by `TimeReply`.
    Time {
        /// Comes back unchanged.
        echo: u64,
    },
    /// Ask for relays and credentials for them, as a member of a topic. Answered by `RelayGrant`.
    Relays {
        /// Which topic.
        topic: Topic,
    },
}

impl ClientFrame {
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
            Self::Enter { record, .. } | Self::Announce { record, .. } => {
                within("record", record.len(), MAX_RECORD)
            }
            Self::Send { message, .. } => within("message", message.len(), MAX_MESSAGE),
            Self::Leave { .. } | Self::Time { .. } | Self::Relays { .. } => Ok(()),
        }
    }
}

//! Frames from members to the server.

use partyline_model::{Handle, Topic};
use serde::{Deserialize, Serialize};

use super::{EntryProof, FrameError, MAX_MESSAGE, MAX_RECORD, bytes, decode, encode, within};

/// A frame from a member to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Enters a topic. Answered by `Roster` and then the messages in the mailbox, or by `Refused`.
    Enter {
        /// The topic.
        topic: Topic,
        /// The right to enter, and under which handle.
        proof: EntryProof,
        /// The member's record for the others: a sealed message of at most [`MAX_RECORD`] bytes.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// Replaces the member's record.
    Announce {
        /// The topic.
        topic: Topic,
        /// The new record.
        #[serde(with = "bytes")]
        record: Vec<u8>,
    },
    /// Sends a message to another member, present or not.
    Send {
        /// The topic.
        topic: Topic,
        /// The recipient.
        to: Handle,
        /// The sender's number for the message. A refusal names it, and a repeated message waits only once in a
        /// mailbox.
        id: u32,
        /// True to keep the message for a present recipient, too, and to deliver it at every entry until it expires: the
        /// recipient's connection may be dead without anybody knowing, or taken by another run.
        kept: bool,
        /// A sealed message of at most [`MAX_MESSAGE`] bytes.
        #[serde(with = "bytes")]
        message: Vec<u8>,
    },
    /// Leaves a topic.
    Leave {
        /// The topic.
        topic: Topic,
    },
    /// Asks for the server's time. Answered by `TimeReply`.
    Time {
        /// A number that the reply repeats.
        echo: u64,
    },
    /// Asks for relays and credentials for them, as a member of a topic. Answered by `RelayGrant`.
    Relays {
        /// A topic that the member has entered.
        topic: Topic,
    },
}

impl ClientFrame {
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
            Self::Enter { record, .. } | Self::Announce { record, .. } => {
                within("record", record.len(), MAX_RECORD)
            }
            Self::Send { message, .. } => within("message", message.len(), MAX_MESSAGE),
            Self::Leave { .. } | Self::Time { .. } | Self::Relays { .. } => Ok(()),
        }
    }
}

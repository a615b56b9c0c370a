//! Why a frame has no effect.

use partyline_model::Topic;
use partyline_wire::rendezvous::{ClientFrame, RefusalCode};

use crate::limits::Limit;

/// Why a frame has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A limit was reached.
    Limit(Limit),
    /// The frame itself is not acceptable.
    Frame(RefusalCode),
}

impl Refusal {
    /// Returns the code that the client receives.
    pub(crate) const fn code(self) -> RefusalCode {
        match self {
            Self::Limit(limit) => limit.refusal_code(),
            Self::Frame(code) => code,
        }
    }

    /// Returns the reason as it is written in logs: the limit that was reached, else the code.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Limit(limit) => limit.name(),
            Self::Frame(code) => name(code),
        }
    }
}

impl From<RefusalCode> for Refusal {
    fn from(code: RefusalCode) -> Self {
        Self::Frame(code)
    }
}

impl From<Limit> for Refusal {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

/// What a refusal refers to, so that the client can tell which of its frames was refused.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject {
    pub(crate) topic: Option<Topic>,
    /// The sender's number of a message.
    pub(crate) message: Option<u32>,
}

impl Subject {
    pub(crate) const fn of(frame: &ClientFrame) -> Self {
        match frame {
            ClientFrame::Send { topic, id, .. } => Self { topic: Some(*topic), message: Some(*id) },
            ClientFrame::Enter { topic, .. }
            | ClientFrame::Announce { topic, .. }
            | ClientFrame::Leave { topic }
            | ClientFrame::Relays { topic } => Self { topic: Some(*topic), message: None },
            ClientFrame::Time { .. } => Self { topic: None, message: None },
        }
    }
}

/// Returns a code's name for logs and metrics.
pub(crate) const fn name(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Malformed => "malformed",
        RefusalCode::BadProof => "bad_proof",
        RefusalCode::NotEntered => "not_entered",
        RefusalCode::Replaced => "replaced",
        RefusalCode::RateLimited => "rate_limited",
        RefusalCode::TopicFull => "topic_full",
        RefusalCode::TooManyTopics => "too_many_topics",
        RefusalCode::ServerFull => "server_full",
        RefusalCode::MailboxFull => "mailbox_full",
        RefusalCode::NoRelay => "no_relay",
    }
}

/// Returns what happened and what to do, for the people at the client.
pub(crate) const fn explanation(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Malformed => {
            "The frame could not be decoded; the two programs may be of different versions."
        }
        RefusalCode::BadProof => "The proof does not fit the topic and this connection's challenge.",
        RefusalCode::NotEntered => "Enter the topic on this connection first.",
        RefusalCode::Replaced => "The same member entered from another connection.",
        RefusalCode::RateLimited => {
            "Too many frames from this address or on this topic; try again in a moment."
        }
        RefusalCode::TopicFull => "The topic has as many members as this server allows.",
        RefusalCode::TooManyTopics => "This connection has entered as many topics as this server allows.",
        RefusalCode::ServerFull => "The server is full; try another one or try again later.",
        RefusalCode::MailboxFull => "Too many messages wait for the recipient; try again later.",
        RefusalCode::NoRelay => "This server offers no relay.",
    }
}

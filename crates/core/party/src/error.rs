//! What can go wrong, in words a person can act on.

use partyline_model::Timestamp;
use partyline_wire::{exact::Malformed, name::NameError};

/// Why a party cannot be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The grant's signature is not its issuer's.
    #[error("this invite was not made by the party's owner, or was changed on the way; ask for a new one")]
    Forged,
    /// The invite is past its date, by this computer's clock.
    #[error("this invite has ended; ask for a new one, and check this computer's clock")]
    Expired {
        /// When it ended.
        ended: Timestamp,
        /// This computer's clock.
        clock: Timestamp,
    },
    /// The invite ends further ahead than any invite can.
    #[error("this computer's clock is behind; set it right and try again")]
    ClockBehind {
        /// This computer's clock.
        clock: Timestamp,
    },
    /// The display name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Why the owner, a co-owner or a member cannot do a thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    /// A name, range or server is outside its limits.
    #[error(transparent)]
    Invalid(#[from] Malformed),
    /// Only the owner's device may do this.
    #[error("only the owner may do this")]
    NotOwner,
    /// Only the owner or a co-owner may do this.
    #[error("only the owner or a co-owner may do this")]
    NotCoOwner,
    /// No such member.
    #[error("there is no such member in this party")]
    UnknownMember,
    /// The owner cannot be removed, nobody can remove itself, and co-owners cannot remove each other.
    #[error("this member cannot be removed by you")]
    Protected,
    /// The newest party secret has not arrived yet.
    #[error("this computer has not caught up with the party yet; try again when another member is online")]
    NotCaughtUp,
    /// The charter's lists are full.
    #[error("this party has removed too many members or invites; make a new party")]
    Full,
    /// The stored state was made by another device.
    #[error("this party's stored state belongs to another device")]
    WrongDevice,
    /// Too many invites are open.
    #[error("too many invites are open; revoke some first")]
    TooManyInvites,
}

impl From<NameError> for PartyError {
    fn from(error: NameError) -> Self {
        Self::Invalid(Malformed::Name(error))
    }
}

/// Why a sealed message was dropped. Each kind is worth its own counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// On a topic this device does not visit.
    #[error("unknown topic")]
    UnknownTopic,
    /// Not sealed under the topic's key, or changed on the way.
    #[error("not sealed for this topic")]
    Unreadable,
    /// Sealed properly around something that is not a message.
    #[error("malformed message")]
    Malformed,
    /// Sent by this device itself.
    #[error("own message")]
    Own,
    /// Meant for another member.
    #[error("meant for another member")]
    NotForMe,
    /// Not signed by its sender.
    #[error("bad message signature")]
    BadSignature,
    /// Seen before, or older than what was seen.
    #[error("replayed message")]
    Replayed,
    /// A certificate of another device than the sender's, of another party, or with a bad signature.
    #[error("bad certificate")]
    BadCertificate,
    /// A confirmation that the authority did not sign.
    #[error("bad confirmation")]
    BadConfirmation,
    /// A certificate that no longer counts.
    #[error("not a member: {0}")]
    NotAMember(crate::Dismissal),
    /// A signal or goodbye from somebody unheard of.
    #[error("unknown sender")]
    UnknownSender,
    /// Another member's tunnel key.
    #[error("tunnel key of another member")]
    TunnelKeyTaken,
    /// No room for another member.
    #[error("the party is full")]
    Full,
    /// A charter that the authority, or a co-owner it names, did not sign.
    #[error("bad charter")]
    BadCharter,
    /// A charter older than the one in force.
    #[error("outdated charter")]
    OldCharter,
    /// A party secret that the charter does not commit to.
    #[error("party secret does not match the charter")]
    WrongSecret,
}

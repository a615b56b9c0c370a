//! What can fail, in words that the user can act on.

use partyline_model::Timestamp;
use partyline_wire::{exact::Malformed, name::NameError};

use crate::rules::Dismissal;

/// Why a party cannot be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The issuer did not sign the grant, or may not give its role.
    #[error("this invite was not made by the party's owner, or was changed on the way; ask for a new one")]
    Forged,
    /// The invite has ended by this computer's clock.
    #[error("this invite ended on {}; ask for a new one, and check this computer's clock", ended.utc())]
    Expired {
        /// End of the invite, tolerance excluded.
        ended: Timestamp,
        /// This computer's clock.
        clock: Timestamp,
    },
    /// The invite ends later than any invite can: the clock of this computer is behind, or that of the inviter ahead.
    #[error(
        "this invite ends later than any invite can, so a clock is wrong; check this computer's, then the inviter's"
    )]
    EndsTooLate {
        /// End of the invite.
        ends: Timestamp,
        /// This computer's clock.
        clock: Timestamp,
    },
    /// The display name breaks the rules for names.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Why this device cannot do something in its party.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    /// A name, range or server is outside its limits.
    #[error(transparent)]
    Invalid(#[from] Malformed),
    /// Only the owner's device may do this.
    #[error("only the owner may do this")]
    NotOwner,
    /// Only the owner's or a co-owner's device may do this.
    #[error("only the owner or a co-owner may do this")]
    NotCoOwner,
    /// The party has no such member.
    #[error("there is no such member in this party")]
    UnknownMember,
    /// No such device asks for the owner's approval.
    #[error("no such device asks to be let in")]
    UnknownJoiner,
    /// The party has [`MAX_MEMBERS`](crate::MAX_MEMBERS) members already, or another member uses the device's tunnel key.
    #[error("the party has no room for this device")]
    PartyFull,
    /// The owner cannot be removed, no device can remove itself, and co-owners cannot remove each other.
    #[error("this member cannot be removed by you")]
    Protected,
    /// The newest party secret has not arrived yet.
    #[error("this computer has not caught up with the party yet; try again when another member is online")]
    NotCaughtUp,
    /// The charter's lists are full.
    #[error("this party has removed too many members or invites; make a new party")]
    Full,
    /// Another device stored the state.
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

/// Why a sealed message was dropped. [`RefusalCounters`](crate::RefusalCounters) has a counter for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// This device knows no secret of the topic.
    #[error("unknown topic")]
    UnknownTopic,
    /// The message was not sealed under the topic's key, or was changed on the way.
    #[error("not sealed for this topic")]
    Unreadable,
    /// The message is of a kind that is not sent on this topic: in the lobby joiners send join requests, and members answer.
    #[error("not sent on this topic")]
    WrongTopic,
    /// The sealed bytes are not a message, or break a limit.
    #[error("malformed message")]
    Malformed,
    /// This device itself sent the message.
    #[error("own message")]
    Own,
    /// The message is addressed to another member.
    #[error("meant for another member")]
    NotForMe,
    /// The sender did not sign the message for this topic.
    #[error("bad message signature")]
    BadSignature,
    /// The message was received before, or is older than the sender's replay window.
    #[error("replayed message")]
    Replayed,
    /// The certificate belongs to another device or party, or a signature in it is bad.
    #[error("bad certificate")]
    BadCertificate,
    /// The authority did not sign the confirmation.
    #[error("bad confirmation")]
    BadConfirmation,
    /// The sender's certificate does not count, or no longer.
    #[error("not a member: {0}")]
    NotAMember(Dismissal),
    /// The sender of a signal or leave message has not announced itself, or has left.
    #[error("unknown sender")]
    UnknownSender,
    /// The leave message ends another membership of its sender than the one known here.
    #[error("leave of another membership")]
    OldMembership,
    /// Another member uses the same tunnel key.
    #[error("tunnel key of another member")]
    TunnelKeyTaken,
    /// The party has [`MAX_MEMBERS`](crate::MAX_MEMBERS) members already.
    #[error("the party is full")]
    Full,
    /// The authority did not sign the charter's terms, or no co-owner its amendment.
    #[error("bad charter")]
    BadCharter,
    /// The charter is older than the one in force.
    #[error("outdated charter")]
    OldCharter,
    /// An amendment commits to another party secret, which did not come with it.
    #[error("amendment without its party secret")]
    SecretMissing,
    /// The charter does not commit to the party secret that came with it.
    #[error("party secret does not match the charter")]
    WrongSecret,
}

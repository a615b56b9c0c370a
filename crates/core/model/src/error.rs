//! Errors as users see them: what happened, and what to do about it.

use serde::{Deserialize, Serialize};

/// The kind of an error. The names are stable, since scripts and translations depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The text has no invite in it.
    InviteMalformed,
    /// The text is a link or an address of something else.
    InviteElsewhere,
    /// Part of the invite is missing.
    InviteCut,
    /// The invite was changed on the way.
    InviteDamaged,
    /// The text has more than one invite.
    InviteAmbiguous,
    /// The invite was made by a newer version of Partyline.
    InviteVersion,
    /// The invite has expired.
    InviteExpired,
    /// The invite was revoked.
    InviteRevoked,
    /// As many devices as the invite allows have joined by it.
    InviteUsedUp,
    /// The owner has not approved this device.
    NotApproved,
    /// The invite's signature was not made by the party's authority or a co-owner.
    InviteForged,
    /// This device was removed from the party.
    Removed,
    /// This device is a member of the party already.
    AlreadyMember,
    /// Only the owner, or a co-owner, may do this.
    NotOwner,
    /// This device is not in such a party.
    UnknownParty,
    /// The party has no such member.
    UnknownMember,
    /// All addresses of the party's range are taken.
    PartyFull,
    /// The party's address range is in use on the local network.
    RangeConflict,
    /// A name, address or number is outside its range.
    InvalidInput,
    /// The process may not create network devices.
    PermissionDenied,
    /// Another engine is running on this computer.
    AlreadyRunning,
    /// The service is not running or cannot be reached.
    ServiceUnreachable,
    /// Service and client use different versions of the protocol.
    VersionMismatch,
    /// The rendezvous server cannot be reached.
    ServerUnreachable,
    /// The rendezvous server's certificate is not valid for it.
    ServerCertificate,
    /// The network lets nothing through before the user logs in (captive portal).
    CaptivePortal,
    /// The rendezvous server is at this network's own public address, and the router does not route packets to that
    /// address back inside (no hairpinning, RFC 4787, section 6).
    ServerNoHairpin,
    /// The rendezvous server, or a relay that it names, is at a private address, and only others named it.
    ServerPrivate,
    /// This computer's clock is wrong.
    OwnClock,
    /// The clock of the computer that made the invite is wrong.
    InviterClock,
    /// This computer, the inviter and the server have three different times.
    NoTwoClocksAgree,
    /// A clock is wrong, but nothing shows whose.
    UnknownClock,
    /// State could not be saved, for example because the disk is full.
    Storage,
    /// The network device could not be created.
    Device,
    /// The TUN driver's device node is missing, wrong or not permitted.
    TunNode,
    /// Another computer is in the party with the same keys: one of the two is a copy.
    DuplicateIdentity,
    /// No answer came in time.
    Timeout,
    /// Partyline has a defect.
    Internal,
}

/// An error for users: what happened, and always a next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[error("{message}")]
pub struct AppError {
    /// The kind of error.
    pub code: ErrorCode,
    /// One sentence that says what happened.
    pub message: String,
    /// One sentence that says what to do about it.
    pub hint: String,
}

impl AppError {
    /// Returns an error from its kind, message and hint.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

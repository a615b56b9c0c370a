//! Errors as people meet them: what happened, and what to do about it.

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong. Stable: scripts and translations key on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The text is not an invite, or part of it is missing.
    InviteMalformed,
    /// The invite is for a newer Partyline.
    InviteVersion,
    /// The invite is past its date.
    InviteExpired,
    /// The owner took the invite back.
    InviteRevoked,
    /// The invite's signature is not the party's.
    InviteForged,
    /// This device was removed from the party.
    Removed,
    /// This device is in the party already.
    AlreadyMember,
    /// Only the owner (or a co-owner) may do this.
    NotOwner,
    /// No such party on this device.
    UnknownParty,
    /// No such member in the party.
    UnknownMember,
    /// All addresses of the party's range are taken.
    PartyFull,
    /// The party's address range is in use on the local network.
    RangeConflict,
    /// A name, address or number is outside its limits.
    InvalidInput,
    /// The process may not create network devices.
    PermissionDenied,
    /// Another engine already runs on this computer.
    AlreadyRunning,
    /// The service does not run or cannot be reached.
    ServiceUnreachable,
    /// Service and client speak different versions.
    VersionMismatch,
    /// The rendezvous server cannot be reached.
    ServerUnreachable,
    /// The rendezvous server's certificate is not valid for it.
    ServerCertificate,
    /// State could not be written, for example because the disk is full.
    Storage,
    /// The network device could not be made.
    Device,
    /// The member did not answer in time.
    Timeout,
    /// A defect in Partyline.
    Internal,
}

/// An error for a person: never a bare cause, always a next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[error("{message}")]
pub struct AppError {
    /// What kind.
    pub code: ErrorCode,
    /// What happened, one sentence.
    pub message: String,
    /// What to do about it, one sentence.
    pub hint: String,
}

impl AppError {
    /// An error with its next step.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

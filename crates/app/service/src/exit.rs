//! What programs exit with.

use partyline_model::ErrorCode;

/// The exit code of a program that ends with this error: 1 failure, 2 usage, 3 service unreachable, 4 not permitted,
/// 5 not found, 6 invite refused, 7 timeout.
#[must_use]
pub const fn exit_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::InvalidInput => 2,
        ErrorCode::ServiceUnreachable | ErrorCode::VersionMismatch => 3,
        ErrorCode::PermissionDenied | ErrorCode::NotOwner => 4,
        ErrorCode::UnknownParty | ErrorCode::UnknownMember => 5,
        ErrorCode::InviteMalformed
        | ErrorCode::InviteVersion
        | ErrorCode::InviteExpired
        | ErrorCode::InviteRevoked
        | ErrorCode::InviteForged
        | ErrorCode::Removed => 6,
        ErrorCode::Timeout => 7,
        ErrorCode::AlreadyMember
        | ErrorCode::PartyFull
        | ErrorCode::RangeConflict
        | ErrorCode::AlreadyRunning
        | ErrorCode::ServerUnreachable
        | ErrorCode::ServerCertificate
        | ErrorCode::Storage
        | ErrorCode::Device
        | ErrorCode::Internal => 1,
    }
}

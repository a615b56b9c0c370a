//! Exit codes of the command-line programs.

use partyline_model::ErrorCode;

/// Returns the exit code of a program that ends with this error: 1 failure, 2 usage, 3 service unreachable, 4 not permitted,
/// 5 not found, 6 invite refused, 7 timeout.
#[must_use]
pub const fn exit_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::InvalidInput => 2,
        ErrorCode::ServiceUnreachable | ErrorCode::VersionMismatch => 3,
        ErrorCode::PermissionDenied | ErrorCode::NotOwner => 4,
        ErrorCode::UnknownParty | ErrorCode::UnknownMember => 5,
        ErrorCode::InviteMalformed
        | ErrorCode::InviteElsewhere
        | ErrorCode::InviteCut
        | ErrorCode::InviteDamaged
        | ErrorCode::InviteAmbiguous
        | ErrorCode::InviteVersion
        | ErrorCode::InviteExpired
        | ErrorCode::InviteRevoked
        | ErrorCode::InviteUsedUp
        | ErrorCode::NotApproved
        | ErrorCode::InviteForged
        | ErrorCode::OwnClock
        | ErrorCode::InviterClock
        | ErrorCode::NoTwoClocksAgree
        | ErrorCode::UnknownClock
        | ErrorCode::Removed => 6,
        ErrorCode::Timeout => 7,
        ErrorCode::AlreadyMember
        | ErrorCode::PartyFull
        | ErrorCode::RangeConflict
        | ErrorCode::AlreadyRunning
        | ErrorCode::ServerUnreachable
        | ErrorCode::ServerCertificate
        | ErrorCode::CaptivePortal
        | ErrorCode::ServerNoHairpin
        | ErrorCode::ServerPrivate
        | ErrorCode::Storage
        | ErrorCode::Device
        | ErrorCode::TunNode
        | ErrorCode::DuplicateIdentity
        | ErrorCode::Internal => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_the_kinds_of_failure_apart() {
        let cases = [
            (ErrorCode::Internal, 1),
            (ErrorCode::InvalidInput, 2),
            (ErrorCode::ServiceUnreachable, 3),
            (ErrorCode::PermissionDenied, 4),
            (ErrorCode::UnknownParty, 5),
            (ErrorCode::InviteExpired, 6),
            (ErrorCode::Timeout, 7),
        ];
        for (code, expected) in cases {
            assert_eq!(exit_code(code), expected, "{code:?}");
        }
    }
}

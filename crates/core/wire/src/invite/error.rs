//! Why a text is not a usable invite.

use partyline_model::{AppError, ErrorCode};

/// Why no invite was read from a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Nothing in the text is an invite or part of one.
    #[error("there is no Partyline invite in this text")]
    NotFound,
    /// The text is longer than [`MAX_TEXT`](super::MAX_TEXT).
    #[error("this text is too long to look for an invite in it")]
    TooLong,
    /// The text leads to something else.
    #[error("this is {what}, not a Partyline invite")]
    Elsewhere {
        /// What the text is, such as "a link to discord.gg".
        what: String,
    },
    /// The code lacks its beginning.
    #[error("the beginning of this invite is missing")]
    StartMissing,
    /// The code lacks its end.
    #[error("the end of this invite is missing")]
    EndMissing,
    /// The code was changed, or its contents are impossible.
    #[error("this invite is damaged: part of it was changed on the way")]
    Damaged,
    /// The text has whole codes of different invites.
    #[error("this text has more than one invite")]
    Several,
    /// The invite was made by a newer Partyline.
    #[error("this invite is for a newer Partyline")]
    NewerVersion {
        /// The version of the code.
        version: u8,
    },
}

impl InviteError {
    /// Returns true if the text has an invite in it, or what is left of one.
    #[must_use]
    pub const fn is_about_an_invite(&self) -> bool {
        !matches!(self, Self::NotFound | Self::TooLong | Self::Elsewhere { .. })
    }

    const fn code_and_hint(&self) -> (ErrorCode, &'static str) {
        match self {
            Self::NotFound => (ErrorCode::InviteMalformed, "Copy your friend's whole message and paste it."),
            Self::TooLong => (ErrorCode::InviteMalformed, "Paste only the message with the invite link."),
            Self::Elsewhere { .. } => (
                ErrorCode::InviteElsewhere,
                "Ask your friend for the link that Partyline shows under “Invite”.",
            ),
            Self::StartMissing | Self::EndMissing => {
                (ErrorCode::InviteCut, "Copy the whole link again, or ask your friend to send it again.")
            }
            Self::Damaged => {
                (ErrorCode::InviteDamaged, "Copy the link again instead of typing it, or ask for a new one.")
            }
            Self::Several => (ErrorCode::InviteAmbiguous, "Paste only the invite that you want to use."),
            Self::NewerVersion { .. } => (ErrorCode::InviteVersion, "Update Partyline and try again."),
        }
    }
}

impl From<InviteError> for AppError {
    fn from(error: InviteError) -> Self {
        let (code, hint) = error.code_and_hint();
        let text = error.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(char::to_uppercase).into_iter().flatten();
        Self::new(code, first.chain(letters).chain(['.']).collect::<String>(), hint)
    }
}

//! Replies that do not fit their request.

use partyline_model::{AppError, ErrorCode, Reply};

/// Returns the error for a reply of the wrong kind, which only a service of another version sends.
pub fn unexpected(reply: &Reply) -> AppError {
    let name = format!("{reply:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect::<String>();
    AppError::new(
        ErrorCode::VersionMismatch,
        format!("The engine sent a reply of another kind ({name})."),
        "Install the same version of the service and of this program.",
    )
}

//! The core's errors as people meet them.

use partyline_model::{AppError, ErrorCode};
use partyline_party::{JoinError, PartyError};
use partyline_wire::exact::Malformed;

/// Turns "what is wrong; what to do" into its two halves, with a capital letter each.
fn halves(text: &str, fallback: &str) -> (String, String) {
    let (what, hint) = text.split_once("; ").unwrap_or((text, fallback));
    (sentence(what), sentence(hint))
}

fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}

pub(crate) fn join_error(error: &JoinError) -> AppError {
    let code = match error {
        JoinError::Forged => ErrorCode::InviteForged,
        JoinError::Expired { .. } => ErrorCode::InviteExpired,
        JoinError::ClockBehind { .. } | JoinError::Name(_) => ErrorCode::InvalidInput,
    };
    let (message, hint) = halves(&error.to_string(), "choose another name");
    AppError { code, message, hint }
}

pub(crate) fn party_error(error: &PartyError) -> AppError {
    if let PartyError::Invalid(Malformed::Range { what }) = error {
        let hint = match *what {
            "address range" => "Give a private network of 14 to 65,534 computers, such as 10.80.7.0/24.",
            "server address" => "Write it as wss://host, such as wss://party.example.org.",
            _ => "Change it and try again.",
        };
        return AppError::new(ErrorCode::InvalidInput, format!("This {what} cannot be used."), hint);
    }
    let (code, fallback) = match error {
        PartyError::NotOwner | PartyError::NotCoOwner | PartyError::Protected => {
            (ErrorCode::NotOwner, "ask the party's owner to do it")
        }
        PartyError::UnknownMember => (ErrorCode::UnknownMember, "`partyline status` lists the members"),
        PartyError::Invalid(_) => (ErrorCode::InvalidInput, "change it and try again"),
        _ => (ErrorCode::InvalidInput, "try again later"),
    };
    let (message, hint) = halves(&error.to_string(), fallback);
    AppError { code, message, hint }
}

pub(crate) fn unknown_party() -> AppError {
    AppError::new(
        ErrorCode::UnknownParty,
        "There is no such party on this computer.",
        "`partyline list` shows the parties it is in.",
    )
}

pub(crate) fn unknown_member() -> AppError {
    AppError::new(
        ErrorCode::UnknownMember,
        "There is no such member in this party.",
        "`partyline status` lists the members.",
    )
}

pub(crate) fn timed_out() -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        "The member did not answer within three seconds.",
        "It may be offline; `partyline status --why` shows what was tried to reach it.",
    )
}

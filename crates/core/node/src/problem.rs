//! The core's errors as people meet them.

use std::{net::IpAddr, time::Duration};

use partyline_model::{AppError, ErrorCode, Timestamp};
use partyline_party::{InviteVerdict, JoinError, PartyError};
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
        JoinError::EndsTooLate { .. } => ErrorCode::UnknownClock,
        JoinError::Name(_) => ErrorCode::InvalidInput,
    };
    let (message, hint) = halves(&error.to_string(), "choose another name");
    AppError { code, message, hint }
}

/// Explains a refusal because of the invite's end, with the time of a server if one answered.
pub(crate) fn clock_error(error: &JoinError, inviter: &str, server: Option<Timestamp>) -> AppError {
    let inviter = if inviter.is_empty() { "your friend" } else { inviter };
    let again = "Switch on automatic time in its settings, then open the invite again.";
    match error.judge_clocks(server) {
        Some(InviteVerdict::OwnClock { by, behind }) => {
            let direction = if behind { "behind" } else { "ahead" };
            let message = format!("This computer's clock is {} {direction}.", in_words(by));
            AppError::new(ErrorCode::OwnClock, message, again)
        }
        Some(InviteVerdict::InviterClock { by }) => AppError::new(
            ErrorCode::InviterClock,
            format!("The clock of the computer that made this invite is at least {} ahead.", in_words(by)),
            format!("Ask {inviter} to set it right, and then for a new invite."),
        ),
        Some(InviteVerdict::NoTwoAgree) => AppError::new(
            ErrorCode::NoTwoClocksAgree,
            "This computer, the one that made the invite and the server have three different times.",
            "Compare this computer's clock with a watch. If it is right, tell the server's operator and ask for a new invite.",
        ),
        Some(InviteVerdict::Unknown) => AppError::new(
            ErrorCode::UnknownClock,
            "This computer's clock is behind, or that of the computer that made this invite is ahead.",
            format!(
                "Check this computer's clock. If it is right, ask {inviter} to check theirs and for a new invite."
            ),
        ),
        Some(InviteVerdict::Expired) | None => join_error(error),
    }
}

/// Returns a span in the largest unit that has a whole one.
pub(crate) fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400 * 365, "year"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
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

/// Explains why a server at this network's own public address does not answer.
#[must_use]
pub fn server_without_hairpin(url: &str) -> AppError {
    AppError::new(
        ErrorCode::ServerNoHairpin,
        format!(
            "The address of the server {url} is this network's own public one, and the router here does not route \
             connections to it back inside (no hairpinning, RFC 4787, section 6)."
        ),
        "If the server is in this network, give its name the server's LAN address, in the router's DNS (split DNS) or in \
         this computer's hosts file, or switch on NAT loopback in the router.",
    )
}

/// Explains why a server at a private address is not used.
#[must_use]
pub fn server_at_private_address(url: &str, address: IpAddr) -> AppError {
    AppError::new(
        ErrorCode::ServerPrivate,
        format!(
            "The server {url} is at {address}, which is no address of the Internet. The party's link or owner named it, \
             and you have not confirmed it, so it is not used: it could be another device of your network."
        ),
        confirmation(url),
    )
}

/// Explains why a relay at a private address is not used.
pub(crate) fn relay_at_private_address(url: &str, host: &str, address: IpAddr) -> AppError {
    AppError::new(
        ErrorCode::ServerPrivate,
        format!(
            "The server {url} names the relay {host} at {address}, which is no address of the Internet. You have not \
             confirmed the server, so this relay is not used: it could be another device of your network."
        ),
        confirmation(url),
    )
}

fn confirmation(url: &str) -> String {
    // A command that users paste into a shell; the URL was written by somebody else.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./:-_[]".contains(&byte);
    let shown = if url.bytes().all(plain) { url } else { "URL" };
    format!("If it is yours or a friend's, on this network, confirm it with `partyline trust {shown}`.")
}

pub(crate) fn timed_out() -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        "The member did not answer within three seconds.",
        "It may be offline; `partyline status --why` shows what was tried to reach it.",
    )
}

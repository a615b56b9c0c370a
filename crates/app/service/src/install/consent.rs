//! Linux: starting the service from a program without rights, after polkit has asked the user.

use std::{io, path::Path, process::ExitStatus};

use partyline_model::{AppError, ErrorCode};
use tokio::process::Command;

use super::systemd::{BOOTED, UNIT, program};

/// Where units of packages and of administrators lie.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What pkexec exits with when the user said no, and when nobody could be asked, says pkexec(1).
const DISMISSED: i32 = 126;
const NOT_AUTHORISED: i32 = 127;

pub async fn start() -> Result<(), AppError> {
    if !Path::new(BOOTED).exists() {
        return Err(AppError::new(
            ErrorCode::Internal,
            "This system is not run by systemd, so that Partyline cannot start its service.",
            "Run `sudo partyline service run` in a terminal and leave it open.",
        ));
    }
    let installed = UNITS.iter().any(|directory| Path::new(directory).join(UNIT).exists());
    let words = if installed {
        vec!["systemctl".to_owned(), "start".to_owned(), UNIT.to_owned()]
    } else {
        let mut words = program()?;
        // What runs the service also installs it: `… service run` and `… service install`.
        words.pop();
        words.push("install".to_owned());
        words
    };
    let output = Command::new("pkexec").arg("--disable-internal-agent").args(&words).output().await;
    let output = output.map_err(|error| cannot_ask(&error))?;
    judge(output.status, &String::from_utf8_lossy(&output.stderr))
}

fn judge(status: ExitStatus, said: &str) -> Result<(), AppError> {
    let said = said.lines().last().unwrap_or_default().trim();
    match status.code() {
        Some(0) => Ok(()),
        Some(DISMISSED) => Err(AppError::new(
            ErrorCode::PermissionDenied,
            "The service was not started, because permission was not given.",
            "Try again and enter your password, or ask whoever looks after this computer.",
        )),
        Some(NOT_AUTHORISED) => Err(AppError::new(
            ErrorCode::PermissionDenied,
            "The system could not ask for permission to start the service.",
            "Run `sudo partyline service install` in a terminal.",
        )),
        _ => Err(AppError::new(
            ErrorCode::Internal,
            format!("The service did not start: {said}"),
            "See `journalctl -u partyline`.",
        )),
    }
}

fn cannot_ask(error: &io::Error) -> AppError {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "This system has no pkexec to ask for permission with.".to_owned(),
        _ => format!("Permission could not be asked for: {error}."),
    };
    AppError::new(ErrorCode::PermissionDenied, message, "Run `sudo partyline service install` in a terminal.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn every_end_says_what_to_do() {
        let code = |exit: i32| judge(ExitStatus::from_raw(exit << 8), "one\ntwo").map_err(|error| error.code);
        assert_eq!(code(0), Ok(()));
        assert_eq!(code(126), Err(ErrorCode::PermissionDenied));
        assert_eq!(code(127), Err(ErrorCode::PermissionDenied));
        assert_eq!(code(1), Err(ErrorCode::Internal));
        assert!(judge(ExitStatus::from_raw(256), "one\ntwo").unwrap_err().message.ends_with("two"));
    }
}

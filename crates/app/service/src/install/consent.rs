//! Linux: starting the service from a program without rights, after polkit has asked the user.

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use partyline_model::{AppError, ErrorCode};
use tokio::process::Command;

use super::{
    program::Program,
    systemd::{BOOTED, UNIT},
};

/// Where units of packages and of administrators lie.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What pkexec exits with when the user said no, and when nobody could be asked, says pkexec(1).
const DISMISSED: i32 = 126;
const NOT_AUTHORISED: i32 = 127;

/// What systemctl exits with where rights are missing, says systemctl(1).
const NO_PERMISSION: i32 = 4;

pub async fn start() -> Result<(), AppError> {
    if !Path::new(BOOTED).exists() {
        return Err(AppError::new(
            ErrorCode::Internal,
            "This system is not run by systemd, so that Partyline cannot start its service.",
            "Run `sudo partyline service run` in a terminal and leave it open.",
        ));
    }
    if is_installed() { start_unit().await } else { install().await }
}

/// Whether a package or an administrator has installed the service.
pub fn is_installed() -> bool {
    UNITS.iter().any(|directory| Path::new(directory).join(UNIT).exists())
}

/// systemd asks polkit itself, whose rule lets in who sits at the computer; others are asked by their desktop.
async fn start_unit() -> Result<(), AppError> {
    let mut command = Command::new("systemctl");
    // Who starts the app in a terminal is not asked there.
    command.args(["start", UNIT]).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().await.map_err(|error| not_started(&error.to_string()))?;
    tracing::debug!(status = ?output.status.code(), "systemctl was asked to start the unit");
    judge_start(output.status, &String::from_utf8_lossy(&output.stderr))
}

async fn install() -> Result<(), AppError> {
    let mut words = Program::find()?.words();
    // What runs the service also installs it: `… service run` and `… service install`. From then on root runs it, so that
    // a program in the user's own directory is copied first.
    words.pop();
    words.extend(["install".to_owned(), "--copy".to_owned()]);
    let output = Command::new("pkexec").arg("--disable-internal-agent").args(&words).output().await;
    let output = output.map_err(|error| cannot_ask(&error))?;
    tracing::debug!(status = ?output.status.code(), "pkexec was asked to install the service");
    judge_install(output.status, &String::from_utf8_lossy(&output.stderr))
}

fn judge_start(status: ExitStatus, said: &str) -> Result<(), AppError> {
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(NO_PERMISSION) || said.contains("authentication required") {
        return Err(AppError::new(
            ErrorCode::PermissionDenied,
            "The service was not started, because permission was not given.",
            "Try again and enter your password, or run `sudo systemctl start partyline` in a terminal.",
        ));
    }
    Err(not_started(said.lines().next().unwrap_or_default()))
}

fn judge_install(status: ExitStatus, said: &str) -> Result<(), AppError> {
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
        _ => Err(not_started(said.lines().last().unwrap_or_default())),
    }
}

fn not_started(said: &str) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("The service did not start: {}", said.trim()),
        "See `journalctl -u partyline`.",
    )
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

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn every_end_of_installing_says_what_to_do() {
        let code = |code| judge_install(exit(code), "one\ntwo").map_err(|error| error.code);
        assert_eq!(code(0), Ok(()));
        assert_eq!(code(126), Err(ErrorCode::PermissionDenied));
        assert_eq!(code(127), Err(ErrorCode::PermissionDenied));
        assert_eq!(code(1), Err(ErrorCode::Internal));
        assert!(judge_install(exit(1), "one\ntwo").unwrap_err().message.ends_with("two"));
    }

    #[test]
    fn every_end_of_starting_says_what_to_do() {
        let code = |code, said: &str| judge_start(exit(code), said).map_err(|error| error.code);
        assert_eq!(code(0, ""), Ok(()));
        assert_eq!(code(4, "Access denied"), Err(ErrorCode::PermissionDenied));
        assert_eq!(code(1, "Interactive authentication required."), Err(ErrorCode::PermissionDenied));
        let failed = judge_start(exit(1), "Job for partyline.service failed.\nSee journalctl.").unwrap_err();
        assert_eq!(failed.message, "The service did not start: Job for partyline.service failed.");
    }
}

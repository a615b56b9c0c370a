//! Systems whose installer registers the service.

use partyline_model::{AppError, ErrorCode};

use crate::InstallOptions;

pub fn install(_options: &InstallOptions) -> Result<(), AppError> {
    Err(not_here("install"))
}

pub fn uninstall() -> Result<(), AppError> {
    Err(not_here("uninstall"))
}

#[expect(clippy::unused_async, reason = "it is asynchronous where it asks")]
pub async fn start() -> Result<(), AppError> {
    Err(AppError::new(
        ErrorCode::Internal,
        "Partyline cannot start its service by itself on this system.",
        "Start it in the system's list of services, or restart the computer.",
    ))
}

/// Installers do it, which there are none of yet.
pub const fn is_installed() -> bool {
    false
}

fn not_here(what: &str) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("`service {what}` is not available on this system."),
        "Use Partyline's installer, or run the service yourself: `partyline service run`.",
    )
}

//! Systems whose installer registers the service.

use partyline_model::{AppError, ErrorCode};

use crate::InstallOptions;

pub fn install(_options: &InstallOptions) -> Result<(), AppError> {
    Err(not_here("install"))
}

pub fn uninstall() -> Result<(), AppError> {
    Err(not_here("uninstall"))
}

fn not_here(what: &str) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("`service {what}` is not available on this system."),
        "Use Partyline's installer, or run the service yourself: `partyline service run`.",
    )
}

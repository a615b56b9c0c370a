//! Making the system start the service.

#[cfg(target_os = "linux")]
mod consent;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod replaceable;
#[cfg(target_os = "linux")]
mod systemd;

#[cfg(target_os = "linux")]
pub(crate) use self::consent::is_installed;
#[cfg(target_os = "linux")]
use self::consent::start;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::elsewhere::is_installed;
#[cfg(not(target_os = "linux"))]
use self::elsewhere::start;
#[cfg(not(target_os = "linux"))]
pub use self::elsewhere::{install, uninstall};
#[cfg(target_os = "linux")]
pub use self::systemd::{install, uninstall};

/// Starts the service, after the system has asked the user whether it may; installs it first where that is missing.
/// Returns when the system says that it runs.
///
/// # Errors
/// The user refused, could not be asked, or the service did not start.
pub async fn start_with_consent() -> Result<(), partyline_model::AppError> {
    start().await
}

//! Having the system start the service.

#[cfg(target_os = "linux")]
#[path = "install/systemd.rs"]
mod platform;

#[cfg(not(target_os = "linux"))]
#[path = "install/elsewhere.rs"]
mod platform;

pub use platform::{install, uninstall};

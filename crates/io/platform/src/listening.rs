//! Which ports programs of this computer offer to the network.

use std::io;

#[cfg(target_os = "linux")]
#[path = "listening/linux.rs"]
mod system;

pub use crate::listening_socket::ListeningSocket;

/// Lists the listening sockets. It reads the files of all processes, which may take some tens of milliseconds.
///
/// # Errors
/// The system does not say which sockets there are.
#[cfg(target_os = "linux")]
pub fn listening_sockets() -> io::Result<Vec<ListeningSocket>> {
    system::read(std::path::Path::new("/proc"))
}

/// Lists the listening sockets.
///
/// # Errors
/// Always, until this system is supported.
#[cfg(not(target_os = "linux"))]
pub fn listening_sockets() -> io::Result<Vec<ListeningSocket>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "open ports cannot be listed on this system yet"))
}

//! Windows: Ctrl-C ends the program, a certificate is read again only at the next start, and sockets are not limited.

use std::{future::pending, io};

use super::types::ProcessSignal;

/// On Windows, this option would let another program take over the port.
pub(crate) const REUSE_ADDRESS: bool = false;

/// Ctrl-C.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Registers for the signals. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Never on this system.
    pub const fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> ProcessSignal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => ProcessSignal::Stop,
            Err(error) => {
                tracing::error!(reason = %error, "cannot wait for Ctrl-C");
                pending().await
            }
        }
    }
}

/// Does nothing, as there is no such limit.
pub const fn raise_file_limit() {}

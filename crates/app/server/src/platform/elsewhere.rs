//! Windows: Ctrl-C ends the program, a certificate is read again by starting it anew, and sockets have no limit.

use std::{future::pending, io};

use super::Wish;

/// The option of this name would let another program take the port away.
pub(crate) const REUSE_ADDRESS: bool = false;

/// Ctrl-C.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Listens to it, within a runtime.
    ///
    /// # Errors
    /// None here.
    pub const fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Wish {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Wish::Stop,
            Err(error) => {
                tracing::error!(%error, "Ctrl-C cannot be heard");
                pending().await
            }
        }
    }
}

/// There is no such limit.
pub const fn raise_file_limit() {}

//! Signals that ask the process to stop.

use std::io;

/// Waits until the user or the system asks the program to end (Ctrl-C, SIGTERM).
///
/// # Errors
/// Signal handlers cannot be installed.
pub async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {
                tracing::debug!(signal = "SIGTERM", "asked to end");
                Ok(())
            }
            asked = tokio::signal::ctrl_c() => {
                tracing::debug!(signal = "SIGINT", "asked to end");
                asked
            }
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

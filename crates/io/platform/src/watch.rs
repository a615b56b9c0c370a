//! Tells when the computer's place in the network has changed: other addresses, or another router.
//!
//! The system's notices (netlink on Linux, the routing socket on macOS, IP Helper on Windows) only say that *something*
//! happened, often many times in a row. So after a notice and a moment of silence the state is read again, and reported
//! if it is really different; people who play wait for it, and what is not yet final is soon reported again. Our own
//! devices do not count.

#[cfg(target_os = "linux")]
#[path = "watch/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "watch/routes.rs"]
mod system;

use std::{io, time::Duration};

use crate::{Gateway, LocalAddress, default_gateways, local_addresses};

/// Silence that ends a flurry of notices, and the longest flurry that is waited out.
const SILENCE: Duration = Duration::from_millis(30);
const FLURRY: Duration = Duration::from_millis(150);

/// Where the computer is in the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkState {
    /// Its addresses.
    pub addresses: Vec<LocalAddress>,
    /// Its routers.
    pub gateways: Vec<Gateway>,
}

impl NetworkState {
    /// How it is now.
    ///
    /// # Errors
    /// If the system does not tell.
    pub async fn read() -> io::Result<Self> {
        Ok(Self { addresses: local_addresses()?, gateways: default_gateways().await? })
    }
}

/// Watches for changes.
#[derive(Debug)]
pub struct NetworkWatch {
    notices: system::Notices,
    known: NetworkState,
}

impl NetworkWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub async fn new() -> io::Result<Self> {
        // Listening comes first, so that no change falls in between.
        let notices = system::Notices::new()?;
        Ok(Self { notices, known: NetworkState::read().await? })
    }

    /// The state last reported.
    #[must_use]
    pub const fn state(&self) -> &NetworkState {
        &self.known
    }

    /// Waits for a change and returns the new state.
    ///
    /// # Errors
    /// If watching has become impossible.
    pub async fn changed(&mut self) -> io::Result<&NetworkState> {
        loop {
            self.notices.next().await?;
            let flurry = async {
                while let Ok(notice) = tokio::time::timeout(SILENCE, self.notices.next()).await {
                    notice?;
                }
                Ok::<_, io::Error>(())
            };
            if let Ok(ended) = tokio::time::timeout(FLURRY, flurry).await {
                ended?;
            }
            let now = NetworkState::read().await?;
            if now != self.known {
                self.known = now;
                return Ok(&self.known);
            }
        }
    }
}

//! Detects changes of the network: other addresses, another default gateway, or a network that is reached otherwise.
//!
//! The system's notices (netlink on Linux, the routing socket on macOS, IP Helper on Windows) only say that *something*
//! happened, often many times in a row. So after a notice and a short time without further ones the state is read again,
//! and reported if it differs. That time is short, as connections wait for it; a state that is not final yet is soon
//! reported again. The devices of parties do not count.

#[cfg(target_os = "linux")]
#[path = "watch/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "watch/routes.rs"]
mod system;

use std::{io, time::Duration};

use ipnet::IpNet;
use partyline_model::{CardKind, RouteTarget};
use tracing::{debug, trace};

use crate::{Gateway, LocalAddress, LocalNetworks, card_routes, default_gateways, local_addresses};

/// The network counts as settled this long after the last notice.
const SETTLE_TIME: Duration = Duration::from_millis(30);
/// Bounds the time to wait for it to settle.
const MAX_SETTLE_TIME: Duration = Duration::from_millis(150);

/// This computer's addresses, default gateways and networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkState {
    /// The addresses on interfaces that are up.
    pub addresses: Vec<LocalAddress>,
    /// The default gateways.
    pub gateways: Vec<Gateway>,
    /// What the networks beside the default route are reached by; see [`card_routes`].
    pub routes: Vec<(IpNet, RouteTarget)>,
    /// The networks that it reaches.
    pub networks: LocalNetworks,
}

impl NetworkState {
    /// Reads the current state.
    ///
    /// # Errors
    /// If addresses or routes cannot be read.
    pub async fn read() -> io::Result<Self> {
        let (mut addresses, gateways) = (local_addresses()?, default_gateways().await?);
        let routes = card_routes(&addresses).await?;
        addresses.iter_mut().for_each(|address| address.card = card_of(address, &gateways));
        Ok(Self { addresses, gateways, routes, networks: LocalNetworks::read().await? })
    }
}

/// Returns what stands behind an address's interface: a bridge by which the internet is reached is as good as hardware,
/// whatever the system says about its ports.
fn card_of(address: &LocalAddress, gateways: &[Gateway]) -> CardKind {
    let leads_out =
        gateways.iter().any(|gateway| gateway.interface.is_some() && gateway.interface == address.index);
    if address.card == CardKind::Internal && leads_out { CardKind::Physical } else { address.card }
}

/// Watches the network for changes.
#[derive(Debug)]
pub struct NetworkWatch {
    notices: system::Notices,
    reported: NetworkState,
}

impl NetworkWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// If the system's notices cannot be received, or the state cannot be read.
    pub async fn new() -> io::Result<Self> {
        // Notices are subscribed to first, so that no change is missed in between.
        let notices = system::Notices::new()?;
        Ok(Self { notices, reported: NetworkState::read().await? })
    }

    /// Returns the state reported last.
    #[must_use]
    pub const fn state(&self) -> &NetworkState {
        &self.reported
    }

    /// Waits for a change and returns the new state.
    ///
    /// # Errors
    /// If notices cannot be received, or the state cannot be read, any more.
    pub async fn changed(&mut self) -> io::Result<&NetworkState> {
        loop {
            self.notices.next().await?;
            let settled = async {
                while let Ok(notice) = tokio::time::timeout(SETTLE_TIME, self.notices.next()).await {
                    notice?;
                }
                Ok::<_, io::Error>(())
            };
            if let Ok(ended) = tokio::time::timeout(MAX_SETTLE_TIME, settled).await {
                ended?;
            }
            let now = NetworkState::read().await?;
            if now == self.reported {
                trace!(reason = "same addresses, gateways and networks", "notices of the network ignored");
            } else {
                let (addresses, gateways) = (now.addresses.len(), now.gateways.len());
                debug!(addresses, gateways, "network changed");
                trace!(before = ?self.reported, ?now, "network state");
                self.reported = now;
                return Ok(&self.reported);
            }
        }
    }
}

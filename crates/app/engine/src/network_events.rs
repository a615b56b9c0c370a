//! Watches the computer's own network: its addresses, routers and networks.

use std::net::IpAddr;

use partyline_platform::{NetworkState, NetworkWatch};
use tokio::{sync::mpsc, task::JoinHandle};

/// Where the engine learns of the network.
#[derive(Debug, Clone)]
pub(crate) enum NetworkSource {
    /// The operating system.
    System,
    /// A network that never changes, for tests on loopback.
    #[cfg(test)]
    Fixed(NetworkState),
}

/// Reports the network at once and after each change, until the receiver is dropped or the task aborted.
pub(crate) fn watch(source: NetworkSource, events: mpsc::Sender<NetworkState>) -> JoinHandle<()> {
    match source {
        NetworkSource::System => tokio::spawn(watch_system(events)),
        #[cfg(test)]
        NetworkSource::Fixed(state) => tokio::spawn(async move {
            let _ = events.send(state).await;
        }),
    }
}

async fn watch_system(events: mpsc::Sender<NetworkState>) {
    let mut watch = match NetworkWatch::new().await {
        Ok(watch) => watch,
        Err(error) => return tracing::warn!(%error, "changes of the network cannot be watched"),
    };
    let mut state = watch.state().clone();
    loop {
        tracing::info!(
            addresses = state.addresses.len(),
            gateways = state.gateways.len(),
            "the network changed"
        );
        tracing::debug!(?state, "the network's addresses and gateways");
        if events.send(state).await.is_err() {
            return;
        }
        state = match watch.changed().await {
            Ok(state) => state.clone(),
            Err(error) => return tracing::warn!(%error, "changes of the network can no longer be watched"),
        };
    }
}

/// Returns false for link-local addresses: an IPv6 one needs a scope that only this computer knows, and members on the
/// same link find each other by the LAN beacon.
pub(crate) fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_no_candidates() {
        let reachable = |address: &str| is_reachable(&address.parse().expect("an address"));
        assert!(reachable("192.168.1.7") && reachable("2001:db8::1") && reachable("fd00::1"));
        assert!(!reachable("169.254.1.7") && !reachable("fe80::1"));
    }
}

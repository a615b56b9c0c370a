//! What happens around the engine: the network changes, and the router opens ports ([`crate::ports`]).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use partyline_net::{BeaconInterface, BeaconSockets};
use partyline_platform::{LocalAddress, NetworkState, NetworkWatch, local_prefixes};
use tokio::{sync::mpsc, task::JoinHandle};

/// What the surroundings tell the loop.
#[derive(Debug)]
pub(crate) enum Surrounding {
    Network { state: NetworkState, prefixes: Vec<IpNet> },
    Mapped { addresses: Vec<SocketAddr> },
}

/// Watches the network until the loop ends.
pub(crate) fn watch(events: mpsc::Sender<Surrounding>) -> JoinHandle<()> {
    tokio::spawn(watch_network(events))
}

async fn watch_network(events: mpsc::Sender<Surrounding>) {
    let mut watch = match NetworkWatch::new().await {
        Ok(watch) => watch,
        Err(error) => return tracing::warn!(%error, "changes of the network cannot be watched"),
    };
    let mut state = watch.state().clone();
    loop {
        let prefixes = local_prefixes().await.unwrap_or_default();
        if events.send(Surrounding::Network { state, prefixes }).await.is_err() {
            return;
        }
        state = match watch.changed().await {
            Ok(state) => state.clone(),
            Err(error) => return tracing::warn!(%error, "changes of the network can no longer be watched"),
        };
    }
}

/// Interfaces on which LAN neighbours may be.
pub(crate) fn beacon_interfaces(addresses: &[LocalAddress]) -> Vec<BeaconInterface> {
    let mut interfaces: Vec<BeaconInterface> = Vec::new();
    for local in addresses {
        let Some(index) = local.index else { continue };
        let position = interfaces.iter().position(|known| known.index == index).unwrap_or_else(|| {
            interfaces.push(BeaconInterface { index, v4: None, v6: false });
            interfaces.len() - 1
        });
        match local.address {
            IpAddr::V4(address) => interfaces[position].v4 = interfaces[position].v4.or(Some(address)),
            IpAddr::V6(_) => interfaces[position].v6 = true,
        }
    }
    interfaces
}

/// Waits for a LAN beacon.
pub(crate) async fn hear(beacon: Option<&BeaconSockets>) -> std::io::Result<(Vec<u8>, SocketAddr)> {
    match beacon {
        Some(beacon) => beacon.receive().await,
        None => std::future::pending().await,
    }
}

/// Link-local IPv6 addresses need a scope that only this computer knows; neighbours find each other by beacon.
pub(crate) fn reachable(address: &std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => !v4.is_link_local(),
        std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

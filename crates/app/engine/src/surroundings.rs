//! What happens around the engine: the network changes, the computer sleeps, the router opens ports.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use partyline_net::{BeaconInterface, BeaconSockets, UdpEndpoint};
use partyline_platform::{
    Clock, LocalAddress, NetworkState, NetworkWatch, SleepWatch, local_prefixes, read, remove, replace,
};
use partyline_portmap::{MethodState, Options, PortMapper, Record, V6Place};
use tokio::{sync::mpsc, task::JoinHandle};

/// What the surroundings tell the loop.
#[derive(Debug)]
pub(crate) enum Surrounding {
    Network { state: NetworkState, prefixes: Vec<IpNet> },
    Woke,
    Mapped { addresses: Vec<SocketAddr> },
}

/// Watches network and sleep until the loop ends.
pub(crate) fn watch(clock: Clock, events: mpsc::Sender<Surrounding>) -> [JoinHandle<()>; 2] {
    let network = tokio::spawn(watch_network(events.clone()));
    let sleep = tokio::spawn(async move {
        let mut watch = SleepWatch::new(clock);
        loop {
            let slept = watch.woke().await;
            tracing::info!(seconds = slept.as_secs(), "the computer slept");
            if events.send(Surrounding::Woke).await.is_err() {
                return;
            }
        }
    });
    [network, sleep]
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

/// What the router's side of a network looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    local: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    others: Vec<Ipv4Addr>,
    v6: Option<V6Place>,
}

/// The port mapping on the router of the network this computer is in.
pub(crate) struct Ports {
    port: u16,
    port_v6: Option<u16>,
    seed: u64,
    notes: PathBuf,
    events: mpsc::Sender<Surrounding>,
    place: Option<Place>,
    /// Whether the router is asked at all.
    on: bool,
    mapper: Option<(PortMapper, JoinHandle<()>)>,
}

impl Ports {
    /// Mappings for a UDP socket; those that a crash would leave behind are noted in the state directory.
    pub(crate) fn new(udp: &UdpEndpoint, seed: u64, state: &Path, events: mpsc::Sender<Surrounding>) -> Self {
        let (port, port_v6, notes) = (udp.port(), udp.port_v6(), state.join("mappings.json"));
        Self { port, port_v6, seed, notes, events, place: None, on: true, mapper: None }
    }

    /// The same, asking or not.
    pub(crate) const fn enabled(mut self, on: bool) -> Self {
        self.on = on;
        self
    }

    /// Asks or not from the next [`Self::follow`] on; whether that is news.
    pub(crate) const fn enable(&mut self, on: bool) -> bool {
        let news = self.on != on;
        self.on = on;
        news
    }

    /// The socket has another port: the old mappings go, the next [`Self::follow`] asks for new ones.
    pub(crate) async fn move_to(&mut self, udp: &UdpEndpoint) {
        self.stop().await;
        (self.port, self.port_v6, self.place) = (udp.port(), udp.port_v6(), None);
    }

    /// Asks the router of this network, if it is another one than before.
    pub(crate) async fn follow(&mut self, state: &NetworkState) {
        let place = place(state, self.port_v6).filter(|_| self.on);
        if place != self.place {
            self.stop().await;
            self.mapper = place.as_ref().filter(|_| self.port != 0).map(|place| self.start(place));
            self.place = place;
        }
    }

    fn start(&self, place: &Place) -> (PortMapper, JoinHandle<()>) {
        let notes = self.notes.clone();
        let mapper = PortMapper::start(Options {
            other_ips: place.others.clone(),
            v6: place.v6,
            leftovers: leftovers(&self.notes),
            note: Some(Arc::new(move |records| note(&notes, records))),
            ..Options::new(self.port, place.local, place.gateway, self.seed)
        });
        let (mut mappings, events) = (mapper.mappings(), self.events.clone());
        let pass_on = tokio::spawn(async move {
            while mappings.changed().await.is_ok() {
                let addresses = mappings.borrow_and_update().iter().map(|mapping| mapping.external).collect();
                if events.send(Surrounding::Mapped { addresses }).await.is_err() {
                    return;
                }
            }
        });
        (mapper, pass_on)
    }

    /// How each method fares.
    pub(crate) fn states(&self) -> Vec<MethodState> {
        self.mapper.as_ref().map(|(mapper, _)| mapper.states().borrow().clone()).unwrap_or_default()
    }

    /// Takes the mappings back, and tells so.
    pub(crate) async fn stop(&mut self) {
        if let Some((mapper, pass_on)) = self.mapper.take() {
            pass_on.abort();
            mapper.stop().await;
            // The loop itself may be who reads: a full queue must not stop it. Then a later change tells.
            let _ = self.events.try_send(Surrounding::Mapped { addresses: Vec::new() });
        }
    }
}

/// What an earlier run has mapped and not deleted.
fn leftovers(path: &Path) -> Vec<Record> {
    let bytes =
        read(path).inspect_err(|error| tracing::warn!(%error, "noted port mappings are lost")).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn note(path: &Path, records: &[Record]) {
    let written = match serde_json::to_vec(records) {
        Ok(_) if records.is_empty() => remove(path),
        Ok(bytes) => replace(path, &bytes),
        Err(_) => return,
    };
    if let Err(error) = written {
        tracing::warn!(%error, "port mappings could not be noted for the case of a crash");
    }
}

/// This computer's addresses towards its routers. Without a default router, UPnP may still find one.
fn place(state: &NetworkState, port_v6: Option<u16>) -> Option<Place> {
    let mut locals: Vec<(Option<u32>, Ipv4Addr)> = Vec::new();
    for local in state.addresses.iter().filter(|local| !local.point_to_point) {
        match local.address {
            IpAddr::V4(address) if !address.is_link_local() => locals.push((local.index, address)),
            _ => {}
        }
    }
    let routed = state.gateways.iter().find_map(|gateway| {
        let IpAddr::V4(router) = gateway.address else { return None };
        let (_, local) = locals.iter().find(|(index, _)| *index == gateway.interface)?;
        Some((*local, Some(router)))
    });
    let (local, gateway) = routed.or_else(|| locals.first().map(|(_, local)| (*local, None)))?;
    let others = locals.iter().map(|(_, other)| *other).filter(|other| *other != local).collect();
    Some(Place { local, gateway, others, v6: place_v6(state, port_v6) })
}

/// The first global IPv6 address on the network of the IPv6 router.
fn place_v6(state: &NetworkState, port: Option<u16>) -> Option<V6Place> {
    let port = port?;
    state.gateways.iter().find_map(|gateway| {
        let (IpAddr::V6(router), Some(interface)) = (gateway.address, gateway.interface) else { return None };
        let address = state.addresses.iter().find_map(|local| match local.address {
            IpAddr::V6(ip) if local.index == Some(interface) && ip.segments()[0] & 0xe000 == 0x2000 => {
                Some(ip)
            }
            _ => None,
        })?;
        Some(V6Place { address, port, gateway: Some(router), interface })
    })
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

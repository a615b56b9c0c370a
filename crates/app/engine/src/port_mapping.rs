//! Port mappings for the main socket on the router of the present network.
//!
//! Deleting a mapping may take seconds, above all where the router is out of reach. So a task of its own moves from one
//! network to the next, and the loop, for which packets wait, only says where the computer is and takes the newest
//! [`RouterState`] whenever there is one.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use partyline_net::UdpEndpoint;
use partyline_platform::{NetworkState, read, remove, replace};
use partyline_portmap::{Ipv6Endpoint, MappingRecord, MethodState, Options, PortMapper};
use tokio::{sync::watch, task::JoinHandle};

/// Where the computer is, as far as its router is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    port: u16,
    local: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    others: Vec<Ipv4Addr>,
    v6: Option<Ipv6Endpoint>,
}

/// What the router of the present network does for the main socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RouterState {
    /// The external addresses of all mappings, best first.
    pub mapped: Vec<SocketAddr>,
    /// The state of each protocol; none where there is no router to ask.
    pub protocols: Vec<MethodState>,
}

/// Where the engine learns what the router does.
#[derive(Debug, Clone)]
pub(crate) enum RouterSource {
    /// The routers of the networks that the computer is in.
    Network,
    /// A router that exists in a test only.
    #[cfg(test)]
    Simulated(watch::Receiver<RouterState>),
}

/// Keeps the main socket's port mappings; see the module.
pub(crate) struct PortMapping {
    port: u16,
    port_v6: Option<u16>,
    /// Whether the router is asked at all.
    enabled: bool,
    location: watch::Sender<Option<Location>>,
    remotes: watch::Sender<Vec<SocketAddr>>,
    router: watch::Receiver<RouterState>,
    task: Option<JoinHandle<()>>,
}

impl PortMapping {
    /// Mappings for a UDP socket. Those that a crash would leave behind are recorded in the state directory.
    pub(crate) fn new(source: RouterSource, udp: &UdpEndpoint, seed: u64, state: &Path) -> Self {
        match source {
            RouterSource::Network => Self::start(udp, seed, state),
            #[cfg(test)]
            RouterSource::Simulated(router) => Self::simulated(udp, router),
        }
    }

    fn start(udp: &UdpEndpoint, seed: u64, state: &Path) -> Self {
        let (location, locations) = watch::channel(None);
        let (published, router) = watch::channel(RouterState::default());
        let (remotes, watched_remotes) = watch::channel(Vec::new());
        let record = state.join("mappings.json");
        let keeper = Keeper { seed, record, published, remotes: watched_remotes };
        let task = Some(tokio::spawn(keeper.run(locations)));
        Self { port: udp.port(), port_v6: udp.port_v6(), enabled: true, location, remotes, router, task }
    }

    /// Asks no router, but takes what a test says that one does.
    #[cfg(test)]
    pub(crate) fn simulated(udp: &UdpEndpoint, router: watch::Receiver<RouterState>) -> Self {
        let (location, remotes) = (watch::Sender::new(None), watch::Sender::new(Vec::new()));
        Self {
            port: udp.port(),
            port_v6: udp.port_v6(),
            enabled: true,
            location,
            remotes,
            router,
            task: None,
        }
    }

    /// The same, enabled or not.
    pub(crate) const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Enables or disables mappings from the next [`Self::follow`] on. Returns true if that is a change.
    pub(crate) const fn enable(&mut self, enabled: bool) -> bool {
        let changed = self.enabled != enabled;
        self.enabled = enabled;
        changed
    }

    /// Takes the main socket's new port, which is mapped from the next [`Self::follow`] on.
    pub(crate) fn move_to(&mut self, udp: &UdpEndpoint) {
        (self.port, self.port_v6) = (udp.port(), udp.port_v6());
    }

    /// Asks the router of this network, once the mappings on the network before are deleted. Returns true if that is
    /// another router or port than before, so that what [`Self::router`] says is void until the next change.
    pub(crate) fn follow(&mut self, state: &NetworkState) -> bool {
        let location = locate(state, (self.port, self.port_v6)).filter(|_| self.enabled);
        let moved = self.location.send_if_modified(|known| {
            let changed = *known != location;
            if changed {
                tracing::debug!(?location, "mapping ports at another location");
            }
            *known = location;
            changed
        });
        if moved {
            self.router.mark_unchanged();
        }
        moved
    }

    /// Takes the servers that the socket talks to: a router that maps no ports is asked to keep the flows to them.
    pub(crate) fn set_remotes(&self, servers: Vec<SocketAddr>) {
        self.remotes.send_if_modified(|known| {
            let changed = *known != servers;
            *known = servers;
            changed
        });
    }

    /// Waits until the router does something else than was seen last; forever once [`Self::stop`] was called.
    /// Cancelling it loses nothing.
    pub(crate) async fn changed(&mut self) {
        if self.router.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns what the router does now, and takes note that it was seen.
    pub(crate) fn take_router(&mut self) -> RouterState {
        self.router.borrow_and_update().clone()
    }

    /// Returns the state of each protocol.
    pub(crate) fn states(&self) -> Vec<MethodState> {
        self.router.borrow().protocols.clone()
    }

    /// Deletes the mappings, and waits until that is done, for some seconds at most.
    pub(crate) async fn stop(&mut self) {
        // The task ends when its locations end.
        (self.location, _) = watch::channel(None);
        if let Some(task) = self.task.take() {
            // It only fails if it panicked, which the panic hook has reported.
            let _ = task.await;
        }
    }
}

/// The task.
struct Keeper {
    seed: u64,
    record: PathBuf,
    published: watch::Sender<RouterState>,
    remotes: watch::Receiver<Vec<SocketAddr>>,
}

impl Keeper {
    /// Keeps mappings at one location after the other, until there will be no more locations.
    async fn run(mut self, mut locations: watch::Receiver<Option<Location>>) {
        loop {
            let location = locations.borrow_and_update().clone();
            let mapper = location.map(|location| self.start(&location));
            let more = match &mapper {
                Some(mapper) => self.forward(mapper, &mut locations).await,
                None => locations.changed().await.is_ok(),
            };
            if let Some(mapper) = mapper {
                self.publish(RouterState::default());
                mapper.stop().await;
            }
            if !more {
                return;
            }
        }
    }

    /// Forwards what a mapper reports until the location changes; false if there will be no more locations.
    async fn forward(
        &mut self,
        mapper: &PortMapper,
        locations: &mut watch::Receiver<Option<Location>>,
    ) -> bool {
        let (mut mappings, mut states) = (mapper.mappings(), mapper.states());
        loop {
            mapper.set_remotes(self.remotes.borrow_and_update().clone());
            self.publish(RouterState {
                mapped: mappings.borrow_and_update().iter().map(|mapping| mapping.external).collect(),
                protocols: states.borrow_and_update().clone(),
            });
            tokio::select! {
                location = locations.changed() => return location.is_ok(),
                Ok(()) = states.changed() => {}
                Ok(()) = self.remotes.changed() => {}
                Ok(()) = mappings.changed() => {}
            }
        }
    }

    /// Publishes what the router does now, if that is something else; a mere renewal is not.
    fn publish(&self, state: RouterState) {
        self.published.send_if_modified(|known| {
            if known.mapped != state.mapped {
                tracing::debug!(before = ?known.mapped, now = ?state.mapped, "the router's port mappings changed");
            }
            let changed = *known != state;
            *known = state;
            changed
        });
    }

    fn start(&self, location: &Location) -> PortMapper {
        let record = self.record.clone();
        PortMapper::start(Options {
            other_ips: location.others.clone(),
            v6: location.v6,
            previous_records: leftovers(&self.record),
            record_sink: Some(Arc::new(move |records| write_record(&record, records))),
            ..Options::new(location.port, location.local, location.gateway, self.seed)
        })
    }
}

/// Reads what an earlier run mapped and did not delete.
fn leftovers(path: &Path) -> Vec<MappingRecord> {
    let bytes = read(path)
        .inspect_err(|error| tracing::warn!(%error, "the record of port mappings cannot be read"))
        .ok()
        .flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_record(path: &Path, records: &[MappingRecord]) {
    let written = match serde_json::to_vec(records) {
        Ok(_) if records.is_empty() => remove(path),
        Ok(bytes) => replace(path, &bytes),
        Err(_) => return,
    };
    if let Err(error) = written {
        tracing::warn!(%error, "the record of port mappings cannot be written");
    }
}

/// Finds this computer's addresses towards its routers. Without a default router, UPnP may still find one.
fn locate(state: &NetworkState, (port, port_v6): (u16, Option<u16>)) -> Option<Location> {
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
    (port != 0).then(|| Location { port, local, gateway, others, v6: locate_v6(state, port_v6) })
}

/// Finds the first global IPv6 address on the network of the IPv6 router.
fn locate_v6(state: &NetworkState, port: Option<u16>) -> Option<Ipv6Endpoint> {
    let port = port?;
    state.gateways.iter().find_map(|gateway| {
        let (IpAddr::V6(router), Some(interface)) = (gateway.address, gateway.interface) else { return None };
        let address = state.addresses.iter().find_map(|local| match local.address {
            IpAddr::V6(ip) if local.index == Some(interface) && ip.segments()[0] & 0xe000 == 0x2000 => {
                Some(ip)
            }
            _ => None,
        })?;
        Some(Ipv6Endpoint { address, port, gateway: Some(router), interface })
    })
}

#[cfg(test)]
mod tests {
    use partyline_platform::{Gateway, LocalAddress};

    use super::*;

    fn local(index: u32, address: &str) -> LocalAddress {
        LocalAddress {
            interface: format!("eth{index}"),
            index: Some(index),
            address: address.parse().unwrap(),
            prefix: 24,
            point_to_point: false,
            card: partyline_model::CardKind::Physical,
            deprecated: false,
        }
    }

    fn gateway(interface: u32, address: &str) -> Gateway {
        Gateway { address: address.parse().unwrap(), interface: Some(interface) }
    }

    #[test]
    fn the_address_towards_the_default_router_is_mapped() {
        let state = NetworkState {
            addresses: vec![
                local(2, "169.254.1.1"),
                local(2, "10.0.0.7"),
                local(3, "192.168.1.7"),
                local(3, "fe80::7"),
                local(3, "2001:db8::7"),
            ],
            gateways: vec![gateway(3, "192.168.1.1"), gateway(3, "fe80::1")],
            ..NetworkState::default()
        };
        let location = locate(&state, (41_641, Some(41_642))).unwrap();
        assert_eq!(location.local, Ipv4Addr::new(192, 168, 1, 7));
        assert_eq!(location.gateway, Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(location.others, [Ipv4Addr::new(10, 0, 0, 7)]);
        let v6 = location.v6.unwrap();
        assert_eq!((v6.address, v6.port), ("2001:db8::7".parse().unwrap(), 41_642));
        assert_eq!((v6.gateway, v6.interface), (Some("fe80::1".parse().unwrap()), 3));
    }

    #[tokio::test]
    async fn what_the_former_router_did_is_void_on_another_network() {
        let (router, watched) = watch::channel(RouterState::default());
        let udp = UdpEndpoint::bind(0).unwrap();
        let mut mapping = PortMapping::simulated(&udp, watched);
        let state = RouterState { mapped: vec![([203, 0, 113, 9], 7000).into()], protocols: Vec::new() };
        router.send_replace(state.clone());
        mapping.changed().await;
        assert_eq!(mapping.take_router(), state);
        router.send_replace(RouterState::default());
        let home = NetworkState { addresses: vec![local(2, "10.0.0.7")], ..NetworkState::default() };
        assert!(mapping.follow(&home) && !mapping.follow(&home), "the network is another one once");
        let is_pending = tokio::select! {
            biased;
            () = mapping.changed() => false,
            () = std::future::ready(()) => true,
        };
        assert!(is_pending, "a change that was not seen before the move");
        router.send_replace(state.clone());
        mapping.changed().await;
        assert_eq!(mapping.take_router(), state);
    }

    #[test]
    fn without_a_router_the_first_address_is_mapped_and_without_a_port_nothing() {
        let tunnel = LocalAddress { point_to_point: true, ..local(1, "10.8.0.2") };
        let state = NetworkState { addresses: vec![tunnel, local(2, "10.0.0.7")], ..NetworkState::default() };
        let location = locate(&state, (41_641, None)).unwrap();
        assert_eq!((location.local, location.gateway), (Ipv4Addr::new(10, 0, 0, 7), None));
        assert!(locate(&state, (0, None)).is_none());
        assert!(locate(&NetworkState::default(), (41_641, None)).is_none());
    }
}

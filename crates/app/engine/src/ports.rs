//! The port that the router of this network opens for the tunnel's socket.
//!
//! Taking a mapping back may last seconds, above all where the router is out of reach. So a task of its own goes from
//! one network to the next, and the loop, on which packets wait, only says where it is.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use partyline_net::UdpEndpoint;
use partyline_platform::{NetworkState, read, remove, replace};
use partyline_portmap::{MethodState, Options, PortMapper, Record, V6Place};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::surroundings::Surrounding;

/// What the router's side of a network looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    port: u16,
    local: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    others: Vec<Ipv4Addr>,
    v6: Option<V6Place>,
}

/// The port mapping on the router of the network this computer is in.
pub(crate) struct Ports {
    port: u16,
    port_v6: Option<u16>,
    /// Whether the router is asked at all.
    on: bool,
    place: watch::Sender<Option<Place>>,
    remotes: watch::Sender<Vec<SocketAddr>>,
    states: watch::Receiver<Vec<MethodState>>,
    task: Option<JoinHandle<()>>,
}

impl Ports {
    /// Mappings for a UDP socket; those that a crash would leave behind are noted in the state directory.
    pub(crate) fn new(udp: &UdpEndpoint, seed: u64, state: &Path, events: mpsc::Sender<Surrounding>) -> Self {
        let (place, places) = watch::channel(None);
        let (told, states) = watch::channel(Vec::new());
        let (remotes, talks_to) = watch::channel(Vec::new());
        let keeper = Keeper { seed, notes: state.join("mappings.json"), events, told, talks_to };
        let task = Some(tokio::spawn(keeper.follow(places)));
        Self { port: udp.port(), port_v6: udp.port_v6(), on: true, place, remotes, states, task }
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

    /// The socket has another port: from the next [`Self::follow`] on, that one is asked for.
    pub(crate) fn move_to(&mut self, udp: &UdpEndpoint) {
        (self.port, self.port_v6) = (udp.port(), udp.port_v6());
    }

    /// Asks the router of this network, if it is another one than before, once the old mappings are taken back.
    pub(crate) fn follow(&self, state: &NetworkState) {
        let place = place(state, (self.port, self.port_v6)).filter(|_| self.on);
        self.place.send_if_modified(|known| {
            let news = *known != place;
            *known = place;
            news
        });
    }

    /// The servers that the socket talks to: a router that opens no ports is asked to keep the way to them.
    pub(crate) fn talk_to(&self, servers: Vec<SocketAddr>) {
        self.remotes.send_if_modified(|known| {
            let news = *known != servers;
            *known = servers;
            news
        });
    }

    /// How each method fares.
    pub(crate) fn states(&self) -> Vec<MethodState> {
        self.states.borrow().clone()
    }

    /// Takes the mappings back, and waits until that is done, for some seconds at most.
    pub(crate) async fn stop(&mut self) {
        // Without anybody to say where it is, the task ends.
        (self.place, _) = watch::channel(None);
        if let Some(task) = self.task.take() {
            // It only fails if it panicked, which it has told itself.
            let _ = task.await;
        }
    }
}

/// The task.
struct Keeper {
    seed: u64,
    notes: PathBuf,
    events: mpsc::Sender<Surrounding>,
    told: watch::Sender<Vec<MethodState>>,
    talks_to: watch::Receiver<Vec<SocketAddr>>,
}

impl Keeper {
    /// Keeps a mapping at one place after the other, until nobody says any more where that is.
    async fn follow(mut self, mut places: watch::Receiver<Option<Place>>) {
        loop {
            let place = places.borrow_and_update().clone();
            let mapper = place.map(|place| self.start(&place));
            let goes_on = match &mapper {
                Some(mapper) => self.tell(mapper, &mut places).await,
                None => places.changed().await.is_ok(),
            };
            if let Some(mapper) = mapper {
                self.told.send_replace(Vec::new());
                self.say(Vec::new());
                mapper.stop().await;
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Passes on what a mapper says until the place is another one; false at the end of all.
    async fn tell(&mut self, mapper: &PortMapper, places: &mut watch::Receiver<Option<Place>>) -> bool {
        let (mut mappings, mut states) = (mapper.mappings(), mapper.states());
        loop {
            mapper.set_remotes(self.talks_to.borrow_and_update().clone());
            self.told.send_replace(states.borrow_and_update().clone());
            tokio::select! {
                place = places.changed() => return place.is_ok(),
                Ok(()) = states.changed() => {}
                Ok(()) = self.talks_to.changed() => {}
                Ok(()) = mappings.changed() => {
                    self.say(mappings.borrow_and_update().iter().map(|mapping| mapping.external).collect());
                }
            }
        }
    }

    /// At the end the loop waits for this task: so this one must not wait for room in its queue. A later change tells.
    fn say(&self, addresses: Vec<SocketAddr>) {
        if self.events.try_send(Surrounding::Mapped { addresses }).is_err() {
            tracing::debug!("nobody takes what the router opened");
        }
    }

    fn start(&self, place: &Place) -> PortMapper {
        let notes = self.notes.clone();
        PortMapper::start(Options {
            other_ips: place.others.clone(),
            v6: place.v6,
            leftovers: leftovers(&self.notes),
            note: Some(Arc::new(move |records| note(&notes, records))),
            ..Options::new(place.port, place.local, place.gateway, self.seed)
        })
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
fn place(state: &NetworkState, (port, port_v6): (u16, Option<u16>)) -> Option<Place> {
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
    (port != 0).then(|| Place { port, local, gateway, others, v6: place_v6(state, port_v6) })
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

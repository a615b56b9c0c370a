//! Strangers that crowd the server while friends meet there.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use partyline_model::{AddressScope, PathKind};
use partyline_net::{Roots, TlsClient, connect_ws};
use partyline_wire::rendezvous::ClientFrame;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::sleep,
};

use super::{Server, World, traffic_check::exchange_traffic, world::CONNECT_TIMEOUT};
use crate::{Host, RouterOptions, until, wait::that, worker::Worker};

/// Computers of strangers, and connections from each: the server takes 256 from one address.
const COMPUTERS: usize = 4;
const CONNECTIONS: usize = 250;
/// Frames that each connection sends at once. All of one computer are more than the server takes from one address.
const FRAMES: u64 = 8;
/// How often a computer looks whether it is to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// UDP port of the relay.
const RELAY_PORT: u16 = 3478;
/// Requests to the relay sent at once, and the pause afterwards: about 2,000 a second from each computer.
const REQUESTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Lets strangers open a thousand connections, send more frames than they may, and ask the relay for allocations without
/// credentials. Then two members meet at the server, and play by its relay.
pub(super) fn strangers_at_the_server(world: &World) -> Result<()> {
    let server = world.server()?;
    let address: Ipv4Addr = server.name().parse()?;
    let mut crowds = Vec::new();
    for number in 1..=COMPUTERS {
        let host = world.lab.server(&format!("strangers{number}"))?;
        crowds.push((Crowd::start(&host, &server)?, ask_relay(&host, address)?));
    }
    for (crowd, _) in &crowds {
        crowd.wait_for(CONNECTIONS)?;
    }
    let hosts = [world.lab.home("anna", RouterOptions::HOME)?, world.lab.home("ben", RouterOptions::HOME)?];
    world.lab.block_udp(&hosts[0], &hosts[1])?;
    let members = world.party(Some(&server), hosts.into())?;
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    exchange_traffic(&members[0], &members[1])?;
    let connected: usize = crowds.iter().map(|(crowd, _)| crowd.connected()).sum();
    let mut requests = 0;
    for (crowd, asking) in crowds {
        crowd.worker.stop()?;
        requests += asking.stop()?;
    }
    world.note("connections", connected);
    world.note("relay_requests", requests);
    ensure!(connected > COMPUTERS * CONNECTIONS / 2, "only {connected} strangers stayed");
    Ok(())
}

/// The connections from one computer of strangers.
struct Crowd {
    connected: Arc<AtomicUsize>,
    worker: Worker,
}

impl Crowd {
    fn start(host: &Host, server: &Server) -> Result<Self> {
        let client = TlsClient::new(&Roots { extra_ca: Some(Server::authority(host.directory())) })?;
        let connected = Arc::new(AtomicUsize::new(0));
        let (count, url, host) = (Arc::clone(&connected), server.url(), host.clone());
        let worker = Worker::start(move |stop| host.enter(|| hold(&url, &client, &count, stop))?);
        Ok(Self { connected, worker })
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    fn wait_for(&self, count: usize) -> Result<()> {
        until("strangers to connect", CONNECT_TIMEOUT, || {
            let connected = self.connected();
            that(connected >= count, || format!("{connected} are"))
        })
    }
}

/// Opens the connections and holds them until it is to stop.
fn hold(url: &str, client: &TlsClient, connected: &Arc<AtomicUsize>, stop: &AtomicBool) -> Result<()> {
    let runtime: Runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut strangers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            strangers.spawn(stranger(url.to_owned(), client.clone(), Arc::clone(connected)));
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(POLL_INTERVAL).await;
        }
    });
    Ok(())
}

/// Connects, sends frames, and reads until the server closes the connection.
async fn stranger(url: String, client: TlsClient, connected: Arc<AtomicUsize>) -> Result<()> {
    let mut socket = connect_ws(&url, &client, AddressScope::Any).await?;
    connected.fetch_add(1, Ordering::Relaxed);
    for echo in 0..FRAMES {
        socket.send(ClientFrame::Time { echo }.encode()?).await?;
    }
    while let Some(Ok(_)) = socket.next().await {}
    connected.fetch_sub(1, Ordering::Relaxed);
    Ok(())
}

/// Sends Allocate requests (RFC 8656) without credentials until stopped. Returns how many.
fn ask_relay(host: &Host, server: Ipv4Addr) -> Result<Worker<usize>> {
    let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.connect((server, RELAY_PORT))?;
    let mut request = [7; 20];
    request[..8].copy_from_slice(&[0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    Ok(Worker::start(move |stop| {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..REQUESTS {
                sent += usize::from(socket.send(&request).is_ok());
            }
            // The pace of the requests.
            thread::sleep(PAUSE);
        }
        Ok(sent)
    }))
}

//! A member: a node with its socket and its connection to the server, in a task of its own.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, RcvBufForce},
};
use partyline_model::{AddressScope, Command, DeviceId, Now, PartyId, Reply, Settings, Timestamp};
use partyline_net::{TlsClient, WebSocket, connect_ws};
use partyline_node::{
    Config, Deliver, DeviceInput, Egress, Local, LocalNetwork, NetcheckConfig, Node, Output, PACKET_ROOM,
    PathsConfig, ServerId, ServerInput, SocketId, Transmit,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::members::server::Server;

/// Interval at which a member publishes the devices it is connected to.
const SHOW: Duration = Duration::from_millis(500);
/// Maximum time between two runs of the loop.
const IDLE: Duration = Duration::from_secs(1);
const QUEUE: usize = 4096;
const LARGEST: usize = 2048;
/// Size of the receive buffer in bytes, and number of datagrams read per turn, as in the engine.
const BUFFER: usize = 4 << 20;
const BATCH: usize = 64;

/// Counters and flags shared by all members.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Number of datagrams sent.
    pub(super) datagrams: AtomicUsize,
    /// True once all members are connected, so that none has to publish its connections any more.
    pub(super) rests: AtomicBool,
}

/// A running member. Its task ends with the runtime, not when this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    /// The invite link, if this member created the party.
    pub(super) link: String,
    pub(super) device: DeviceId,
    found: Found,
}

/// The devices that a member is connected to.
type Found = Arc<Mutex<BTreeSet<DeviceId>>>;

/// The state of a member's task.
struct Task {
    node: Box<Node>,
    socket: UdpSocket,
    tls: TlsClient,
    server: Option<(ServerId, mpsc::Sender<Vec<u8>>)>,
    events: mpsc::Receiver<(ServerId, ServerInput)>,
    happens: mpsc::Sender<(ServerId, ServerInput)>,
    answer: Option<oneshot::Sender<Reply>>,
    counts: Arc<Counts>,
    found: Found,
    party: Option<PartyId>,
    shown: Instant,
}

impl Member {
    /// Starts the member that creates the party.
    pub(super) async fn host(server: &Server, counts: &Arc<Counts>) -> Result<Self> {
        let create = Command::Create {
            name: "Mesh".to_owned(),
            display_name: "member 0".to_owned(),
            servers: vec![server.url.clone()],
            range: None,
        };
        let (mut host, reply) = Self::start(server, counts, 0, create).await?;
        let Reply::Created { link, .. } = reply else { bail!("no party: {reply:?}") };
        host.link = link;
        Ok(host)
    }

    /// Starts a member that joins the party.
    pub(super) async fn guest(
        server: &Server,
        counts: &Arc<Counts>,
        number: usize,
        link: &str,
    ) -> Result<Self> {
        let join = Command::Join { link: link.to_owned(), display_name: format!("member {number}") };
        Ok(Self::start(server, counts, number, join).await?.0)
    }

    /// Returns the devices that the member is connected to.
    pub(super) fn found(&self) -> BTreeSet<DeviceId> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn start(
        server: &Server,
        counts: &Arc<Counts>,
        number: usize,
        command: Command,
    ) -> Result<(Self, Reply)> {
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + u32::try_from(number)?);
        let socket = UdpSocket::bind((ip, 0)).await?;
        // Without CAP_NET_ADMIN the size is subject to the system's limit.
        let _ = setsockopt(&socket, RcvBufForce, &BUFFER).or_else(|_| setsockopt(&socket, RcvBuf, &BUFFER));
        let port = socket.local_addr()?.port();
        let (found, (answer, answered)) = (Found::default(), oneshot::channel());
        let (happens, events) = mpsc::channel(QUEUE);
        let node = node(server, number)?;
        let device = node.device();
        let mut task = Task {
            node,
            socket,
            tls: server.client.clone(),
            server: None,
            events,
            happens,
            answer: Some(answer),
            counts: counts.clone(),
            found: Arc::clone(&found),
            party: None,
            shown: Instant::now(),
        };
        let local = LocalNetwork {
            addresses: vec![IpAddr::V4(ip).into()],
            port_v4: Some(port),
            ..LocalNetwork::default()
        };
        task.node.handle_network(now(), local);
        task.node.handle_command(now(), 1, command);
        tokio::spawn(task.run());
        let member = Self { link: String::new(), device, found };
        Ok((member, answered.await.context("the command failed")?))
    }
}

/// Creates the node of a new device. Its keys protect nothing, so the seed need not be random.
fn node(server: &Server, number: usize) -> Result<Box<Node>> {
    let now = now();
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed[8..16].copy_from_slice(&now.unix.0.to_le_bytes());
    let config = Config {
        // The relays that it names are on this computer, where only servers that the user named may have any.
        settings: Settings { servers: vec![server.url.clone()], ..Settings::default() },
        version: "bench".to_owned(),
        paths: PathsConfig::default(),
        netcheck: NetcheckConfig::default(),
    };
    Ok(Box::new(Node::new(now, seed, config, None)?))
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix: Timestamp(0).plus(unix) }
}

impl Task {
    async fn run(mut self) {
        let (mut datagram, mut packet) = ([0; LARGEST], vec![0; PACKET_ROOM + LARGEST]);
        loop {
            self.pump();
            let due = self.node.poll_timeout().into_iter().chain(self.looks_at()).min();
            let wait = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                _ = self.socket.readable() => {
                    for _ in 0..BATCH {
                        let Ok((len, from)) = self.socket.try_recv_from(&mut datagram) else { break };
                        let (bytes, main) = (&datagram[..len], SocketId::MAIN);
                        self.node.handle_datagram(now(), main, from, bytes, &mut packet, &mut Out::default());
                    }
                }
                Some((id, input)) = self.events.recv() => self.node.handle_server(now(), id, input),
                () = sleep(wait) => {}
            }
            let now = now();
            if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
                self.node.handle_timeout(now);
            }
            self.show(now);
        }
    }

    /// Returns the time at which the member publishes its connections next.
    fn looks_at(&self) -> Option<Instant> {
        (!self.counts.rests.load(Ordering::Relaxed)).then(|| self.shown + SHOW)
    }

    /// Publishes the devices that the member is connected to, if it is time.
    fn show(&mut self, now: Now) {
        if self.looks_at().is_none_or(|at| now.instant < at) {
            return;
        }
        self.shown = now.instant;
        let found = self.party.into_iter().flat_map(|party| self.node.connected(party)).collect();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    fn pump(&mut self) {
        loop {
            let mut out = Out::default();
            self.node.flush(now(), &mut out);
            out.0.into_iter().for_each(|(to, bytes)| self.send(to, &bytes));
            let Some(output) = self.node.poll_output() else { return };
            self.perform(output);
            while let Some(output) = self.node.poll_output() {
                self.perform(output);
            }
        }
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.counts.datagrams.fetch_add(1, Ordering::Relaxed);
        // If the socket's buffer is full, the datagram is dropped, as in a congested network.
        let _ = self.socket.try_send_to(bytes, to);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::DeviceUp { party, .. } => {
                self.party = Some(party);
                self.node.handle_device(now(), party, DeviceInput::Up("mesh0".to_owned()));
            }
            Output::ServerOpen { id, url, .. } => self.open(id, url),
            Output::ServerSend { id, frame } => {
                if let Some((_, frames)) = self.server.as_ref().filter(|(open, _)| *open == id) {
                    let _ = frames.try_send(frame);
                }
            }
            Output::ServerClose { .. } => self.server = None,
            Output::Resolve { host, port } => {
                let address = host.parse::<IpAddr>().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                self.node.handle_resolved(now(), host, port, vec![SocketAddr::new(address, port)]);
            }
            Output::Answer { result, .. } => {
                if let (Ok(reply), Some(answer)) = (*result, self.answer.take()) {
                    let _ = answer.send(reply);
                }
            }
            Output::OpenSockets { ids } => {
                let none: Vec<(SocketId, Option<u16>)> = ids.into_iter().map(|id| (id, None)).collect();
                self.node.handle_sockets_opened(now(), &none);
            }
            // The benchmark has no router, disk or LAN, and reaches the relay by UDP.
            _ => {}
        }
    }

    fn open(&mut self, id: ServerId, url: String) {
        let (frames, queue) = mpsc::channel(QUEUE);
        self.server = Some((id, frames));
        let (tls, events) = (self.tls.clone(), self.happens.clone());
        tokio::spawn(async move {
            if let Ok(socket) = connect_ws(&url, &tls, AddressScope::Any).await {
                carry(id, socket, queue, &events).await;
            }
            let _ = events.send((id, ServerInput::Closed(None))).await;
        });
    }
}

/// Forwards frames in both directions until the connection ends or is dropped.
async fn carry(
    id: ServerId,
    mut socket: WebSocket,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<(ServerId, ServerInput)>,
) {
    let _ = events.send((id, ServerInput::Opened)).await;
    loop {
        tokio::select! {
            frame = queue.recv() => {
                let Some(frame) = frame else { return };
                if socket.send(frame).await.is_err() {
                    return;
                }
            }
            message = socket.next() => match message {
                Some(Ok(frame)) => drop(events.send((id, ServerInput::Frame(frame))).await),
                _ => return,
            },
        }
    }
}

/// The datagrams that the node sends at once.
#[derive(Default)]
struct Out(VecDeque<(SocketAddr, Vec<u8>)>);

impl Egress for Out {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        if local == Local::Socket(SocketId::MAIN) {
            self.0.extend(bytes.chunks(segment).map(|datagram| (destination, datagram.to_vec())));
        }
    }

    fn deliver(&mut self, _: Deliver<'_>) {}
}

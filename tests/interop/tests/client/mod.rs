//! A real coturn on loopback, and members with real sockets around the path machine.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use partyline_model::{Candidate, CandidateKind};
use partyline_paths::{
    Config, Event, Handled, Hop, Local, Paths, PeerId, PeerParams, RelayServer, RelayTransport, Route,
    SocketId, StreamId,
};
use partyline_wire::{datagram::Deframer, probe::Tag};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::mpsc,
    time::Instant,
};

/// Time limit for every condition.
const LIMIT: Duration = Duration::from_secs(30);
const PEER: PeerId = PeerId(0);

/// A coturn that is killed at the end of the test.
pub struct Coturn {
    pub address: SocketAddr,
    directory: PathBuf,
    child: Child,
}

impl Coturn {
    /// Starts coturn on a free port of 127.0.0.1 and waits until it accepts connections.
    pub async fn start(name: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let directory = std::env::temp_dir().join(format!("partyline-coturn-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let child = launch(&directory, address);
        let coturn = Self { address, directory, child };
        coturn.ready().await;
        coturn
    }

    /// Kills coturn and starts it again on the same port.
    pub async fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.directory, self.address);
        self.ready().await;
    }

    async fn ready(&self) {
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(self.address).await.is_err() {
            assert!(Instant::now() < deadline, "coturn does not accept connections");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stop(&mut self) {
        self.child.kill().expect("coturn can be killed");
        self.child.wait().expect("coturn ends");
    }

    /// Returns the description of this relay for one transport.
    pub fn way(&self, transport: RelayTransport, password: &str) -> RelayServer {
        RelayServer {
            name: "coturn".into(),
            transport,
            address: self.address,
            host: "localhost".into(),
            username: "user".into(),
            password: password.into(),
        }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn launch(directory: &std::path::Path, address: SocketAddr) -> Child {
    Command::new("turnserver")
        .args([
            "-n",
            "--lt-cred-mech",
            "--user=user:secret",
            "--realm=partyline.test",
            "--no-cli",
            "--no-tls",
        ])
        .args(["--no-dtls", "--allow-loopback-peers", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"])
        .args(["--no-multicast-peers", "--simple-log", "--log-file=stdout"])
        .arg(format!("--listening-port={}", address.port()))
        .arg(format!("--pidfile={}", directory.join("pid").display()))
        .arg(format!("--userdb={}", directory.join("db").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("coturn is installed")
}

/// Events of the TCP streams.
enum Report {
    Opened(StreamId),
    Message(StreamId, Vec<u8>),
    Closed(StreamId),
}

/// A member: the path machine, its UDP socket and its streams.
pub struct Member {
    pub paths: Paths,
    pub received: Vec<Vec<u8>>,
    pub candidates: Vec<Candidate>,
    udp: UdpSocket,
    streams: BTreeMap<StreamId, mpsc::UnboundedSender<Vec<u8>>>,
    reports: mpsc::UnboundedReceiver<(Report, SocketAddr)>,
    report: mpsc::UnboundedSender<(Report, SocketAddr)>,
    index: u8,
}

impl Member {
    pub async fn new(index: u8, servers: Vec<RelayServer>) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let now = std::time::Instant::now();
        let mut paths = Paths::new([index + 1; 32], Config { direct: false, ..Config::default() });
        paths.set_relays(now, servers);
        let address = udp.local_addr().expect("its address");
        paths.set_local(now, vec![Candidate { kind: CandidateKind::Host, address }]);
        let (report, reports) = mpsc::unbounded_channel();
        Self {
            paths,
            received: Vec::new(),
            candidates: Vec::new(),
            udp,
            streams: BTreeMap::new(),
            reports,
            report,
            index,
        }
    }

    /// Adds the other member as the peer, with its present candidates.
    pub fn meet(&mut self, other: &Self) {
        let params = PeerParams {
            probe_key: [7; 32],
            local_tag: Tag([self.index; 8]),
            remote_tag: Tag([other.index; 8]),
            controlling: self.index < other.index,
            nat: partyline_model::NatProfile::default(),
            candidates: other.candidates.clone(),
        };
        self.paths.set_peer(std::time::Instant::now(), PEER, params);
    }

    /// Returns the relayed candidate, if any.
    pub fn relayed(&self) -> Option<Candidate> {
        self.candidates.iter().find(|c| c.kind == CandidateKind::Relayed).copied()
    }

    /// Sends a tunnel message. Returns false if there is no path.
    pub async fn send(&mut self, message: &[u8]) -> bool {
        let Some(Route { primary, secondary }) = self.paths.route(std::time::Instant::now(), PEER) else {
            return false;
        };
        for hop in std::iter::once(primary).chain(secondary) {
            let Hop { local, destination: dst, .. } = hop;
            let mut bytes = hop.header(message.len()).map(Vec::from).unwrap_or_default();
            bytes.extend(message);
            bytes.resize(bytes.len() + hop.padding(message.len()), 0);
            self.put(local, dst, bytes).await;
        }
        true
    }

    async fn put(&mut self, local: Local, dst: SocketAddr, bytes: Vec<u8>) {
        match local {
            // ECONNREFUSED from a closed port is reported by a later call, and means no more than a lost packet.
            Local::Socket(_) => drop(self.udp.send_to(&bytes, dst).await),
            Local::Stream(stream) => {
                if let Some(sender) = self.streams.get(&stream) {
                    let _ = sender.send(bytes);
                }
            }
            // No member relays in these tests.
            Local::Member(_) => {}
        }
    }

    /// Carries out the transmits and events of the machine.
    async fn drain(&mut self) {
        while let Some(transmit) = self.paths.poll_transmit() {
            self.put(transmit.local, transmit.destination, transmit.bytes).await;
        }
        while let Some(event) = self.paths.poll_event() {
            match event {
                Event::LocalCandidates(candidates) => self.candidates = candidates,
                Event::OpenStream { stream, address, .. } => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    self.streams.insert(stream, sender);
                    tokio::spawn(carry(stream, address, receiver, self.report.clone()));
                }
                Event::CloseStream(stream) => drop(self.streams.remove(&stream)),
                // These members have one socket each, and exchange nothing but their candidates.
                Event::PathChanged { .. }
                | Event::Sampled { .. }
                | Event::OpenSockets(_)
                | Event::CloseSocket(_)
                | Event::PublicAddressChanged
                | Event::Attempted { .. }
                | Event::RouterFull { .. }
                | Event::Signal { .. } => {}
            }
        }
    }

    /// Waits for the next input, and handles it.
    pub async fn turn(&mut self) {
        self.drain().await;
        let mut buffer = [0; 2048];
        let wake = self.paths.poll_timeout().map_or_else(|| Instant::now() + LIMIT, Instant::from_std);
        tokio::select! {
            Ok((len, src)) = self.udp.recv_from(&mut buffer) => {
                self.take(Local::Socket(SocketId::MAIN), src, &buffer[..len]);
            }
            Some((report, address)) = self.reports.recv() => {
                let now = std::time::Instant::now();
                match report {
                    Report::Opened(stream) => self.paths.stream_opened(now, stream),
                    Report::Message(stream, bytes) => self.take(Local::Stream(stream), address, &bytes),
                    Report::Closed(stream) => self.paths.stream_closed(now, stream),
                }
            }
            () = tokio::time::sleep_until(wake) => self.paths.handle_timeout(std::time::Instant::now()),
        }
        self.drain().await;
    }

    fn take(&mut self, local: Local, src: SocketAddr, bytes: &[u8]) {
        let now = std::time::Instant::now();
        if let Handled::Tunnel { payload, path } = self.paths.handle_datagram(now, local, src, bytes) {
            self.received.push(bytes[payload].to_vec());
            self.paths.on_authenticated(now, PEER, path);
        }
    }
}

/// Carries one TCP connection to a server.
async fn carry(
    stream: StreamId,
    address: SocketAddr,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    report: mpsc::UnboundedSender<(Report, SocketAddr)>,
) {
    let send_report = |what| drop(report.send((what, address)));
    if let Ok(mut tcp) = TcpStream::connect(address).await {
        send_report(Report::Opened(stream));
        let mut frames = Deframer::default();
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                read = tcp.read(&mut buffer) => match read {
                    Ok(len) if len > 0 => frames.push(&buffer[..len]),
                    _ => break,
                },
                bytes = outgoing.recv() => match bytes {
                    Some(bytes) if tcp.write_all(&bytes).await.is_ok() => {}
                    _ => break,
                },
            }
            while let Ok(Some(message)) = frames.next_message() {
                send_report(Report::Message(stream, message.to_vec()));
            }
        }
    }
    send_report(Report::Closed(stream));
}

/// Runs both members until a condition holds.
pub async fn run_until(a: &mut Member, b: &mut Member, what: &str, holds: impl Fn(&Member, &Member) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds(a, b) {
        tokio::select! {
            () = a.turn() => {}
            () = b.turn() => {}
            () = tokio::time::sleep_until(deadline) => panic!("{what} did not happen"),
        }
    }
}

/// Exchanges the members' present candidates, and waits until a message of each has arrived at the other.
pub async fn talk(a: &mut Member, b: &mut Member, word: u8) {
    let deadline = Instant::now() + LIMIT;
    let message = [4, 0, 0, 0, word, 1, 2, 3, 4];
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while !(a.received.contains(&message.to_vec()) && b.received.contains(&message.to_vec())) {
        tokio::select! {
            () = a.turn() => {}
            () = b.turn() => {}
            _ = tick.tick() => {
                a.meet(b);
                b.meet(a);
                a.send(&message).await;
                b.send(&message).await;
            }
            () = tokio::time::sleep_until(deadline) => panic!("no message {word} came through"),
        }
    }
}

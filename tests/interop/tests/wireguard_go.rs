//! Our tunnel with a real device and socket, connected to wireguard-go by a veth.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use partyline_net::{Outgoing, RecvBatch, UdpEndpoint};
use partyline_platform::{TunConfig, TunDevice, TunReads, TunWrites};
use partyline_tests_interop::netns::{Netns, Running};
use partyline_tunnel::{MIN_SCRATCH_LEN, Outbox, PartyConfig, PathConfig, PeerConfig, Received, Tunnel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use x25519_dalek::{PublicKey, StaticSecret};

const PARTY: PartyId = PartyId([1; 32]);
const PEER: DeviceId = DeviceId([2; 32]);
const PORT: u16 = 51820;
const OUTSIDE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(11, 0, 0, 2))];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OURS_V6: &str = "fd00:77::1";
const THEIRS_V6: &str = "fd00:77::2";
const MTU: u16 = 1400;
const TRANSFER: usize = 20 << 20;
const RESULT_TIMEOUT: Duration = Duration::from_secs(20);

/// The part of the engine that drives tunnel, device and socket.
struct Driver {
    tunnel: Tunnel,
    device: TunDevice,
    udp: UdpEndpoint,
    out: Outbox,
    writes: TunWrites,
}

impl Driver {
    async fn new(secret: StaticSecret, peer: PublicKey) -> Result<Self> {
        let (v4, v6) = (format!("{OURS}/24").parse()?, format!("{OURS_V6}/64").parse()?);
        let device = TunDevice::create(&TunConfig { name: None, v4, v6, mtu: MTU }).await?;
        let now = Instant::now();
        let mut tunnel = Tunnel::new(now, [3; 32]);
        tunnel.set_party(PARTY, secret, PartyConfig { v4, v6, mtu: MTU });
        let key = TunnelPublicKey(peer.to_bytes());
        tunnel.set_peer(now, PARTY, PEER, PeerConfig { key, v4: Some(THEIRS), v6: THEIRS_V6.parse()? });
        tunnel.set_path(now, PARTY, PEER, Some(PathConfig { headroom: 0, mtu: None }));
        Ok(Self {
            tunnel,
            device,
            udp: UdpEndpoint::bind(PORT)?,
            out: Outbox::new(),
            writes: TunWrites::new(),
        })
    }

    /// Runs until the test drops its end of `refresh`. Each message on it starts a handshake.
    async fn run(mut self, mut refresh: UnboundedReceiver<()>) -> Result<()> {
        let (mut reads, mut batch) = (TunReads::new(MTU), RecvBatch::new());
        loop {
            let wait = self.tunnel.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                read = self.device.recv(&mut reads) => {
                    read?;
                    let now = Instant::now();
                    for packet in reads.packets() {
                        self.tunnel.handle_packet(now, PARTY, packet, &mut self.out);
                    }
                }
                received = self.udp.recv(&mut batch) => {
                    received?;
                    self.take_in(&batch).await?;
                }
                () = tokio::time::sleep(wait.unwrap_or(RESULT_TIMEOUT)) => {}
                again = refresh.recv() => match again {
                    Some(()) => self.tunnel.rekey(Instant::now(), PARTY, PEER),
                    None => return self.judge(),
                },
            }
            self.tunnel.handle_timeout(Instant::now(), &mut self.out);
            for burst in self.out.bursts() {
                let to = SocketAddr::new(OUTSIDE[1], PORT);
                // The socket counts what it drops.
                let _ = self
                    .udp
                    .send(&Outgoing { to, from: None, bytes: burst.bytes, segment: burst.segment })
                    .await;
            }
            self.out.clear();
        }
    }

    async fn take_in(&mut self, batch: &RecvBatch) -> Result<()> {
        let now = Instant::now();
        for datagram in batch.datagrams() {
            if self.writes.is_full() {
                self.device.send(&mut self.writes).await?;
            }
            let len = datagram.bytes.len().max(MIN_SCRATCH_LEN);
            let Some(room) = self.writes.room(len) else { continue };
            match self.tunnel.handle_datagram(now, datagram.from.ip(), datagram.bytes, room, &mut self.out) {
                Received::Packet { packet, .. } => {
                    let len = packet.len();
                    self.writes.commit(len);
                }
                Received::HandshakeReply { datagram: reply, .. } => {
                    let _ = self.udp.try_send(&Outgoing::one(datagram.from, reply));
                }
                _ => {}
            }
        }
        Ok(self.device.send(&mut self.writes).await?)
    }

    fn judge(&self) -> Result<()> {
        let session = self.tunnel.session(PARTY, PEER).context("the session is gone")?;
        ensure!(session.ready, "the session is not ready");
        ensure!(session.drops.total() == 0, "dropped: {:?}", session.drops);
        Ok(())
    }
}

/// wireguard-go with its device. Its control socket in /var/run is shared by all namespaces, so the device name is
/// unique.
struct WireguardGo<'a> {
    namespace: &'a Netns,
    device: String,
    _process: Running,
}

impl<'a> WireguardGo<'a> {
    fn start(namespace: &'a Netns, secret: &StaticSecret, peer: PublicKey) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let device = format!("wg{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let process = namespace.start("wireguard-go", "wireguard-go", &["-f", &device])?;
        wait_for(
            || Path::new(&format!("/var/run/wireguard/{device}.sock")).exists(),
            "wireguard-go's socket",
        )?;
        let wireguard = Self { namespace, device, _process: process };
        wireguard.configure(secret, peer)?;
        Ok(wireguard)
    }

    fn configure(&self, secret: &StaticSecret, peer: PublicKey) -> Result<()> {
        let device = &self.device;
        let key_file = format!("/tmp/{device}.key");
        fs::write(&key_file, STANDARD.encode(secret.to_bytes()))?;
        let (peer, port) = (STANDARD.encode(peer.to_bytes()), PORT.to_string());
        let endpoint = SocketAddr::new(OUTSIDE[0], PORT).to_string();
        let allowed = format!("{OURS}/32,{OURS_V6}/128");
        let set = ["set", device, "private-key", &key_file, "listen-port", &port, "peer", &peer];
        let set = [&set[..], &["endpoint", &endpoint, "allowed-ips", &allowed]].concat();
        let configured =
            self.namespace.run("wg", &set).context("configure it with `wg` of package wireguard-tools");
        fs::remove_file(&key_file)?;
        configured?;
        self.namespace.ip(&["address", "add", &format!("{THEIRS}/24"), "dev", device])?;
        self.namespace.ip(&["address", "add", &format!("{THEIRS_V6}/64"), "dev", device, "nodad"])?;
        self.namespace.ip(&["link", "set", device, "mtu", &MTU.to_string(), "up"])
    }

    /// Returns the time of the last handshake in seconds since 1970.
    fn last_handshake(&self) -> Result<u64> {
        let shown = self.namespace.run("wg", &["show", &self.device, "latest-handshakes"])?;
        Ok(shown.split_whitespace().last().context("wg shows no peer")?.parse()?)
    }
}

fn wait_for(mut condition: impl FnMut() -> bool, what: &str) -> Result<()> {
    let deadline = Instant::now() + RESULT_TIMEOUT;
    while !condition() {
        ensure!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn ping(namespace: &Netns, to: &str) -> Result<()> {
    // The first packet may wait for the handshake: the side that does not lead waits 2 s before it initiates one
    // itself.
    let said = namespace.run("ping", &["-c", "5", "-i", "0.2", "-W", "10", to])?;
    ensure!(said.contains(" 0% packet loss"), "{said}");
    Ok(())
}

/// Sends numbered bytes over TCP and checks that they arrive.
fn transfer(from: &Netns, to: &Netns, address: IpAddr) -> Result<()> {
    let listener = to.enter(|| Ok(TcpListener::bind((address, 0))?))?;
    let destination = listener.local_addr()?;
    let pattern: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_be_bytes).collect();
    let expected = &pattern;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut block = vec![0; expected.len()];
            for _ in 0..TRANSFER / expected.len() {
                stream.read_exact(&mut block)?;
                ensure!(block == *expected, "bytes were changed on the way");
            }
            Ok(())
        });
        let mut stream = from.enter(|| Ok(TcpStream::connect(destination)?))?;
        (0..TRANSFER / pattern.len()).try_for_each(|_| stream.write_all(&pattern))?;
        receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?
    })
}

/// Returns our key pair and theirs. The side with the lower public key leads the handshake.
fn keys(we_lead: bool) -> [StaticSecret; 2] {
    let mut keys = [5, 6].map(|byte| StaticSecret::from([byte; 32]));
    keys.sort_by_key(|key| PublicKey::from(key).to_bytes());
    if !we_lead {
        keys.reverse();
    }
    keys
}

fn converse(ours: &Netns, theirs: &WireguardGo, refresh: &UnboundedSender<()>) -> Result<()> {
    wait_for(|| ours.ip(&["route", "get", &THEIRS.to_string()]).is_ok(), "our device")?;
    for (from, v4, v6) in [(ours, THEIRS, THEIRS_V6), (theirs.namespace, OURS, OURS_V6)] {
        ping(from, &v4.to_string())?;
        ping(from, v6)?;
    }
    transfer(ours, theirs.namespace, THEIRS.into())?;
    transfer(theirs.namespace, ours, OURS_V6.parse::<Ipv6Addr>()?.into())?;
    let before = theirs.last_handshake()?;
    // wireguard-go reports the time in whole seconds, and accepts only one initiation per 20 ms.
    wait_for(
        || {
            thread::sleep(Duration::from_millis(100));
            refresh.send(()).is_ok() && theirs.last_handshake().is_ok_and(|at| at > before)
        },
        "a second handshake",
    )?;
    transfer(theirs.namespace, ours, OURS.into())
}

fn meet(we_lead: bool) -> Result<()> {
    let (ours, theirs) = (Netns::new("ours")?, Netns::new("theirs")?);
    ours.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", theirs.name()])?;
    for (namespace, address) in [(&ours, OUTSIDE[0]), (&theirs, OUTSIDE[1])] {
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
    }
    let [our_key, their_key] = keys(we_lead);
    let wireguard = WireguardGo::start(&theirs, &their_key, PublicKey::from(&our_key))?;
    let (refresh, refreshed) = unbounded_channel();
    thread::scope(|scope| {
        let driver = scope.spawn(|| {
            ours.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    Driver::new(our_key, PublicKey::from(&their_key)).await?.run(refreshed).await
                })
            })
        });
        let conversation = converse(&ours, &wireguard, &refresh);
        drop(refresh);
        let driven = driver.join().map_err(|_| anyhow::anyhow!("our side panicked"))?;
        conversation.and(driven)
    })
}

#[test]
fn tunnel_works_as_handshake_initiator() -> Result<()> {
    meet(true)
}

#[test]
fn tunnel_works_as_handshake_responder() -> Result<()> {
    meet(false)
}

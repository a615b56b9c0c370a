//! A stranger that keeps a member busy with handshake initiations while it plays.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Member, World,
    world::{CONNECT_TIMEOUT, connected},
};
use crate::{Host, traffic, until, wait::that, worker::Worker};

/// How many initiations the member has to receive while the game runs, and again while a new session begins.
const FLOOD: u64 = 20_000;
/// Initiations sent at once, and the pause afterwards: about 10,000 a second.
const BURST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a handshake initiation, and how it starts.
const INITIATION_LEN: usize = 148;
const INITIATION: [u8; 4] = [1, 0, 0, 0];
/// The game's packets sent each way before the flood is looked at again, and their size in bytes.
const GAME: (u32, usize) = (200, 100);
/// Every Ethernet protocol (`ETH_P_ALL`), for a packet socket.
const ALL_PROTOCOLS: u16 = 3;
/// How many repeated initiations have to be dropped for their rate for each that is processed.
const LIMITED_PER_PROCESSED: u64 = 20;

/// Floods a member with an initiation that it has received before, whose first MAC is right, and with garbage that only
/// looks like one. Meanwhile two members play, and one of them comes back after a crash.
pub(super) fn handshake_flood(world: &World) -> Result<()> {
    let cabin = world.lab.lonely_lan("cabin")?;
    let hosts = vec![cabin.host("anna")?, cabin.host("ben")?];
    let tap = Tap::open(&hosts[0])?;
    let mut members = world.party(None, hosts)?;
    let (target, initiation) = tap.initiation()?;
    let flooded = usize::from(members[1].host.v4() == *target.ip());
    let other = 1 - flooded;
    let flood = Flood::start(&cabin.host("stranger")?, target, initiation)?;
    play_until(&members, &flood, FLOOD)?;
    members[other].crash()?;
    members[other].start()?;
    connected(&members)?;
    play_until(&members, &flood, flood.sent() + FLOOD)?;
    let sent = flood.stop()?;
    is_bounded(world, &members[flooded], sent)
}

/// Exchanges a game's packets until so many initiations were sent.
fn play_until(members: &[Member], flood: &Flood, sent: u64) -> Result<()> {
    while flood.sent() < sent {
        for (from, to) in [(&members[0], &members[1]), (&members[1], &members[0])] {
            traffic::udp(&from.host, &to.host, to.address()?.into(), GAME.0, GAME.1)?;
        }
    }
    Ok(())
}

/// Checks that the member did the work of a handshake for a small part of the flood: what was repeated it refuses by its
/// timestamp, which it knows only then.
fn is_bounded(world: &World, member: &Member, sent: u64) -> Result<()> {
    let metrics = member.partyline(&["doctor", "--metrics"])?;
    let [processed, limited, garbage] = ["replayed", "handshake_rate_limited", "unknown_peer"]
        .map(|reason| dropped(&metrics, reason).with_context(|| format!("no drops for {reason}: {metrics}")));
    let (processed, limited) = (processed?, limited?);
    world.note("sent", sent);
    world.note("processed", processed);
    world.note("rate_limited", limited);
    world.note("garbage", garbage?);
    ensure!(
        limited > processed * LIMITED_PER_PROCESSED,
        "{processed} were processed, and {limited} were not"
    );
    Ok(())
}

/// Returns how many datagrams the tunnel dropped for a reason; `None` if the metrics have no such line.
fn dropped(metrics: &str, reason: &str) -> Option<u64> {
    let label = format!("partyline_tunnel_drops_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&label))?.parse().ok()
}

/// A socket that sees all packets of a computer.
struct Tap(Socket);

impl Tap {
    fn open(host: &Host) -> Result<Self> {
        let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
        let socket = host.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)))??;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Returns the first handshake initiation that was sent or received, and its destination.
    fn initiation(mut self) -> Result<(SocketAddrV4, Vec<u8>)> {
        let mut buffer = [0; 2048];
        loop {
            let length = self.0.read(&mut buffer).context("no handshake initiation was seen")?;
            if let Some((to, payload)) = udp_payload(&buffer[..length])
                && payload.len() == INITIATION_LEN
                && payload.starts_with(&INITIATION)
            {
                return Ok((to, payload.to_vec()));
            }
        }
    }
}

/// Returns the destination and payload of an IPv4 packet with a UDP datagram.
fn udp_payload(packet: &[u8]) -> Option<(SocketAddrV4, &[u8])> {
    let header = packet.first_chunk::<20>().filter(|header| header[0] >> 4 == 4 && header[9] == 17)?;
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let datagram = packet.get(usize::from(header[0] & 15) * 4..)?;
    let port = u16::from_be_bytes(*datagram.get(2..)?.first_chunk()?);
    Some((SocketAddrV4::new(destination, port), datagram.get(8..)?))
}

/// A stranger that sends initiations until it is stopped.
struct Flood {
    sent: Arc<AtomicU64>,
    worker: Worker<()>,
}

impl Flood {
    /// Starts to send, and waits until the first ones are on their way.
    fn start(from: &Host, to: SocketAddrV4, initiation: Vec<u8>) -> Result<Self> {
        let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        socket.connect(to)?;
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let worker = Worker::start(move |stop| send_initiations(&socket, &initiation, &count, stop));
        let flood = Self { sent, worker };
        until("a flood to begin", CONNECT_TIMEOUT, || that(flood.sent() > 0, || "none sent".to_owned()))?;
        Ok(flood)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns how many were sent.
    fn stop(self) -> Result<u64> {
        self.worker.stop()?;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// Sends the recorded initiation and garbage in turn.
fn send_initiations(socket: &UdpSocket, recorded: &[u8], sent: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut garbage = vec![0x5a; INITIATION_LEN];
    garbage[..INITIATION.len()].copy_from_slice(&INITIATION);
    while !stop.load(Ordering::Relaxed) {
        for number in 0..BURST {
            let message = if number % 2 == 0 { recorded } else { &garbage };
            // A member that is down for a moment refuses.
            let _ = socket.send(message);
        }
        sent.fetch_add(u64::from(BURST), Ordering::Relaxed);
        // The pace of the flood.
        thread::sleep(PAUSE);
    }
    Ok(())
}

//! Measures what a flood of handshake messages costs a member, and whether its session carries on meanwhile.
//!
//! A stranger that knows the member's public key sends initiations as fast as they are handled. After every hundredth,
//! another member's session carries a packet. The tunnel runs without sockets, so that the figures are its own.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
use partyline_tunnel::{
    DropReason, MIN_SCRATCH_LEN, Outbox, PartyConfig, PathConfig, PeerConfig, Received, Tunnel,
};
use serde_json::{Value, json};
use x25519_dalek::{PublicKey, StaticSecret};

const PARTY: PartyId = PartyId([1; 32]);
const MEMBER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
/// Initiations between two packets of the session.
const PACKET_EVERY: u64 = 100;
/// The rate at which the table says what share of a core a flood takes.
const REFERENCE_RATE: f64 = 50_000.0;
/// Length of the session's packets in bytes.
const PACKET_LEN: u8 = 200;
/// Upper bound of the exchanges until two tunnels have a session.
const MAX_EXCHANGES: usize = 10;

/// Options of the handshake benchmark.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Length of each flood in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// What one flood cost.
#[derive(Debug)]
struct Cost {
    name: &'static str,
    messages: u64,
    /// Messages that were worth an X25519 operation.
    processed: u64,
    packets: u64,
    took: Duration,
}

impl Cost {
    fn micros(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / self.messages as f64
    }

    fn core_share(&self) -> f64 {
        self.micros() * REFERENCE_RATE / 1e6
    }
}

/// Runs the benchmark and returns its figures.
///
/// # Errors
/// If a session could not be established, or lost a packet.
pub fn run(options: &Options) -> Result<Value> {
    let span = Duration::from_secs(options.seconds.max(1));
    println!("| flood | each | processed | packets of the session | of a core at 50,000/s |");
    println!("|---|---|---|---|---|");
    let costs = [wrong_mac(span)?, without_cookie(span)?, forged_sources(span)?, with_cookie(span)?];
    for cost in &costs {
        println!(
            "| {} | {:.2} us | {} of {} | {} | {:.1} % |",
            cost.name,
            cost.micros(),
            cost.processed,
            cost.messages,
            cost.packets,
            100.0 * cost.core_share(),
        );
    }
    let figures = costs.iter().map(|cost| {
        json!({ "flood": cost.name, "micros": cost.micros(), "processed": cost.processed, "messages": cost.messages })
    });
    Ok(json!({ "handshakes": figures.collect::<Vec<_>>() }))
}

/// Initiations that are for nobody here.
fn wrong_mac(span: Duration) -> Result<Cost> {
    let mut victim = Victim::new()?;
    let mut initiation = victim.stranger.initiate()?;
    *initiation.last_mut().context("no initiation")? ^= 1;
    let mac = initiation.len() - 20;
    initiation[mac] ^= 1;
    victim.flood("wrong MAC", span, &initiation, |_| STRANGER)
}

/// Initiations of one source that proves nothing.
fn without_cookie(span: Duration) -> Result<Cost> {
    let mut victim = Victim::new()?;
    let initiation = victim.stranger.initiate()?;
    victim.flood("one source without cookie", span, &initiation, |_| STRANGER)
}

/// Initiations from an address of its own each.
fn forged_sources(span: Duration) -> Result<Cost> {
    let mut victim = Victim::new()?;
    let initiation = victim.stranger.initiate()?;
    let source = |number: u64| Ipv4Addr::from_bits(0x0b00_0000 + (number as u32 & 0x00ff_ffff)).into();
    victim.flood("forged sources", span, &initiation, source)
}

/// Initiations of one source that has proven its address.
fn with_cookie(span: Duration) -> Result<Cost> {
    let mut victim = Victim::new()?;
    let first = victim.stranger.initiate()?;
    for _ in 0..1000 {
        if let Some(cookie) = victim.member.receive(STRANGER, &first)? {
            victim.stranger.receive(MEMBER, &cookie)?;
            let initiation = victim.stranger.initiate()?;
            return victim.flood("one source with cookie", span, &initiation, |_| STRANGER);
        }
    }
    bail!("the member asked for no cookie")
}

/// The member under attack, one that it has a session with, and the attacker.
struct Victim {
    member: End,
    other: End,
    stranger: End,
}

impl Victim {
    fn new() -> Result<Self> {
        let secret = |number: u8| StaticSecret::from([number; 32]);
        let mut member = End::new(1, &secret(1), 2, &secret(2));
        let mut other = End::new(2, &secret(2), 1, &secret(1));
        let stranger = End::new(3, &secret(3), 1, &secret(1));
        other.tunnel.rekey(now(), PARTY, device(1));
        for _ in 0..MAX_EXCHANGES {
            exchange(&mut other, &mut member)?;
            exchange(&mut member, &mut other)?;
        }
        ensure!(member.is_ready(2) && other.is_ready(1), "no session");
        Ok(Self { member, other, stranger })
    }

    fn flood(
        &mut self,
        name: &'static str,
        span: Duration,
        initiation: &[u8],
        source: impl Fn(u64) -> IpAddr,
    ) -> Result<Cost> {
        let unknown = |member: &End| member.tunnel.drops().get(DropReason::UnknownPeer);
        // Those with a wrong MAC have the same reason, but cost no X25519 operation.
        let counts_as_processed = name != "wrong MAC";
        let (before, mut messages, mut packets, mut took) = (unknown(&self.member), 0, 0, Duration::ZERO);
        while took < span {
            let begin = now();
            for _ in 0..PACKET_EVERY {
                self.member.receive(source(messages), initiation)?;
                messages += 1;
            }
            took += begin.elapsed();
            self.carry_packet()?;
            packets += 1;
        }
        let processed = if counts_as_processed { unknown(&self.member) - before } else { 0 };
        Ok(Cost { name, messages, processed, packets, took })
    }

    /// Carries a packet from the other member to the one under attack.
    fn carry_packet(&mut self) -> Result<()> {
        let End { tunnel, outbox, .. } = &mut self.other;
        tunnel.handle_packet(now(), PARTY, &mut packet(), outbox);
        let datagram = self.other.take_sent().pop().context("the packet was not sent")?;
        let mut scratch = [0; 512];
        let End { tunnel, outbox, .. } = &mut self.member;
        let received = tunnel.handle_datagram(now(), MEMBER, &datagram, &mut scratch, outbox);
        ensure!(matches!(received, Received::Packet { .. }), "the session lost a packet: {received:?}");
        Ok(())
    }
}

/// One tunnel with one peer.
struct End {
    tunnel: Tunnel,
    outbox: Outbox,
    peer: u8,
}

impl End {
    fn new(number: u8, secret: &StaticSecret, peer: u8, peer_secret: &StaticSecret) -> Self {
        let (now, mut tunnel) = (now(), Tunnel::new(now(), [number; 32]));
        let v4 = ipnet::Ipv4Net::new_assert(address(number), 24);
        let v6 = ipnet::Ipv6Net::new_assert(address(number).to_ipv6_mapped(), 64);
        tunnel.set_party(PARTY, secret.clone(), PartyConfig { v4, v6, mtu: 1400 });
        let key = TunnelPublicKey(PublicKey::from(peer_secret).to_bytes());
        let config = PeerConfig { key, v4: Some(address(peer)), v6: address(peer).to_ipv6_mapped() };
        tunnel.set_peer(now, PARTY, device(peer), config);
        tunnel.set_path(now, PARTY, device(peer), Some(PathConfig { headroom: 0, mtu: None }));
        Self { tunnel, outbox: Outbox::new(), peer }
    }

    fn is_ready(&self, peer: u8) -> bool {
        self.tunnel.session(PARTY, device(peer)).is_some_and(|session| session.ready)
    }

    /// Returns a new handshake initiation.
    fn initiate(&mut self) -> Result<Vec<u8>> {
        self.tunnel.rekey(now(), PARTY, device(self.peer));
        self.tunnel.handle_timeout(now(), &mut self.outbox);
        self.take_sent().pop().context("no initiation")
    }

    /// Handles a datagram, and returns the cookie that it is answered with, if any.
    fn receive(&mut self, source: IpAddr, datagram: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut scratch = [0; MIN_SCRATCH_LEN];
        match self.tunnel.handle_datagram(now(), source, datagram, &mut scratch, &mut self.outbox) {
            Received::HandshakeReply { peer: None, datagram } => Ok(Some(datagram.to_vec())),
            Received::Dropped(_) | Received::Authenticated { .. } => Ok(None),
            other => bail!("unexpected: {other:?}"),
        }
    }

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        let sent = self.outbox.bursts().map(|burst| burst.bytes.to_vec()).collect();
        self.outbox.clear();
        sent
    }
}

/// Carries what one tunnel has to send to another one, and the direct answers back and forth.
fn exchange(from: &mut End, to: &mut End) -> Result<()> {
    from.tunnel.handle_timeout(now(), &mut from.outbox);
    for datagram in from.take_sent() {
        let mut scratch = [0; 512];
        let received = to.tunnel.handle_datagram(now(), MEMBER, &datagram, &mut scratch, &mut to.outbox);
        if let Received::HandshakeReply { datagram: response, .. } = received {
            let (response, mut scratch) = (response.to_vec(), [0; 512]);
            let answer =
                from.tunnel.handle_datagram(now(), MEMBER, &response, &mut scratch, &mut from.outbox);
            if let Received::HandshakeReply { datagram: keepalive, .. } = answer {
                to.receive(MEMBER, keepalive)?;
            }
        }
    }
    Ok(())
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

/// A UDP packet from the other member to the one under attack.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; usize::from(PACKET_LEN)];
    packet[..4].copy_from_slice(&[0x45, 0, 0, PACKET_LEN]);
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&address(2).octets());
    packet[16..20].copy_from_slice(&address(1).octets());
    packet[20..24].copy_from_slice(&[0x30, 0x39, 0x69, 0x87]);
    packet[24..26].copy_from_slice(&[0, PACKET_LEN - 20]);
    packet
}

#[allow(clippy::disallowed_methods, reason = "the benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
